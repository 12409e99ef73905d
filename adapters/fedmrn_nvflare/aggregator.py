"""The exact weighted mean of frames, in place of NVFlare's mean of decoded floats."""

from __future__ import annotations

import numpy as np
from nvflare.apis.dxo import MetaKey
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from nvflare.app_common.aggregators.weighted_aggregation_helper import (
    WeightedAggregationHelper,
    filter_aggregatable_metrics,
)

import fedmrn_codec as fm

from .arrays import is_frame, to_frame
from .replies import check_metrics
from .request import Request


class ExactMean(ModelAggregator):
    """The exact weighted mean of frames, which does not depend on their order (spec 8).

    For `FedAvgRecipe(..., aggregator=ExactMean())` with `attach(..., output="FRAME")`, or
    `FedAvg(aggregator=ExactMean())` with `FromFrame(..., output="FRAME")`. The weight of a frame is the
    client's NUM_STEPS_CURRENT_ROUND, an integer, or 1 if it is missing. Metrics are averaged as by FedAvg.
    Memory: 10 bytes per masked element, for any number of clients.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sum: fm.Aggregator | None = None
        self._metrics = WeightedAggregationHelper()
        self._shapes: dict[str, tuple[int, ...]] = {}

    def accept_model(self, model: FLModel) -> None:
        """Add one client's frame.

        A frame that `FromFrame` has checked in this process is not parsed again; any other is parsed and
        checked against the request in the model's meta. A metric that is an array of another shape than
        before is left out.

        Raises
        ------
        fedmrn_codec.CodecError
            The parameters are not a frame, a check fails, the weight is not a positive integer, or a metric
            is not finite. Nothing is added then.
        """
        if not is_frame(model.params or {}):
            raise fm.ArgumentError("params", 'one frame, from FromFrame(..., output="FRAME")', "no frame")
        request, weight = Request.of(model.meta), _weight(model)
        check_metrics(model.metrics or {})
        metrics = {
            key: value
            for key, value in filter_aggregatable_metrics(model.metrics).items()
            if self._shapes.get(key, np.shape(value)) == np.shape(value)
        }
        total = request.aggregator() if self._sum is None else self._sum
        total.add(to_frame(model.params), weight, seed=request.seed)
        self._sum = total
        if metrics:
            self._shapes |= {key: np.shape(value) for key, value in metrics.items()}
            name = str(model.meta.get("client_name"))
            self._metrics.add(metrics, weight, name, model.current_round)

    def aggregate_model(self) -> FLModel:
        """The mean update; without arrays, so that the model does not change, if no frame was added."""
        params = {} if self._sum is None else self._sum.mean()
        return FLModel(params=params, params_type=ParamsType.DIFF, metrics=self._metrics.get_result() or None)

    def reset_stats(self) -> None:
        """Start a new round."""
        self._sum = None
        self._metrics = WeightedAggregationHelper()
        self._shapes = {}


def _weight(model: FLModel) -> int:
    weight = model.meta.get(MetaKey.NUM_STEPS_CURRENT_ROUND, 1)
    if weight is None:
        return 1
    number = (
        weight.is_integer()
        if isinstance(weight, float | np.floating)
        else isinstance(weight, int | np.integer)
    )
    if not number or isinstance(weight, bool):
        raise fm.ArgumentError(MetaKey.NUM_STEPS_CURRENT_ROUND, "an integer", repr(weight))
    return int(weight)

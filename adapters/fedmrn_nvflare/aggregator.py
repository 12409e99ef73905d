"""The exact weighted mean of frames, in place of NVFlare's mean of decoded floats."""

from __future__ import annotations

from nvflare.apis.dxo import MetaKey
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from nvflare.app_common.aggregators.weighted_aggregation_helper import (
    WeightedAggregationHelper,
    filter_aggregatable_metrics,
)

import fedmrn_codec as fm

from .arrays import is_frame, to_frame
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

    def accept_model(self, model: FLModel) -> None:
        """Add one client's frame.

        A frame that `FromFrame` has checked in this process is not parsed again; any other is parsed and
        checked against the request in the model's meta.

        Raises
        ------
        fedmrn_codec.CodecError
            The parameters are not a frame, a check fails, or the weight is not a positive integer.
        """
        if not is_frame(model.params or {}):
            raise fm.ArgumentError("params", 'one frame, from FromFrame(..., output="FRAME")', "no frame")
        request, weight = Request.of(model.meta), _weight(model)
        if self._sum is None:
            self._sum = request.aggregator()
        self._sum.add(to_frame(model.params), weight, seed=request.seed)
        metrics = filter_aggregatable_metrics(model.metrics)
        if metrics:
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


def _weight(model: FLModel) -> int:
    weight = model.meta.get(MetaKey.NUM_STEPS_CURRENT_ROUND, 1)
    if weight is None:
        return 1
    if int(weight) != weight:
        raise fm.ArgumentError(MetaKey.NUM_STEPS_CURRENT_ROUND, "an integer", weight)
    return int(weight)

"""The sum of a round with secure aggregation, as FedAvg's aggregator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from nvflare.app_common.aggregators.weighted_aggregation_helper import (
    WeightedAggregationHelper,
    filter_aggregatable_metrics,
)

import fedmrn_codec as fm
from fedmrn_codec import ReplyError
from fedmrn_codec.adapter_api import ServerNoise, unsigned
from fedmrn_codec.adapter_api.secagg import STEPS

from .replies import check_meta
from .request import META
from .secagg import BEYOND, masked_in
from .secure_round import SecureRound

Log = Callable[[str], None]
"""Logs a text."""


class SecureSum(ModelAggregator):
    """The exact mean of the clients that are left in a round; without arrays if the round is lost.

    `SecureFedAvg` makes it, and sets `round` before the training. Metrics are averaged over the clients in
    the sum, as by FedAvg.

    Parameters
    ----------
    noise : ServerNoise
        Whose rule sees the sums.
    max_weight : float
        The largest NUM_STEPS_CURRENT_ROUND that a client may report.
    info, warn : callable
    """

    def __init__(self, noise: ServerNoise, max_weight: float, info: Log, warn: Log) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._noise, self._max_weight, self._info, self._warn = noise, max_weight, info, warn
        self.round: SecureRound | None = None
        self._results: dict[str, FLModel] = {}

    def accept_model(self, model: FLModel) -> None:
        """Keep one client's masked vector, which the server of the protocol checks later.

        Raises
        ------
        fedmrn_codec.CodecError
            It is not a result with a masked vector that was asked for, or its weight, a metric or its number
            of clipped floats fails a check. Nothing is kept then.
        """
        client = str(model.meta.get("client_name"))
        try:
            self._accept(client, model)
        except fm.CodecError as error:
            self._warn(f"fedmrn: refused the result of {client} ({error.code}): {error}")
            raise

    def aggregate_model(self) -> FLModel:
        """The mean update; without arrays, so that the model does not change, if the round is lost."""
        current = self.round
        total = None if current is None else current.finish()
        if current is None or total is None:
            return FLModel(params={}, params_type=ParamsType.DIFF)
        scales = self._noise.observe(total)
        inside = [self._results[name] for name in current.survivors]
        beyond = sum(model.meta[META][BEYOND] for model in inside)
        up = ", ".join(f"{step} {current.up[step]}" for step in STEPS)
        down = ", ".join(f"{step} {current.down[step]}" for step in STEPS)
        self._info(
            f"fedmrn: sum of {len(inside)} of {current.clients} clients, total weight {total.weight}; bytes "
            f"up: {up}; bytes down: {down}; dense floats clipped: {beyond}"
        )
        if scales:
            self._info(f"fedmrn: noise of the round: {scales}")
        return FLModel(params=total.mean(), params_type=ParamsType.DIFF, metrics=_metrics(inside))

    def reset_stats(self) -> None:
        """Start a new round."""
        self.round = None
        self._results = {}

    def _accept(self, client: str, model: FLModel) -> None:
        dxo = DXO(DataKind.WEIGHT_DIFF, model.params, model.meta)
        message = masked_in(dxo.data, dxo.get_meta_prop(MetaKey.PROCESSED_ALGORITHM))
        check_meta(dxo, self._max_weight)
        found = dxo.get_meta_prop(META)
        beyond: Any = found.get(BEYOND) if isinstance(found, dict) else None
        unsigned(beyond, 2**63, BEYOND)
        if self.round is None:
            raise ReplyError("result", "one of a round under way", "one of none")
        self.round.accept(client, message)
        kept = self._results[client] = copy.copy(model)
        kept.params = {}  # the round keeps the vector


def _metrics(models: list[FLModel]) -> dict[str, Any] | None:
    """The metrics of the clients in the sum, weighted by their steps; those of one shape for each name."""
    helper, shapes = WeightedAggregationHelper(), dict[str, tuple[int, ...]]()
    for model in models:
        found = {
            key: value
            for key, value in filter_aggregatable_metrics(model.metrics).items()
            if shapes.setdefault(key, np.shape(value)) == np.shape(value)
        }
        if found:
            weight = model.meta.get(MetaKey.NUM_STEPS_CURRENT_ROUND) or 1
            helper.add(found, weight, str(model.meta.get("client_name")), model.current_round)
    return helper.get_result() or None

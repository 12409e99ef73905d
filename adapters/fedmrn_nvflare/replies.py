"""What makes a client's result sound: its DXO, its weight, its metrics and its frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable

import fedmrn_codec as fm
from fedmrn_codec import ReplyError

from .arrays import is_frame, to_frame

ALGORITHM = "fedmrn/1"
"""How a DXO says in PROCESSED_ALGORITHM that its data are a frame."""


def result_dxo(result: Shareable) -> DXO | None:
    """The DXO of a result; None if the task failed, which is NVFlare's to handle.

    Raises
    ------
    ReplyError
        Neither weights nor weight differences: NVFlare's own filters would let it pass.
    """
    if result.get_return_code() != ReturnCode.OK:
        return None
    try:
        dxo = from_shareable(result)
    except ValueError as error:
        raise ReplyError("result", "a DXO", str(error)) from None
    if dxo.data_kind not in (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF):
        raise ReplyError("kind of the result", "WEIGHTS or WEIGHT_DIFF", dxo.data_kind)
    if not dxo.data:
        raise ReplyError("result", "at least one", "no arrays")
    return dxo


def with_data(dxo: DXO, kind: str, data: dict[str, Any], meta: dict[str, Any]) -> DXO:
    """A new DXO with other data and more meta; nothing of the old one is changed or left to be."""
    kept = {key: value for key, value in dxo.meta.items() if key != MetaKey.FILTER_HISTORY}
    return DXO(kind, data, {**kept, **meta})


def frame_of(dxo: DXO) -> bytes | fm.CheckedFrame:
    """The frame of a result."""
    if dxo.get_meta_prop(MetaKey.PROCESSED_ALGORITHM) != ALGORITHM or not is_frame(dxo.data):
        names = sorted(map(str, dxo.data))[:3]
        raise ReplyError(
            "result",
            "one frame (is ToFrame among the client's filters?)",
            f"{len(dxo.data)} entries, {names} first",
        )
    return to_frame(dxo.data)


def check_meta(dxo: DXO, max_weight: float) -> None:
    """That a weight, if there is one, is positive and at most `max_weight`, and that all metrics are finite.

    Raises
    ------
    ReplyError
        NVFlare would take 1 for a bad weight, and average a NaN.
    """
    weight = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
    if weight is not None and not (_is_number(weight) and 0 < weight <= max_weight):
        raise ReplyError(MetaKey.NUM_STEPS_CURRENT_ROUND, f"above 0, at most {max_weight}", repr(weight)[:40])
    metrics = dxo.get_meta_prop(MetaKey.INITIAL_METRICS) or {}
    if not isinstance(metrics, dict):
        raise ReplyError("metrics", "a dict", type(metrics).__name__)
    for name, value in metrics.items():
        if _is_number(value) and not math.isfinite(value):
            raise ReplyError(f"metric {name!r}", "finite values", value)
        if isinstance(value, np.ndarray) and not (value.dtype.kind in "biuf" and np.isfinite(value).all()):
            raise ReplyError(f"metric {name!r}", "finite numbers", f"{value.dtype} array")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)

"""The checks of one result: its DXO, its weight, its metrics and its frame."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable

import fedmrn_codec as fm
from fedmrn_codec import ReplyError

from .arrays import is_frame, to_frame
from .request import META

ALGORITHM = "fedmrn/1"
"""Value of PROCESSED_ALGORITHM in the meta of a DXO that holds a frame."""

CLIPPED = "clipped"
"""Key, in META of a result's meta, of the share of masked elements beyond the scale of the noise."""


def result_dxo(result: Shareable) -> DXO | None:
    """The DXO of a result; None if the task failed, which NVFlare handles.

    Raises
    ------
    ReplyError
        The result holds neither weights nor weight differences; NVFlare's own filters would let it pass.
    """
    if result.get_return_code() != ReturnCode.OK:
        return None
    try:
        dxo = from_shareable(result)
    except ValueError as error:
        raise ReplyError("result", "a DXO", str(error)) from None
    if dxo.data_kind not in (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF):
        raise ReplyError("data kind of the result", "WEIGHTS or WEIGHT_DIFF", dxo.data_kind)
    if not dxo.data:
        raise ReplyError("number of arrays in the result", "at least 1", 0)
    return dxo


def with_data(dxo: DXO, kind: str, data: dict[str, Any], meta: dict[str, Any]) -> DXO:
    """A new DXO with other data and additional meta; the old one is not changed."""
    kept = {key: value for key, value in dxo.meta.items() if key != MetaKey.FILTER_HISTORY}
    return DXO(kind, data, {**kept, **meta})


def frame_of(dxo: DXO) -> bytes | fm.CheckedFrame:
    """The frame of a result."""
    if dxo.get_meta_prop(MetaKey.PROCESSED_ALGORITHM) != ALGORITHM or not is_frame(dxo.data):
        found = f"{len(dxo.data)} entries, {sorted(map(str, dxo.data))[:3]} first"
        raise ReplyError("result", "one frame (is ToFrame among the client's filters?)", found)
    return to_frame(dxo.data)


def check_meta(dxo: DXO, max_weight: float) -> None:
    """Check that the weight, if given, is above 0 and at most `max_weight`, and that all metrics are finite.

    NVFlare itself would replace a bad weight by 1, and include a NaN in its mean.

    Raises
    ------
    ReplyError
    """
    weight = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
    if weight is not None and not (_is_number(weight) and 0 < weight <= max_weight):
        raise ReplyError(MetaKey.NUM_STEPS_CURRENT_ROUND, f"above 0, at most {max_weight}", repr(weight)[:40])
    metrics = dxo.get_meta_prop(MetaKey.INITIAL_METRICS) or {}
    if not isinstance(metrics, dict):
        raise ReplyError("metrics", "a dict", type(metrics).__name__)
    check_metrics(metrics)


def check_metrics(metrics: dict[str, Any]) -> None:
    """Check that all numbers in metrics, also in lists, dicts and arrays, are finite; else ReplyError."""
    for name, metric in metrics.items():
        left = [metric]
        while left:  # not recursive: a stranger chooses how deep lists are
            value = left.pop()
            if isinstance(value, list | tuple | set):
                left.extend(value)
            elif isinstance(value, dict):
                left.extend(value.values())
            elif isinstance(value, np.ndarray):
                if not (value.dtype.kind in "biuf" and np.isfinite(value).all()):
                    raise ReplyError(f"metric {name!r}", "finite numbers", f"{value.dtype} array")
            elif isinstance(value, complex) or (
                _is_number(value) and not abs(value) <= sys.float_info.max
            ):  # math.isfinite fails for integers that are larger
                raise ReplyError(f"metric {name!r}", "finite values", value)


def clipped_of(dxo: DXO) -> float | None:
    """The clipped share that a client reports, if any; ReplyError unless it is a number from 0 to 1."""
    found = dxo.get_meta_prop(META)
    share = found.get(CLIPPED) if isinstance(found, dict) else None
    if share is not None and not (_is_number(share) and 0 <= share <= 1):
        raise ReplyError("clipped share", "a number from 0 to 1", repr(share)[:40])
    return share


def later_filters(dxo: DXO) -> list[str]:
    """The client's filters after ToFrame, which should be the last that changes arrays."""
    history = list(dxo.get_filter_history() or ())
    later = history[history.index("ToFrame") :] if "ToFrame" in history else []
    return [name for name in later if name != "ToFrame"]  # which a filter that keeps the meta repeats


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)

"""What makes a client's result sound: its DXO, its weight, its metrics and its frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable

import fedmrn_codec as fm

from .arrays import KEY, Arrays, add, is_frame
from .request import Request

ALGORITHM = "fedmrn/1"
"""How a DXO says in PROCESSED_ALGORITHM that its data are a frame."""


class ReplyError(fm.RefusedError):
    """A result that is not what the server asked for, apart from its frame."""

    code = "reply"


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
        raise ReplyError("result", str(error), "required: a DXO") from None
    if dxo.data_kind not in (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF):
        raise ReplyError("kind of the result", dxo.data_kind, "required: WEIGHTS or WEIGHT_DIFF")
    if not dxo.data:
        raise ReplyError("result", "no arrays", "required: at least one")
    return dxo


def with_data(dxo: DXO, kind: str, data: dict[str, Any], meta: dict[str, Any]) -> DXO:
    """A new DXO with other data and more meta; nothing of the old one is changed or left to be."""
    kept = {key: value for key, value in dxo.meta.items() if key != MetaKey.FILTER_HISTORY}
    return DXO(kind, data, {**kept, **meta})


def frame_of(dxo: DXO) -> bytes:
    """The frame of a result, unchecked."""
    if dxo.get_meta_prop(MetaKey.PROCESSED_ALGORITHM) != ALGORITHM or not is_frame(dxo.data):
        names = sorted(map(str, dxo.data))[:3]
        raise ReplyError(
            "result",
            f"{len(dxo.data)} entries, {names} first",
            "required: one frame; has the client ToFrame?",
        )
    return frame_of_params(dxo.data)


def frame_of_params(data: Mapping[str, Any]) -> bytes:
    """The frame of data for which `is_frame` is true."""
    return np.asarray(data[KEY]).tobytes()


def check_frame(frame: bytes, request: Request, base: Arrays) -> fm.Info:
    """Every check of a frame (spec 7), and that it is the one asked for and leaves the model finite.

    Raises
    ------
    fedmrn_codec.FrameError
        The first check that fails.
    """
    expected: dict[str, Any] = {
        "round": request.round or None,
        "base_model": request.base_model,
        "seed": request.seed,
    }
    info = fm.verify(frame, request.schema, **expected)
    for tensor, entry in zip(request.schema, info.tensors, strict=True):
        if tensor.masked and (entry.kind, entry.noise) != (request.mask, request.noise):
            found = f"{entry.kind} mask over {entry.noise}"
            raise ReplyError(f"tensor {tensor.name!r}", found, f"asked for: {request.mask}, {request.noise}")
    dense = [t.name for t in request.schema if not t.masked and t.type.is_float]
    for name, update in fm.decode(frame, request.schema, names=dense, **expected).items():
        if not np.isfinite(add(np.asarray(base[name]), update)).all():
            raise ReplyError(f"tensor {name!r}", "an update beyond its dtype", "required: a finite sum")
    return info


def check_meta(dxo: DXO, max_weight: float) -> None:
    """That a weight, if there is one, is positive and at most `max_weight`, and that all metrics are finite.

    Raises
    ------
    ReplyError
        NVFlare would take 1 for a bad weight, and average a NaN.
    """
    weight = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
    if weight is not None and not (_is_number(weight) and 0 < weight <= max_weight):
        raise ReplyError(
            MetaKey.NUM_STEPS_CURRENT_ROUND, repr(weight)[:40], f"required: above 0, at most {max_weight}"
        )
    metrics = dxo.get_meta_prop(MetaKey.INITIAL_METRICS) or {}
    if not isinstance(metrics, dict):
        raise ReplyError("metrics", type(metrics).__name__, "required: dict")
    for name, value in metrics.items():
        if _is_number(value) and not math.isfinite(value):
            raise ReplyError(f"metric {name!r}", value, "required: finite")
        if isinstance(value, np.ndarray) and not (value.dtype.kind in "biuf" and np.isfinite(value).all()):
            raise ReplyError(f"metric {name!r}", f"{value.dtype} array", "required: finite numbers")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)

"""Writing frames whose float tensors are integers on a grid (spec 6.12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import backends, errors
from ..format import codings, frame, rans14
from ..format.codings import CodingValue
from ..format.schema import Schema, Tensor
from ..primitives.arguments import U32, U64, unsigned
from ..primitives.codes import Coding
from ..primitives.dtypes import widen_bfloat16
from ..primitives.grid import BOUNDS, rounded
from .arrays import checked_arrays

Steps = float | Mapping[str, float]
"""The step of all float tensors of a schema, or of each by name."""


def encode_grid(
    update: Mapping[str, Any],
    schema: Schema,
    *,
    step: Steps,
    seed: int = 0,
    round: int = 0,
    base_model: int = 0,
    embed_schema: bool = False,
    coding: CodingValue | Mapping[str, CodingValue] = "rans14",
    backend: str | None = None,
) -> bytes:
    """Encode an update as a frame of integers times steps (spec 6.12): no masks, and no noise.

    Each element of a float tensor is rounded to the nearest multiple of the step, ties to even.

    Parameters
    ----------
    update : mapping of str to array
        As in `encode`.
    schema : Schema
    step : float, or mapping of str to float
        A power of two: of all float tensors, or of each by name. A mapping must name every masked tensor;
        dense tensors that it does not name are sent as their elements.
    seed : int
        Nothing is computed from it; a server may expect a value.
    round, base_model, embed_schema : as in `encode`
    coding : {"rans14", "raw"} or Coding, or mapping of str to one of them
        Of the tensors that have a step; "rans14" entropy-codes those that it makes shorter (spec 6.14).
    backend : {"numba", "numpy", "torch", "onnx"}, optional
        As in `encode`.

    Returns
    -------
    bytes

    Raises
    ------
    UpdateError
        As in `encode`; or an element is beyond the largest integer of the dtype (spec 6.12).
    ArgumentError
        A step is no power of two, or beyond the bounds of the dtype, or another argument is out of range.
    """
    steps = checked_steps(step, schema)
    contents = checked_arrays(update, schema, dense_only=False)
    for tensor in schema:
        if tensor.name in steps:
            contents[tensor.name] = integers_of(contents[tensor.name], steps[tensor.name], tensor)
    return grid_frame(schema, contents, steps, seed, round, base_model, embed_schema, coding, backend)


def integers_of(elements: np.ndarray, step: float, tensor: Tensor) -> np.ndarray:
    """The integers nearest to elements / step: int32, shape (n,); errors as in `encode_grid`."""
    wide = widen_bfloat16(elements) if tensor.dtype == "bfloat16" else elements
    return rounded(wide, step, tensor.name, tensor.type)


def checked_steps(given: Steps, schema: Schema) -> dict[str, float]:
    """The step of each tensor that is sent as a grid, by name; errors as in `encode_grid`."""
    floats = {tensor.name: tensor for tensor in schema if tensor.type.is_float}
    by_name = dict(given) if isinstance(given, Mapping) else dict.fromkeys(floats, given)
    missing = [name for name, tensor in floats.items() if tensor.masked and name not in by_name]
    if wrong := sorted([*missing, *(set(by_name) - set(floats))]):
        raise errors.ArgumentError("step", "one for each masked tensor", f"{wrong} missing or unknown")
    for name, step in by_name.items():
        bounds = BOUNDS[floats[name].dtype]
        if not isinstance(step, int | float | np.floating) or not bounds.allows(float(step)):
            raise errors.ArgumentError(f"step of {name!r}", str(bounds), repr(step))
    return {name: float(step) for name, step in by_name.items()}


def grid_frame(
    schema: Schema,
    contents: Mapping[str, np.ndarray],
    steps: Mapping[str, float],
    seed: int,
    round: int,
    base_model: int,
    embed_schema: bool,
    coding: CodingValue | Mapping[str, CodingValue],
    backend: str | None,
) -> bytes:
    """The frame of integers (int32) of the tensors that have a step, and elements of the others, all flat."""
    seed = unsigned(seed, U64, "seed")
    round, base_model = unsigned(round, U32, "round"), unsigned(base_model, U64, "base_model")
    chosen = codings.chosen_grids(steps, coding)
    entries, payloads = [], []
    for tensor in schema:
        payload, used = contents[tensor.name], chosen.get(tensor.name, Coding.RAW)
        if tensor.name not in steps:
            entries.append(frame.dense_entry(tensor.type, used, payload.nbytes))
        else:
            if used == Coding.RANS14:
                shorter = rans14.encode(backends.grid_coder(backend), payload)
                payload, used = (payload, Coding.RAW) if shorter is None else (shorter, used)
            if used == Coding.RAW:
                payload = payload.astype("<i4", copy=False)
            entries.append(frame.grid_entry(tensor.type, steps[tensor.name], used, payload.nbytes))
        payloads.append(payload)
    return frame.build(
        schema, entries, payloads, seed=seed, base_model=base_model, round=round, embed_schema=embed_schema
    )

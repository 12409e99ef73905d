"""The codings and lengths that a payload may have (spec 6.5), and dense floats in 16 bits (spec 6.9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from .. import errors
from ..primitives.codes import Coding
from ..primitives.dtypes import round_to_bfloat16, widen_bfloat16
from . import rans, rans12, rans14
from .frame import GRID
from .schema import Schema, Tensor

RAW = Coding.RAW
MASKED = Coding.RAW, Coding.RANS, Coding.RANS12
DENSE = Coding.RAW, Coding.FLOAT16, Coding.BFLOAT16
GRIDS = Coding.RAW, Coding.RANS14

ENTROPY = {Coding.RANS: rans, Coding.RANS12: rans12}
"""The modules of the codings that entropy-code masks; each has `shortest`, `encode` and `decode`."""

CodingValue = str | Coding
"""A coding as an argument: its label or the member."""


def allowed(kind: int, dtype: str | None, minor: int) -> tuple[Coding, ...]:
    """The codings that a table entry may have; `dtype` is None for a mask."""
    elements = DENSE if dtype == "float32" else (Coding.RAW,)
    fitting = GRIDS if kind == GRID else MASKED if dtype is None else elements
    return tuple(coding for coding in fitting if coding.minor <= minor)


def lengths(tensor: Tensor, coding: int, grid: bool) -> tuple[int, int]:
    """The least and the largest allowed length of a tensor's payload in bytes (spec 6.4)."""
    if grid:
        raw = 4 * tensor.size
        return (raw, raw) if coding == Coding.RAW else (rans14.shortest(tensor.size), raw - 1)
    if coding == Coding.RAW:
        return tensor.payload_bytes, tensor.payload_bytes
    if coding in ENTROPY:
        return ENTROPY[Coding(coding)].shortest(tensor.size), tensor.payload_bytes - 1
    return 2 * tensor.size, 2 * tensor.size


def widen(raw: np.ndarray, tensor: Tensor, coding: Coding) -> np.ndarray:
    """Convert a dense payload (uint8) to the tensor's dtype, shape (n,); the conversion is exact."""
    if coding is RAW:
        return raw.view(tensor.type.numpy)
    if coding is Coding.FLOAT16:
        return raw.view("<f2").astype(np.float32)
    return widen_bfloat16(raw.view("<u2"))


def narrow(values: np.ndarray, name: str, coding: Coding) -> np.ndarray:
    """Round float32 values to float16, or to bfloat16 as uint16 bits, to nearest, ties to even (spec 6.9).

    Raises
    ------
    UpdateNonFiniteError
        A value rounds to an infinity.
    """
    if coding == Coding.FLOAT16:
        with np.errstate(over="ignore"):
            halves = values.astype("<f2")
        wide = halves.astype(np.float32)
    else:
        halves = round_to_bfloat16(values)
        wide = widen_bfloat16(halves)
    if not np.isfinite(wide).all():
        largest = float(np.abs(values).max())
        raise errors.UpdateNonFiniteError(f"{name!r}", f"values within the range of {coding.label}", largest)
    return halves


def checked(label: object, field: str, known: tuple[Coding, ...]) -> Coding:
    """The coding for a label or for the `Coding` itself, among the known ones.

    Raises
    ------
    ArgumentError
        `label` is none of them; `field` is the argument's name.
    """
    for coding in known:
        if label is coding or label == coding.label:
            return coding
    raise errors.ArgumentError(field, f"one of {', '.join(c.label for c in known)}", repr(label))


def chosen(schema: Schema, given: CodingValue | Mapping[str, CodingValue], masked: bool) -> dict[str, Coding]:
    """The coding of each masked tensor, or of each dense float32 tensor, by name.

    `given` is one coding for all of them, or a mapping that names some; the others are raw.

    Raises
    ------
    ArgumentError
        A coding is unknown or not for such tensors, or a name is not that of such a tensor.
    """
    fitting = [t.name for t in schema if t.masked == masked and (masked or t.dtype == "float32")]
    if masked:
        return _chosen(fitting, given, "coding", MASKED, "masked tensors of the schema")
    return _chosen(fitting, given, "dense_coding", DENSE, "dense float32 tensors of the schema")


def chosen_grids(names: Iterable[str], given: CodingValue | Mapping[str, CodingValue]) -> dict[str, Coding]:
    """The coding of each tensor that is sent on a grid, by name; `given` and errors as in `chosen`."""
    return _chosen(list(names), given, "coding", GRIDS, "tensors with a step")


def _chosen(
    fitting: list[str],
    given: CodingValue | Mapping[str, CodingValue],
    field: str,
    known: tuple[Coding, ...],
    role: str,
) -> dict[str, Coding]:
    if not isinstance(given, Mapping):
        return dict.fromkeys(fitting, checked(given, field, known))
    by_name = {name: checked(label, field, known) for name, label in given.items()}
    for name in by_name:
        if name not in fitting:
            raise errors.ArgumentError(field, f"names of {role}", repr(name))
    return {name: by_name.get(name, Coding.RAW) for name in fitting}

"""The codings and lengths that a payload may have (spec 6.5), and dense floats in 16 bits (spec 6.9)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import errors
from ..primitives.codes import Coding
from ..primitives.dtypes import round_to_bfloat16, widen_bfloat16
from . import rans, rans12
from .schema import Schema, Tensor

RAW = Coding.RAW
MASKED = Coding.RAW, Coding.RANS, Coding.RANS12
DENSE = Coding.RAW, Coding.FLOAT16, Coding.BFLOAT16

ENTROPY = {Coding.RANS: rans, Coding.RANS12: rans12}
"""The modules of the codings that entropy-code masks; each has `shortest`, `encode` and `decode`."""

CodingValue = str | Coding
"""A coding as an argument: its label or the member."""


def allowed(dense_dtype: str | None, minor: int) -> tuple[Coding, ...]:
    """The codings that a table entry may have; `dense_dtype` is None for a masked tensor."""
    fitting = MASKED if dense_dtype is None else DENSE if dense_dtype == "float32" else (Coding.RAW,)
    return tuple(coding for coding in fitting if coding.minor <= minor)


def lengths(tensor: Tensor, coding: int) -> tuple[int, int]:
    """The least and the largest allowed length of a tensor's payload in bytes (spec 6.4)."""
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


def checked(label: object, masked: bool) -> Coding:
    """The coding for a label or for the `Coding` itself, among those of masked or of dense tensors.

    Raises
    ------
    ArgumentError
        `label` is none of them.
    """
    field, known = ("coding", MASKED) if masked else ("dense_coding", DENSE)
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
    if not isinstance(given, Mapping):
        return dict.fromkeys(fitting, checked(given, masked))
    by_name = {name: checked(label, masked) for name, label in given.items()}
    for name in by_name:
        if name not in fitting:
            field, role = ("coding", "masked") if masked else ("dense_coding", "dense float32")
            raise errors.ArgumentError(field, f"names of {role} tensors of the schema", repr(name))
    return {name: by_name.get(name, Coding.RAW) for name in fitting}

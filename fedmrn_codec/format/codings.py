"""Which codings a payload may have (spec 6.5), how long it may be, and dense floats in 16 bits (spec 6.9)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import errors
from ..primitives.codes import Coding
from ..primitives.dtypes import round_to_bfloat16, widen_bfloat16
from . import rans
from .schema import Schema, Tensor

MASKED = Coding.RAW, Coding.RANS
DENSE = Coding.RAW, Coding.FLOAT16, Coding.BFLOAT16


def allowed(dense_dtype: str | None, minor: int) -> tuple[Coding, ...]:
    """The codings that an entry may have in a frame of a minor version; None stands for a masked tensor."""
    if minor == 0:
        return (Coding.RAW,)
    if dense_dtype is None:
        return MASKED
    return DENSE if dense_dtype == "float32" else (Coding.RAW,)


def lengths(tensor: Tensor, coding: int) -> tuple[int, int]:
    """The least and the largest number of bytes of a tensor's payload (spec 6.4)."""
    if coding == Coding.RAW:
        return tensor.payload_bytes, tensor.payload_bytes
    if coding == Coding.RANS:
        return rans.shortest(tensor.size), tensor.payload_bytes - 1
    return 2 * tensor.size, 2 * tensor.size


def widen(raw: np.ndarray, tensor: Tensor, coding: Coding) -> np.ndarray:
    """The elements of a dense payload, in the tensor's dtype: exact."""
    if coding == Coding.FLOAT16:
        return raw.view("<f2").astype(np.float32)
    if coding == Coding.BFLOAT16:
        return widen_bfloat16(raw.view("<u2"))
    return raw.view(tensor.type.numpy)


def narrow(values: np.ndarray, name: str, coding: Coding) -> np.ndarray:
    """Float32 values rounded to 16 bits, to nearest, ties to even: the payload, as float16 or as uint16 bits.

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
    """The coding of masked, or of dense, tensors that has this label.

    Raises
    ------
    ArgumentError
        There is none.
    """
    field, known = ("coding", MASKED) if masked else ("dense_coding", DENSE)
    for coding in known:
        if label is coding or label == coding.label:
            return coding
    raise errors.ArgumentError(field, f"one of {', '.join(c.label for c in known)}", repr(label))


def chosen(schema: Schema, given: str | Mapping[str, str], masked: bool) -> dict[str, Coding]:
    """The coding of each masked, or of each dense float32, tensor, by name.

    The name of one coding applies to all tensors that it fits; a mapping names some of them, and the others
    stay raw.

    Raises
    ------
    ArgumentError
        No such coding, no such tensor, or the coding does not fit it.
    """
    fitting = [t.name for t in schema if t.masked == masked and (masked or t.dtype == "float32")]
    if not isinstance(given, Mapping):
        return dict.fromkeys(fitting, checked(given, masked))
    asked = {name: checked(label, masked) for name, label in given.items()}
    for name in asked:
        if name not in fitting:
            field, what = ("coding", "masked") if masked else ("dense_coding", "dense float32")
            raise errors.ArgumentError(field, f"a {what} tensor of the schema", repr(name))
    return {name: asked.get(name, Coding.RAW) for name in fitting}

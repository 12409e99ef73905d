"""How a payload may be spelled (spec 6.5): raw, a mask under one bit an element, dense floats in 16 bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import errors, rans
from .dtypes import widen_bfloat16
from .schema import Schema, Tensor

RAW, RANS, FLOAT16, BFLOAT16 = 0, 1, 2, 3
CODES = {"raw": RAW, "rans": RANS, "float16": FLOAT16, "bfloat16": BFLOAT16}
NAMES = {code: name for name, code in CODES.items()}
MASKED, DENSE = ("raw", "rans"), ("raw", "float16", "bfloat16")


def allowed(dense_dtype: str | None, minor: int) -> tuple[int, ...]:
    """The codes that an entry may have in a frame of a minor version; None stands for a masked tensor."""
    if minor == 0:
        return (RAW,)
    if dense_dtype is None:
        return RAW, RANS
    return (RAW, FLOAT16, BFLOAT16) if dense_dtype == "float32" else (RAW,)


def lengths(tensor: Tensor, coding: int) -> tuple[int, int]:
    """The least and the largest number of bytes of a tensor's payload (spec 6.4)."""
    if coding == RAW:
        return tensor.payload_bytes, tensor.payload_bytes
    if coding == RANS:
        return rans.shortest(tensor.size), tensor.payload_bytes - 1
    return 2 * tensor.size, 2 * tensor.size


def widen(raw: np.ndarray, tensor: Tensor, coding: str) -> np.ndarray:
    """The elements of a dense payload, in the tensor's dtype: exact."""
    if coding == "float16":
        return raw.view("<f2").astype(np.float32)
    if coding == "bfloat16":
        return widen_bfloat16(raw.view("<u2"))
    return raw.view(tensor.type.numpy)


def narrow(values: np.ndarray, name: str, coding: str) -> np.ndarray:
    """Float32 values rounded to 16 bits, to nearest, ties to even: the payload, as float16 or as uint16 bits.

    Raises
    ------
    UpdateNonFiniteError
        A value rounds to an infinity.
    """
    if coding == "float16":
        with np.errstate(over="ignore"):
            halves = values.astype("<f2")
        wide = halves.astype(np.float32)
    else:
        bits = values.view("<u4")
        halves = (
            (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
        ).astype("<u2")
        wide = widen_bfloat16(halves)
    if not np.isfinite(wide).all():
        largest = float(np.abs(values).max())
        raise errors.UpdateNonFiniteError(f"{name!r}", largest, f"required: what {coding} can hold")
    return halves


def checked(coding: str, masked: bool) -> str:
    """The name of a coding of masked, or of dense, tensors.

    Raises
    ------
    ArgumentError
        It is none.
    """
    field, known = ("coding", MASKED) if masked else ("dense_coding", DENSE)
    if coding not in known:
        raise errors.ArgumentError(field, repr(coding), f"required: one of {', '.join(known)}")
    return coding


def chosen(schema: Schema, given: str | Mapping[str, str], masked: bool) -> dict[str, str]:
    """The coding of each masked, or of each dense, tensor, by name.

    One name of a coding is meant for all tensors that it fits; a mapping names some of them, the others stay
    raw.

    Raises
    ------
    ArgumentError
        No such coding, no such tensor, or the coding does not fit it.
    """
    field = "coding" if masked else "dense_coding"
    fitting = [t.name for t in schema if t.masked == masked and (masked or t.dtype == "float32")]
    asked = given if isinstance(given, Mapping) else dict.fromkeys(fitting, given)
    for name, coding in asked.items():
        checked(coding, masked)
        if name not in fitting:
            what = "masked tensor" if masked else "dense float32 tensor"
            raise errors.ArgumentError(field, repr(name), f"required: a {what} of the schema")
    if not isinstance(given, Mapping):
        checked(given, masked)
    return {name: asked.get(name, "raw") for name in fitting}

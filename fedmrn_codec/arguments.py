"""Arguments that are integers of a fixed size."""

from __future__ import annotations

from . import errors

U32, U64 = 2**32, 2**64


def unsigned(value: int, bound: int, field: str) -> int:
    """`value` as a Python integer below `bound`."""
    try:
        number = value.__index__()
    except AttributeError:
        raise errors.ArgumentError(field, repr(value), "required: an integer") from None
    if not 0 <= number < bound:
        raise errors.ArgumentError(field, number, f"required: 0 to 2^{bound.bit_length() - 1} - 1")
    return number

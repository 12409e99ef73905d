"""Checks of integer arguments, and what "not given" means."""

from __future__ import annotations

from .. import errors

U32, U64 = 2**32, 2**64


def unsigned(value: int, bound: int, field: str) -> int:
    """`value` as a Python integer.

    Parameters
    ----------
    value : int
        Anything with `__index__`.
    bound : int
        A power of two; the value must be below it.
    field : str
        The argument's name, for the message.

    Raises
    ------
    ArgumentError
        It is not an integer from 0 to `bound` - 1.
    """
    try:
        number = value.__index__()
    except AttributeError:
        raise errors.ArgumentError(field, "an integer", repr(value)) from None
    if not 0 <= number < bound:
        raise errors.ArgumentError(field, f"0 to 2^{bound.bit_length() - 1} - 1", number)
    return number


def given(value: int | None) -> int | None:
    """A round or a base model as an expected value: 0 and None both mean "not given" (spec 6.2)."""
    return value or None

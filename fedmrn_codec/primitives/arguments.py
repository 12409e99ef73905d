"""Checks of integer arguments, and the values that mean "not given"."""

from __future__ import annotations

from .. import errors

U32 = 2**32
U64 = 2**64


def unsigned(value: int, bound: int, field: str) -> int:
    """Check an unsigned integer and return it as a Python integer.

    Parameters
    ----------
    value : int
        An integer of any type with `__index__`.
    bound : int
        A power of two; the value must be below it.
    field : str
        The argument's name, for the error message.

    Raises
    ------
    ArgumentError
        `value` is not an integer from 0 to `bound` - 1.
    """
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        raise errors.ArgumentError(field, "an integer", repr(value)) from None
    if not 0 <= number < bound:
        raise errors.ArgumentError(field, f"0 to 2^{bound.bit_length() - 1} - 1", number)
    return number


def positive_weight(weight: int) -> int:
    """Check that a weight is a positive integer, [A-01], [A-08], and return it as a Python integer.

    Raises
    ------
    AggregateError
        It is not; True is none either.
    """
    try:
        number = weight.__index__()
    except (AttributeError, TypeError):
        raise errors.AggregateError("weight", "a positive integer", repr(weight)) from None
    if number < 1 or isinstance(weight, bool):
        raise errors.AggregateError("weight", "a positive integer", weight)
    return number


def given(value: int | None) -> int | None:
    """The expected value of a round or a base model: None, which allows any, for 0 and None (spec 6.2)."""
    return value or None

"""Checks of arguments that are numbers, and the values that mean "not given"."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

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


def positive_number(
    value: Any, field: str, most: float = sys.float_info.max, expected: str = "a finite number above 0"
) -> float:
    """Check a number above 0 and at most `most`, and return it as a Python float.

    Parameters
    ----------
    value : int or float
        Of Python or, if it is a float, of NumPy.
    field : str
        The argument's name, for the error message.
    most : float
    expected : str
        What the error message says that is expected.

    Raises
    ------
    ArgumentError
        `value` is not such a number; True is none either.
    """
    number = math.nan
    if isinstance(value, int | float | np.floating) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer beyond the floats
            number = float(value)
    if not 0 < number <= most:
        raise errors.ArgumentError(field, expected, value if isinstance(value, int) else repr(value))
    return number


def check_version(entries: Any, version: int, what: str) -> None:
    """Check that a saved state is a mapping with this entry "version".

    Raises
    ------
    ArgumentError
        It is not; `what` is the state's name in the error message.
    """
    if not isinstance(entries, Mapping) or entries.get("version") != version:
        got = entries.get("version") if isinstance(entries, Mapping) else type(entries).__name__
        raise errors.ArgumentError(what, f"one of version {version}", repr(got))


def given(value: int | None) -> int | None:
    """The expected value of a round or a base model: None, which allows any, for 0 and None (spec 6.2)."""
    return value or None

"""Arguments that are integers of a fixed size, or one value for all masked tensors or for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from . import errors
from .noise import Noise, checked_noise
from .schema import Schema

Value = TypeVar("Value")

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


def masked_values(schema: Schema, given: Value | Mapping[str, Value], field: str) -> dict[str, Value]:
    """One value for each masked tensor, in the schema's order."""
    names = [tensor.name for tensor in schema if tensor.masked]
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    if wrong := sorted(set(given) ^ set(names)):
        raise errors.ArgumentError(field, f"names that differ in {wrong}", "required: each masked tensor")
    return {name: given[name] for name in names}


def masked_noise(schema: Schema, given: Noise | Mapping[str, Noise]) -> dict[str, Noise]:
    """The noise of each masked tensor, in the schema's order."""
    noise = masked_values(schema, given, "noise")
    return {name: checked_noise(its_noise) for name, its_noise in noise.items()}

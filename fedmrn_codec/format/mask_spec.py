"""The mask spec: noise and mask kind of each masked tensor, from one value for all or one for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from .. import errors
from ..primitives.codes import MaskKind
from ..primitives.noise import Noise, checked_noise
from .schema import Schema

Value = TypeVar("Value")


class MaskSpec(NamedTuple):
    """Noise and kind of one masked tensor."""

    noise: Noise
    kind: MaskKind


def mask_specs(
    schema: Schema, noise: Noise | Mapping[str, Noise], mask: str | Mapping[str, str]
) -> dict[str, MaskSpec]:
    """The mask spec of each masked tensor by name, in the schema's order.

    Parameters
    ----------
    schema : Schema
    noise : Noise, or mapping of str to Noise
    mask : {"binary", "signed"}, or mapping of str to one of them

    Raises
    ------
    ArgumentError
        A mapping whose names are not those of the masked tensors, or a value of another type.
    """
    noises, masks = masked_noise(schema, noise), masked_values(schema, mask, "mask")
    return {name: MaskSpec(noises[name], MaskKind.of(masks[name], "mask")) for name in noises}


def masked_noise(schema: Schema, given: Noise | Mapping[str, Noise]) -> dict[str, Noise]:
    """The noise of each masked tensor by name, in the schema's order; errors as `mask_specs`."""
    noise = masked_values(schema, given, "noise")
    return {name: checked_noise(its_noise) for name, its_noise in noise.items()}


def masked_values(schema: Schema, given: Value | Mapping[str, Value], field: str) -> dict[str, Value]:
    """One value for each masked tensor by name, in the schema's order.

    Raises
    ------
    ArgumentError
        `given` is a mapping whose names are not those of the masked tensors; `field` names the argument.
    """
    names = [tensor.name for tensor in schema if tensor.masked]
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    if wrong := sorted(set(given) ^ set(names)):
        raise errors.ArgumentError(field, "one for each masked tensor", f"names that differ in {wrong}")
    return {name: given[name] for name in names}

"""The mask spec of each masked tensor, from arguments that hold for all of them or name each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from .. import errors
from ..primitives.codes import MaskKind
from ..primitives.grid import Grid
from ..primitives.noise import Noise, checked_noise
from .schema import Schema

Value = TypeVar("Value")
MaskValue = str | MaskKind
"""A mask kind as an argument: its label or the member."""


class MaskSpec(NamedTuple):
    """The noise and the mask kind of one masked tensor."""

    noise: Noise
    kind: MaskKind


Source = MaskSpec | Grid
"""How a masked tensor is sent: as a mask, or as integers on a grid."""


def mask_specs(
    schema: Schema, noise: Noise | Mapping[str, Noise], mask: MaskValue | Mapping[str, MaskValue]
) -> dict[str, MaskSpec]:
    """The mask spec of each masked tensor by name, in the schema's order.

    Parameters
    ----------
    schema : Schema
    noise : Noise, or mapping of str to Noise
    mask : {"binary", "signed"} or MaskKind, or mapping of str to one of them

    Raises
    ------
    ArgumentError
        The names of a mapping are not those of the masked tensors, or a value is no noise or mask kind.
    """
    noises, masks = masked_noise(schema, noise), masked_values(schema, mask, "mask")
    return {name: MaskSpec(noises[name], MaskKind.of(masks[name], "mask")) for name in noises}


def masked_noise(schema: Schema, given: Noise | Mapping[str, Noise]) -> dict[str, Noise]:
    """The noise of each masked tensor by name, in the schema's order; errors as in `mask_specs`."""
    noise = masked_values(schema, given, "noise")
    return {name: checked_noise(its_noise) for name, its_noise in noise.items()}


def masked_values(schema: Schema, given: Value | Mapping[str, Value], field: str) -> dict[str, Value]:
    """A value for each masked tensor by name, in the schema's order, from one value or a mapping of names.

    Raises
    ------
    ArgumentError
        The names of the mapping are not those of the masked tensors; `field` is the argument's name.
    """
    names = [tensor.name for tensor in schema if tensor.masked]
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    if wrong := sorted(set(given) ^ set(names)):
        raise errors.ArgumentError(field, "one for each masked tensor", f"{wrong} missing or unknown")
    return {name: given[name] for name in names}

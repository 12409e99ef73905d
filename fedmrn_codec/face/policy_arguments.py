"""Checks of the arguments of a `Policy`, and their values as it keeps them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from .. import errors
from ..format.mask_spec import masked_noise
from ..format.schema import Schema
from ..primitives.arguments import U64, unsigned
from ..primitives.grid import BOUNDS
from ..primitives.noise import Noise, checked_noise
from .seeds import choose_seed

Seeds = Mapping[Any, int] | Callable[[int, Any], int] | int | None


def checked_labels(given: Any, known: Collection[str], field: str) -> tuple[str, ...]:
    """A collection of labels, or of enumeration members, as a tuple in the order of `known`."""
    expected = f"a collection of {', '.join(known)}"
    if isinstance(given, str) or not isinstance(given, Collection):
        raise errors.ArgumentError(field, expected, repr(given))
    labels = [getattr(each, "label", each) for each in given]
    if not labels or any(label not in known for label in labels):
        raise errors.ArgumentError(field, expected, labels)
    return tuple(label for label in known if label in labels)


def checked_seeds(seeds: Any, round: int) -> Seeds:
    """The seeds of a policy; a mapping must have another one for each client."""
    if seeds is None or callable(seeds):
        return seeds  # type: ignore[no-any-return]
    if not isinstance(seeds, Mapping):
        if not isinstance(seeds, int) or isinstance(seeds, bool):
            raise errors.ArgumentError("seeds", "a mapping, an integer or a callable", repr(seeds))
        choose_seed(seeds, round, None)
        return seeds
    out = {client: unsigned(seed, U64, f"seed of {client!r}") for client, seed in seeds.items()}
    if len(set(out.values())) != len(out):
        raise errors.ArgumentError("seeds", "a different one for each client", "one of several clients")
    return out


def is_count(value: Any, most: int) -> bool:
    """Whether a value is an integer from 1 to `most`."""
    try:
        return not isinstance(value, bool) and 1 <= value.__index__() <= most
    except (AttributeError, TypeError):
        return False


def checked_count(value: Any, most: int, field: str) -> int:
    """A value that must be an integer from 1 to `most`."""
    if not is_count(value, most):
        raise errors.ArgumentError(field, f"an integer from 1 to {most}", value)
    return int(value.__index__())


def checked_positive(value: Any, field: str) -> float:
    """A positive number as a float, or as an integer if it is one."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0:
        return int(value)
    if isinstance(value, float | np.floating) and 0 < value < np.inf:
        return float(value)
    raise errors.ArgumentError(field, "a positive finite number", value)


def stated_noise(noise: Any, schema: Schema) -> Noise | dict[str, Noise] | None:
    """The noise of all masked tensors, or of each; None only if no tensor is masked."""
    if isinstance(noise, Mapping):
        return masked_noise(schema, noise)
    needed = noise is not None or any(tensor.masked for tensor in schema)
    return checked_noise(noise) if needed else None


def checked_step(step: Any) -> float:
    """A step that grids of masked tensors can have."""
    if not BOUNDS["float32"].allows(checked_positive(step, "step")):
        raise errors.ArgumentError("step", BOUNDS["float32"], step)
    return float(step)


def checked_bounds(given: Any, schema: Schema) -> float | dict[str, float] | None:
    """The bound of all float tensors, or of each tensor named."""
    if not isinstance(given, Mapping):
        return None if given is None else checked_positive(given, "max_value")
    if wrong := sorted(map(str, set(given) - {tensor.name for tensor in schema})):
        raise errors.ArgumentError("max_value", "names of the schema", wrong)
    return {name: checked_positive(bound, f"max_value of {name!r}") for name, bound in given.items()}

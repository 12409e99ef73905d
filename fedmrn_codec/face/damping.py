"""Damped masks: updates clipped at a share of the scale, so that no bit of a mask is certain.

Over Bernoulli noise of scale a, the bit of a signed mask keeps or negates the noise such that the value is a
with the probability (1 + u / a) / 2 (spec 4.3). If |u| is at most damping * a, this is between
(1 - damping) / 2 and (1 + damping) / 2, whatever the update is. The expected value is still u.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import errors
from ..format.mask_spec import MaskSpec, MaskValue, mask_specs
from ..format.schema import Schema
from ..primitives.arguments import positive_number
from ..primitives.codes import MaskKind
from ..primitives.noise import Bernoulli, Noise


def checked_damping(
    damping: Any,
    norm: Any,
    schema: Schema,
    noise: Noise | Mapping[str, Noise],
    mask: MaskValue | Mapping[str, MaskValue],
) -> tuple[float, float | None]:
    """The two bounds of a damped mask, as floats; arguments as in `encode`.

    Raises
    ------
    ArgumentError
        `damping` is no number above 0 and at most 1, or `norm` no positive finite one; there is a `norm`
        without a `damping` below 1; or such a damping is given for masks that are not signed, or over other
        noise than Bernoulli's, some of whose bits are certain.
    """
    damping = positive_number(damping, "damping", 1.0, "a number above 0 and at most 1")
    if damping == 1:
        if norm is not None:
            raise errors.ArgumentError("damping", "a number below 1, since there is a norm", damping)
        return damping, None
    for name, (each, kind) in mask_specs(schema, noise, mask).items():
        if kind != MaskKind.SIGNED or not isinstance(each, Bernoulli):
            got = f"{kind.label} masks over {each.name} noise for {name!r}"
            raise errors.ArgumentError("damping", "1, or signed masks over Bernoulli noise", got)
    if norm is None:
        return damping, None
    return damping, positive_number(norm, "norm")


def damped(
    contents: Mapping[str, np.ndarray], specs: Mapping[str, MaskSpec], damping: float, norm: float | None
) -> dict[str, np.ndarray]:
    """The masked tensors of an update within both bounds.

    Parameters
    ----------
    contents : mapping of str to array
        Flat float32 arrays, finite. They are not changed.
    specs : mapping of str to MaskSpec
        Of the masked tensors, which `checked_damping` has accepted.
    damping : float
        Elements are clipped at `damping` times the scale.
    norm : float or None
        If the Euclidean norm of all masked elements together, each divided by its scale, is larger after
        that, all are multiplied by the same factor, such that it is at most `norm`.

    Returns
    -------
    dict of str to array
        float32, rounded towards zero, so that rounding exceeds neither bound.
    """
    out = {}
    for name, spec in specs.items():
        bound = _towards_zero(np.float64(damping) * spec.noise.scale)
        out[name] = np.clip(contents[name], -bound, bound)
    if norm is None:
        return out
    length = math.sqrt(sum(_squares(out[name], spec) for name, spec in specs.items()))
    if length <= norm:
        return out
    factor = norm / length * (1 - 2.0**-40)  # more than the rounding of the sums
    return {name: _towards_zero(array.astype(np.float64) * factor) for name, array in out.items()}


def _squares(elements: np.ndarray, spec: MaskSpec) -> float:
    """The sum of the squares of the elements in units of the scale."""
    return float(np.square(elements.astype(np.float64) / spec.noise.scale).sum())


def _towards_zero(values: Any) -> Any:
    """Float64 values as float32, whose magnitudes are not larger."""
    rounded = np.asarray(values).astype(np.float32)
    larger = np.abs(rounded.astype(np.float64)) > np.abs(values)
    return np.where(larger, np.nextafter(rounded, np.float32(0)), rounded)

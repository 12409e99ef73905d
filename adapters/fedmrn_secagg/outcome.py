"""From the unmasked sum of a round to an aggregator, with the checks of a sum (spec/SECAGG.md 9, 10)."""

from __future__ import annotations

from typing import Any

import numpy as np

import fedmrn_codec as fm

from . import errors, fields
from .vector import Vector


def aggregator_of(total: Vector, survivors: int) -> fm.Aggregator:
    """The aggregator that holds what the survivors' frames give.

    If some weight is above 1, it has no `statistics`: the squares of the weights are not known.

    Parameters
    ----------
    total : Vector
        The sum of their vectors, without pads.
    survivors : int
        Their number.

    Raises
    ------
    SumError
        No vectors have this sum, [X-10].
    """
    layout = total.layout
    terms, frames = layout.terms, int(total.words[0])
    most = survivors * terms.largest_weight
    if not survivors <= frames <= most:
        raise errors.SumError("sum of weights", f"{survivors} to {most}", frames)
    request, counts, dense = terms.request, _counts(total, frames), _dense(total, frames)
    try:
        tally = fm.Tally.from_counts(
            request.schema,
            counts,
            frames,
            seed=request.seed,
            noise=request.noise,
            mask=request.mask,
            weight=1,
            dense=dense,
            round=request.round,
            base_model=request.base_model,
        )
    except fm.CodecError as error:  # such as a negative sum of unsigned integers
        raise errors.SumError(error.field, error.expected, error.got) from None
    aggregator = request.aggregator()
    aggregator.add_tally(tally)
    if frames == survivors:
        return aggregator
    return fm.Aggregator.from_bytes(aggregator.to_bytes(), request.schema)


def _counts(total: Vector, frames: int) -> dict[str, np.ndarray]:
    """The counts of each masked tensor, by name, in its shape."""
    layout, at, out = total.layout, 0, {}
    data = total.fields.view(np.uint8)
    for tensor in layout.masked:
        size = layout.bits * -(-tensor.size // 8)
        counts = fields.values(data[at : at + size], layout.bits)
        at += size
        if counts[tensor.size :].any():
            raise errors.SumError(f"fields after the last of {tensor.name!r}", 0, "another value")
        if counts.size and int(counts.max()) > frames:
            raise errors.SumError(f"counts of {tensor.name!r}", f"0 to {frames}", int(counts.max()))
        out[tensor.name] = counts[: tensor.size].reshape(tensor.shape)
    return out


def _dense(total: Vector, frames: int) -> dict[str, Any]:
    """The sums of each dense tensor, by name: integers, and the step of those that are on a grid."""
    layout, out = total.layout, dict[str, Any]()
    at = 1
    for tensor in layout.floats:
        sums = total.words[at : at + tensor.size].view(np.int32).astype(np.int64)
        at += tensor.size
        _check(sums, frames * layout.largest(tensor), tensor)
        out[tensor.name] = (sums.reshape(tensor.shape), layout.terms.steps[tensor.name])
    at = 0
    for tensor in layout.integers:
        sums = total.longs[at : at + tensor.size].view(np.int64)
        at += tensor.size
        _check(sums, frames * layout.largest(tensor), tensor)
        out[tensor.name] = sums.reshape(tensor.shape)
    return out


def _check(sums: np.ndarray, most: int, tensor: fm.Tensor) -> None:
    found = max(-int(sums.min()), int(sums.max())) if sums.size else 0
    if found > most:
        raise errors.SumError(f"sums of {tensor.name!r}", f"magnitudes up to {most}", found)

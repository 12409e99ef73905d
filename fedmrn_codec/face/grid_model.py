"""A model whose float tensors are integers on a grid, and the frames between two of them (spec 6.12)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from .. import errors
from ..format.checked import CheckedFrame
from ..format.schema import Schema
from ..primitives.dtypes import DTYPES, Dtype
from ..primitives.grid import BOUNDS, rounded, values
from .grids import grid_frame
from .models import add, model_id, subtract

MOST_SHIFT = 38
"""The bits by which an integer below 2^24 can be shifted in an int64."""


@dataclass(frozen=True)
class GridModel:
    """A model on a grid; it does not change.

    Attributes
    ----------
    schema : Schema
    dtypes : mapping of str to str
        The dtype of each float tensor in the model, which for a masked one need not be float32.
    integers : mapping of str to numpy.ndarray
        Of each float tensor: int32, flat.
    exponents : mapping of str to int
        The step of each float tensor is 2 to this power.
    others : mapping of str to numpy.ndarray
        The elements of the other tensors, flat.
    """

    schema: Schema
    dtypes: Mapping[str, str]
    integers: Mapping[str, np.ndarray]
    exponents: Mapping[str, int]
    others: Mapping[str, np.ndarray]

    @classmethod
    def zeros(cls, schema: Schema, dtypes: Mapping[str, str]) -> Self:
        """A model of zeros: what a frame with base model 0 is added to."""
        floats = [t for t in schema if t.type.is_float]
        integers = {t.name: np.zeros(t.size, np.int32) for t in floats}
        others = {t.name: np.zeros(t.size, t.type.numpy) for t in schema if not t.type.is_float}
        exponents = {t.name: BOUNDS[dtypes[t.name]].largest_exponent for t in floats}
        return cls(schema, dtypes, integers, exponents, others)

    @classmethod
    def rounded(
        cls,
        schema: Schema,
        dtypes: Mapping[str, str],
        elements: Mapping[str, np.ndarray],
        exponents: Mapping[str, int],
    ) -> Self:
        """The model with the integers nearest to the elements (flat; float32 in place of bfloat16).

        Raises
        ------
        UpdateError
            An integer is beyond the bounds of its dtype.
        """
        integers = {
            name: rounded(elements[name], 2.0**exponent, name, DTYPES[dtypes[name]])
            for name, exponent in exponents.items()
        }
        others = {t.name: elements[t.name] for t in schema if t.name not in exponents}
        return cls(schema, dtypes, integers, exponents, others)

    def _tensor(self, name: str) -> tuple[np.ndarray, int]:
        """The integers and the exponent of a float tensor."""
        return self.integers[name], self.exponents[name]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The model by name, in schema order, of the schema's shapes and the model's dtypes; not writable."""
        out = {}
        for tensor in self.schema:
            flat = self.others.get(tensor.name)
            if flat is None:
                dtype = DTYPES[self.dtypes[tensor.name]]
                flat = values(self.integers[tensor.name], 2.0 ** self.exponents[tensor.name], dtype)
            out[tensor.name] = flat.reshape(tensor.shape)
            out[tensor.name].flags.writeable = False
        return out

    @cached_property
    def id(self) -> int:
        """The id of the model (spec 1.7)."""
        return model_id(self.arrays, self.schema)

    def frame_from(self, base: GridModel, base_id: int, backend: str | None) -> bytes | None:
        """The frame that leads from another version to this one; None if a difference is out of bounds."""
        contents: dict[str, np.ndarray] = {}
        steps: dict[str, float] = {}
        for tensor in self.schema:
            name = tensor.name
            if name in self.others:
                contents[name] = subtract(self.others[name], base.others[name])
                continue
            own, its = self._tensor(name), base._tensor(name)
            found = _sum(own, its, -1)
            if found is None or not _within(found[0], DTYPES[tensor.dtype]):
                return None
            difference, exponent = found
            contents[name], steps[name] = difference.astype(np.int32), 2.0**exponent
        return grid_frame(self.schema, contents, steps, 0, 0, base_id, False, "rans14", backend)

    def whole_frame(self, backend: str | None) -> bytes:
        """The frame that leads from a model of zeros to this one."""
        contents = {**self.others, **self.integers}
        steps = {name: 2.0**exponent for name, exponent in self.exponents.items()}
        return grid_frame(self.schema, contents, steps, 0, 0, 0, False, "rans14", backend)

    def moved(self, frame: CheckedFrame, backend: str | None, sign: int = 1) -> GridModel:
        """The model plus the update of a frame, or minus it if the sign is -1, in integers.

        Steps are the largest ones of which all elements are multiples, but those of the frame where the
        model is 0.

        Raises
        ------
        FrameError
            A payload fails a check, a float tensor is not sent on a grid, or the sum is out of bounds.
        """
        integers, exponents, others = {}, {}, {}
        for stream, (tensor, entry) in enumerate(zip(self.schema, frame.tensors, strict=True)):
            name, content = tensor.name, frame.payload(stream, backend)
            if name in self.others:
                others[name] = (add if sign > 0 else subtract)(self.others[name], content)
                continue
            if entry.step is None:
                raise errors.KindMismatchError(f"kind of {name!r}", "a grid", entry.kind, entry.offset)
            found = _sum(self._tensor(name), (content, math.frexp(entry.step)[1] - 1), sign)
            if found is not None:
                total, exponent = found
                zeros = _trailing_zeros(total) if self.integers[name].any() else 0
                rise = min(zeros, BOUNDS[self.dtypes[name]].largest_exponent - exponent)
                total >>= rise
            if found is None or not _within(total, DTYPES[self.dtypes[name]]):
                expected = f"integers of at most {BOUNDS[self.dtypes[name]].largest}"
                raise errors.GridError(f"{name!r} plus its update", expected, "a larger one", entry.offset)
            integers[name], exponents[name] = total.astype(np.int32), exponent + rise
        return GridModel(self.schema, self.dtypes, integers, exponents, others)


def dtypes_of(schema: Schema, model: Mapping[str, Any]) -> dict[str, str]:
    """The dtype of each float tensor in a model that fits the schema."""
    return {
        tensor.name: model[tensor.name].dtype.name if tensor.masked else tensor.dtype
        for tensor in schema
        if tensor.type.is_float
    }


Grid = tuple[np.ndarray, int]
"""Integers (int32) and the exponent of their step."""


def _sum(one: Grid, other: Grid, sign: int) -> Grid | None:
    """The sum of integers on two grids, or the difference if the sign is -1: int64, and its exponent.

    Zeros lie on every grid. None if the sum is out of bounds in all steps of which it is a multiple.
    """
    pair = [one, other]
    if _spread(pair) > MOST_SHIFT:
        # In their largest steps, some integer of the finer grid is odd, and so is the sum in that step: it
        # has no larger one, and the integers of the coarser grid need more bits in it than there may be.
        pair = [_in_largest_step(each) for each in pair]
        if _spread(pair) > MOST_SHIFT:
            return None
    exponent = min((own for integers, own in pair if integers.any()), default=other[1])
    finer = [integers.astype(np.int64) << (own - exponent if integers.any() else 0) for integers, own in pair]
    return finer[0] + sign * finer[1], exponent


def _spread(grids: list[Grid]) -> int:
    """How many bits the exponents of grids differ by, without those of zeros alone."""
    exponents = [own for integers, own in grids if integers.any()]
    return max(exponents, default=0) - min(exponents, default=0)


def _in_largest_step(grid: Grid) -> Grid:
    zeros = _trailing_zeros(grid[0])
    return grid[0] >> zeros, grid[1] + zeros


def _trailing_zeros(integers: np.ndarray) -> int:
    """How often all of these integers can be halved; 0 if all are 0."""
    together = int(np.bitwise_or.reduce(integers)) if integers.size else 0
    return (together & -together).bit_length() - 1 if together else 0


def _within(integers: np.ndarray, dtype: Dtype) -> bool:
    most = BOUNDS[dtype.name].largest
    return not integers.size or bool(integers.max() <= most and integers.min() >= -most)

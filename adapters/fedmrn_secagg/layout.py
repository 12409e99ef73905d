"""Where the elements of a schema are in a vector, and what they are there (spec/SECAGG.md 6)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import GRID_BOUNDS

from . import errors, fields
from .terms import Terms


@dataclass(frozen=True, eq=False)
class Layout:
    """The layout of the vectors of a round.

    Parameters
    ----------
    terms : Terms
    clients : int
        In the roster.
    """

    terms: Terms
    clients: int

    @property
    def frames(self) -> int:
        """The largest sum of weights, N of spec 6.3."""
        return self.clients * self.terms.largest_weight

    @property
    def bits(self) -> int:
        """Of a field."""
        return self.frames.bit_length()

    def _of(self, group: int) -> list[fm.Tensor]:
        """The tensors of a section, 1 to 3, in schema order."""
        return [tensor for tensor in self.terms.request.schema if _section(tensor) == group]

    @cached_property
    def masked(self) -> list[fm.Tensor]:
        """The tensors of section 1."""
        return self._of(1)

    @cached_property
    def floats(self) -> list[fm.Tensor]:
        """The tensors of section 2."""
        return self._of(2)

    @cached_property
    def integers(self) -> list[fm.Tensor]:
        """The tensors of section 3."""
        return self._of(3)

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """The bytes of each section."""
        groups = sum(-(-tensor.size // 8) for tensor in self.masked)
        words = 1 + sum(tensor.size for tensor in self.floats)
        return self.bits * groups, 4 * words, 8 * sum(tensor.size for tensor in self.integers)

    @property
    def size(self) -> int:
        """The bytes of a vector."""
        return sum(self.sizes)

    def largest(self, tensor: fm.Tensor) -> int:
        """The largest magnitude of an integer of a dense tensor: Z or X of spec 6.3."""
        if tensor.type.is_float:
            return min(GRID_BOUNDS[tensor.dtype].largest, (2**31 - 1) // self.frames)
        return (2**63 - 1) // self.frames

    def sections(self, frame: fm.CheckedFrame, weight: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """The sections of the vector of a frame, and the number of dense floats that were clipped.

        Returns
        -------
        fields : numpy.ndarray of uint8
        words : numpy.ndarray of uint32
        longs : numpy.ndarray of uint64
        clipped : int

        Raises
        ------
        ValueRangeError
            An integer or a bool is beyond its range, [X-04].
        """
        parts: dict[int, list[np.ndarray]] = {1: [], 2: [np.array([weight], np.int64)], 3: []}
        clipped = 0
        for stream, tensor in enumerate(self.terms.request.schema):
            section = _section(tensor)
            if section == 1:
                parts[1].append(fields.spread(frame.payload(stream), self.bits, weight))
            elif section == 2:
                integers, beyond = self._rounded(frame, stream, tensor)
                parts[2].append(integers * weight)
                clipped += beyond
            else:
                parts[3].append(self._integers(frame.payload(stream), tensor) * np.uint64(weight))
        return (
            np.concatenate([*parts[1], np.empty(0, np.uint8)]),
            np.concatenate(parts[2]).astype(np.int32).view(np.uint32),
            np.concatenate([*parts[3], np.empty(0, np.uint64)]),
            clipped,
        )

    def _rounded(self, frame: fm.CheckedFrame, stream: int, tensor: fm.Tensor) -> tuple[np.ndarray, int]:
        """The integers z of a tensor, int64, within their range; and how many were not."""
        step, most = self.terms.steps[tensor.name], self.largest(tensor)
        if frame.tensors[stream].step == step:
            wide = frame.payload(stream).astype(np.float64)
        else:
            elements = frame.elements(stream)
            if tensor.dtype == "bfloat16":
                elements = (elements.astype(np.uint32) << 16).view(np.float32)
            with np.errstate(over="ignore", under="ignore"):
                wide = np.rint(elements.astype(np.float64) / step)
        inside = np.clip(wide, -most, most)
        return inside.astype(np.int64), int(np.count_nonzero(inside != wide))

    def _integers(self, elements: np.ndarray, tensor: fm.Tensor) -> np.ndarray:
        """The elements of a tensor modulo 2^64, uint64, after the check of their range."""
        most = self.largest(tensor)
        found = max(-int(elements.min()), int(elements.max())) if elements.size else 0
        if found > most:
            raise errors.ValueRangeError(f"{tensor.name!r}", f"magnitudes up to {most}", found)
        return elements.astype(np.int64).view(np.uint64)


def _section(tensor: fm.Tensor) -> int:
    return 1 if tensor.masked else 2 if tensor.type.is_float else 3

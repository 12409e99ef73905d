"""What an aggregator holds of a schema's tensors: integer sums, of masked ones and of dense ones (spec 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import backends
from ..format.schema import Schema
from ..primitives.dtypes import DTYPES
from ..primitives.noise import Noise
from .exact import ExactSum

if TYPE_CHECKING:
    from ..backends import Backend

BATCH = 16
"""Masks that are summed in one pass over the sums."""

MAX_WEIGHT = 2**39 - 1


class MaskedSum:
    """The integer sums of one masked tensor: weight * q * m (spec 8.2).

    Packed masks are queued until there are `BATCH` of them, which one pass over the sums then adds together.

    Attributes
    ----------
    noise : Noise or None
        Of the first frame, unless the aggregator's caller fixed it; None before.
    sums : numpy.ndarray of int64, shape (size,)
        Of the masks that have been added; those still queued are not in it.
    """

    def __init__(self, size: int, noise: Noise | None) -> None:
        self.noise, self.sums = noise, np.zeros(size, np.int64)
        self._queued = 0
        self._heads = np.empty((2, BATCH), np.int64), np.empty(BATCH, np.uint64)
        self._masks = np.empty((BATCH, 0), np.uint8)

    def add(
        self, backend: Backend, stream: int, kind: int, seed: int, payload: np.ndarray, weight: int
    ) -> None:
        """Add a packed mask, now or later; `payload` may change afterwards."""
        if self._masks.shape[1] != len(payload):
            self._masks = np.empty((BATCH, len(payload)), np.uint8)
        numbers, seeds = self._heads
        numbers[:, self._queued] = kind, weight
        seeds[self._queued] = seed
        self._masks[self._queued] = payload
        self._queued += 1
        if self._queued == BATCH:
            self.flush(backend, stream)

    def flush(self, backend: Backend, stream: int) -> None:
        """Add the queued masks."""
        n, (numbers, seeds) = self._queued, self._heads
        if n:
            assert self.noise is not None
            kinds, weights = numbers[:, :n]
            backends.accumulate_many(
                backend, self.noise, kinds, seeds[:n], stream, self._masks[:n], weights, self.sums
            )
        self._queued = 0

    def release(self, backend: Backend, stream: int) -> None:
        """Add the queued masks and free the memory of the queue."""
        self.flush(backend, stream)
        self._masks = np.empty((BATCH, 0), np.uint8)

    def mean(self, total: int) -> np.ndarray:
        """Division first, then the product, then one rounding: float32, shape (size,), [A-03]."""
        assert self.noise is not None
        quotient = self.sums.astype(np.float64) / np.float64(total)
        with np.errstate(under="ignore"):
            return (quotient * np.float64(self.noise.step)).astype(np.float32)


class DenseSums:
    """The exact sums of all dense tensors (spec 8.4), those of one dtype side by side in one `ExactSum`.

    A network has dozens of small ones, and a NumPy call on each costs more than its additions.
    """

    def __init__(self, schema: Schema) -> None:
        self._streams: dict[str, list[int]] = {}
        self._places: dict[int, tuple[str, slice]] = {}
        sizes: dict[str, int] = {}
        for stream, tensor in enumerate(schema):
            if not tensor.masked:
                begin = sizes.get(tensor.dtype, 0)
                sizes[tensor.dtype] = begin + tensor.size
                self._streams.setdefault(tensor.dtype, []).append(stream)
                self._places[stream] = tensor.dtype, slice(begin, begin + tensor.size)
        self._sums = {name: ExactSum(DTYPES[name], size) for name, size in sizes.items()}

    def add(self, contents: Sequence[np.ndarray], weight: int) -> None:
        """Add weight * a frame's contents, flat, one for each tensor of the schema; the masked ones stay."""
        for name, streams in self._streams.items():
            parts = [contents[stream] for stream in streams]
            self._sums[name].add(parts[0] if len(parts) == 1 else np.concatenate(parts), weight)

    def merge(self, other: DenseSums) -> None:
        """Add the sums of `other`, of the same schema."""
        for name, mine in self._sums.items():
            mine.merge(other._sums[name])

    def means(self, total: int) -> dict[int, np.ndarray]:
        """Stream -> its mean, flat."""
        means = {name: exact.mean(total) for name, exact in self._sums.items()}
        return {stream: means[name][part] for stream, (name, part) in self._places.items()}

    def rows(self, stream: int) -> list[tuple[int, np.ndarray]]:
        """The rows of one tensor that are not all 0, ascending (spec 8.5)."""
        name, part = self._places[stream]
        rows = sorted(self._sums[name].rows.items())
        return [(limb, row[part]) for limb, row in rows if row[part].any()]

    def set_rows(self, stream: int, rows: Mapping[int, np.ndarray]) -> None:
        """Set the rows of one tensor."""
        name, part = self._places[stream]
        for limb, row in rows.items():
            self._sums[name].row(limb)[part] = row


class Sums:
    """The sums of all tensors: `masked` by stream, and `dense`; `noise` is that of masked ones, by name."""

    def __init__(self, schema: Schema, noise: Mapping[str, Noise]) -> None:
        self.masked = {s: MaskedSum(t.size, noise.get(t.name)) for s, t in enumerate(schema) if t.masked}
        self.dense = DenseSums(schema)

    def release(self, backend: Backend) -> None:
        """Add all queued masks and free the memory of the queues."""
        for stream, state in self.masked.items():
            state.release(backend, stream)

    def merge(self, other: Sums) -> None:
        """Add the sums of `other`, of the same schema and noise; neither may have queued masks."""
        for stream, mine in self.masked.items():
            mine.noise = other.masked[stream].noise
            mine.sums += other.masked[stream].sums
        self.dense.merge(other.dense)

    def means(self, total: int) -> dict[int, np.ndarray]:
        """Stream -> its mean, flat; no masks may be queued."""
        return {s: state.mean(total) for s, state in self.masked.items()} | self.dense.means(total)

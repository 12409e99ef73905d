"""The integer sums of a schema's tensors, masked and dense, that an aggregator holds (spec 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .. import backends
from ..format.mask_spec import Source
from ..format.schema import Schema
from ..primitives import mask
from ..primitives.codes import MaskKind
from ..primitives.dtypes import DTYPES
from ..primitives.grid import Grid
from ..primitives.noise import Noise
from .counts import MaskCounts
from .exact import ExactSum

BATCH = 16
"""Masks that are added in one pass over the sums."""

MAX_WEIGHT = 2**39 - 1

PRECISION, TILE = 21, 2**20
"""Bits that are left of a sum before it is squared, and sums whose squares add up to an int64."""


class MaskedSum:
    """The integer sums of one masked tensor: of weight * q * m or weight * z over frames (spec 8.2).

    Packed masks are collected in batches of `BATCH`; a full batch is added in one pass over the sums.

    Attributes
    ----------
    noise : Noise, Grid or None
        As the aggregator's caller stated it, or else that of the first frame; None before either.
    sums : numpy.ndarray of int64, shape (size,)
        Without the masks that have not been flushed.
    frames, set_bits : dict of int to int
        By mask kind: the masks that were added here or merged, and their set bits.
    """

    def __init__(self, size: int, noise: Noise | Grid | None) -> None:
        self.noise, self.sums = noise, np.zeros(size, np.int64)
        self.frames, self.set_bits = dict.fromkeys(MaskKind, 0), dict.fromkeys(MaskKind, 0)
        self._pending = 0
        self._heads = np.empty((2, BATCH), np.int64), np.empty(BATCH, np.uint64)
        self._masks = np.empty((BATCH, 0), np.uint8)

    def reserve(self, length: int) -> None:
        """Allocate the batch for masks of this many bytes, if it is not; the sums do not change."""
        if self._masks.shape[1] != length:
            self._masks = np.empty((BATCH, length), np.uint8)

    def add(
        self, backend: backends.Backend, stream: int, kind: int, seed: int, payload: np.ndarray, weight: int
    ) -> None:
        """Add a packed mask to the reserved batch, and flush a full one; `payload` may change afterwards."""
        numbers, seeds = self._heads
        numbers[:, self._pending] = kind, weight
        seeds[self._pending] = seed
        self._masks[self._pending] = payload
        self._pending += 1
        self.frames[MaskKind(kind)] += 1
        self.set_bits[MaskKind(kind)] += mask.count(payload)
        if self._pending == BATCH:
            self.flush(backend, stream)

    def flush(self, backend: backends.Backend, stream: int) -> None:
        """Add the masks of the batch to the sums."""
        n, (numbers, seeds) = self._pending, self._heads
        if n:
            assert isinstance(self.noise, Noise)
            kinds, weights = numbers[:, :n]
            backends.accumulate_many(
                backend, self.noise, kinds, seeds[:n], stream, self._masks[:n], weights, self.sums
            )
        self._pending = 0

    def release(self, backend: backends.Backend, stream: int) -> None:
        """Flush the batch and free its memory."""
        self.flush(backend, stream)
        self._masks = np.empty((BATCH, 0), np.uint8)

    def merge(self, other: MaskedSum) -> None:
        """Add the sums and counts of `other`, whose batch, as this one, must be flushed."""
        self.noise = other.noise
        self.sums += other.sums
        for kind in MaskKind:
            self.frames[kind] += other.frames[kind]
            self.set_bits[kind] += other.set_bits[kind]

    def add_counts(
        self, backend: backends.Backend, stream: int, seed: int, mine: MaskCounts, frames: int, weight: int
    ) -> None:
        """Add the sums of `frames` masks of one seed, each with the weight, from their counts (spec 8.6)."""
        assert mine.noise is not None
        assert mine.kind is not None
        self.noise = mine.noise
        backend.accumulate_counts(mine.noise, mine.kind, seed, stream, mine.counts, frames, weight, self.sums)
        self.frames[mine.kind] += frames
        self.set_bits[mine.kind] += int(mine.counts.sum(dtype=np.int64))

    def energy(self) -> float:
        """The sum of the squares of the sums, to 20 bits; the same on every machine."""
        largest = max(abs(int(self.sums.min())), abs(int(self.sums.max()))) if self.sums.size else 0
        shift = max(largest.bit_length() - PRECISION, 0)
        parts = (self.sums[at : at + TILE] >> shift for at in range(0, len(self.sums), TILE))
        return float(sum(int(np.dot(part, part)) for part in parts)) * 4.0**shift

    def mean(self, backend: backends.Backend, total: int) -> np.ndarray:
        """The mean, sums / total * step in float64, rounded once to float32: shape (size,), [A-03]."""
        assert self.noise is not None
        out = np.empty(len(self.sums), np.float32)
        backend.mean(self.sums, total, self.noise.step, out)
        return out


class DenseSums:
    """The exact sums of all dense tensors (spec 8.4), with one `ExactSum` for all tensors of a dtype.

    A network has dozens of small dense tensors, and a NumPy call for each takes longer than its additions.
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
        """Add weight * each dense tensor; `contents` has a flat array for each tensor of the schema."""
        for name, streams in self._streams.items():
            parts = [contents[stream] for stream in streams]
            self._sums[name].add(parts[0] if len(parts) == 1 else np.concatenate(parts), weight)

    def flush(self) -> None:
        """Add the arrays of the batches to the sums."""
        for exact_sum in self._sums.values():
            exact_sum.flush()

    def merge(self, other: DenseSums, weight: int = 1) -> None:
        """Add weight * the sums of `other`, of the same schema."""
        for name, mine in self._sums.items():
            mine.merge(other._sums[name], weight)

    def means(self, total: int) -> dict[int, np.ndarray]:
        """The mean of each dense tensor by stream, flat; `total` is the sum of weights."""
        means = {name: exact_sum.mean(total) for name, exact_sum in self._sums.items()}
        return {stream: means[name][part] for stream, (name, part) in self._places.items()}

    def rows(self, stream: int) -> list[tuple[int, np.ndarray]]:
        """The limbs of one tensor whose sums are not all 0, ascending, with their sums (spec 8.5)."""
        name, part = self._places[stream]
        rows = ((limb, sums.part(part)) for limb, sums in sorted(self._sums[name].limbs.items()))
        return [(limb, row) for limb, row in rows if row.any()]

    def set_rows(self, stream: int, rows: Mapping[int, np.ndarray]) -> None:
        """Set the sums of one tensor, by limb; they are 0 before."""
        name, part = self._places[stream]
        for limb, row in rows.items():
            self._sums[name].add_row(limb, part.start, row)


class Sums:
    """The sums of all tensors: `masked` by stream, and `dense`; `noise` is that of masked ones, by name.

    `square_weights` is the sum of the squares of the frames' weights; None if a part of the sums comes from
    bytes, which do not have it, nor the counts of `masked` (spec 8.5).
    """

    def __init__(self, schema: Schema, noise: Mapping[str, Noise]) -> None:
        self.square_weights: int | None = 0
        self.masked = {s: MaskedSum(t.size, noise.get(t.name)) for s, t in enumerate(schema) if t.masked}
        self.dense = DenseSums(schema)

    def reserve(self, sources: Mapping[int, Source], contents: Sequence[np.ndarray]) -> None:
        """Allocate what adding these contents needs for masks; nothing changes if memory is lacking."""
        for stream, state in self.masked.items():
            if not isinstance(sources[stream], Grid):
                state.reserve(len(contents[stream]))

    def add(
        self,
        backend: backends.Backend,
        sources: Mapping[int, Source],
        seed: int,
        contents: Sequence[np.ndarray],
        weight: int,
    ) -> None:
        """Add a frame's contents in schema order, flat: packed bits or integers, and elements if dense.

        `sources` says for each masked tensor, by stream, which of the two it is; the caller has compared the
        noise, and reserved the memory.
        """
        for stream, state in self.masked.items():
            source = sources[stream]
            state.noise = noise_of(source)
            if isinstance(source, Grid):
                backend.accumulate_grid(contents[stream], weight, state.sums)
            else:
                state.add(backend, stream, source.kind, seed, contents[stream], weight)
        self.dense.add(contents, weight)
        if self.square_weights is not None:
            self.square_weights += weight**2

    def release(self, backend: backends.Backend) -> None:
        """Flush all batches and free their memory."""
        for stream, state in self.masked.items():
            state.release(backend, stream)
        self.dense.flush()

    def merge(self, other: Sums) -> None:
        """Add the sums of `other`, of the same schema and noise; batches of both must be flushed."""
        for stream, mine in self.masked.items():
            mine.merge(other.masked[stream])
        if self.square_weights is not None and other.square_weights is not None:
            self.square_weights += other.square_weights
        else:
            self.square_weights = None
        self.dense.merge(other.dense)

    def add_tally(
        self,
        backend: backends.Backend,
        counts: Mapping[int, MaskCounts],
        dense: DenseSums,
        seed: int,
        frames: int,
        weight: int,
    ) -> None:
        """Add a tally's sums as those of its frames, each with the weight (spec 8.6), [A-10].

        `counts` is by stream, and `dense` without a weight; the caller has compared the noise.
        """
        for stream, state in self.masked.items():
            state.add_counts(backend, stream, seed, counts[stream], frames, weight)
        self.dense.merge(dense, weight)
        if self.square_weights is not None:
            self.square_weights += frames * weight**2

    def means(self, backend: backends.Backend, total: int) -> dict[int, np.ndarray]:
        """The mean of each tensor by stream, flat; `total` is the sum of weights. Batches must be flushed."""
        return {s: state.mean(backend, total) for s, state in self.masked.items()} | self.dense.means(total)


def noise_of(source: Source) -> Noise | Grid:
    """What must be equal in all frames that are summed, [A-02]: the noise of a mask, or a grid."""
    return source if isinstance(source, Grid) else source.noise

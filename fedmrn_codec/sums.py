"""What an aggregator holds of a schema's tensors: integer sums, of masked ones and of dense ones (spec 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import backends
from .dtypes import DTYPES
from .exact import ExactSum
from .noise import Noise
from .schema import Schema

if TYPE_CHECKING:
    from .backends import Backend

QUEUE = 16
"""Masks that are summed in one pass."""

MAX_WEIGHT = 2**39 - 1


class MaskedSum:
    """The integer sums of one masked tensor: weight * q * m (spec 8.2).

    Masks wait, packed, until there are `QUEUE` of them: a pass over the sums takes them together.

    Attributes
    ----------
    noise : Noise or None
        Of the first frame, unless the aggregator's caller fixed it; None before.
    sums : numpy.ndarray of int64, shape (size,)
        Of what does not wait.
    """

    def __init__(self, size: int, noise: Noise | None) -> None:
        self.noise, self.sums = noise, np.zeros(size, np.int64)
        self._waiting = 0
        self._facts = np.empty((2, QUEUE), np.int64), np.empty(QUEUE, np.uint64)
        self._masks = np.empty((QUEUE, 0), np.uint8)

    def add(self, run: Backend, stream: int, kind: int, seed: int, payload: np.ndarray, weight: int) -> None:
        """Add a packed mask, now or later; `payload` may change afterwards."""
        if self._masks.shape[1] != len(payload):
            self._masks = np.empty((QUEUE, len(payload)), np.uint8)
        numbers, seeds = self._facts
        numbers[:, self._waiting] = kind, weight
        seeds[self._waiting] = seed
        self._masks[self._waiting] = payload
        self._waiting += 1
        if self._waiting == QUEUE:
            self.settle(run, stream)

    def settle(self, run: Backend, stream: int) -> None:
        """Add the masks that wait."""
        n, (numbers, seeds) = self._waiting, self._facts
        if n:
            assert self.noise is not None
            kinds, weights = numbers[:, :n]
            backends.accumulate_many(
                run, self.noise, kinds, seeds[:n], stream, self._masks[:n], weights, self.sums
            )
        self._waiting = 0

    def rest(self, run: Backend, stream: int) -> None:
        """Add the masks that wait, and give their room back: what comes next may need it."""
        self.settle(run, stream)
        self._masks = np.empty((QUEUE, 0), np.uint8)

    def mean(self, total: int) -> np.ndarray:
        """Division first, then the product, then one rounding: float32, shape (size,), [A-03]."""
        assert self.noise is not None
        quotient = self.sums.astype(np.float64) / np.float64(total)
        with np.errstate(under="ignore"):
            return (quotient * np.float64(self.noise.step)).astype(np.float32)


class DenseSums:
    """The exact sums of all dense tensors (spec 8.4), those of one dtype side by side in one `ExactSum`.

    A network has dozens of small ones, and NumPy takes longer to begin with each than to sum it.
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

    def put(self, stream: int, rows: Mapping[int, np.ndarray]) -> None:
        """Set the rows of one tensor."""
        name, part = self._places[stream]
        for limb, row in rows.items():
            self._sums[name].row(limb)[part] = row


class Sums:
    """The sums of all tensors: `masked` by stream, and `dense`; `noise` is that of masked ones, by name."""

    def __init__(self, schema: Schema, noise: Mapping[str, Noise]) -> None:
        self.masked = {s: MaskedSum(t.size, noise.get(t.name)) for s, t in enumerate(schema) if t.masked}
        self.dense = DenseSums(schema)

    def rest(self, run: Backend) -> None:
        """Sum the masks that wait, and give their room back."""
        for stream, state in self.masked.items():
            state.rest(run, stream)

    def merge(self, other: Sums) -> None:
        """Add the sums of `other`, of the same schema and noise; no mask may wait in either."""
        for stream, mine in self.masked.items():
            mine.noise = other.masked[stream].noise
            mine.sums += other.masked[stream].sums
        self.dense.merge(other.dense)

    def means(self, total: int) -> dict[int, np.ndarray]:
        """Stream -> its mean, flat; no mask may wait."""
        return {s: state.mean(total) for s, state in self.masked.items()} | self.dense.means(total)

"""The sums that a tally holds: counts of set bits, and the exact sums of dense tensors (spec 8.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..format.schema import Schema
from ..primitives.codes import MaskKind
from ..primitives.noise import Noise
from .counts import MaskCounts
from .state import DenseSums

MAX_FRAMES = 2**24 - 1


class TallySums:
    """The sums of all tensors: `masked` by stream, and `dense`, without a weight.

    `noise` and `kinds` are what the caller states of masked tensors, by name.
    """

    def __init__(self, schema: Schema, noise: Mapping[str, Noise], kinds: Mapping[str, MaskKind]) -> None:
        self.masked = {
            stream: MaskCounts(tensor.size, noise.get(tensor.name), kinds.get(tensor.name))
            for stream, tensor in enumerate(schema)
            if tensor.masked
        }
        self.dense = DenseSums(schema)

    def reserve(self, frames: int) -> None:
        """Allocate what counts of so many frames need; nothing changes if memory is lacking."""
        for state in self.masked.values():
            state.reserve(frames)

    def add(self, specs: Mapping[int, tuple[Noise, MaskKind]], contents: Sequence[np.ndarray]) -> None:
        """Add a frame's contents in schema order, flat: packed bits, and elements if dense.

        `specs` is the noise and the kind of each masked tensor, by stream, which the caller has compared.
        """
        for stream, state in self.masked.items():
            state.noise, state.kind = specs[stream]
            state.add(contents[stream])
        self.dense.add(contents, 1)

    def merge(self, other: TallySums) -> None:
        """Add the sums of `other`, of the same schema, noise and kinds; its batches must be flushed."""
        for stream, mine in self.masked.items():
            mine.merge(other.masked[stream])
        self.dense.merge(other.dense)

"""The counts of set bits of one masked tensor, over frames of one seed (spec 8.6)."""

from __future__ import annotations

import numpy as np

from ..primitives import mask
from ..primitives.codes import MaskKind
from ..primitives.noise import Noise

BLOCK = 2**16
"""Elements whose bits are unpacked at a time; a multiple of 8."""


def counts_dtype(frames: int) -> np.dtype[np.generic]:
    """The narrowest unsigned type of counts up to `frames`, below 2^24: uint8, uint16 or uint32."""
    return np.min_scalar_type(frames)


class MaskCounts:
    """The number of frames, for each element, whose bit is set.

    Attributes
    ----------
    noise : Noise or None
        As the tally's caller stated it, or else that of the first frame; None before either.
    kind : MaskKind or None
        Likewise.
    counts : numpy.ndarray of uint8, uint16 or uint32, shape (size,)
    """

    def __init__(self, size: int, noise: Noise | None, kind: MaskKind | None) -> None:
        self.noise, self.kind = noise, kind
        self.counts = np.zeros(size, np.uint8)

    def reserve(self, frames: int) -> None:
        """Take a type that holds counts up to `frames`; no count changes."""
        wider = np.promote_types(self.counts.dtype, counts_dtype(frames))
        self.counts = self.counts.astype(wider, copy=False)

    def add(self, payload: np.ndarray) -> None:
        """Count the set bits of a packed mask; the type must hold one frame more."""
        for at in range(0, len(self.counts), BLOCK):
            part = self.counts[at : at + BLOCK]
            part += mask.unpack(payload[at // 8 :], len(part))

    def merge(self, other: MaskCounts) -> None:
        """Add the counts of `other`, of the same noise and kind; the type must hold the sums."""
        self.noise, self.kind = other.noise, other.kind
        self.counts += other.counts

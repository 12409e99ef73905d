"""TernGrad (Wen et al., NeurIPS 2017), applied to the update of a round instead of the gradient of a step.

"TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning". Each layer is clipped to c
standard deviations (c = 2.5 in the paper). The client then sends s * sign(g) with probability |g| / s, and 0
otherwise, where s is the largest magnitude. This is unbiased for the clipped update. A part is s as float32,
then five trits in each byte: 1.6 bits for a parameter.
"""

from __future__ import annotations

import struct
from typing import Any, ClassVar

import numpy as np

from ..messages import Part
from ..settings import Settings
from . import Task, register
from .packed import PackedMethod
from .packing import pack_trits, unpack_trits


@register("terngrad")
class TernGrad(PackedMethod):
    """A trit for each parameter, and a float32 for each tensor.

    Options: `clip`, in standard deviations of the tensor's update; 0 turns clipping off.
    """

    ID = 3
    OPTIONS: ClassVar[dict[str, Any]] = {"clip": 2.5}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.require("clip", self.options["clip"] >= 0, "at least 0")

    def pack(self, update: np.ndarray, stream: int, task: Task) -> bytes:
        """Clip one tensor, and encode a random ternary sample."""
        clipped = clip(update, self.options["clip"])
        s = np.float32(np.abs(clipped).max(initial=0))
        draws = np.random.default_rng([task.private_seed, stream]).random(len(update), np.float32)
        trits = np.where(draws * s < np.abs(clipped), np.sign(clipped), 0)
        return struct.pack("<f", s) + pack_trits(trits.astype(np.int64))

    def unpack(self, part: Part, size: int, stream: int, seed: int) -> np.ndarray:
        """Decode trits times scale."""
        if len(part.data) < 4:
            raise part.error("scale", "4 bytes", f"{len(part.data)} bytes")
        (s,) = struct.unpack_from("<f", part.data)
        if not (np.isfinite(s) and s >= 0):
            raise part.error("scale", "a finite value that is not negative", s)
        values: np.ndarray = unpack_trits(part, 4, size).astype(np.float32) * np.float32(s)
        return values


def clip(update: np.ndarray, deviations: float) -> np.ndarray:
    """Clip the update to this many of its standard deviations; 0 leaves it unchanged."""
    if deviations == 0:
        return update
    bound = np.float32(deviations * update.std(dtype=np.float64))
    clipped: np.ndarray = np.clip(update, -bound, bound)
    return clipped

"""EDEN at one bit (Vargaftik et al., ICML 2022).

"EDEN: Communication-Efficient and Robust Distributed Mean Estimation for Federated Learning". The client
rotates the update at random and normalises it to unit variance. It quantises each element to the nearest
Lloyd-Max centroid of the normal distribution, at one bit -sqrt(2/pi) or +sqrt(2/pi), and sends a scale that
makes the decoded vector unbiased: ||x||^2 / <centroids, rotated>. The normalised squared error for a long
vector is pi/2 - 1 = 0.571.

EDEN generalises DRIVE with the unbiased scale to other rates. At one bit the two estimators are equal up to
rounding; only the number that is sent as the scale differs. Rotation and chunks are those of `drive.py`.
"""

from __future__ import annotations

import math

import numpy as np

from ..messages import Part
from . import Task, register
from .onebit import pack_signs, ratio, unpack_signs
from .packed import PackedMethod

CENTROID = math.sqrt(2 / math.pi)


def scale(rotated: np.ndarray) -> float:
    """||x||^2 / <centroids, rotated>."""
    r = rotated.astype(np.float64)
    return ratio(float(r @ r), CENTROID * float(np.abs(r).sum()))


@register("eden")
class Eden(PackedMethod):
    """One bit for each parameter, and a float32 for each chunk. No options."""

    ID = 2

    def pack(self, update: np.ndarray, stream: int, task: Task) -> bytes:
        """Encode the signs of the rotated tensor, and a scale for each chunk."""
        return pack_signs(update, task.seed, stream, scale)

    def unpack(self, part: Part, size: int, stream: int, seed: int) -> np.ndarray:
        """Rotate the scaled centroids back."""
        return unpack_signs(part, size, seed, stream, CENTROID)

"""The message part of DRIVE and EDEN at one bit: the signs of a rotated vector, and a scale for each chunk.

A part is one float32 for each chunk, then one bit for each element: 1 where the rotated element is not
negative.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..messages import Part
from .packing import unpack_bits
from .rotation import chunk_lengths, chunks, rotate, rotate_back


def pack_signs(update: np.ndarray, seed: int, stream: int, scale: Callable[[np.ndarray], float]) -> bytes:
    """Rotate a vector, and encode its signs and scales.

    Parameters
    ----------
    update : float32, shape (n,)
    seed, stream : int
        Of the rotation.
    scale : callable
        Computes the scale of a rotated chunk: finite and >= 0.
    """
    rotated = rotate(update, seed, stream)
    scales = np.array([scale(chunk) for chunk in chunks(rotated)], "<f4")
    return scales.tobytes() + np.packbits(rotated >= 0, bitorder="little").tobytes()


def unpack_signs(part: Part, size: int, seed: int, stream: int, unit: float = 1.0) -> np.ndarray:
    """Decode the vector whose rotation is sign * scale * `unit`: float32, shape (size,).

    Raises
    ------
    MessageError
        The part has another length, or a scale is negative or not finite.
    """
    lengths = chunk_lengths(size)
    if len(part.data) < 4 * len(lengths):
        raise part.error(
            "scales", f"{4 * len(lengths)} bytes for {len(lengths)} lengths", f"{len(part.data)} bytes"
        )
    scales = np.frombuffer(part.data, "<f4", len(lengths))
    allowed = np.isfinite(scales) & (scales >= 0)
    if not allowed.all():
        first = int(np.argmin(allowed))
        raise part.error("scale", "a finite value that is not negative", scales[first], 4 * first)
    bits, end = unpack_bits(part, 4 * len(lengths), size, "signs")
    if end != len(part.data):
        raise part.error("length of the part", f"{end} bytes of fields", len(part.data), end)
    reach = np.repeat(scales * np.float32(unit), lengths)
    return rotate_back(np.where(bits, reach, -reach), seed, stream)


def ratio(above: float, below: float) -> float:
    """A quotient that is finite as float32; 0 for a chunk of zeros."""
    return min(above / below, float(np.finfo(np.float32).max)) if below > 0 else 0.0

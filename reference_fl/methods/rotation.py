"""Randomised Hadamard rotations of vectors of any length, without padding.

A vector is split into chunks whose lengths are the powers of two that add up to its length, the largest
first: 389,920 elements are 262,144 + 65,536 + ... + 32. Padding to 524,288 would cost 1.34 bits an element
instead of 1. Each chunk is multiplied by random signs, then by the Hadamard matrix divided by the square root
of its length. This map is orthogonal; its inverse is the same two steps in reverse order.
"""

from __future__ import annotations

import math

import numpy as np

import fedmrn_codec as fm


def chunk_lengths(size: int) -> list[int]:
    """The powers of two that add up to `size`, the largest first."""
    return [1 << bit for bit in reversed(range(size.bit_length())) if size >> bit & 1]


def chunks(vector: np.ndarray) -> list[np.ndarray]:
    """Views of the chunks of a flat vector."""
    return np.split(vector, np.cumsum(chunk_lengths(len(vector)))[:-1])


def signs(seed: int, stream: int, size: int) -> np.ndarray:
    """Random signs from the codec's noise (spec 3.3): float32 of -1 and 1, shape (size,)."""
    return fm.noise(fm.Bernoulli(1.0), seed=seed, stream=stream, count=size)


def rotate(vector: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """Rotate a vector chunk by chunk.

    Parameters
    ----------
    vector : float32, shape (n,)
    seed, stream : int
        Of the signs. The server chooses the seed; the stream is the tensor's position in the schema.

    Returns
    -------
    float32, shape (n,)
    """
    signed = vector * signs(seed, stream, len(vector))
    return np.concatenate([hadamard(chunk) for chunk in chunks(signed)])


def rotate_back(vector: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """The inverse of `rotate`, up to rounding."""
    turned = np.concatenate([hadamard(chunk) for chunk in chunks(vector)])
    back: np.ndarray = turned * signs(seed, stream, len(vector))
    return back


def hadamard(vector: np.ndarray) -> np.ndarray:
    """The orthonormal Walsh-Hadamard transform of a vector whose length is a power of two; float32.

    The vector is treated as a matrix: the butterflies of the high index bits add whole rows; those of the low
    bits do the same after a transposition. Every step adds long contiguous pieces, in a fixed order.
    """
    bits = len(vector).bit_length() - 1
    rows = 1 << (bits - bits // 2)
    matrix = np.array(vector, np.float32).reshape(rows, -1)
    _butterflies(matrix)
    matrix = np.ascontiguousarray(matrix.T)
    _butterflies(matrix)
    matrix *= np.float32(1 / math.sqrt(len(vector)))
    return np.ascontiguousarray(matrix.T).reshape(-1)


def _butterflies(matrix: np.ndarray) -> None:
    """Transform each column in place, without scaling."""
    half = 1
    while half < len(matrix):
        pairs = matrix.reshape(-1, 2, half, matrix.shape[1])
        upper, lower = pairs[:, 0], pairs[:, 1]
        difference = upper - lower
        upper += lower
        lower[...] = difference
        half *= 2

"""Masks (spec 4): packing bits, applying them to noise, and sampling them, in NumPy."""

from __future__ import annotations

import numpy as np

from .codes import MaskKind

_SET_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


def pack(bits: np.ndarray) -> np.ndarray:
    """Pack booleans of any shape into uint8: element i is bit i mod 8 of byte i div 8 (spec 4.1)."""
    return np.packbits(bits.reshape(-1), bitorder="little")


def unpack(payload: np.ndarray, count: int) -> np.ndarray:
    """Unpack the first `count` bits of packed bytes (uint8): bool, shape (count,) (spec 4.1)."""
    return np.unpackbits(payload, count=count, bitorder="little").view(np.bool_)


def padding_is_zero(payload: np.ndarray, count: int) -> bool:
    """Whether no bit of packed bytes after element `count` - 1 is set, [M-01]."""
    return count % 8 == 0 or int(payload[-1]) >> (count % 8) == 0


def count(payload: np.ndarray) -> int:
    """The number of set bits of packed bytes (uint8)."""
    return int(_SET_BITS[payload].sum(dtype=np.int64))


def apply(noise: np.ndarray, bits: np.ndarray, kind: int) -> np.ndarray:
    """Noise (float32) or draws (signed integers) times a mask of the same shape, given as bool (spec 4.2)."""
    return np.where(bits, noise, noise.dtype.type(0) if kind == MaskKind.BINARY else -noise)


def factors(counts: np.ndarray, frames: int, kind: int) -> np.ndarray:
    """What multiplies a draw in the sum of `frames` masks of one seed (spec 8.6): int32, shape (n,).

    `counts` is the number of masks whose bit is set: unsigned integers of at most `frames` < 2^24.
    """
    out = counts.astype(np.int32)
    if kind == MaskKind.SIGNED:
        out *= 2
        out -= np.int32(frames)
    return out


def sample(update: np.ndarray, noise: np.ndarray, draws: np.ndarray, kind: int) -> np.ndarray:
    """Sample the mask of an update (spec 4.3), [M-04].

    Parameters
    ----------
    update, noise : float32, shape (n,)
    draws : unsigned integers r below 2^24, shape (n,)
    kind : int
        A `MaskKind`.

    Returns
    -------
    numpy.ndarray of bool, shape (n,)
    """
    with np.errstate(over="ignore", under="ignore"):
        p = update / noise
        binary = kind == MaskKind.BINARY
        threshold = p * np.float32(2**24) if binary else (p + np.float32(1)) * np.float32(2**23)
        bits: np.ndarray = draws.astype(np.float32) < threshold
    return bits

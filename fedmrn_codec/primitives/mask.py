"""Masks (spec 4): the packing of bits, what a bit does to the noise, and how bits are sampled."""

from __future__ import annotations

import numpy as np

from .codes import MaskKind


def pack(bits: np.ndarray) -> np.ndarray:
    """Booleans of any shape as packed bytes, element i in bit i mod 8 of byte i div 8 (spec 4.1)."""
    return np.packbits(bits.reshape(-1), bitorder="little")


def unpack(payload: np.ndarray, count: int) -> np.ndarray:
    """The first `count` bits of packed bytes, as booleans of shape (count,)."""
    return np.unpackbits(payload, count=count, bitorder="little").view(np.bool_)


def padding_is_zero(payload: np.ndarray, count: int) -> bool:
    """[M-01]: no bit beyond element count - 1 is set."""
    return count % 8 == 0 or int(payload[-1]) >> (count % 8) == 0


def apply(noise: np.ndarray, bits: np.ndarray, kind: int) -> np.ndarray:
    """Keep, drop or negate the noise (spec 4.2); works on float32 noise and on integer draws alike."""
    return np.where(bits, noise, noise.dtype.type(0) if kind == MaskKind.BINARY else -noise)


def sample(update: np.ndarray, noise: np.ndarray, draws: np.ndarray, kind: int) -> np.ndarray:
    """The stochastic mask of an update (spec 4.3), [M-04].

    Parameters
    ----------
    update, noise : float32, shape (n,)
    draws : unsigned integers below 2^24, shape (n,)
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

"""Fields of a few bits in 64-bit words: sums and differences of all of them at once (spec/SECAGG.md 6.2).

With the top bit of each field cleared in both operands, a sum of words has no carry from one field into the
next; a carry out of a word belongs to the field that goes on in the next word. The exclusive or of the top
bits completes the sum. The work for a word does not depend on the number of its fields.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

WORD_BITS = 64
CHUNK = 2**13
"""Words that are added at a time, about: 64 KB, which stay in the cache with the pad of the same size."""

LEAST_COMPILED = CHUNK // 2
"""Words from which on Numba's kernel is used, if it is installed: it takes time to load."""


@cache
def chunk_words(bits: int) -> int:
    """The words of a chunk: no field goes beyond it, and it is a whole number of blocks of ChaCha20."""
    return 8 * bits * max(1, CHUNK // (8 * bits))


@cache
def top_bits(bits: int) -> np.ndarray:
    """The top bit of each field of a chunk: uint64, shape (chunk_words(bits),); not to be written to."""
    words = chunk_words(bits)
    pattern = np.zeros(WORD_BITS * bits, np.uint8)
    pattern[bits - 1 :: bits] = 1
    out = np.tile(np.packbits(pattern, bitorder="little").view("<u8"), words // bits).astype(np.uint64)
    out.flags.writeable = False
    return out


def combine(into: np.ndarray, other: np.ndarray, bits: int, negative: bool) -> None:
    """Add fields to those of `into`, or subtract them, modulo 2^bits.

    Parameters
    ----------
    into, other : numpy.ndarray of uint64, shape (n,)
        A chunk, or the last part of a string; n is at most `chunk_words(bits)`.
    bits : int
        Of a field.
    negative : bool
        Subtract.
    """
    kernel = _kernel(len(into))
    if kernel is None:
        (subtract if negative else add)(into, other, top_bits(bits)[: len(into)])
    else:
        kernel(into, other, top_bits(bits), negative)


def add(into: np.ndarray, other: np.ndarray, top: np.ndarray) -> None:
    """Add fields with NumPy; `top` has the top bit of each."""
    low = ~top
    first = into & low
    total = first + (other & low)
    carry = total < first
    into ^= other
    into &= top
    total[1:] += carry[:-1]
    into ^= total


def subtract(into: np.ndarray, other: np.ndarray, top: np.ndarray) -> None:
    """Subtract fields with NumPy; `top` has the top bit of each."""
    first, second = into | top, other & ~top
    borrow = first < second
    into ^= ~other
    into &= top
    first -= second
    first[1:] -= borrow[:-1]
    into ^= first


def _kernel(words: int) -> Any:
    """Numba's kernel, or None where it is not installed or not worth it."""
    if words < LEAST_COMPILED or sys.byteorder != "little" or not _installed():
        return None
    from . import numba_fields

    return numba_fields.combine


@cache
def _installed() -> bool:
    return find_spec("numba") is not None


def spread(packed: np.ndarray, bits: int, weight: int) -> np.ndarray:
    """The fields of a mask: each bit times the weight.

    Parameters
    ----------
    packed : numpy.ndarray of uint8, shape (n,)
        A packed mask (FORMAT.md 4.1).
    bits : int
        Of a field; 2^bits is more than the weight.
    weight : int

    Returns
    -------
    numpy.ndarray of uint8, shape (n * bits,)
    """
    return np.take(_table(bits, weight), packed, axis=0).reshape(-1)


@cache
def _table(bits: int, weight: int) -> np.ndarray:
    """The eight fields of each byte of a mask: uint8, shape (256, bits)."""
    rows = (
        sum(weight << (bits * j) for j in range(8) if byte >> j & 1).to_bytes(bits, "little")
        for byte in range(256)
    )
    return np.frombuffer(b"".join(rows), np.uint8).reshape(256, bits)


def values(packed: np.ndarray, bits: int) -> np.ndarray:
    """The numbers in fields.

    Parameters
    ----------
    packed : numpy.ndarray of uint8, shape (n * bits,)
        n groups of eight fields.
    bits : int
        At most 24.

    Returns
    -------
    numpy.ndarray of uint32, shape (8 * n,)
    """
    groups = packed.reshape(-1, bits)
    out = np.empty((len(groups), 8), np.uint32)
    for field in range(8):
        first, shift = divmod(bits * field, 8)
        last = (bits * field + bits - 1) // 8
        total = groups[:, first].astype(np.uint32)
        for byte in range(first + 1, last + 1):
            total |= groups[:, byte].astype(np.uint32) << np.uint32(8 * (byte - first))
        out[:, field] = (total >> np.uint32(shift)) & np.uint32(2**bits - 1)
    return out.reshape(-1)

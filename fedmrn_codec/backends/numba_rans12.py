"""The steps of coding 4 (spec 6.10, 6.11), compiled: block by block, with the noise of a tile at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..primitives.noise import Noise
from . import tiles
from .compiled import jit
from .numba import frozen, place
from .numba_rans import add_counts, buckets, count, count_tile, encode_blocks
from .rans_parts import BLOCK, BUCKETS, LANES, LOWEST, Coded, blocks, shift
from .threads import spread
from .tiles import TILE

__all__ = ["count", "decode", "encode"]

GROUP = 256
"""Blocks that the encoder holds the words of at a time."""

RECIPROCALS = np.array([0, *(2**44 // f for f in range(1, 4096))], np.uint64)
"""2^44 / f, rounded down: (x * RECIPROCALS[f] + 2^32) >> 44 is x // f for x < f * 2^20; no product overflows.

The product is less than x / f * 2^44 by less than 2^32, and a remainder, if not 0, is at least 1 / f > 2^-12.
"""


def encode(
    noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    fixed = frozen(payload), size, frozen(probabilities), shift(noise), place(noise, seed, stream)
    return encode_blocks(_encode, fixed, blocks(size), 1, GROUP, BLOCK)


def decode(
    noise: Noise, seed: int, stream: int, coded: Coded, out: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum(coded.counts)
    fine, counts = np.zeros(len(ends), np.bool_), np.zeros((len(ends), 2, BUCKETS), np.int64)
    given = coded.states, coded.counts, ends, coded.words
    fixed = size, frozen(coded.probabilities), shift(noise), place(noise, seed, stream)
    spread(lambda a, b: _decode(out, fine, counts, a, b, given, fixed), len(ends), 1)
    ones, totals = counts.sum(0)
    return np.flatnonzero(~fine), ones, totals


@jit
def _encode(out: Any, first: Any, begin: Any, end: Any, mask: Any) -> None:
    """Code blocks, each from its last element to its first; the words fill words[block] from its end."""
    states, counts, words = out
    payload, size, probabilities, shift, place = mask
    scratch = tiles.scratch()
    bits, eight = scratch[3], scratch[4]
    keys, starts, f = np.empty(TILE, np.uint8), np.empty(TILE, np.uint32), np.empty(TILE, np.uint32)
    for b in range(begin, end):
        x, pos, start = np.uint32(LOWEST), np.uint64(BLOCK), (first + b) * BLOCK
        stop = min(start + BLOCK, size)
        for tile in range(-(-(stop - start) // TILE) - 1, -1, -1):
            at = start + tile * TILE
            n = min(TILE, stop - at)
            buckets(keys, scratch, np.uint64(at // TILE), shift, place)
            tiles.unpack(eight, payload[at // 8 : (at + n + 7) // 8])
            for i in range(TILE):
                probability = np.uint32(probabilities[keys[i]])
                f[i] = probability if bits[i] else np.uint32(4096) - probability
                starts[i] = np.uint32(0) if bits[i] else probability
            x, pos = _encode_tile(words[b], pos, x, f[:n], starts)
        states[b, 0] = x
        counts[b] = np.int64(BLOCK) - np.int64(pos)


@jit
def _encode_tile(words: Any, pos: Any, x: Any, f: Any, starts: Any) -> Any:
    """Code symbols of these frequencies and starts, the last one first: the state, and the next position.

    With v = x div f, the next state (v << 12) + x mod f + start is x + start + v * (4096 - f).
    """
    for k in range(np.uint64(len(f))):
        i = np.uint64(len(f)) - np.uint64(1) - k
        if x >= np.uint32(f[i] << np.uint32(20)):
            pos -= np.uint64(1)
            words[pos] = np.uint16(x)
            x = np.uint32(x >> np.uint32(16))
        over = np.uint32((np.uint64(x) * RECIPROCALS[f[i]] + np.uint64(2**32)) >> np.uint64(44))
        x = np.uint32(np.uint32(x + starts[i]) + np.uint32(over * np.uint32(np.uint32(4096) - f[i])))
    return x, pos


@jit
def _decode(out: Any, fine: Any, counts: Any, begin: Any, end: Any, coded: Any, mask: Any) -> None:
    """Decode blocks into packed bits, set fine[block] if its end is right, and count as `count` does."""
    states, lengths, ends, words = coded
    size, probabilities, shift, place = mask
    scratch = tiles.scratch()
    bits, eight = scratch[3], scratch[4]
    keys, p = np.empty(TILE, np.uint8), np.empty(TILE, np.uint32)
    table, its = np.zeros((LANES, 2 * BUCKETS), np.int64), np.zeros(BLOCK, np.uint16)
    for b in range(begin, end):
        x, pos = states[b, 0], np.uint64(0)
        # An element reads at most one word; a block that reads too many ends at a wrong position.
        its[: lengths[b]] = words[ends[b] - lengths[b] : ends[b]]
        for at in range(b * BLOCK, min((b + 1) * BLOCK, size), TILE):
            n = min(TILE, size - at)
            buckets(keys, scratch, np.uint64(at // TILE), shift, place)
            for i in range(TILE):
                p[i] = probabilities[keys[i]]
            x, pos = _decode_tile(bits, x, p[:n], its, pos)
            for i in range(n, -(-n // 8) * 8):
                bits[i] = 0
            tiles.pack(out[at // 8 : (at + n + 7) // 8], eight)
            count_tile(table, keys[:n], bits)
        add_counts(counts[b], table)
        fine[b] = pos == np.uint64(lengths[b]) and x == np.uint32(LOWEST)


@jit
def _decode_tile(bits: Any, x: Any, p: Any, words: Any, pos: Any) -> Any:
    """Decode a tile into `bits`, a byte each: the state, and the next position.

    There is no branch on the bit, which is unpredictable, but few elements need a word. The order of the
    operations keeps the chain from one state to the next short.
    """
    for i in range(np.uint64(len(p))):
        low, share = x & np.uint32(4095), np.uint32(p[i] * (x >> np.uint32(12)))
        bit = low < p[i]
        bits[i] = bit
        x = np.uint32(share + low) if bit else np.uint32(np.uint32(x - p[i]) - share)
        if x < np.uint32(LOWEST):
            x = np.uint32(np.uint32(x << np.uint32(16)) | np.uint32(words[pos]))
            pos += np.uint64(1)
    return x, pos

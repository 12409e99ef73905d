"""The steps of coding 1 (spec 6.8), compiled: block by block, with the noise of a tile at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..primitives.noise import Noise
from . import tiles
from .compiled import jit
from .numba import frozen, place
from .rans_parts import BLOCK, BUCKETS, LANES, LOWEST, Coded, blocks, shift
from .threads import spread
from .tiles import BERNOULLI, TILE

GROUP = 256
"""Blocks that the encoder holds the words of at a time."""

MOST_WORDS = BLOCK // 2 + LANES
"""The most words of a block: at most eight bits per element, and the initial states."""

RECIPROCALS = np.array([0, *(-(-(2**40) // f) for f in range(1, 256))], np.uint64)
"""2^40 / f, rounded up: x * RECIPROCALS[f] is less than 2^64, and >> 40 gives x // f, for x < f * 2^24."""


def count(
    noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    counts = np.zeros((blocks(size), 2, BUCKETS), np.int64)
    fixed = frozen(payload), size, shift(noise), place(noise, seed, stream)
    spread(lambda a, b: _count(counts, a, b, *fixed), len(counts), 1)
    ones, totals = counts.sum(0)
    return ones, totals


def encode(
    noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    fixed = frozen(payload), size, frozen(probabilities), shift(noise), place(noise, seed, stream)
    return encode_blocks(_encode, fixed, blocks(size), LANES, GROUP, MOST_WORDS)


def encode_blocks(
    kernel: Any, fixed: Any, n: int, lanes: int, most_blocks: int, most_words: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The states, counts and words of `Coded` of n blocks, coded in threads, group by group.

    Parameters
    ----------
    kernel : compiled function
        `kernel((states, counts, words), first, begin, end, fixed)` codes the blocks `begin` to `end` - 1 of
        a group whose first block is `first`; the words of a block fill its row of `words` from the end.
    fixed : tuple
        What the kernel needs beside that.
    n, lanes : int
        The number of blocks, and of the states of each.
    most_blocks, most_words : int
        The largest numbers of blocks of a group, and of words of a block.
    """
    states, counts, parts = np.empty((n, lanes), np.uint32), np.zeros(n, np.int64), []
    words = np.empty((min(most_blocks, n), most_words), np.uint16)
    for first in range(0, n, most_blocks):
        group = min(most_blocks, n - first)
        its = states[first : first + group], counts[first : first + group], words
        spread(lambda a, b: kernel(its, first, a, b, fixed), group, 1)  # noqa: B023
        parts += [words[b, most_words - counts[first + b] :].copy() for b in range(group)]
    return states, counts, np.concatenate(parts) if parts else np.empty(0, np.uint16)


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
def buckets(keys: Any, scratch: Any, tile: Any, shift: Any, place: Any) -> None:
    """Write the buckets of a tile's draws into `keys`."""
    if place[0] == BERNOULLI:  # |q| is 1
        keys[:] = 0
        return
    tiles.draw(*scratch, tile, *place)
    q = scratch[1]
    for i in range(TILE):
        keys[i] = np.uint8(min(abs(q[i]) >> shift, np.int32(BUCKETS - 1)))


@jit
def add_counts(counts: Any, table: Any) -> None:
    """Add the table of `count_tile` to counts[0], set bits, and counts[1], elements of each bucket."""
    for k in range(BUCKETS):
        for lane in range(LANES):
            clear, ones = table[lane, k], table[lane, BUCKETS + k]
            counts[0, k] += ones
            counts[1, k] += clear + ones
    table[:] = 0


@jit
def count_tile(table: Any, keys: Any, bits: Any) -> None:
    """Count elements by bucket and bit, in a table for each lane: additions to one number are sequential."""
    for i in range(len(keys)):
        keys[i] += np.uint8(BUCKETS) if bits[i] else np.uint8(0)
    for i in range(len(keys)):
        table[i & 7, keys[i]] += 1


@jit
def _count(counts: Any, begin: Any, end: Any, payload: Any, size: Any, shift: Any, place: Any) -> None:
    """Count set bits and elements of each bucket into counts[block, 0] and counts[block, 1]."""
    scratch = tiles.scratch()
    bits, eight = scratch[3], scratch[4]
    keys, table = np.empty(TILE, np.uint8), np.zeros((LANES, 2 * BUCKETS), np.int64)
    for block in range(begin, end):
        for at in range(block * BLOCK, min((block + 1) * BLOCK, size), TILE):
            n = min(TILE, size - at)
            buckets(keys, scratch, np.uint64(at // TILE), shift, place)
            tiles.unpack(eight, payload[at // 8 : (at + n + 7) // 8])
            count_tile(table, keys[:n], bits)
        add_counts(counts[block], table)


@jit
def _encode(out: Any, first: Any, begin: Any, end: Any, mask: Any) -> None:
    """Code blocks, each from its last element to its first; the words fill words[block] from its end."""
    states, counts, words = out
    payload, size, probabilities, shift, place = mask
    scratch = tiles.scratch()
    bits, eight = scratch[3], scratch[4]
    keys, p, f = np.empty(TILE, np.uint8), np.empty(TILE, np.uint32), np.empty(TILE, np.uint32)
    for b in range(begin, end):
        x = states[b]
        x[:] = LOWEST
        pos, start = np.uint64(MOST_WORDS), (first + b) * BLOCK
        stop = min(start + BLOCK, size)
        for tile in range(-(-(stop - start) // TILE) - 1, -1, -1):
            at = start + tile * TILE
            n = min(TILE, stop - at)
            buckets(keys, scratch, np.uint64(at // TILE), shift, place)
            tiles.unpack(eight, payload[at // 8 : (at + n + 7) // 8])
            for i in range(TILE):
                probability = np.uint32(probabilities[keys[i]])
                f[i] = probability if bits[i] else np.uint32(256) - probability
                p[i] = np.uint32(0) if bits[i] else probability
            pos = _encode_tile(words[b], pos, x, f[:n], p)
        counts[b] = np.int64(MOST_WORDS) - np.int64(pos)


@jit
def _encode_tile(words: Any, pos: Any, x: Any, f: Any, starts: Any) -> Any:
    """Code a tile, its last element first; returns the next position. The states stay in registers."""
    whole = len(f) // 8 * 8
    for i in range(len(f) - 1, whole - 1, -1):
        x[i & 7], pos = _encode_bit(x[i & 7], f[i], starts[i], words, pos)
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for group in range(np.uint64(whole // 8)):
        end = np.uint64(whole) - np.uint64(8) * group
        x7, pos = _encode_bit(x7, f[end - np.uint64(1)], starts[end - np.uint64(1)], words, pos)
        x6, pos = _encode_bit(x6, f[end - np.uint64(2)], starts[end - np.uint64(2)], words, pos)
        x5, pos = _encode_bit(x5, f[end - np.uint64(3)], starts[end - np.uint64(3)], words, pos)
        x4, pos = _encode_bit(x4, f[end - np.uint64(4)], starts[end - np.uint64(4)], words, pos)
        x3, pos = _encode_bit(x3, f[end - np.uint64(5)], starts[end - np.uint64(5)], words, pos)
        x2, pos = _encode_bit(x2, f[end - np.uint64(6)], starts[end - np.uint64(6)], words, pos)
        x1, pos = _encode_bit(x1, f[end - np.uint64(7)], starts[end - np.uint64(7)], words, pos)
        x0, pos = _encode_bit(x0, f[end - np.uint64(8)], starts[end - np.uint64(8)], words, pos)
    x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7] = x0, x1, x2, x3, x4, x5, x6, x7
    return pos


@jit
def _encode_bit(x: Any, f: Any, start: Any, words: Any, pos: Any) -> Any:
    """The state after a bit of `f` 256ths from `start` on, and the next position (spec 6.8); no branches."""
    words[pos - np.uint64(1)] = np.uint16(x)
    full = x >= np.uint32(f << np.uint32(24))
    x = np.uint32(x >> np.uint32(16)) if full else x
    over = np.uint32((np.uint64(x) * RECIPROCALS[f]) >> np.uint64(40))
    x = np.uint32(np.uint32(over << np.uint32(8)) + np.uint32(x - over * f) + start)
    return x, pos - np.uint64(full)


@jit
def _decode(out: Any, fine: Any, counts: Any, begin: Any, end: Any, coded: Any, mask: Any) -> None:
    """Decode blocks into packed bits, set fine[block] if its end is right, and count as `_count` does."""
    states, lengths, ends, words = coded
    size, probabilities, shift, place = mask
    scratch = tiles.scratch()
    bits, eight = scratch[3], scratch[4]
    keys, p = np.empty(TILE, np.uint8), np.empty(TILE, np.uint32)
    x, table = np.empty(LANES, np.uint32), np.zeros((LANES, 2 * BUCKETS), np.int64)
    its = np.zeros(BLOCK, np.uint16)
    for b in range(begin, end):
        x[:] = states[b]
        # An element reads at most one word; a block that reads too many ends at a wrong position.
        its[: lengths[b]] = words[ends[b] - lengths[b] : ends[b]]
        pos = np.uint64(0)
        for at in range(b * BLOCK, min((b + 1) * BLOCK, size), TILE):
            n = min(TILE, size - at)
            buckets(keys, scratch, np.uint64(at // TILE), shift, place)
            for i in range(TILE):
                p[i] = probabilities[keys[i]]
            pos = _decode_tile(bits, x, p[:n], its, pos)
            for i in range(n, -(-n // 8) * 8):
                bits[i] = 0
            tiles.pack(out[at // 8 : (at + n + 7) // 8], eight)
            count_tile(table, keys[:n], bits)
        add_counts(counts[b], table)
        good = pos == np.uint64(lengths[b])
        for lane in range(LANES):
            good = good and x[lane] == np.uint32(LOWEST)
        fine[b] = good


@jit
def _decode_tile(bits: Any, x: Any, p: Any, words: Any, pos: Any) -> Any:
    """Decode a tile into `bits`, a byte each; returns the next position. The states stay in registers."""
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    whole = len(p) // 8 * 8
    for i in range(np.uint64(0), np.uint64(whole), np.uint64(8)):
        bits[i], x0, pos = _decode_bit(x0, p[i], words, pos)
        bits[i + np.uint64(1)], x1, pos = _decode_bit(x1, p[i + np.uint64(1)], words, pos)
        bits[i + np.uint64(2)], x2, pos = _decode_bit(x2, p[i + np.uint64(2)], words, pos)
        bits[i + np.uint64(3)], x3, pos = _decode_bit(x3, p[i + np.uint64(3)], words, pos)
        bits[i + np.uint64(4)], x4, pos = _decode_bit(x4, p[i + np.uint64(4)], words, pos)
        bits[i + np.uint64(5)], x5, pos = _decode_bit(x5, p[i + np.uint64(5)], words, pos)
        bits[i + np.uint64(6)], x6, pos = _decode_bit(x6, p[i + np.uint64(6)], words, pos)
        bits[i + np.uint64(7)], x7, pos = _decode_bit(x7, p[i + np.uint64(7)], words, pos)
    x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7] = x0, x1, x2, x3, x4, x5, x6, x7
    for i in range(whole, len(p)):
        bits[i], x[i & 7], pos = _decode_bit(x[i & 7], p[i], words, pos)
    return pos


@jit
def _decode_bit(x: Any, p: Any, words: Any, pos: Any) -> Any:
    """A bit, the state after it, and the next position (spec 6.8); no branches: bits are unpredictable."""
    low, share = x & np.uint32(255), np.uint32(p * (x >> np.uint32(8)))
    bit = low < p
    x = np.uint32(share + low) if bit else np.uint32(np.uint32(x - share) - p)
    empty = x < np.uint32(LOWEST)
    filled = np.uint32(np.uint32(x << np.uint32(16)) | np.uint32(words[pos]))
    return np.uint8(bit), filled if empty else x, pos + np.uint64(empty)

"""The steps of coding 1 (spec 6.8), compiled: block by block, the words of the noise made tile by tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..primitives.noise import Noise
from . import tiles
from .compiled import jit
from .numba import frozen, place
from .rans_parts import BLOCK, BUCKETS, LANES, LOWEST, Coded, blocks, shift
from .threads import spread
from .tiles import TILE

GROUP = 256
"""Blocks whose words are held at a time by the encoder."""

MOST_WORDS = BLOCK // 2 + LANES
"""Of a block: eight bits an element at the most, and what the states began with."""

RECIPROCALS = np.array([0, *(-(-(2**40) // f) for f in range(1, 256))], np.uint64)
"""2^40 / f, rounded up: x * RECIPROCALS[f] >> 40 is x // f, and less than 2^64, for every x < f * 2^24."""


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
    n = blocks(size)
    states, counts, parts = np.empty((n, LANES), np.uint32), np.zeros(n, np.int64), []
    fixed = frozen(payload), size, frozen(probabilities), shift(noise), place(noise, seed, stream)
    words = np.empty((min(GROUP, n), MOST_WORDS), np.uint16)
    for first in range(0, n, GROUP):
        group = min(GROUP, n - first)
        its = states[first : first + group], counts[first : first + group], words
        spread(lambda a, b: _encode(*its, first, a, b, *fixed), group, 1)  # noqa: B023
        parts += [words[b, MOST_WORDS - counts[first + b] :].copy() for b in range(group)]
    return states, counts, np.concatenate(parts) if parts else np.empty(0, np.uint16)


def decode(
    noise: Noise, seed: int, stream: int, coded: Coded, out: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum(coded.counts)
    fine, counts = np.zeros(len(ends), np.bool_), np.zeros((len(ends), 2, BUCKETS), np.int64)
    given = coded.states, coded.counts, ends, coded.words
    fixed = size, frozen(coded.probabilities), shift(noise), place(noise, seed, stream)
    spread(lambda a, b: _decode(out, fine, counts, a, b, *given, *fixed), len(ends), 1)
    ones, totals = counts.sum(0)
    return np.flatnonzero(~fine), ones, totals


@jit
def _buckets(keys: Any, scratch: Any, tile: Any, shift: Any, place: Any) -> None:
    """The buckets of a tile's draws."""
    tiles.draw(*scratch, tile, *place)
    q = scratch[1]
    for i in range(TILE):
        keys[i] = np.uint8(min(abs(q[i]) >> shift, np.int32(BUCKETS - 1)))


@jit
def _tally(counts: Any, table: Any) -> None:
    """What `_sort` has counted, lane by lane, into counts[0 and 1]: set bits and elements of each bucket."""
    for k in range(BUCKETS):
        for lane in range(LANES):
            clear, ones = table[lane, k], table[lane, BUCKETS + k]
            counts[0, k] += ones
            counts[1, k] += clear + ones
    table[:] = 0


@jit
def _sort(table: Any, keys: Any, bits: Any) -> None:
    """Count elements by bucket and bit; each lane has a table of its own: additions to one number wait."""
    for i in range(len(keys)):
        keys[i] += np.uint8(BUCKETS) if bits[i] else np.uint8(0)
    for i in range(len(keys)):
        table[i & 7, keys[i]] += 1


@jit
def _count(
    counts: Any,
    begin: Any,
    end: Any,
    payload: Any,
    size: Any,
    shift: Any,
    place: Any,
) -> None:
    """Set bits and elements of each bucket, into counts[block, 0 and 1]."""
    scratch = tiles.scratch()
    bits, eight = scratch[3], scratch[4]
    keys, table = np.empty(TILE, np.uint8), np.zeros((LANES, 2 * BUCKETS), np.int64)
    for block in range(begin, end):
        for at in range(block * BLOCK, min((block + 1) * BLOCK, size), TILE):
            n = min(TILE, size - at)
            _buckets(keys, scratch, np.uint64(at // TILE), shift, place)
            tiles.unpack(eight, payload[at // 8 : (at + n + 7) // 8])
            _sort(table, keys[:n], bits)
        _tally(counts[block], table)


@jit
def _encode(
    states: Any,
    counts: Any,
    words: Any,
    first: Any,
    begin: Any,
    end: Any,
    payload: Any,
    size: Any,
    probabilities: Any,
    shift: Any,
    place: Any,
) -> None:
    """Code blocks from the last element to the first; the words fill words[block] from its end."""
    scratch = tiles.scratch()
    bits, eight = scratch[3], scratch[4]
    keys, p, f = np.empty(TILE, np.uint8), np.empty(TILE, np.uint32), np.empty(TILE, np.uint32)
    for b in range(begin, end):
        x = states[b]
        x[:] = LOWEST
        spot, start = np.uint64(MOST_WORDS), (first + b) * BLOCK
        stop = min(start + BLOCK, size)
        for tile in range(-(-(stop - start) // TILE) - 1, -1, -1):
            at = start + tile * TILE
            n = min(TILE, stop - at)
            _buckets(keys, scratch, np.uint64(at // TILE), shift, place)
            tiles.unpack(eight, payload[at // 8 : (at + n + 7) // 8])
            for i in range(TILE):
                chance = np.uint32(probabilities[keys[i]])
                f[i] = chance if bits[i] else np.uint32(256) - chance
                p[i] = np.uint32(0) if bits[i] else chance
            spot = _give(words[b], spot, x, f[:n], p)
        counts[b] = np.int64(MOST_WORDS) - np.int64(spot)


@jit
def _give(words: Any, spot: Any, x: Any, f: Any, starts: Any) -> Any:
    """Code a tile, its last element first, and return the next spot; the eight states stay in registers."""
    whole = len(f) // 8 * 8
    for i in range(len(f) - 1, whole - 1, -1):
        x[i & 7], spot = _put(x[i & 7], f[i], starts[i], words, spot)
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for group in range(np.uint64(whole // 8)):
        end = np.uint64(whole) - np.uint64(8) * group
        x7, spot = _put(x7, f[end - np.uint64(1)], starts[end - np.uint64(1)], words, spot)
        x6, spot = _put(x6, f[end - np.uint64(2)], starts[end - np.uint64(2)], words, spot)
        x5, spot = _put(x5, f[end - np.uint64(3)], starts[end - np.uint64(3)], words, spot)
        x4, spot = _put(x4, f[end - np.uint64(4)], starts[end - np.uint64(4)], words, spot)
        x3, spot = _put(x3, f[end - np.uint64(5)], starts[end - np.uint64(5)], words, spot)
        x2, spot = _put(x2, f[end - np.uint64(6)], starts[end - np.uint64(6)], words, spot)
        x1, spot = _put(x1, f[end - np.uint64(7)], starts[end - np.uint64(7)], words, spot)
        x0, spot = _put(x0, f[end - np.uint64(8)], starts[end - np.uint64(8)], words, spot)
    x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7] = x0, x1, x2, x3, x4, x5, x6, x7
    return spot


@jit
def _put(x: Any, f: Any, start: Any, words: Any, spot: Any) -> Any:
    """The state after a bit whose share of the 256 is `f`, from `start` on (spec 6.8); no branches."""
    words[spot - np.uint64(1)] = np.uint16(x)
    full = x >= np.uint32(f << np.uint32(24))
    x = np.uint32(x >> np.uint32(16)) if full else x
    over = np.uint32((np.uint64(x) * RECIPROCALS[f]) >> np.uint64(40))
    x = np.uint32(np.uint32(over << np.uint32(8)) + np.uint32(x - over * f) + start)
    return x, spot - np.uint64(full)


@jit
def _decode(
    out: Any,
    fine: Any,
    counts: Any,
    begin: Any,
    end: Any,
    states: Any,
    lengths: Any,
    ends: Any,
    words: Any,
    size: Any,
    probabilities: Any,
    shift: Any,
    place: Any,
) -> None:
    """Decode blocks into packed bits; fine[block] if it ends as it must; what `_count` counts, on the way."""
    scratch = tiles.scratch()
    bits, eight = scratch[3], scratch[4]
    keys, p = np.empty(TILE, np.uint8), np.empty(TILE, np.uint32)
    x, table = np.empty(LANES, np.uint32), np.zeros((LANES, 2 * BUCKETS), np.int64)
    its = np.zeros(BLOCK, np.uint16)
    for b in range(begin, end):
        x[:] = states[b]
        # No element needs more than one word. Who reads behind the block's ends at another spot: it is bad.
        its[: lengths[b]] = words[ends[b] - lengths[b] : ends[b]]
        spot = np.uint64(0)
        for at in range(b * BLOCK, min((b + 1) * BLOCK, size), TILE):
            n = min(TILE, size - at)
            _buckets(keys, scratch, np.uint64(at // TILE), shift, place)
            for i in range(TILE):
                p[i] = probabilities[keys[i]]
            spot = _take(bits, x, p[:n], its, spot)
            for i in range(n, -(-n // 8) * 8):
                bits[i] = 0
            tiles.pack(out[at // 8 : (at + n + 7) // 8], eight)
            _sort(table, keys[:n], bits)
        _tally(counts[b], table)
        good = spot == np.uint64(lengths[b])
        for lane in range(LANES):
            good = good and x[lane] == np.uint32(LOWEST)
        fine[b] = good


@jit
def _take(bits: Any, x: Any, p: Any, words: Any, spot: Any) -> Any:
    """A tile's bits into `bits`, as bytes; returns the next spot. The eight states stay in registers."""
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    whole = len(p) // 8 * 8
    for i in range(np.uint64(0), np.uint64(whole), np.uint64(8)):
        bits[i], x0, spot = _get(x0, p[i], words, spot)
        bits[i + np.uint64(1)], x1, spot = _get(x1, p[i + np.uint64(1)], words, spot)
        bits[i + np.uint64(2)], x2, spot = _get(x2, p[i + np.uint64(2)], words, spot)
        bits[i + np.uint64(3)], x3, spot = _get(x3, p[i + np.uint64(3)], words, spot)
        bits[i + np.uint64(4)], x4, spot = _get(x4, p[i + np.uint64(4)], words, spot)
        bits[i + np.uint64(5)], x5, spot = _get(x5, p[i + np.uint64(5)], words, spot)
        bits[i + np.uint64(6)], x6, spot = _get(x6, p[i + np.uint64(6)], words, spot)
        bits[i + np.uint64(7)], x7, spot = _get(x7, p[i + np.uint64(7)], words, spot)
    x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7] = x0, x1, x2, x3, x4, x5, x6, x7
    for i in range(whole, len(p)):
        bits[i], x[i & 7], spot = _get(x[i & 7], p[i], words, spot)
    return spot


@jit
def _get(x: Any, p: Any, words: Any, spot: Any) -> Any:
    """A bit, the state after it, and the next spot (spec 6.8); no branches, since none could be foreseen."""
    low, share = x & np.uint32(255), np.uint32(p * (x >> np.uint32(8)))
    bit = low < p
    x = np.uint32(share + low) if bit else np.uint32(np.uint32(x - share) - p)
    empty = x < np.uint32(LOWEST)
    filled = np.uint32(np.uint32(x << np.uint32(16)) | np.uint32(words[spot]))
    return np.uint8(bit), filled if empty else x, spot + np.uint64(empty)

"""The steps of coding 1 (spec 6.8), compiled: block by block, the words of the noise made tile by tile."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..noise import Noise
from ..rans import BLOCK, BUCKETS, LANES, LOWEST, Coded, blocks, shift
from . import tiles
from .compiled import jit
from .numba import frozen, place
from .threads import spread
from .tiles import TILE

GROUP = 256
"""Blocks whose words are held at a time by the encoder."""

MOST_WORDS = BLOCK // 2 + LANES
"""Of a block: eight bits an element at the most, and what the states began with."""

TILES = BLOCK // TILE


def count(
    noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    counts = np.zeros((blocks(size), 2, BUCKETS), np.int64)
    fixed = frozen(payload), size, shift(noise), place(noise, seed, stream)
    spread(lambda a, b: _count(counts, a, b, *fixed), len(counts), 1)
    ones, totals = counts.sum(0)
    return ones, totals


def squeeze(
    noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int, odds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = blocks(size)
    states, counts, parts = np.empty((n, LANES), np.uint32), np.zeros(n, np.int64), []
    fixed = frozen(payload), size, frozen(odds), shift(noise), place(noise, seed, stream)
    words = np.empty((min(GROUP, n), MOST_WORDS), np.uint16)
    for first in range(0, n, GROUP):
        group = min(GROUP, n - first)
        its = states[first : first + group], counts[first : first + group], words
        spread(lambda a, b: _squeeze(*its, first, a, b, *fixed), group, 1)  # noqa: B023
        parts += [words[b, MOST_WORDS - counts[first + b] :].copy() for b in range(group)]
    return states, counts, np.concatenate(parts) if parts else np.empty(0, np.uint16)


def stretch(
    noise: Noise, seed: int, stream: int, coded: Coded, out: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum(coded.counts)
    fine, counts = np.zeros(len(ends), np.bool_), np.zeros((len(ends), 2, BUCKETS), np.int64)
    given = coded.states, coded.counts, ends, coded.words
    fixed = size, frozen(coded.odds), shift(noise), place(noise, seed, stream)
    spread(lambda a, b: _stretch(out, fine, counts, a, b, *given, *fixed), len(ends), 1)
    ones, totals = counts.sum(0)
    return np.flatnonzero(~fine), ones, totals


@jit
def _bucket(q: Any, shift: Any) -> Any:
    return min(abs(q) >> shift, np.int32(BUCKETS - 1))


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
    q = scratch[1]
    for block in range(begin, end):
        ones, totals = counts[block, 0], counts[block, 1]
        for at in range(block * BLOCK, min((block + 1) * BLOCK, size), TILE):
            tiles.draw(*scratch, np.uint64(at // TILE), *place)
            for i in range(min(TILE, size - at)):
                k = _bucket(q[i], shift)
                totals[k] += 1
                ones[k] += (payload[(at + i) >> 3] >> np.uint8(i & 7)) & np.uint8(1)


@jit
def _squeeze(
    states: Any,
    counts: Any,
    words: Any,
    first: Any,
    begin: Any,
    end: Any,
    payload: Any,
    size: Any,
    odds: Any,
    shift: Any,
    place: Any,
) -> None:
    """Code blocks from the last element to the first; the words fill words[block] from its end."""
    scratch = tiles.scratch()
    q = scratch[1]
    x = np.empty(LANES, np.uint64)
    for b in range(begin, end):
        x[:] = np.uint64(LOWEST)
        spot, start = MOST_WORDS, (first + b) * BLOCK
        stop = min(start + BLOCK, size)
        for tile in range(-(-(stop - start) // TILE) - 1, -1, -1):
            at = start + tile * TILE
            tiles.draw(*scratch, np.uint64(at // TILE), *place)
            for i in range(min(TILE, stop - at) - 1, -1, -1):
                p = np.uint64(odds[_bucket(q[i], shift)])
                bit = (payload[(at + i) >> 3] >> np.uint8(i & 7)) & np.uint8(1)
                f = p if bit else np.uint64(256) - p
                state = x[i & 7]
                if state >= f << np.uint64(24):
                    spot -= 1
                    words[b, spot] = state & np.uint64(0xFFFF)
                    state >>= np.uint64(16)
                state = (state // f << np.uint64(8)) + state % f
                x[i & 7] = state if bit else state + p
        counts[b] = MOST_WORDS - spot
        for lane in range(LANES):
            states[b, lane] = x[lane]


@jit
def _stretch(
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
    odds: Any,
    shift: Any,
    place: Any,
) -> None:
    """Decode blocks into packed bits; fine[block] if it ends as it must; what `_count` counts, on the way."""
    scratch = tiles.scratch()
    q = scratch[1]
    x, buckets = np.empty(LANES, np.uint32), np.empty(TILE, np.uint8)
    for b in range(begin, end):
        for lane in range(LANES):
            x[lane] = states[b, lane]
        spot, last = ends[b] - lengths[b], ends[b]
        ones, totals = counts[b, 0], counts[b, 1]
        for at in range(b * BLOCK, min((b + 1) * BLOCK, size), TILE):
            n = min(TILE, size - at)
            tiles.draw(*scratch, np.uint64(at // TILE), *place)
            for i in range(TILE):
                buckets[i] = _bucket(q[i], shift)
            for byte in range((n + 7) // 8):
                packed = np.uint8(0)
                for lane in range(min(LANES, n - 8 * byte)):
                    k, state = buckets[8 * byte + lane], x[lane]
                    p = np.uint32(odds[k])
                    low, rest = state & np.uint32(255), state >> np.uint32(8)
                    bit = low < p
                    state = p * rest + low if bit else (np.uint32(256) - p) * rest + (low - p)
                    packed |= np.uint8(bit) << np.uint8(lane)
                    totals[k] += 1
                    ones[k] += bit
                    if state < np.uint32(LOWEST):
                        word = np.uint32(words[spot]) if spot < last else np.uint32(0)
                        state = (state << np.uint32(16)) | word
                        spot += 1
                    x[lane] = state
                out[at // 8 + byte] = packed
        good = spot == last
        for lane in range(LANES):
            good = good and x[lane] == np.uint32(LOWEST)
        fine[b] = good

"""The steps of coding 5 (spec 6.13, 6.14), compiled: block by block, in threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import jit
from .numba import frozen
from .numba_rans import encode_blocks
from .rans_parts import BLOCK, EXACT, EXTRA, LEAST, LOWEST, SYMBOLS, Coded, blocks
from .threads import spread

GROUP = 64
"""Blocks that the encoder holds the words of at a time."""

MOST_WORDS = 3 * BLOCK
"""The most words of a block: one for a symbol, two for its plain bits."""

LANES = 4
"""Tables that symbols are counted in by turns, since each addition waits for the last one at its place."""


def count(integers: np.ndarray) -> np.ndarray:
    counts = np.zeros((blocks(len(integers)), SYMBOLS), np.int64)
    its = frozen(integers)
    spread(lambda a, b: _count(counts, its, a, b), len(counts), 1)
    return np.asarray(counts.sum(0))


def encode(integers: np.ndarray, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    fixed = frozen(integers), frozen(frequencies), frozen(_starts(frequencies))
    return encode_blocks(_encode, fixed, blocks(len(integers)), 1, GROUP, MOST_WORDS)


def decode(coded: Coded, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ends, f = np.cumsum(coded.counts), coded.probabilities
    fine, counts = np.zeros(len(ends), np.bool_), np.zeros((len(ends), SYMBOLS), np.int64)
    slots = np.repeat(np.arange(SYMBOLS, dtype=np.uint8), f.astype(np.intp))
    given = coded.states, coded.counts, ends, np.append(coded.words, np.uint16(0))
    tables = frozen(slots), frozen(f << np.uint32(15) | _starts(f))
    spread(lambda a, b: _decode(out, fine, counts, a, b, given, tables), len(ends), 1)
    return np.flatnonzero(~fine), counts.sum(0)


def _starts(frequencies: np.ndarray) -> np.ndarray:
    """The sum of the frequencies before each symbol: uint32."""
    return np.asarray(np.cumsum(frequencies) - frequencies, np.uint32)


@jit
def _symbol(z: Any) -> Any:
    """The symbol of an integer (spec 6.14)."""
    m = np.uint32(abs(z))
    if m >= np.uint32(EXACT):
        e = np.uint32(5)
        while m >> e > np.uint32(1):
            e += np.uint32(1)
        m = np.uint32(EXACT) + np.uint32(4) * (e - np.uint32(5)) + ((m >> (e - np.uint32(2))) & np.uint32(3))
    return np.uint32(2) * m - np.uint32(z > 0)


@jit
def _count(counts: Any, integers: Any, begin: Any, end: Any) -> None:
    """Count the symbols of blocks into counts[block]."""
    for b in range(begin, end):
        table = np.zeros((LANES, SYMBOLS), np.int64)
        block = integers[b * BLOCK : (b + 1) * BLOCK]
        for i in range(len(block)):
            table[i % LANES, _symbol(block[i])] += 1
        counts[b] = table.sum(0)


@jit
def _encode(out: Any, first: Any, begin: Any, end: Any, given: Any) -> None:
    """Code blocks, each from its last element to its first; the words fill words[block] from its end."""
    states, counts, words = out
    integers, frequencies, starts = given
    for b in range(begin, end):
        block, its = integers[(first + b) * BLOCK : (first + b + 1) * BLOCK], words[b]
        x, pos = np.uint32(LOWEST), np.uint64(MOST_WORDS)
        for i in range(len(block) - 1, -1, -1):
            s = _symbol(block[i])
            if s >= np.uint32(2 * EXACT - 1):
                bits, r = EXTRA[s], np.uint32(abs(block[i]) - LEAST[s])
                if bits > np.uint32(16):
                    x, pos = _put(its, pos, x, bits - np.uint32(16), r >> np.uint32(16))
                    bits, r = np.uint32(16), r & np.uint32(0xFFFF)
                x, pos = _put(its, pos, x, bits, r)
            f = frequencies[s]
            if np.uint64(x) >= np.uint64(f) << np.uint64(18):
                pos -= np.uint64(1)
                its[pos] = np.uint16(x)
                x = np.uint32(x >> np.uint32(16))
            over = np.uint32(x // f)
            x = np.uint32(np.uint32(x + starts[s]) + np.uint32(over * np.uint32(np.uint32(16384) - f)))
        states[b, 0] = x
        counts[b] = np.int64(MOST_WORDS) - np.int64(pos)


@jit
def _put(words: Any, pos: Any, x: Any, bits: Any, r: Any) -> Any:
    """Code 1 to 16 plain bits: the state, and the next position."""
    if x >> (np.uint32(32) - bits):
        pos -= np.uint64(1)
        words[pos] = np.uint16(x)
        x = np.uint32(x >> np.uint32(16))
    return np.uint32(np.uint32(x << bits) | r), pos


@jit
def _decode(out: Any, fine: Any, counts: Any, begin: Any, end: Any, coded: Any, tables: Any) -> None:
    """Decode blocks, set fine[block] if its end is right, and count symbols into counts[block].

    A position beyond the last word of all reads a word of 0; a block that reads too many ends at a wrong one.
    """
    states, lengths, ends, words = coded
    slots, packed = tables
    most = np.uint64(len(words) - 1)
    for b in range(begin, end):
        table = np.zeros((LANES, SYMBOLS), np.int64)
        block, x, pos = out[b * BLOCK : (b + 1) * BLOCK], states[b, 0], np.uint64(ends[b] - lengths[b])
        for i in range(np.uint64(len(block))):
            low = np.uint32(x & np.uint32(16383))
            s = slots[low]
            p = packed[s]
            share = np.uint32(np.uint32(p >> np.uint32(15)) * np.uint32(x >> np.uint32(14)))
            x = np.uint32(share + np.uint32(low - np.uint32(p & np.uint32(0x7FFF))))
            if x < np.uint32(LOWEST):
                x = np.uint32(np.uint32(x << np.uint32(16)) | np.uint32(words[min(pos, most)]))
                pos += np.uint64(1)
            m = LEAST[s]
            if s >= np.uint8(2 * EXACT - 1):
                bits = EXTRA[s]
                width = min(bits, np.uint32(16))
                x, pos, r = _take(x, pos, words, most, width)
                if bits > width:
                    x, pos, high = _take(x, pos, words, most, np.uint32(bits - width))
                    r |= np.uint32(high << np.uint32(16))
                m += np.int32(r)
            block[i] = m if s & np.uint8(1) else -m
            table[i % np.uint64(LANES), s] += 1
        counts[b] = table.sum(0)
        fine[b] = pos == np.uint64(ends[b]) and x == np.uint32(LOWEST)


@jit
def _take(x: Any, pos: Any, words: Any, most: Any, bits: Any) -> Any:
    """Decode 1 to 16 plain bits: the state, the next position, and the bits."""
    r = np.uint32(x & np.uint32(np.uint32(np.uint32(1) << bits) - np.uint32(1)))
    x = np.uint32(x >> bits)
    if x < np.uint32(LOWEST):
        x = np.uint32(np.uint32(x << np.uint32(16)) | np.uint32(words[min(pos, most)]))
        pos += np.uint64(1)
    return x, pos, r

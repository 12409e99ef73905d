"""The steps of coding 5 (spec 6.13, 6.14): the symbols in NumPy, a block's state in Python's integers."""

from __future__ import annotations

import numpy as np

from .rans_parts import BLOCK, EXACT, EXTRA, LEAST, LOWEST, SYMBOLS, Coded


def count(integers: np.ndarray) -> np.ndarray:
    counts = np.zeros(SYMBOLS, np.int64)
    for at in range(0, len(integers), BLOCK):
        counts += np.bincount(symbols(integers[at : at + BLOCK]), minlength=SYMBOLS)
    return counts


def encode(integers: np.ndarray, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    states, counts, words = [], [], []
    f = frequencies.tolist()
    starts = (np.cumsum(frequencies, dtype=np.int64) - frequencies).tolist()
    for begin in range(0, len(integers), BLOCK):
        block = integers[begin : begin + BLOCK]
        s = symbols(block)
        x, its = LOWEST, []
        rest = np.abs(block) - LEAST[s]
        for symbol, r, bits in zip(*(a[::-1].tolist() for a in (s, rest, EXTRA[s])), strict=True):
            for part, width in ((r >> 16, bits - 16), (r & 0xFFFF, min(bits, 16))):
                if width > 0:
                    if x >> (32 - width):
                        its.append(x & 0xFFFF)
                        x >>= 16
                    x = x << width | part
            frequency = f[symbol]
            if x >= frequency << 18:
                its.append(x & 0xFFFF)
                x >>= 16
            x = (x // frequency << 14) + x % frequency + starts[symbol]
        states.append([x])
        counts.append(len(its))
        words += its[::-1]
    return np.array(states, np.uint32), np.array(counts, np.int64), np.array(words, np.uint16)


def decode(coded: Coded, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ends, bad = np.cumsum(coded.counts).tolist(), []
    f = coded.probabilities
    start_of = np.cumsum(f, dtype=np.int64) - f
    slots = np.repeat(np.arange(SYMBOLS), f.astype(np.intp)).tolist()
    f, starts, least, extra = f.tolist(), start_of.tolist(), LEAST.tolist(), EXTRA.tolist()
    for b, end in enumerate(ends):
        block = out[b * BLOCK : (b + 1) * BLOCK]
        x, z = int(coded.states[b, 0]), []
        # An element reads at most three words; what lies beyond the last one is 0, and refused at the end.
        words = [*coded.words[end - int(coded.counts[b]) : end].tolist(), 0, 0, 0]
        last, at = len(words) - 3, 0
        for _ in range(len(block)):
            low = x & 16383
            s = slots[low]
            x = f[s] * (x >> 14) + low - starts[s]
            if x < LOWEST:
                x = x << 16 | words[at]
                at += 1
            m = least[s]
            if m >= EXACT:
                bits, shift = extra[s], 0
                while bits > 0:
                    width = min(bits, 16)
                    m += (x & ((1 << width) - 1)) << shift
                    x >>= width
                    if x < LOWEST:
                        x = x << 16 | words[at]
                        at += 1
                    bits, shift = bits - width, 16
            z.append(m if s & 1 else -m)
            if at > last:
                break
        if at != last or x != LOWEST:
            bad.append(b)
        else:
            block[:] = z
    return np.array(bad, np.int64), np.zeros(SYMBOLS, np.int64) if bad else count(out)


def symbols(integers: np.ndarray) -> np.ndarray:
    """The symbol of each integer (spec 6.14): int64, of the same shape."""
    m = np.abs(integers).astype(np.int64)
    exponent = np.frexp(m)[1] - 1
    shift = np.maximum(exponent - 2, 0)
    wide = EXACT + 4 * (exponent - 5) + (m >> shift & 3)
    size = np.where(m < EXACT, m, wide)
    out: np.ndarray = 2 * size - (integers > 0)
    return out

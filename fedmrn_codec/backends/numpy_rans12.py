"""The steps of coding 4 (spec 6.11): the buckets in NumPy, the one state of a block in Python's integers.

A block is a chain of dependent steps, so that arrays would hold one element for each block; a loop over
integers takes no longer, whatever the number of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..primitives import mask
from ..primitives.noise import Noise
from .numpy_rans import bucket_of, count
from .rans_parts import BLOCK, LOWEST, Coded

__all__ = ["count", "decode", "encode"]


def encode(
    noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    states, counts, words = [], [], []
    for begin, chances in _blocks(noise, seed, stream, size, probabilities):
        bits = mask.unpack(payload[begin // 8 :], len(chances))
        x, its = LOWEST, []
        for bit, p in zip(bits[::-1].tolist(), reversed(chances), strict=True):
            f, start = (p, 0) if bit else (4096 - p, p)
            if x >= f << 20:
                its.append(x & 0xFFFF)
                x >>= 16
            x = (x // f << 12) + x % f + start
        states.append([x])
        counts.append(len(its))
        words += its[::-1]
    return np.array(states, np.uint32), np.array(counts, np.int64), np.array(words, np.uint16)


def decode(
    noise: Noise, seed: int, stream: int, coded: Coded, out: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends, bad = np.cumsum(coded.counts).tolist(), []
    for begin, chances in _blocks(noise, seed, stream, size, coded.probabilities):
        b = begin // BLOCK
        x, bits = int(coded.states[b, 0]), bytearray(len(chances))
        words = iter(coded.words[ends[b] - int(coded.counts[b]) : ends[b]].tolist())
        for i, p in enumerate(chances):
            low = x & 4095
            if low < p:
                bits[i] = 1
                x = p * (x >> 12) + low
            else:
                x = (4096 - p) * (x >> 12) + low - p
            if x < LOWEST:
                word = next(words, None)
                if word is None:
                    x = 0  # not the state that a block ends with
                    break
                x = x << 16 | word
        if x != LOWEST or next(words, None) is not None:
            bad.append(b)
        packed = mask.pack(np.frombuffer(bits, np.uint8))
        out[begin // 8 : begin // 8 + len(packed)] = packed
    return np.array(bad, np.int64), *count(noise, seed, stream, out, size)


def _blocks(
    noise: Noise, seed: int, stream: int, size: int, probabilities: np.ndarray
) -> Iterator[tuple[int, list[int]]]:
    """The first element of each block, and the probability of a set bit of its elements, in 4096ths."""
    for begin in range(0, size, BLOCK):
        n = min(BLOCK, size - begin)
        yield begin, probabilities[bucket_of(noise, seed, stream, begin, n)].tolist()

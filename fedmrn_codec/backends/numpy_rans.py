"""The steps of coding 1 (spec 6.8) in NumPy: in a step, eight elements of every block of a group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..primitives import mask
from ..primitives.noise import Bernoulli, Noise
from .numpy import draws_of
from .rans_parts import BLOCK, BUCKETS, LANES, LOWEST, Coded, blocks, shift

GROUP = 16
"""Blocks processed at a time."""

LOW = np.int64(2**16 - 1)


def count(
    noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    ones, totals = np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.int64)
    for at in range(0, size, BLOCK):
        n = min(BLOCK, size - at)
        bucket = bucket_of(noise, seed, stream, at, n)
        totals += np.bincount(bucket, minlength=BUCKETS)
        ones += np.bincount(bucket[mask.unpack(payload[at // 8 :], n)], minlength=BUCKETS)
    return ones, totals


def encode(
    noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    states, words, counts = [], [], []
    for begin, n in _groups(size):
        p = _probabilities(noise, seed, stream, begin, n, probabilities)
        bits = _spread(mask.unpack(payload[begin // 8 :], n), n, False)
        x = np.full((len(p), LANES), LOWEST, np.int64)
        emitted, low = np.zeros(p.shape, np.bool_), np.empty(p.shape, np.uint16)
        for k in reversed(range(p.shape[1])):
            set_, used = bits[:, k], p[:, k] > 0
            f = np.where(set_, p[:, k], 256 - p[:, k])
            emit = used & (x >= f << 24)
            emitted[:, k], low[:, k] = emit, x & LOW
            x = np.where(emit, x >> 16, x)
            coded = (x // f << 8) + x % f + np.where(set_, 0, p[:, k])
            x = np.where(used, coded, x)
        states.append(x.astype(np.uint32))
        words.append(low[emitted])
        counts.append(emitted.sum((1, 2)))
    return np.concatenate(states), np.concatenate(counts), np.concatenate(words)


def decode(
    noise: Noise, seed: int, stream: int, coded: Coded, out: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum(coded.counts)
    words = np.append(coded.words, 0).astype(np.int64)
    bad = []
    for begin, n in _groups(size):
        p = _probabilities(noise, seed, stream, begin, n, coded.probabilities)
        b = slice(begin // BLOCK, begin // BLOCK + len(p))
        x, end = coded.states[b].astype(np.int64), ends[b]
        at = end - coded.counts[b]
        bits = np.empty(p.shape, np.bool_)
        for k in range(p.shape[1]):
            used, s = p[:, k] > 0, x & 255
            set_ = s < p[:, k]
            bits[:, k] = set_
            f = np.where(set_, p[:, k], 256 - p[:, k])
            x = np.where(used, f * (x >> 8) + s - np.where(set_, 0, p[:, k]), x)
            need = used & (x < LOWEST)
            place = at[:, None] + np.cumsum(need, 1) - need
            inside = np.minimum(place, len(words) - 1)
            x = np.where(need, x << 16 | words[inside], x)
            at = np.minimum(at + need.sum(1), end + 1)
        out[begin // 8 : (begin + n + 7) // 8] = mask.pack(bits.reshape(-1)[:n])
        bad.append(b.start + np.flatnonzero((at != end) | (x != LOWEST).any(1)))
    return np.concatenate(bad) if bad else np.empty(0, np.int64), *count(noise, seed, stream, out, size)


def _groups(size: int) -> Iterator[tuple[int, int]]:
    """(first element, number of elements) of each group."""
    return ((at, min(GROUP * BLOCK, size - at)) for at in range(0, size, GROUP * BLOCK))


def bucket_of(noise: Noise, seed: int, stream: int, start: int, count: int) -> np.ndarray:
    """The buckets of |q| of elements `start` to `start + count - 1` (spec 6.8)."""
    if isinstance(noise, Bernoulli):  # |q| is 1
        return np.zeros(count, np.int64)
    size = np.abs(draws_of(noise, seed, stream, start, count))
    bucket: np.ndarray = np.minimum(size >> shift(noise), BUCKETS - 1)
    return bucket


def _probabilities(
    noise: Noise, seed: int, stream: int, start: int, count: int, probabilities: np.ndarray
) -> np.ndarray:
    """The probability of each element in 256ths, 0 after the last: int64, shape (blocks, steps, 8)."""
    return _spread(probabilities[bucket_of(noise, seed, stream, start, count)].astype(np.int64), count, 0)


def _spread(values: np.ndarray, count: int, fill: int | bool) -> np.ndarray:
    """Values of elements in shape (blocks, steps, lanes), padded with `fill`; one block to whole steps."""
    size = BLOCK if count > BLOCK else -(-count // LANES) * LANES
    padded = np.full(blocks(count) * size, fill, values.dtype)
    padded[:count] = values
    return padded.reshape(-1, size // LANES, LANES)

"""The NumPy backend, in blocks, which bound the memory; the one to read first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..primitives import mask
from ..primitives.noise import Bernoulli, Gaussian, Noise, bernoulli_draws, gaussian_draws, uniform_draws
from ..primitives.philox import philox_words

BLOCK = 2**16
"""Elements processed at a time; a multiple of 32, so that a block begins with a whole Bernoulli word."""


def words(seed: int, stream: int, start: int, count: int) -> np.ndarray:
    out = np.empty(count, np.uint32)
    for at, size in _blocks(count):
        out[at : at + size] = philox_words(seed, stream, start + at, size)
    return out


def noise(noise: Noise, seed: int, stream: int, start: int, count: int) -> np.ndarray:
    out = np.empty(count, np.float32)
    for at, size in _blocks(count):
        out[at : at + size] = _values(noise, draws_of(noise, seed, stream, start + at, size))
    return out


def decode(noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, out: np.ndarray) -> None:
    for at, size in _blocks(len(out)):
        values = _values(noise, draws_of(noise, seed, stream, at, size))
        out[at : at + size] = mask.apply(values, mask.unpack(payload[at // 8 :], size), kind)


def accumulate(
    noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, weight: int, sums: np.ndarray
) -> None:
    for at, size in _blocks(len(sums)):
        draws = draws_of(noise, seed, stream, at, size).astype(np.int64)
        sums[at : at + size] += weight * mask.apply(draws, mask.unpack(payload[at // 8 :], size), kind)


def sample(
    noise: Noise, kind: int, seed: int, stream: int, update: np.ndarray, draws: int | np.ndarray
) -> np.ndarray:
    out = np.empty((len(update) + 7) // 8, np.uint8)
    for at, size in _blocks(len(update)):
        if isinstance(draws, int):
            private = philox_words(draws, stream, at, size) >> np.uint32(8)
        else:
            private = draws[at : at + size]
        values = _values(noise, draws_of(noise, seed, stream, at, size))
        bits = mask.sample(update[at : at + size], values, private, kind)
        out[at // 8 : (at + size + 7) // 8] = mask.pack(bits)
    return out


def decode_grid(integers: np.ndarray, step: np.float32, out: np.ndarray) -> None:
    for at, size in _blocks(len(out)):
        out[at : at + size] = integers[at : at + size].astype(np.float32) * step


def accumulate_grid(integers: np.ndarray, weight: int, sums: np.ndarray) -> None:
    for at, size in _blocks(len(sums)):
        sums[at : at + size] += weight * integers[at : at + size].astype(np.int64)


def accumulate_counts(
    noise: Noise,
    kind: int,
    seed: int,
    stream: int,
    counts: np.ndarray,
    frames: int,
    weight: int,
    sums: np.ndarray,
) -> None:
    for at, size in _blocks(len(sums)):
        products = draws_of(noise, seed, stream, at, size).astype(np.int64)
        products *= mask.factors(counts[at : at + size], frames, kind)
        products *= weight
        sums[at : at + size] += products


def mean(sums: np.ndarray, total: int, step: np.float32, out: np.ndarray) -> None:
    for at, size in _blocks(len(out)):
        quotient = sums[at : at + size].astype(np.float64)
        quotient /= np.float64(total)
        quotient *= np.float64(step)
        with np.errstate(under="ignore"):
            out[at : at + size] = quotient


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    """(start, size) of each block."""
    return ((at, min(BLOCK, count - at)) for at in range(0, count, BLOCK))


def draws_of(noise: Noise, seed: int, stream: int, start: int, count: int) -> np.ndarray:
    """The integer draws q (spec 3): int32, shape (count,)."""
    if isinstance(noise, Bernoulli):
        first = start // 32
        bits = bernoulli_draws(philox_words(seed, stream, first, -(-(start + count) // 32) - first))
        return bits[start - 32 * first :][:count]
    w = philox_words(seed, stream, start, count)
    return gaussian_draws(w) if isinstance(noise, Gaussian) else uniform_draws(w)


def _values(noise: Noise, draws: np.ndarray) -> np.ndarray:
    """Noise from draws: one exact conversion and one rounded product (spec 3.1)."""
    return draws.astype(np.float32) * noise.step

"""The Numba backend: compiled kernels that work tile by tile in the L1 cache, with threads over the tiles.

A kernel is a sequence of stages of `tiles`: words (spec 2), draws (spec 3), masked draws (spec 4.2), and the
result. There is never a whole array of noise or of unpacked bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..primitives.noise import Noise
from . import numpy as plain
from . import tiles
from .compiled import cache_directory, jit
from .threads import spread
from .tiles import TILE, fill

SPLIT = 2**18
"""Elements that a thread processes at a time; a multiple of TILE."""

MOST_ALIKE = 127
"""The most draws, each less than 2^24, whose sum always fits in an int32."""

NO_DRAWS = np.empty(0, np.uint32)

# --- the functions of the protocol --------------------------------------------------------------------


def words(seed: int, stream: int, start: int, count: int) -> np.ndarray:
    first = start // 4
    out = np.empty(4 * (-(-(start + count) // 4) - first), np.uint32)
    spread(lambda a, b: fill(out[a:b], u64(seed), u64(stream), u64(first + a // 4)), len(out), SPLIT)
    return out[start - 4 * first :][:count]


def noise(noise: Noise, seed: int, stream: int, start: int, count: int) -> np.ndarray:
    skip = start % TILE
    out = np.empty(skip + count, np.float32)
    first, where = u64(start // TILE), place(noise, seed, stream)
    spread(lambda a, b: _noise(out, a, b, first, noise.step, where), len(out), SPLIT)
    return out[skip:]


def decode(noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, out: np.ndarray) -> None:
    packed, where = frozen(payload), place(noise, seed, stream)
    spread(lambda a, b: _decode(out, a, b, packed, int(kind), noise.step, where), len(out), SPLIT)


def accumulate(
    noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, weight: int, sums: np.ndarray
) -> None:
    one = np.array([int(kind)]), np.array([u64(seed)]), payload[None], np.array([weight])
    accumulate_many(noise, one[0], one[1], stream, *one[2:], sums)


def accumulate_many(
    noise: Noise,
    kinds: np.ndarray,
    seeds: np.ndarray,
    stream: int,
    payloads: np.ndarray,
    weights: np.ndarray,
    sums: np.ndarray,
) -> None:
    frames = frozen(kinds), frozen(seeds), frozen(payloads), frozen(weights)
    code, _, its_stream, table = place(noise, 0, stream)
    size = max(SPLIT // len(seeds) // TILE, 1) * TILE
    spread(lambda a, b: _accumulate(sums, a, b, frames, code, its_stream, table), len(sums), size)


def sample(
    noise: Noise, kind: int, seed: int, stream: int, update: np.ndarray, draws: int | np.ndarray
) -> np.ndarray:
    out = np.empty((len(update) + 7) // 8, np.uint8)
    given, private = (NO_DRAWS, draws) if isinstance(draws, int) else (draws, 0)
    fixed = frozen(update), frozen(given), u64(private), int(kind), noise.step, place(noise, seed, stream)
    spread(lambda a, b: _sample(out, a, b, *fixed), len(update), SPLIT)
    return out


def decode_grid(integers: np.ndarray, step: np.float32, out: np.ndarray) -> None:
    spread(lambda a, b: plain.decode_grid(integers[a:b], step, out[a:b]), len(out), SPLIT)


def accumulate_grid(integers: np.ndarray, weight: int, sums: np.ndarray) -> None:
    spread(lambda a, b: plain.accumulate_grid(integers[a:b], weight, sums[a:b]), len(sums), SPLIT)


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
    fixed = frozen(counts), int(frames), int(kind), int(weight), place(noise, seed, stream)
    spread(lambda a, b: _accumulate_counts(sums, a, b, *fixed), len(sums), SPLIT)


def mean(sums: np.ndarray, total: int, step: np.float32, out: np.ndarray) -> None:
    given = frozen(sums), np.float64(total), np.float64(step)
    spread(lambda a, b: _mean(out, a, b, *given), len(out), SPLIT)


def place(noise: Noise, seed: int, stream: int) -> tuple[int, np.uint64, np.uint64, np.ndarray]:
    """The arguments of `tiles.draw` that all tiles share: code, seed, stream and Gaussian table."""
    return noise.code, u64(seed), u64(stream), tiles.table_pairs()


def kept_in() -> str | None:
    """The directory of the compiled code; None if no directory can be written."""
    return cache_directory(fill)


def u64(value: int) -> np.uint64:
    return np.uint64(value % 2**64)


def frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view, so that Numba compiles one variant for read-only and writable inputs."""
    view = array.view()
    view.flags.writeable = False
    return view


# --- the kernels, for elements `begin` to `end` - 1 ------------------------------------


@jit
def _noise(out: Any, begin: Any, end: Any, first: Any, step: Any, place: Any) -> None:
    """Write noise into out[begin:end], where out[0] is in tile `first` (spec 3.1)."""
    words, q, pairs, bits, eight = tiles.scratch()
    for at in range(begin, end, TILE):
        tiles.draw(words, q, pairs, bits, eight, first + np.uint64(at // TILE), *place)
        tiles.scale(out[at : min(at + TILE, end)], q, step)


@jit
def _decode(out: Any, begin: Any, end: Any, payload: Any, kind: Any, step: Any, place: Any) -> None:
    """Write noise * mask into out[begin:end] (spec 4.2)."""
    words, q, pairs, bits, eight = tiles.scratch()
    for at in range(begin, end, TILE):
        stop = min(at + TILE, end)
        tiles.draw(words, q, pairs, bits, eight, np.uint64(at // TILE), *place)
        tiles.mask(q, bits, eight, payload[at // 8 : (stop + 7) // 8], kind)
        tiles.scale(out[at:stop], q, step)


@jit
def _mean(out: Any, begin: Any, end: Any, sums: Any, total: Any, step: Any) -> None:
    """Write sums / total * step into out[begin:end] (spec 8.2)."""
    its, part = sums[begin:end], out[begin:end]
    for i in range(np.uint64(len(part))):
        part[i] = np.float32(np.float64(its[i]) / total * step)


@jit
def _accumulate(sums: Any, begin: Any, end: Any, frames: Any, code: Any, stream: Any, table: Any) -> None:
    """Add weight * q * m of all frames to sums[begin:end], tile by tile (spec 8.2).

    The products q * m of successive frames of one weight are first added in 32 bits, which hold 127 of them.
    """
    kinds, seeds, payloads, weights = frames
    words, q, pairs, bits, eight = tiles.scratch()
    others = np.empty(TILE, np.int32)
    for at in range(begin, end, TILE):
        stop = min(at + TILE, end)
        part, alike = sums[at:stop], 0
        for f in range(len(kinds)):
            tiles.draw(words, q, pairs, bits, eight, np.uint64(at // TILE), code, seeds[f], stream, table)
            tiles.mask(q, bits, eight, payloads[f, at // 8 : (stop + 7) // 8], kinds[f])
            if alike:
                tiles.join(q, others)
            if f + 1 < len(kinds) and weights[f + 1] == weights[f] and alike < MOST_ALIKE - 1:
                q, others, alike = others, q, alike + 1
            else:
                tiles.add(part, q, weights[f])
                alike = 0


@jit
def _accumulate_counts(
    sums: Any, begin: Any, end: Any, counts: Any, frames: Any, kind: Any, weight: Any, place: Any
) -> None:
    """Add weight * q * c or weight * q * (2 * c - n) to sums[begin:end] (spec 8.6)."""
    words, q, pairs, bits, eight = tiles.scratch()
    for at in range(begin, end, TILE):
        stop = min(at + TILE, end)
        tiles.draw(words, q, pairs, bits, eight, np.uint64(at // TILE), *place)
        tiles.add_counted(sums[at:stop], q, counts[at:stop], frames, kind, weight)


@jit
def _sample(
    out: Any, begin: Any, end: Any, update: Any, draws: Any, private: Any, kind: Any, step: Any, place: Any
) -> None:
    """Sample the packed mask of update[begin:end] (spec 4.3); r is `draws`, or made of `private` if empty."""
    words, q, pairs, bits, eight = tiles.scratch()
    for at in range(begin, end, TILE):
        stop = min(at + TILE, end)
        tiles.draw(words, q, pairs, bits, eight, np.uint64(at // TILE), *place)
        if draws.size:
            words[: stop - at] = draws[at:stop]
        else:
            fill(words, private, place[2], np.uint64(at // TILE) * np.uint64(TILE // 4))
            for i in range(TILE):
                words[i] >>= np.uint32(8)
        tiles.sample(bits, update[at:stop], q, words, step, kind)
        tiles.pack(out[at // 8 : (stop + 7) // 8], eight)

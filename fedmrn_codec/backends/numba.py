"""The fast backend: compiled kernels that work tile by tile in the L1 cache, and threads over the tiles.

A tile is 1024 elements. Each stage is one plain loop over it, which LLVM vectorises: words (spec 2), draws
(spec 3), masked draws (spec 4.2), and then what the caller wants of them. No array of noise or of unpacked
bits ever exists. Compiled code is cached on disk, beside this file or where NUMBA_CACHE_DIR says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from ..mask import BINARY
from ..noise import MAX_DRAW, Bernoulli, Gaussian, Noise, gaussian_table
from ..philox import MULTIPLIER_0, MULTIPLIER_1, WEYL_0, WEYL_1
from .threads import spread

TILE = 1024
"""Elements of a tile: 256 blocks of words, or 8 for Bernoulli noise."""

SPLIT = 2**18
"""Least number of elements that is worth a thread of its own; a multiple of TILE."""

GAUSSIAN, BERNOULLI = Gaussian.code, Bernoulli.code
M0, M1, W0, W1 = np.uint64(MULTIPLIER_0), np.uint64(MULTIPLIER_1), WEYL_0, WEYL_1
SHIFT, LOW = np.uint64(32), np.uint64(2**32 - 1)
NO_DRAWS = np.empty(0, np.uint32)


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without fast-math; with a cache on disk if there is a place for it."""
    try:
        return njit(function, cache=True, nogil=True, error_model="numpy")  # type: ignore[no-any-return]
    except RuntimeError:  # no directory for the cache can be written
        return njit(function, nogil=True, error_model="numpy")  # type: ignore[no-any-return]


# --- the protocol, verb by verb --------------------------------------------------------------------


def words(seed: int, stream: int, start: int, count: int) -> np.ndarray:
    first = start // 4
    out = np.empty(4 * (-(-(start + count) // 4) - first), np.uint32)
    spread(lambda a, b: fill(out[a:b], u64(seed), u64(stream), u64(first + a // 4)), len(out), SPLIT)
    return out[start - 4 * first :][:count]


def noise(noise: Noise, seed: int, stream: int, start: int, count: int) -> np.ndarray:
    skip = start % TILE
    out = np.empty(skip + count, np.float32)
    first, fixed = u64(start // TILE), (noise.code, noise.step, u64(seed), u64(stream), gaussian_table())
    spread(lambda a, b: _noise(out, first, a, b, *fixed), len(out), SPLIT)
    return out[skip:]


def decode(noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, out: np.ndarray) -> None:
    fixed = (frozen(payload), noise.code, noise.step, kind, u64(seed), u64(stream), gaussian_table())
    spread(lambda a, b: _decode(out, a, b, *fixed), len(out), SPLIT)


def accumulate(
    noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, weight: int, sums: np.ndarray
) -> None:
    fixed = (frozen(payload), noise.code, kind, u64(seed), u64(stream), gaussian_table())
    spread(lambda a, b: _accumulate(sums, a, b, np.int64(weight), *fixed), len(sums), SPLIT)


def accumulate_many(
    noise: Noise,
    kinds: np.ndarray,
    seeds: np.ndarray,
    stream: int,
    payloads: np.ndarray,
    weights: np.ndarray,
    sums: np.ndarray,
) -> None:
    frames = frozen(kinds), frozen(seeds), frozen(weights), frozen(payloads)
    fixed = (*frames, noise.code, u64(stream), gaussian_table())
    spread(lambda a, b: _accumulate_many(sums, a, b, *fixed), len(sums), SPLIT)


def sample(
    noise: Noise, kind: int, seed: int, stream: int, update: np.ndarray, draws: int | np.ndarray
) -> np.ndarray:
    out = np.empty((len(update) + 7) // 8, np.uint8)
    given, private = (NO_DRAWS, draws) if isinstance(draws, int) else (draws, 0)
    fixed = (
        frozen(update),
        frozen(given),
        noise.code,
        noise.step,
        kind,
        u64(seed),
        u64(private),
        u64(stream),
        gaussian_table(),
    )
    spread(lambda a, b: _sample(out, a, b, *fixed), len(update), SPLIT)
    return out


def u64(value: int) -> np.uint64:
    return np.uint64(value % 2**64)


def frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view, so that one compiled variant serves all inputs."""
    view = array.view()
    view.flags.writeable = False
    return view


# --- the kernels ------------------------------------------------------------------------------------


@jit
def _round(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """One round of Philox on 32-bit values held in 64 bits (spec 2.3)."""
    p0, p1 = M0 * c0, M1 * c2
    return (p1 >> SHIFT) ^ c1 ^ k0, p1 & LOW, (p0 >> SHIFT) ^ c3 ^ k1, p0 & LOW


@jit
def fill(out: Any, seed: Any, stream: Any, first: Any) -> None:
    """Blocks `first`, `first` + 1, ... into `out`: uint32, shape (4 * blocks,) (spec 2.2)."""
    k0, k1 = seed & LOW, seed >> SHIFT
    s0, s1 = stream & LOW, stream >> SHIFT
    for i in range(out.size // 4):
        block = first + np.uint64(i)
        c0, c1, c2, c3 = block & LOW, block >> SHIFT, s0, s1
        # Rounds written out and a flat `out`: only so does LLVM vectorise over i.
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
        c0, c1, c2, c3 = _round(
            c0, c1, c2, c3, (k0 + np.uint64(1 * W0)) & LOW, (k1 + np.uint64(1 * W1)) & LOW
        )
        c0, c1, c2, c3 = _round(
            c0, c1, c2, c3, (k0 + np.uint64(2 * W0)) & LOW, (k1 + np.uint64(2 * W1)) & LOW
        )
        c0, c1, c2, c3 = _round(
            c0, c1, c2, c3, (k0 + np.uint64(3 * W0)) & LOW, (k1 + np.uint64(3 * W1)) & LOW
        )
        c0, c1, c2, c3 = _round(
            c0, c1, c2, c3, (k0 + np.uint64(4 * W0)) & LOW, (k1 + np.uint64(4 * W1)) & LOW
        )
        c0, c1, c2, c3 = _round(
            c0, c1, c2, c3, (k0 + np.uint64(5 * W0)) & LOW, (k1 + np.uint64(5 * W1)) & LOW
        )
        c0, c1, c2, c3 = _round(
            c0, c1, c2, c3, (k0 + np.uint64(6 * W0)) & LOW, (k1 + np.uint64(6 * W1)) & LOW
        )
        c0, c1, c2, c3 = _round(
            c0, c1, c2, c3, (k0 + np.uint64(7 * W0)) & LOW, (k1 + np.uint64(7 * W1)) & LOW
        )
        c0, c1, c2, c3 = _round(
            c0, c1, c2, c3, (k0 + np.uint64(8 * W0)) & LOW, (k1 + np.uint64(8 * W1)) & LOW
        )
        c0, c1, c2, c3 = _round(
            c0, c1, c2, c3, (k0 + np.uint64(9 * W0)) & LOW, (k1 + np.uint64(9 * W1)) & LOW
        )
        out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3] = c0, c1, c2, c3


@jit
def draw(q: Any, words: Any, wide: Any, tile: Any, code: Any, seed: Any, stream: Any, table: Any) -> None:
    """The draws of a tile's 1024 elements into `q`, int32 (spec 3); `words` and `wide` are scratch."""
    if code == BERNOULLI:
        fill(words[: TILE // 32], seed, stream, tile * np.uint64(TILE // 128))
        for i in range(TILE // 32):
            word = words[i]
            for j in range(32):
                q[32 * i + j] = np.int32(2) * np.int32((word >> np.uint32(j)) & np.uint32(1)) - np.int32(1)
        return
    fill(words, seed, stream, tile * np.uint64(TILE // 4))
    if code == GAUSSIAN:
        for i in range(TILE):  # x of spec 3.4; a float64 holds its octave, segment and place side by side
            wide[i] = np.float64(np.int64(((words[i] & np.uint32(2**31 - 1)) << np.uint32(1)) | np.uint32(1)))
        bits = wide.view(np.uint64)
        for i in range(TILE):
            k = np.int64(bits[i] >> np.uint64(46)) - np.int64(1023 * 64)
            place = np.uint32((bits[i] >> np.uint64(30)) & np.uint64(0xFFFF))
            drop = np.uint32((table[k] - table[k + 1]) * place + np.uint32(2**15)) >> np.uint32(16)
            magnitude = max(np.int32(table[k] - drop), np.int32(1))
            sign = np.int32(words[i]) >> np.int32(31)
            q[i] = (magnitude ^ sign) - sign
        return
    for i in range(TILE):
        q[i] = np.int32(2) * np.int32(words[i] >> np.uint32(8)) - np.int32(MAX_DRAW)


@jit
def _mask(q: Any, keep: Any, payload: Any, at: Any, n: Any, kind: Any) -> None:
    """Turn draws into draws times mask, in place (spec 4.2); `keep` is scratch, -1 for a set bit, else 0."""
    for i in range((n + 7) // 8):
        byte = payload[at // 8 + i]
        for j in range(8):
            keep[8 * i + j] = -np.int32((byte >> np.uint8(j)) & np.uint8(1))
    if kind == BINARY:
        for i in range(n):
            q[i] &= keep[i]
    else:
        for i in range(n):
            q[i] = (q[i] ^ ~keep[i]) - ~keep[i]


@jit
def _noise(
    out: Any, first: Any, begin: Any, end: Any, code: Any, step: Any, seed: Any, stream: Any, table: Any
) -> None:
    """Noise of tiles from `first` on into out[begin:end] (spec 3.1)."""
    words, q, wide = np.empty(TILE, np.uint32), np.empty(TILE, np.int32), np.empty(TILE)
    for at in range(begin, end, TILE):
        draw(q, words, wide, first + np.uint64(at // TILE), code, seed, stream, table)
        for i in range(min(TILE, end - at)):
            out[at + i] = np.float32(q[i]) * step


@jit
def _decode(
    out: Any,
    begin: Any,
    end: Any,
    payload: Any,
    code: Any,
    step: Any,
    kind: Any,
    seed: Any,
    stream: Any,
    table: Any,
) -> None:
    """Noise * mask into out[begin:end]; a dropped draw is the integer 0, so that its product is +0.0."""
    words, q, wide = np.empty(TILE, np.uint32), np.empty(TILE, np.int32), np.empty(TILE)
    keep = np.empty(TILE, np.int32)
    for at in range(begin, end, TILE):
        n = min(TILE, end - at)
        draw(q, words, wide, np.uint64(at // TILE), code, seed, stream, table)
        _mask(q, keep, payload, at, n, kind)
        for i in range(n):
            out[at + i] = np.float32(q[i]) * step


@jit
def _add(sums: Any, q: Any, weight: Any) -> None:
    """Add weight * q to a tile's sums; processors multiply 32 bits by 32 faster than 64 by 64."""
    if weight < 2**31:
        short = np.int32(weight)
        for i in range(len(sums)):
            sums[i] += np.int64(short) * np.int64(q[i])
    else:
        for i in range(len(sums)):
            sums[i] += weight * np.int64(q[i])


@jit
def _accumulate(
    sums: Any,
    begin: Any,
    end: Any,
    weight: Any,
    payload: Any,
    code: Any,
    kind: Any,
    seed: Any,
    stream: Any,
    table: Any,
) -> None:
    """Add weight * q * m to sums[begin:end] (spec 8.2)."""
    words, q, wide = np.empty(TILE, np.uint32), np.empty(TILE, np.int32), np.empty(TILE)
    keep = np.empty(TILE, np.int32)
    for at in range(begin, end, TILE):
        n = min(TILE, end - at)
        draw(q, words, wide, np.uint64(at // TILE), code, seed, stream, table)
        _mask(q, keep, payload, at, n, kind)
        _add(sums[at : at + n], q, weight)


@jit
def _accumulate_many(
    sums: Any,
    begin: Any,
    end: Any,
    kinds: Any,
    seeds: Any,
    weights: Any,
    payloads: Any,
    code: Any,
    stream: Any,
    table: Any,
) -> None:
    """`_accumulate` of several frames: a tile's sums stay in the L1 cache for all of them."""
    words, q, wide = np.empty(TILE, np.uint32), np.empty(TILE, np.int32), np.empty(TILE)
    keep = np.empty(TILE, np.int32)
    for at in range(begin, end, TILE):
        n = min(TILE, end - at)
        for f in range(len(kinds)):
            draw(q, words, wide, np.uint64(at // TILE), code, seeds[f], stream, table)
            _mask(q, keep, payloads[f], at, n, kinds[f])
            _add(sums[at : at + n], q, weights[f])


@jit
def _sample(
    out: Any,
    begin: Any,
    end: Any,
    update: Any,
    draws: Any,
    code: Any,
    step: Any,
    kind: Any,
    seed: Any,
    private: Any,
    stream: Any,
    table: Any,
) -> None:
    """The packed mask of update[begin:end] (spec 4.3); r from `draws`, or if it is empty from `private`."""
    words, q, wide = np.empty(TILE, np.uint32), np.empty(TILE, np.int32), np.empty(TILE)
    r, bits = np.empty(TILE, np.uint32), np.empty(TILE, np.uint8)
    for at in range(begin, end, TILE):
        n = min(TILE, end - at)
        draw(q, words, wide, np.uint64(at // TILE), code, seed, stream, table)
        if draws.size:
            r[:n] = draws[at : at + n]
        else:
            fill(words, private, stream, np.uint64(at // TILE) * np.uint64(TILE // 4))
            for i in range(n):
                r[i] = words[i] >> np.uint32(8)
        if kind == BINARY:
            for i in range(n):
                p = update[at + i] / (np.float32(q[i]) * step)
                bits[i] = np.float32(r[i]) < p * np.float32(2**24)
        else:
            for i in range(n):
                p = update[at + i] / (np.float32(q[i]) * step)
                bits[i] = np.float32(r[i]) < (p + np.float32(1)) * np.float32(2**23)
        bits[n:] = 0
        for i in range((n + 7) // 8):
            byte = np.uint8(0)
            for j in range(8):
                byte |= bits[8 * i + j] << np.uint8(j)
            out[at // 8 + i] = byte

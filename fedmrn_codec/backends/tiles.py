"""Compiled stages over one tile of 2048 elements, each a plain loop that LLVM vectorises.

A tile's words, draws and bits are in scratch arrays that stay in the L1 cache; a kernel calls a few of these
stages for each tile. They are fast because every step states its 32-bit type (Numba widens integers to 64
bits, of which a vector holds half as many), indices are plain loop variables into slices (an index that may
be negative is not vectorised), and each loop does one thing.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from ..primitives.codes import MaskKind
from ..primitives.noise import MAX_DRAW, Bernoulli, Gaussian, gaussian_table
from ..primitives.philox import MULTIPLIER_0, MULTIPLIER_1, WEYL_0, WEYL_1
from .compiled import jit

TILE = 2048
"""Elements of a tile: 512 blocks of words, or 16 for Bernoulli noise."""

GAUSSIAN, BERNOULLI = Gaussian.code, Bernoulli.code
BINARY = int(MaskKind.BINARY)
M0, M1, W0, W1 = (np.uint64(value) for value in (MULTIPLIER_0, MULTIPLIER_1, WEYL_0, WEYL_1))
SHIFT, LOW = np.uint64(32), np.uint64(2**32 - 1)

ALL_BYTES, RISING, FALLING = (
    np.uint64(value) for value in (0x0101010101010101, 0x8040201008040201, 0x0102040810204080)
)
BIT_OF_BYTE, JOIN = (RISING, FALLING) if sys.byteorder == "little" else (FALLING, RISING)
"""Bit j set in byte j, in memory order; and the factor that gathers bit 0 of all bytes in the top byte."""


@cache
def table_pairs() -> np.ndarray:
    """T[k] - T[k + 1] and T[k] (spec 3.4), as two uint32, in this order, in a uint64: shape (2048,)."""
    table = gaussian_table()
    pairs = np.stack([table[:-1] - table[1:], table[:-1]], 1).view(np.uint64).reshape(-1)
    pairs.flags.writeable = False
    return pairs


@jit
def scratch() -> Any:
    """A tile's arrays: words, draws, pairs of the Gaussian table, bits as bytes, and these as uint64."""
    bits = np.empty(TILE, np.uint8)
    return (
        np.empty(TILE, np.uint32),
        np.empty(TILE, np.int32),
        np.empty(2 * TILE, np.uint32),
        bits,
        bits.view(np.uint64),
    )


@jit
def _round(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any, r: Any) -> Any:
    """Round r of Philox on 32-bit values held in 64 bits (spec 2.3)."""
    p0, p1 = M0 * c0, M1 * c2
    k0, k1 = (k0 + r * W0) & LOW, (k1 + r * W1) & LOW
    return (p1 >> SHIFT) ^ c1 ^ k0, p1 & LOW, (p0 >> SHIFT) ^ c3 ^ k1, p0 & LOW


@jit
def fill(out: Any, seed: Any, stream: Any, first: Any) -> None:
    """Write blocks `first`, `first` + 1, ... into `out`: uint32, shape (4 * blocks,) (spec 2.2)."""
    k0, k1 = seed & LOW, seed >> SHIFT
    s0, s1 = stream & LOW, stream >> SHIFT
    for i in range(out.size // 4):
        block = first + np.uint64(i)
        c0, c1, c2, c3 = block & LOW, block >> SHIFT, s0, s1
        # LLVM vectorises over i only if the rounds are written out and `out` is flat.
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1, np.uint64(0))
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1, np.uint64(1))
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1, np.uint64(2))
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1, np.uint64(3))
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1, np.uint64(4))
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1, np.uint64(5))
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1, np.uint64(6))
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1, np.uint64(7))
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1, np.uint64(8))
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1, np.uint64(9))
        out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3] = c0, c1, c2, c3


@jit
def draw(
    words: Any,
    q: Any,
    pairs: Any,
    bits: Any,
    eight: Any,
    tile: Any,
    code: Any,
    seed: Any,
    stream: Any,
    table: Any,
) -> None:
    """Write the draws of a tile's elements into `q` (spec 3); the other arrays are scratch."""
    if code == BERNOULLI:
        fill(words[: TILE // 32], seed, stream, tile * np.uint64(TILE // 128))
        _bernoulli(q, bits, eight, words)
    else:
        fill(words, seed, stream, tile * np.uint64(TILE // 4))
        if code == GAUSSIAN:
            _gaussian(q, pairs, words, table)
        else:
            _uniform(q, words)


@jit
def _uniform(q: Any, words: Any) -> None:
    """Spec 3.2."""
    for i in range(TILE):
        q[i] = np.int32(2) * np.int32(words[i] >> np.uint32(8)) - np.int32(MAX_DRAW)


@jit
def _bernoulli(q: Any, bits: Any, eight: Any, words: Any) -> None:
    """Spec 3.3."""
    for i in range(TILE // 8):
        byte = np.uint64(np.uint8(words[i // 4] >> np.uint32(8 * (i % 4))))
        eight[i] = (byte * ALL_BYTES) & BIT_OF_BYTE
    for i in range(TILE):
        q[i] = np.int32(1) if bits[i] else np.int32(-1)


@jit
def _gaussian(q: Any, pairs: Any, words: Any, table: Any) -> None:
    """Spec 3.4: the bits of float32(x) hold its octave, segment and place side by side.

    24 bits of x are enough: the highest of the others is cleared, so that the conversion only cuts them off.
    """
    for i in range(TILE):
        x = np.uint32(np.uint32(words[i] << np.uint32(1)) | np.uint32(1))
        q[i] = np.float32(np.uint32(x & ~np.uint32(x >> np.uint32(24)))).view(np.int32)
    found = pairs.view(np.uint64)
    for i in range(TILE):
        found[i] = table[np.uint32(q[i] >> np.int32(17)) - np.uint32(127 * 64)]
    for i in range(TILE):
        place = np.uint32((q[i] >> np.int32(1)) & np.int32(0xFFFF))
        drop = np.uint32(np.uint32(pairs[2 * i] * place + np.uint32(2**15)) >> np.uint32(16))
        magnitude = np.int32(pairs[2 * i + 1] - drop)
        magnitude = magnitude if magnitude > np.int32(1) else np.int32(1)
        sign = np.int32(np.int32(words[i]) >> np.int32(31))
        q[i] = (magnitude ^ sign) - sign


@jit
def unpack(eight: Any, packed: Any) -> None:
    """Unpack bits to bytes, 0 for a clear bit and not 0 for a set one (spec 4.1)."""
    for i in range(len(packed)):
        eight[i] = (np.uint64(packed[i]) * ALL_BYTES) & BIT_OF_BYTE


@jit
def mask(q: Any, bits: Any, eight: Any, packed: Any, kind: Any) -> None:
    """Turn draws into draws times mask, in place (spec 4.2); `packed` is the tile's part of the mask."""
    unpack(eight, packed)
    if kind == BINARY:
        for i in range(TILE):
            q[i] = q[i] if bits[i] else np.int32(0)
    else:
        for i in range(TILE):
            q[i] = q[i] if bits[i] else -q[i]


@jit
def scale(out: Any, q: Any, step: Any) -> None:
    """Multiply draws by the step: one exact conversion, one rounding (spec 3.1); the integer 0 gives +0.0."""
    for i in range(len(out)):
        out[i] = np.float32(q[i]) * step


@jit
def join(q: Any, others: Any) -> None:
    """Add `others` to the masked draws `q`."""
    for i in range(TILE):
        q[i] += others[i]


@jit
def add(sums: Any, q: Any, weight: Any) -> None:
    """Add weight * q to `sums` (spec 8.2); products of 32-bit factors are faster than of 64-bit ones."""
    if weight < 2**31:
        short = np.int32(weight)
        for i in range(len(sums)):
            sums[i] += np.int64(short) * np.int64(q[i])
    else:
        for i in range(len(sums)):
            sums[i] += weight * np.int64(q[i])


@jit
def add_counted(sums: Any, q: Any, counts: Any, frames: Any, kind: Any, weight: Any) -> None:
    """Add weight * q * c, or weight * q * (2 * c - n) if the kind is signed, to `sums` (spec 8.6).

    As in `add`, products of 32-bit factors are faster; 2^39 - 1 bounds weight * n, not 2^31.
    """
    times, less = (np.int32(1), np.int32(0)) if kind == BINARY else (np.int32(2), np.int32(frames))
    if weight * frames < 2**31:
        short = np.int32(weight)
        for i in range(len(sums)):
            factor = np.int32(np.int32(np.int32(counts[i]) * times) - less)
            sums[i] += np.int64(np.int32(factor * short)) * np.int64(q[i])
    else:
        for i in range(len(sums)):
            factor = np.int32(np.int32(np.int32(counts[i]) * times) - less)
            sums[i] += weight * np.int64(factor) * np.int64(q[i])


@jit
def sample(bits: Any, update: Any, q: Any, r: Any, step: Any, kind: Any) -> None:
    """Compute the bit r < t of each element, as a byte (spec 4.3); no product and sum are fused."""
    bits[:] = 0
    if kind == BINARY:
        for i in range(len(update)):
            p = update[i] / (np.float32(q[i]) * step)
            bits[i] = np.float32(np.int32(r[i])) < p * np.float32(2**24)
    else:
        for i in range(len(update)):
            p = update[i] / (np.float32(q[i]) * step)
            bits[i] = np.float32(np.int32(r[i])) < (p + np.float32(1)) * np.float32(2**23)


@jit
def pack(out: Any, eight: Any) -> None:
    """Pack bytes of 0 or 1, eight into one (spec 4.1)."""
    for i in range(len(out)):
        out[i] = (eight[i] * JOIN) >> np.uint64(56)

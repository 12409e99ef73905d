"""The kernel of `fused.weight`; imports Numba. Like torch, it rounds each product and each sum.

A kernel is kept on the disk only if the kernels that it calls are names of a module: variables of a function
around it would make every process compile it anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fedmrn_codec.adapter_api.numba import fill, jit

TILE = 1024
"""Number of draws in memory at a time, which fit the L1 cache; a multiple of 8, the draws of a block."""

ONE = np.float32(1)


@jit
def tile(
    base: Any,
    noise: Any,
    update: Any,
    out: Any,
    draws: Any,
    low: Any,
    factor: Any,
    offset: Any,
    middle: Any,
    least: Any,
    most: Any,
    stochastic: Any,
) -> None:
    """The weights of at most `TILE` elements."""
    for i in range(len(out)):
        share = update[i] / noise[i]
        share = least if share < least else most if share > most else share  # NaN stays NaN
        threshold = np.float32(draws[i]) * factor + offset
        bit = threshold < share if stochastic else middle <= share
        value = ONE if bit else low
        share = value if threshold < ONE and share == share else share
        out[i] = base[i] + noise[i] * share


@jit
def kernel(
    base: Any, noise: Any, update: Any, out: Any, seed: Any, number: Any, how: tuple[Any, ...]
) -> None:
    """The weights of all elements; `how` has the last seven arguments of `tile`."""
    words = np.empty(TILE // 2, np.uint32)
    draws = words.view(np.int16)
    for a in range(0, len(out), TILE):
        b = min(a + TILE, len(out))
        fill(words, seed, number, np.uint64(a // 8))
        tile(base[a:b], noise[a:b], update[a:b], out[a:b], draws, *how)

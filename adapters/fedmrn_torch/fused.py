"""The masked weights of a training step in one pass over memory; on the CPU, if Numba is installed.

The bits are those of `masking.mask_` and the torch operations around it, which make a dozen passes.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .draws import thresholds

TILE = 1024
"""Number of draws in memory at a time, which fit the L1 cache; a multiple of 8, the draws of a block."""


def usable(*tensors: Tensor) -> bool:
    """Whether Numba is installed and all tensors are float32 on the CPU, dense, and of one memory layout."""
    first = tensors[0]
    return (
        _installed()
        and (first.is_contiguous() or first.is_contiguous(memory_format=torch.channels_last))
        and all(
            t.dtype == torch.float32 and t.device.type == "cpu" and t.stride() == first.stride()
            for t in tensors
        )
    )


def weight(
    base: Tensor,
    noise: Tensor,
    update: Tensor,
    place: tuple[int, int],
    low: float,
    tau: float,
    stochastic: bool,
    damping: float = 1.0,
) -> Tensor:
    """The weight of a forward pass: base + noise * (a sample of PSM).

    Parameters
    ----------
    base, noise, update : Tensor
        For which `usable` is true.
    place : tuple of int
        Seed and number of the draws (`draws.draw`), which are generated block by block.
    low, tau, stochastic
        As in `masking.mask_`.
    damping
        As in `masking.clipped_share`.
    """
    out = torch.empty_like(base)
    arrays = (_flat(t) for t in (base, noise, update, out))
    numbers = (low, *thresholds(low, tau), (1.0 + low) / 2, low * damping, damping)
    _kernel()(*arrays, *map(np.uint64, place), (*map(np.float32, numbers), stochastic))
    return out


def _flat(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().as_strided((tensor.numel(),), (1,)).numpy()
    return array


@cache
def _installed() -> bool:
    return find_spec("numba") is not None


@cache
def _kernel() -> Any:
    """The kernel, compiled without fast-math: like torch, it rounds each product and each sum separately."""
    from fedmrn_codec.adapter_api.numba import fill, jit

    one = np.float32(1)

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
        for i in range(len(out)):
            share = update[i] / noise[i]
            share = least if share < least else most if share > most else share  # NaN stays NaN
            threshold = np.float32(draws[i]) * factor + offset
            bit = threshold < share if stochastic else middle <= share
            value = one if bit else low
            share = value if threshold < one and share == share else share
            out[i] = base[i] + noise[i] * share

    @jit
    def kernel(
        base: Any, noise: Any, update: Any, out: Any, seed: Any, number: Any, how: tuple[Any, ...]
    ) -> None:
        words = np.empty(TILE // 2, np.uint32)
        draws = words.view(np.int16)
        for a in range(0, len(out), TILE):
            b = min(a + TILE, len(out))
            fill(words, seed, number, np.uint64(a // 8))
            tile(base[a:b], noise[a:b], update[a:b], out[a:b], draws, *how)

    return kernel

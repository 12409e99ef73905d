"""The masked weights of a training step in one pass over memory; on the CPU, if Numba is installed.

The bits are those of `masking.mask_` and the torch operations around it, which make a dozen passes.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from .draws import thresholds


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
    from .numba_fused import kernel

    kernel(*arrays, *map(np.uint64, place), (*map(np.float32, numbers), stochastic))
    return out


def _flat(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().as_strided((tensor.numel(),), (1,)).numpy()
    return array


@cache
def _installed() -> bool:
    return find_spec("numba") is not None

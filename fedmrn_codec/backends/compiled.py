"""How kernels are compiled, and how compiled code is kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without fast-math; with a cache on disk if there is a place for it."""
    try:
        return njit(function, cache=True, nogil=True, error_model="numpy")  # type: ignore[no-any-return]
    except RuntimeError:  # no directory for the cache can be written
        return njit(function, nogil=True, error_model="numpy")  # type: ignore[no-any-return]

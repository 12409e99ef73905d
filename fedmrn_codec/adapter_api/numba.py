"""The decorator that compiles the codec's kernels, and the kernel of its random words; imports Numba."""

from ..backends.compiled import jit
from ..backends.tiles import fill

__all__ = ["fill", "jit"]

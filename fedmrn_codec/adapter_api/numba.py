"""The codec's compiler settings, and its random words as a compiled function; imports Numba."""

from ..backends.compiled import jit
from ..backends.tiles import fill

__all__ = ["fill", "jit"]

"""How kernels are compiled, and how compiled code is kept on disk.

It is kept where NUMBA_CACHE_DIR says, else beside this file, else in the user's cache directory: the first of
them that can be written. Where none can, each process compiles anew, which takes seconds and changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache
from numba.core.runtime.nrt import rtsys


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without fast-math; with a cache on disk if there is a place for it."""
    kernel = njit(function, nogil=True, error_model="numpy")
    with suppress(RuntimeError):  # no directory can be written
        kernel._cache = KernelCache(function)
    return kernel  # type: ignore[no-any-return]


class KernelCache(FunctionCache):
    """Numba's cache of a function, made quick to load, and safe where one file's kernels call another's."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file._source_stamp = self._cache_file._source_stamp, sources()

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Code from the disk, None if there is none that fits or can be read.

        Numba would first import all that it may need to compile, SciPy too: a quarter of a second. Loaded
        code needs the runtime alone.
        """
        rtsys.initialize(context)
        try:
            return self._load_overload(signature, context)  # type: ignore[no-untyped-call]
        except Exception:  # a damaged file: forget what is kept of this function, compile and write it again
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def save_overload(self, signature: Any, code: Any) -> None:
        """Keep code if that is possible: a disk may be full."""
        with suppress(OSError):
            super().save_overload(signature, code)  # type: ignore[no-untyped-call]


@cache
def sources() -> str:
    """A digest of all kernels' sources: code in the cache includes the kernels that it calls."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()

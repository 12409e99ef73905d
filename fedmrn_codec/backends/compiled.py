"""The compilation of kernels by Numba, and the cache of compiled code on disk.

The cache is in the first of these directories that can be written: NUMBA_CACHE_DIR, that of this file, the
user's cache directory. If none can, every process compiles the kernels again, which takes some seconds.

Numba's public `njit(cache=True)` does not notice that a kernel in another file has changed, and would run old
code. Therefore this module extends Numba's private cache. With a Numba that has no such cache, each process
compiles the kernels by public means. `make test-numba` tests the oldest and the newest Numba.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit

try:
    from numba.core.caching import FunctionCache, NullCache
    from numba.core.runtime.nrt import rtsys
except ImportError:
    FunctionCache, NullCache, rtsys = object, object, None  # type: ignore[assignment, misc]


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first call, without fast-math; cached on disk where possible."""
    kernel = njit(function, nogil=True, error_model="numpy")
    if rtsys is not None and hasattr(kernel, "_cache"):
        kernel._cache = NoCache()
        with suppress(RuntimeError, AttributeError, TypeError):  # no writable directory, or another interface
            kernel._cache = KernelCache(function)
    return kernel  # type: ignore[no-any-return]


def cache_directory(kernel: Callable[..., Any]) -> str | None:
    """The directory where the code of a kernel is kept; None if it is not kept."""
    return getattr(getattr(kernel, "_cache", None), "cache_path", None)


def has_code(kernel: Callable[..., Any]) -> bool:
    """Whether a kernel has code: in memory, or on the disk when this was first asked."""
    return bool(getattr(kernel, "signatures", None)) or _is_on_disk(kernel)


@cache
def _is_on_disk(kernel: Any) -> bool:
    with suppress(Exception):  # no cache, or another interface
        return bool(kernel._cache._cache_file._load_index())
    return False


@cache
def announce() -> None:
    """Log that kernels are compiled: once, because it takes seconds in which nothing else happens."""
    logging.getLogger("fedmrn_codec").warning(
        "compiling the functions of the backend numba, which takes some seconds; "
        "they are kept on the disk where a folder can be written (NUMBA_CACHE_DIR)"
    )


class NoCache(NullCache):
    """Numba's cache that keeps nothing."""

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Load nothing, so that the code is compiled."""
        announce()


class KernelCache(FunctionCache):
    """Numba's cache of a function, which loads faster, and is invalid after a change in any kernel file."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file._source_stamp = self._cache_file._source_stamp, sources()

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Load compiled code; None if there is none for the signature or the file is damaged.

        Numba would first import what it needs to compile, SciPy included, which takes a quarter of a second.
        Loaded code needs only the runtime.
        """
        code = None
        try:
            rtsys.initialize(context)
            code = self._load_overload(signature, context)  # type: ignore[no-untyped-call]
        except Exception:  # a damaged file, or another interface: empty the cache of this function
            with suppress(OSError, AttributeError):
                self.flush()  # type: ignore[no-untyped-call]
        if code is None:
            announce()
        return code

    def save_overload(self, signature: Any, code: Any) -> None:
        """Save compiled code if possible; a full disk is no error."""
        with suppress(OSError, AttributeError):
            super().save_overload(signature, code)  # type: ignore[no-untyped-call]


@cache
def sources() -> str:
    """A digest of all kernel files, since the cached code of a kernel includes the kernels that it calls."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()

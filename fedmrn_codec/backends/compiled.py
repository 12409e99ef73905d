"""The compilation of kernels by Numba, and the cache of compiled code on disk.

The cache is in the first of these directories that can be written, but by no other user: NUMBA_CACHE_DIR,
that of this file, the user's cache directory. If there is none, every process compiles the kernels again,
which takes some seconds.

Every file begins with a SHA-256 digest of its name and content, which is compared before anything of it is
used: a damaged or exchanged file is compiled anew, where it could crash or give wrong noise. The digest has
no key, since there is no place for a secret that others could not read with the files. So it does not stop
someone who can write the files as this user or as an administrator: the files hold machine code and pickles,
and whoever can write them can run code. Against other users there are only the rights of folders and files.

Numba's public `njit(cache=True)` does not notice that a kernel in another file has changed, and would run old
code. Therefore this module extends Numba's private cache. With a Numba that has no such cache, each process
compiles the kernels by public means. `make test-numba` tests the oldest and the newest Numba.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit

from fedmrn_codec.backends import trusted

try:
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, NullCache
    from numba.core.runtime.nrt import rtsys
except ImportError:
    CompileResultCacheImpl = IndexDataCacheFile = FunctionCache = NullCache = object  # type: ignore[assignment, misc]
    rtsys = None  # type: ignore[assignment]


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


class PrivateLocator:
    """One of Numba's choices of a directory, without directories that other users can write."""

    def __init__(self, locator: Any) -> None:
        self._locator = locator

    def from_function(self, function: Any, file: str) -> Any:
        """As Numba's; None if the directory is not private."""
        found = self._locator.from_function(function, file)
        return found if found is not None and trusted.is_private(found.get_cache_path()) else None


class PrivateImpl(CompileResultCacheImpl):
    """Numba's way to find the directory of a cache."""

    @property
    def _locator_classes(self) -> list[PrivateLocator]:  # type: ignore[override]
        return [PrivateLocator(locator) for locator in CompileResultCacheImpl._locator_classes]


class CheckedFiles(IndexDataCacheFile):
    """Numba's files of one function, each with a digest."""

    def _load_index(self) -> dict[Any, str]:
        content = trusted.read(self._cache_path, self._index_name)
        if content is None:
            return {}
        version, *rest = pickle.loads(content)
        if version != self._version:  # the rest may need another Numba to be read
            return {}
        stamp, overloads = pickle.loads(*rest)
        return overloads if stamp == self._source_stamp else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        rest = self._dump((self._source_stamp, overloads))  # type: ignore[no-untyped-call]
        self._write(self._index_name, pickle.dumps((self._version, rest)))

    def _load_data(self, name: str) -> Any:
        content = trusted.read(self._cache_path, name)
        if content is None:
            raise OSError(f"{name} is missing or damaged")  # which `load` takes for no code
        return pickle.loads(content)

    def _save_data(self, name: str, data: Any) -> None:
        self._write(name, self._dump(data))  # type: ignore[no-untyped-call]

    def _write(self, name: str, content: bytes) -> None:
        path = self._data_path(name)  # type: ignore[no-untyped-call]
        with self._open_for_write(path) as file:
            trusted.protect(file.fileno())
            file.write(trusted.sealed(name, content))


class KernelCache(FunctionCache):
    """Numba's cache of a function, which loads faster, and is invalid after a change in any kernel file."""

    _impl_class = PrivateImpl

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        if not trusted.is_private(self._cache_path):  # chosen by NUMBA_CACHE_LOCATOR_CLASSES
            raise RuntimeError("other users can write the directory")
        stamp = self._cache_file._source_stamp, sources()
        base = self._impl.filename_base
        self._cache_file = CheckedFiles(self._cache_path, base, stamp)  # type: ignore[no-untyped-call]

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

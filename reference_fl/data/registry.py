"""The registry of data sets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .dataset import Dataset

Loader = Callable[[Path | None], Dataset]
_LOADERS: dict[str, Loader] = {}


def register(name: str) -> Callable[[Loader], Loader]:
    """Register a loader under `name`; used as a decorator.

    Raises
    ------
    ValueError
        The name is already registered.
    """

    def add(loader: Loader) -> Loader:
        if name in _LOADERS:
            raise ValueError(f"data set: expected an unused name, got {name!r}")
        _LOADERS[name] = loader
        return loader

    return add


def names() -> list[str]:
    """The names that `load` knows, sorted."""
    return sorted(_LOADERS)


def load(name: str = "digits", root: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        One of `names()`.
    root : path, optional
        The folder with its files. Without it: the environment variable FEDMRN_DATA, then the data set's
        default folder. "digits" needs no files and ignores it.

    Raises
    ------
    ValueError
        An unknown name, or files with wrong contents (`DataFileError`).
    DataMissingError
        Files are missing; the message lists the paths that were searched and says how to get the files.
    """
    if name not in _LOADERS:
        raise ValueError(f"data set: expected one of {', '.join(names())}, got {name!r}")
    return _LOADERS[name](None if root is None else Path(root))

"""The data sets by name."""

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
        The name is taken.
    """

    def add(loader: Loader) -> Loader:
        if name in _LOADERS:
            raise ValueError(f"data set {name!r} is registered already")
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
        default folder. A data set that needs no files ("digits") does not look at it.

    Raises
    ------
    ValueError
        An unknown name, or files with wrong contents (`DataFileError`).
    DataMissingError
        Files are not there; the message names each, where it was looked for, and how to get them.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(names())}")
    return _LOADERS[name](None if root is None else Path(root))

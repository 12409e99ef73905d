"""A reader of CIFAR's pickled batches that runs no code from the file.

A pickle can name any function and call it. The official files name only NumPy's array and dtype, for one
array of bytes. The reader replaces these by classes that only store their arguments, and refuses any other
name.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .files import DataFileError

PIXELS = 3 * 32 * 32


class CifarError(DataFileError):
    """A file is not a batch, or not an archive, of CIFAR."""


class _Array:
    """Replaces an array: stores its state (version, shape, dtype, Fortran order, bytes)."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    """Replaces a dtype: stores its name."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment have no effect on a dtype of one byte


_REPLACEMENTS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The replacement of a name; a name without one is refused."""
        if (module, name) not in _REPLACEMENTS:
            raise CifarError(f"name in the pickle: expected NumPy's array or dtype, got {module}.{name}")
        return _REPLACEMENTS[module, name]


def read_batch(
    what: str, file: io.BytesIO, labels: bytes, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the images and labels of one file.

    Parameters
    ----------
    what : str
        The file's name, for error messages.
    file : io.BytesIO
        A pickle written by Python 2: a dictionary with the key ``data`` and the key of the labels.
    labels : bytes
        The key of the labels.
    classes : int

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        The images: uint8, shape (samples, 3072), the red, green and blue planes, each row by row. The labels:
        int64, shape (samples,).

    Raises
    ------
    CifarError
        The file has another content.
    """
    try:
        batch = _Unpickler(file, encoding="bytes").load()
    except CifarError as error:
        raise CifarError(f"{what}: {error}") from None
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        raise CifarError(f"{what}: expected a pickled batch, got {type(error).__name__}: {error}") from error
    if not isinstance(batch, dict) or not {b"data", labels} <= set(batch):
        got = sorted(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        raise CifarError(f"{what}: keys: expected data and {labels.decode()}, got {got}")
    pixels = _pixels(what, batch[b"data"])
    return pixels, _labels(what, batch[labels], len(pixels), classes)


def _pixels(what: str, data: Any) -> NDArray[np.uint8]:
    state = data.state if isinstance(data, _Array) else None
    if not (isinstance(state, tuple) and len(state) == 5):
        raise CifarError(f"{what}: data: expected an array, got {type(data).__name__}")
    _, shape, dtype, fortran, raw = state
    name = dtype.name if isinstance(dtype, _Dtype) else None
    if name != b"u1" or not (isinstance(shape, tuple) and len(shape) == 2 and shape[1] == PIXELS):
        expected = f"b'u1' of shape (samples, {PIXELS})"
        raise CifarError(f"{what}: data: expected {expected}, got {name!r} of shape {shape}")
    if not isinstance(raw, bytes) or len(raw) != math.prod(shape):
        got = len(raw) if isinstance(raw, bytes) else type(raw).__name__
        raise CifarError(f"{what}: bytes of data: expected {math.prod(shape)}, got {got}")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _labels(what: str, labels: Any, samples: int, classes: int) -> NDArray[np.int64]:
    if not isinstance(labels, list) or len(labels) != samples:
        got = len(labels) if isinstance(labels, list) else type(labels).__name__
        raise CifarError(f"{what}: labels: expected a list of {samples}, got {got}")
    for label in labels:
        if type(label) is not int or not 0 <= label < classes:
            raise CifarError(f"{what}: label: expected 0..{classes - 1}, got {label!r}")
    return np.array(labels, np.int64)

"""CIFAR's pickled batches, read without trusting them.

A pickle can name any function and call it. The only names in these files are NumPy's, for one array of bytes;
they are given stand-ins that keep what they were told and do nothing. Any other name is an error.
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
    """Bytes that are not a batch, or an archive, of CIFAR."""


class _Array:
    """Stands for an array: takes its state (version, shape, dtype, Fortran order, bytes)."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype:
    """Stands for a dtype: keeps its name."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment: nothing to a dtype of one byte


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A stand-in; a name without one is refused."""
        if (module, name) not in _STAND_INS:
            raise CifarError(f"name in the pickle: found {module}.{name}, required NumPy's array and dtype")
        return _STAND_INS[module, name]


def read_batch(
    what: str, file: io.BytesIO, labels: bytes, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images and labels of one file.

    Parameters
    ----------
    what : str
        The file's name, for messages.
    file : io.BytesIO
        A pickle by Python 2: a dictionary with the key ``data`` and that of the labels.
    labels : bytes
        The key of the labels.
    classes : int

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        uint8, shape (samples, 3072), red, green, blue, each by rows; int64, shape (samples,).

    Raises
    ------
    CifarError
        Anything else is in the file.
    """
    try:
        batch = _Unpickler(file, encoding="bytes").load()
    except CifarError as error:
        raise CifarError(f"{what}: {error}") from None
    except Exception as error:  # whatever damaged bytes make the unpickler do
        raise CifarError(f"{what}: no pickle of a batch ({type(error).__name__}: {error})") from error
    if not isinstance(batch, dict) or not {b"data", labels} <= set(batch):
        found = sorted(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        raise CifarError(f"{what}: keys: found {found}, required data and {labels.decode()}")
    pixels = _pixels(what, batch[b"data"])
    return pixels, _labels(what, batch[labels], len(pixels), classes)


def _pixels(what: str, data: Any) -> NDArray[np.uint8]:
    state = data.state if isinstance(data, _Array) else None
    if not (isinstance(state, tuple) and len(state) == 5):
        raise CifarError(f"{what}: data: found {type(data).__name__}, required an array")
    _, shape, dtype, fortran, raw = state
    name = dtype.name if isinstance(dtype, _Dtype) else None
    if name != b"u1" or not (isinstance(shape, tuple) and len(shape) == 2 and shape[1] == PIXELS):
        raise CifarError(f"{what}: data: found {name!r} of shape {shape}, required b'u1' (samples, {PIXELS})")
    if not isinstance(raw, bytes) or len(raw) != math.prod(shape):
        found = len(raw) if isinstance(raw, bytes) else type(raw).__name__
        raise CifarError(f"{what}: bytes of data: found {found}, required {math.prod(shape)}")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _labels(what: str, labels: Any, samples: int, classes: int) -> NDArray[np.int64]:
    if not isinstance(labels, list) or len(labels) != samples:
        found = len(labels) if isinstance(labels, list) else type(labels).__name__
        raise CifarError(f"{what}: labels: found {found}, required a list of {samples}")
    for label in labels:
        if type(label) is not int or not 0 <= label < classes:
            raise CifarError(f"{what}: label: found {label!r}, required 0..{classes - 1}")
    return np.array(labels, np.int64)

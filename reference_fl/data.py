"""Image data sets for the reference training, each by one name in one registry.

A loader takes an optional folder and gives a `Dataset`: normalised float32 images, int64 labels, and a
train/test split that is the same on every machine. ``load("digits")`` needs no download.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

ENVIRONMENT = "FEDMRN_DATA"  # a folder to read instead of a data set's default one
MAX_IDX_ELEMENTS = 1 << 30  # refuse larger claims of a header before anything is allocated


class DataMissingError(FileNotFoundError):
    """Files of a data set are not where they were looked for."""


class IdxError(ValueError):
    """Bytes that are not the idx file required; says field, offset, found and required."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, split into train and test.

    Attributes
    ----------
    name : str
        The name under which it was loaded.
    train_x, test_x : torch.Tensor
        float32, shape (samples, channels, height, width), normalised, contiguous.
    train_y, test_y : torch.Tensor
        int64, shape (samples,), each in 0..classes-1.
    classes : int
        Number of classes.

    Raises
    ------
    ValueError
        A shape, dtype or label does not fit the above.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: int

    def __post_init__(self) -> None:
        _check_split(f"{self.name} train", self.train_x, self.train_y, self.classes)
        _check_split(f"{self.name} test", self.test_x, self.test_y, self.classes)
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            found, required = tuple(self.test_x.shape[1:]), tuple(self.train_x.shape[1:])
            raise ValueError(f"{self.name} test image shape: found {found}, the train images have {required}")

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.train_x.shape[1:]
        return channels, height, width


def _check_split(what: str, x: torch.Tensor, y: torch.Tensor, classes: int) -> None:
    if x.dtype != torch.float32 or x.ndim != 4:
        found = f"{x.dtype} of {x.ndim} dimensions"
        raise ValueError(f"{what} images: found {found}, required torch.float32 of 4")
    if y.dtype != torch.int64 or y.shape != x.shape[:1]:
        found = f"{y.dtype} of shape {tuple(y.shape)}"
        raise ValueError(f"{what} labels: found {found}, required torch.int64 of shape {tuple(x.shape[:1])}")
    if len(y) == 0:
        raise ValueError(f"{what}: found 0 samples, required at least 1")
    if int(y.min()) < 0 or int(y.max()) >= classes:
        found = f"{int(y.min())}..{int(y.max())}"
        raise ValueError(f"{what} labels: found {found}, required 0..{classes - 1}")


# The registry.

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
        An unknown name, or files with wrong contents (`IdxError`).
    DataMissingError
        Files are not there; the message names each, where it was looked for, and how to get them.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(names())}")
    return _LOADERS[name](None if root is None else Path(root))


def normalise(
    images: NDArray[np.uint8], top: int, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """(images / top - mean) / std, channel by channel.

    Parameters
    ----------
    images : numpy.ndarray
        uint8, shape (samples, channels, height, width).
    top : int
        The value of a white pixel.
    mean, std : sequence of float
        One number a channel.

    Returns
    -------
    torch.Tensor
        float32, same shape.
    """
    shift = np.asarray(mean, np.float32).reshape(-1, 1, 1)
    spread = np.asarray(std, np.float32).reshape(-1, 1, 1)
    out = images.astype(np.float32)  # the one copy; the rest is in place
    out /= np.float32(top)
    out -= shift
    out /= spread
    return torch.from_numpy(out)


# Files.


def find_files(
    name: str, files: Sequence[str], root: Path | None, default: Path, how_to_get: str
) -> dict[str, Path]:
    """Find all files of a data set in one folder, each plain or with ``.gz``.

    An explicit `root` is the only place looked at; without one, FEDMRN_DATA if set; else `default`. Under the
    first two a subfolder called `name` counts too. Files of two folders are never mixed.

    Returns
    -------
    dict of str to Path
        The path of every entry of `files`.

    Raises
    ------
    DataMissingError
        No folder has all the files.
    """
    given = root if root is not None else os.environ.get(ENVIRONMENT) or None
    folders = [default] if given is None else [Path(given), Path(given) / name]
    for folder in folders:
        found = {file: _plain_or_gz(folder / file) for file in files}
        paths = {file: path for file, path in found.items() if path is not None}
        if len(paths) == len(files):
            return paths
    raise DataMissingError(_missing_message(name, files, folders, how_to_get))


def _plain_or_gz(path: Path) -> Path | None:
    zipped = path.with_name(path.name + ".gz")
    return next((p for p in (path, zipped) if p.is_file()), None)


def _missing_message(name: str, files: Sequence[str], folders: Sequence[Path], how_to_get: str) -> str:
    lines = [f"data set {name!r}: files are missing (each may also end in .gz)"]
    for folder in folders:
        for file in files:
            path = _plain_or_gz(folder / file)
            lines.append(f"  {folder / file}: {'not found' if path is None else 'found'}")
    lines.append(f"{how_to_get}; or name a folder that holds the files: root=... or {ENVIRONMENT}=...")
    return "\n".join(lines)


def read_idx(path: Path, shape: Sequence[int | None]) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes (the format of MNIST), plain or gzip.

    Layout: two zero bytes, the type 0x08, the number of dimensions, each size as a big-endian uint32, data.

    Parameters
    ----------
    path : Path
        The file; it is taken for gzip if it starts as one, whatever its name.
    shape : sequence of int or None
        The required size of each dimension; None allows any.

    Returns
    -------
    numpy.ndarray
        uint8, of the shape the file states.

    Raises
    ------
    IdxError
        Any other magic, number of dimensions, size or length, or a broken gzip stream.
    """
    with open(path, "rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    try:
        with open(path, "rb") as raw:
            stream: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if zipped else raw
            sizes = _read_idx_header(path, stream, shape)
            need = math.prod(sizes)
            data = stream.read(need + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IdxError(f"{path}: broken gzip stream: {error}") from error
    if len(data) != need:
        found = f"{len(data)}" if len(data) < need else f"more than {need}"
        raise IdxError(f"{path}: data length at byte {4 + 4 * len(sizes)}: found {found}, required {need}")
    return np.frombuffer(bytearray(data), np.uint8).reshape(sizes)


def _read_idx_header(path: Path, stream: io.BufferedIOBase, shape: Sequence[int | None]) -> list[int]:
    head = stream.read(4 + 4 * len(shape))
    magic = bytes([0, 0, 8, len(shape)])
    if head[:4] != magic:
        found_magic = head[:4].hex(" ") or "nothing"
        raise IdxError(f"{path}: magic at byte 0: found {found_magic}, required {magic.hex(' ')}")
    if len(head) != 4 + 4 * len(shape):
        raise IdxError(f"{path}: header length at byte 0: found {len(head)}, required {4 + 4 * len(shape)}")
    sizes = [int.from_bytes(head[4 + 4 * i : 8 + 4 * i], "big") for i in range(len(shape))]
    for i, (found, required) in enumerate(zip(sizes, shape, strict=True)):
        if required is not None and found != required:
            where = f"size of dimension {i} at byte {4 + 4 * i}"
            raise IdxError(f"{path}: {where}: found {found}, required {required}")
    if math.prod(sizes) > MAX_IDX_ELEMENTS:
        product = " * ".join(map(str, sizes))
        raise IdxError(
            f"{path}: sizes at byte 4: found {product}, required at most {MAX_IDX_ELEMENTS} elements"
        )
    return sizes


# The data sets.


@register("digits")
def _digits(root: Path | None) -> Dataset:
    """scikit-learn's 8x8 handwritten digits: 1797 images, 10 classes. No files; `root` is not used.

    Split: within each class, in the order of scikit-learn's file, every fifth image is a test image. No
    random generator, so no version of one can move it.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = normalise(bunch.images.astype(np.uint8)[:, None], 16, (0.3053,), (0.3761,))
    y = bunch.target.astype(np.int64)
    is_test = np.zeros(len(y), bool)
    for label in range(10):
        is_test[np.flatnonzero(y == label)[4::5]] = True
    labels, test = torch.from_numpy(y), torch.from_numpy(is_test)
    return Dataset("digits", x[~test], labels[~test], x[test], labels[test], 10)


FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@register("fashion-mnist")
def _fashion_mnist(root: Path | None) -> Dataset:
    """Fashion-MNIST (Xiao et al., 2017): 60,000 + 10,000 images of 28x28, 10 classes.

    Normalised with mean .2860 and standard deviation .3530 (Li et al., ACM MM 2024, main experiments).
    """
    kinds = ("images-idx3", "labels-idx1")
    files = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in kinds]
    get = "On Debian and Ubuntu: apt-get install dataset-fashion-mnist"
    paths = find_files("fashion-mnist", files, root, FASHION_MNIST_FOLDER, get)
    train_x, train_y = _mnist_split(paths[files[0]], paths[files[1]])
    test_x, test_y = _mnist_split(paths[files[2]], paths[files[3]])
    return Dataset("fashion-mnist", train_x, train_y, test_x, test_y, 10)


def _mnist_split(images: Path, labels: Path) -> tuple[torch.Tensor, torch.Tensor]:
    x = read_idx(images, (None, 28, 28))
    y = read_idx(labels, (len(x),))
    if len(y) and y.max() > 9:
        at = int(np.argmax(y > 9))
        raise IdxError(f"{labels}: label at byte {8 + at}: found {y[at]}, required 0..9")
    return normalise(x[:, None], 255, (0.2860,), (0.3530,)), torch.from_numpy(y.astype(np.int64))

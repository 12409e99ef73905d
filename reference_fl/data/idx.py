"""A reader of the idx format, in which MNIST and similar data sets are published."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .files import DataFileError, check_md5

MAX_IDX_ELEMENTS = 1 << 30  # a header that states more is refused before memory is allocated


class IdxError(DataFileError):
    """A file is not the expected idx file; the message says field, offset, expected and got."""


def read_idx(path: Path, shape: Sequence[int | None], md5: str | None = None) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, plain or gzip.

    Layout: two zero bytes, the type 0x08, the number of dimensions, each size as a big-endian uint32, data.

    Parameters
    ----------
    path : Path
        The file. Its first bytes, not its name, decide whether it is read as gzip.
    shape : sequence of int or None
        The expected size of each dimension; None allows any.
    md5 : str, optional
        The expected MD5 of the unpacked bytes.

    Returns
    -------
    numpy.ndarray
        uint8, of the shape that the file states.

    Raises
    ------
    IdxError
        The magic, the number of dimensions, a size or the length differs, or the gzip data are damaged.
    ChecksumError
        The MD5 differs.
    """
    with open(path, "rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    try:
        with open(path, "rb") as raw:
            file: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if zipped else raw
            head = file.read(4 + 4 * len(shape))
            sizes = _idx_sizes(path, head, shape)
            need = math.prod(sizes)
            data = file.read(need + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IdxError(f"{path}: expected a gzip stream, got a damaged one: {error}") from error
    if len(data) != need:
        got = f"{len(data)}" if len(data) < need else f"more than {need}"
        raise IdxError(f"{path}: data length, byte {4 + 4 * len(sizes)}: expected {need}, got {got}")
    if md5 is not None:
        check_md5(path, hashlib.md5(head + data, usedforsecurity=False).hexdigest(), md5)
    return np.frombuffer(bytearray(data), np.uint8).reshape(sizes)


def _idx_sizes(path: Path, head: bytes, shape: Sequence[int | None]) -> list[int]:
    magic = bytes([0, 0, 8, len(shape)])
    if head[:4] != magic:
        got_magic = head[:4].hex(" ") or "nothing"
        raise IdxError(f"{path}: magic, byte 0: expected {magic.hex(' ')}, got {got_magic}")
    if len(head) != 4 + 4 * len(shape):
        raise IdxError(f"{path}: header length, byte 0: expected {4 + 4 * len(shape)}, got {len(head)}")
    sizes = [int.from_bytes(head[4 + 4 * i : 8 + 4 * i], "big") for i in range(len(shape))]
    for i, (got, expected) in enumerate(zip(sizes, shape, strict=True)):
        if expected is not None and got != expected:
            where = f"size of dimension {i}, byte {4 + 4 * i}"
            raise IdxError(f"{path}: {where}: expected {expected}, got {got}")
    if math.prod(sizes) > MAX_IDX_ELEMENTS:
        product = " * ".join(map(str, sizes))
        raise IdxError(f"{path}: sizes, byte 4: expected at most {MAX_IDX_ELEMENTS} elements, got {product}")
    return sizes

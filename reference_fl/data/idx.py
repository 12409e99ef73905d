"""The idx format of MNIST and its like: unsigned bytes of some shape."""

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

MAX_IDX_ELEMENTS = 1 << 30  # refuse larger claims of a header before anything is allocated


class IdxError(DataFileError):
    """Bytes that are not the idx file required; says field, offset, found and required."""


def read_idx(path: Path, shape: Sequence[int | None], md5: str | None = None) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes (the format of MNIST), plain or gzip.

    Layout: two zero bytes, the type 0x08, the number of dimensions, each size as a big-endian uint32, data.

    Parameters
    ----------
    path : Path
        The file; it is taken for gzip if it starts as one, whatever its name.
    shape : sequence of int or None
        The required size of each dimension; None allows any.
    md5 : str, optional
        The required MD5 of the unpacked bytes.

    Returns
    -------
    numpy.ndarray
        uint8, of the shape the file states.

    Raises
    ------
    IdxError
        Any other magic, number of dimensions, size or length, or a broken gzip stream.
    ChecksumError
        Another MD5.
    """
    with open(path, "rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    try:
        with open(path, "rb") as raw:
            stream: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if zipped else raw
            head = stream.read(4 + 4 * len(shape))
            sizes = _idx_sizes(path, head, shape)
            need = math.prod(sizes)
            data = stream.read(need + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IdxError(f"{path}: broken gzip stream: {error}") from error
    if len(data) != need:
        found = f"{len(data)}" if len(data) < need else f"more than {need}"
        raise IdxError(f"{path}: data length at byte {4 + 4 * len(sizes)}: found {found}, required {need}")
    if md5 is not None:
        found_md5 = hashlib.md5(head + data, usedforsecurity=False).hexdigest()
        check_md5(path, found_md5, md5)
    return np.frombuffer(bytearray(data), np.uint8).reshape(sizes)


def _idx_sizes(path: Path, head: bytes, shape: Sequence[int | None]) -> list[int]:
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

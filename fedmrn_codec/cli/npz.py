"""NumPy's npz without pickle, and with a limit on the size that an archive unpacks to."""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from ..primitives.dtypes import DTYPES
from .dense import Dense

SUFFIX = ".npy"

FREE_BYTES, MAX_RATIO = 2**30, 20
"""An archive may unpack to this many bytes, or to this many times its own size, whichever is more."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The modification time of each member, so that the same tensors give the same bytes."""


def load(data: bytes) -> dict[str, Dense]:
    """Parse an archive's bytes to tensors by name.

    Raises
    ------
    ValueError
        The bytes are not an npz file, hold a dtype that is not in spec 5.3, or unpack to too many bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_expansion(archive, len(data))
            return {_name(m): _read(archive, m) for m in _members(archive)}
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types for damaged bytes
        raise ValueError(f"{type(error).__name__}: {error}") from error


def save(file: BinaryIO, tensors: Mapping[str, Dense]) -> None:
    """Write an uncompressed archive to `file`; bfloat16, which NumPy lacks, is written as its bits in uint16.

    Raises
    ------
    ValueError
        A tensor's name cannot be stored in a zip file.
    """
    with zipfile.ZipFile(_Forward(file), "w") as archive:  # type: ignore[call-overload]
        for name, (_, array) in tensors.items():
            if "\0" in name or len(name.encode()) + len(SUFFIX) >= 2**16:
                raise ValueError(f"tensor name: expected less than 2^16 bytes, none NUL, got {name[:60]!r}")
            with archive.open(zipfile.ZipInfo(name + SUFFIX, EPOCH), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


class _Forward:
    """A file without seek, so that the same bytes are written to pipes and to files."""

    def __init__(self, file: BinaryIO) -> None:
        self.write, self.flush = file.write, file.flush


def _check_expansion(archive: zipfile.ZipFile, size: int) -> None:
    unpacked, limit = sum(m.file_size for m in archive.infolist()), max(FREE_BYTES, MAX_RATIO * size)
    if unpacked > limit:
        raise ValueError(f"unpacked size: expected at most {limit} bytes, got {unpacked}")


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    name, times = Counter(m.filename for m in members).most_common(1)[0] if members else ("", 0)
    if times > 1:
        raise ValueError(f"member {name!r}: expected once, got {times} times")
    return members


def _name(member: zipfile.ZipInfo) -> str:
    if not member.filename.endswith(SUFFIX):
        raise ValueError(f"member name: expected to end in {SUFFIX}, got {member.filename!r}")
    return member.filename.removesuffix(SUFFIX)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Dense:
    """Read one array; its header is compared with the member's length before memory is allocated."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        if version[0] not in reader:
            raise ValueError(f"npy version of {member.filename!r}: expected 1 or 2, got {version[0]}")
        shape, fortran, dtype = reader[version[0]](file)
        name, held = _dtype(member, dtype)
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != member.file_size - file.tell():
            got = member.file_size - file.tell()
            raise ValueError(f"{member.filename!r}: expected {size} bytes for its shape {shape}, got {got}")
        flat = np.frombuffer(file.read(), held).astype(held.newbyteorder("="), copy=False)
    return Dense(name, flat.reshape(shape, order="F" if fortran else "C"))


def _dtype(member: zipfile.ZipInfo, dtype: np.dtype[np.generic]) -> tuple[str, np.dtype[np.generic]]:
    """The name of a dtype, and the dtype of its elements in memory; NumPy stores bfloat16 as `|V2`."""
    if dtype.str == "|V2" and dtype.names is None:
        return "bfloat16", DTYPES["bfloat16"].numpy
    name = dtype.newbyteorder("=").name
    if name not in DTYPES or dtype.kind not in "fiub":
        raise ValueError(f"dtype of {member.filename!r}: expected one of {', '.join(DTYPES)}, got {dtype}")
    return name, dtype

"""NumPy's npz without pickle, and with an eye on what an archive says it would unpack to."""

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
from .files import Bytes

SUFFIX = ".npy"

FREE_BYTES, MAX_RATIO = 2**30, 20
"""An archive may unpack to this many bytes, or to this many times its own size, whichever is more."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time written for each member, so that the same tensors give the same bytes."""


def load(data: Bytes) -> dict[str, Dense]:
    """The tensors of an archive's bytes.

    Raises
    ------
    ValueError
        The bytes are not an npz file, hold a dtype that spec 5.3 does not have, or unpack to too much.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_expansion(archive, len(data))
            return {_name(m): _read(archive, m) for m in _members(archive)}
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damaged bytes
        raise ValueError(f"{type(error).__name__}: {error}") from error


def save(stream: BinaryIO, tensors: Mapping[str, Dense]) -> None:
    """Write an archive, not compressed; bfloat16, which NumPy lacks, as its bits in uint16.

    Raises
    ------
    ValueError
        A name that a zip file cannot hold.
    """
    with zipfile.ZipFile(_Forward(stream), "w") as archive:  # type: ignore[call-overload]
        for name, (_, array) in tensors.items():
            if "\0" in name or len(name.encode()) + len(SUFFIX) >= 2**16:
                raise ValueError(f"a zip file cannot name a tensor {name[:60]!r}")
            with archive.open(zipfile.ZipInfo(name + SUFFIX, EPOCH), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


class _Forward:
    """A stream that cannot seek back, whatever the one below can: pipes and files get the same bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self.write, self.flush = stream.write, stream.flush


def _check_expansion(archive: zipfile.ZipFile, size: int) -> None:
    unpacked, limit = sum(m.file_size for m in archive.infolist()), max(FREE_BYTES, MAX_RATIO * size)
    if unpacked > limit:
        raise ValueError(f"it would unpack to {unpacked} bytes, the limit is {limit}")


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    name, times = Counter(m.filename for m in members).most_common(1)[0] if members else ("", 0)
    if times > 1:
        raise ValueError(f"member {name!r} occurs {times} times")
    return members


def _name(member: zipfile.ZipInfo) -> str:
    if not member.filename.endswith(SUFFIX):
        raise ValueError(f"member {member.filename!r} is not an array")
    return member.filename.removesuffix(SUFFIX)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Dense:
    """One array, whose header has been compared with the member's length before memory is taken."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        if version[0] not in reader:
            raise ValueError(f"member {member.filename!r} has npy version {version}")
        shape, fortran, dtype = reader[version[0]](stream)
        name, held = _dtype(member, dtype)
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != member.file_size - stream.tell():
            raise ValueError(f"member {member.filename!r} does not have the bytes of its shape {shape}")
        flat = np.frombuffer(stream.read(), held).astype(held.newbyteorder("="), copy=False)
    return Dense(name, flat.reshape(shape, order="F" if fortran else "C"))


def _dtype(member: zipfile.ZipInfo, dtype: np.dtype[np.generic]) -> tuple[str, np.dtype[np.generic]]:
    """The name of a dtype, and how to hold its elements; two opaque bytes are how NumPy stores bfloat16."""
    if dtype.str == "|V2" and dtype.names is None:
        return "bfloat16", DTYPES["bfloat16"].numpy
    name = dtype.newbyteorder("=").name
    if name not in DTYPES or dtype.kind not in "fiub":
        raise ValueError(f"member {member.filename!r} has dtype {dtype}; known: {', '.join(DTYPES)}")
    return name, dtype

"""The layout of a frame (spec 6): its fields, what `inspect` shows of them, and how they are written."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import errors
from ..primitives.codes import Coding, MaskKind
from ..primitives.dtypes import Dtype
from ..primitives.noise import Noise
from .schema import Schema

if TYPE_CHECKING:
    from typing_extensions import Buffer as Buffer
else:  # Python 3.12 and newer have it in collections.abc
    Buffer = Any

MAGIC, MAJOR, MINOR = b"FMRN", 1, 3  # the highest minor version that this library reads
HEADER = struct.Struct("<4sBBHQQII16s")
ENTRY = struct.Struct("<BBBBQ")
SCALE = struct.Struct("<f")
CHECKSUM = struct.Struct("<I")
SCHEMA_FLAG = 1
DENSE, GRID = 0, 3
"""Kinds of table entries beside those of masks (`MaskKind`)."""

GRID_MINOR = 3
"""The first minor version that has the kind `GRID`."""


class Header(NamedTuple):
    """The header's fields in their order (spec 6.2)."""

    magic: bytes
    major: int
    minor: int
    flags: int
    seed: int
    base_model: int
    round: int
    tensor_count: int
    digest: bytes


@dataclass(frozen=True)
class Entry:
    """The table entry of one tensor of a frame (spec 6.4).

    Attributes
    ----------
    kind : str
        "dense", "binary", "signed" or "grid".
    noise : Noise or None
        Distribution and scale of a mask's noise; None for other kinds.
    dtype : str
        Of the decoded tensor; "float32" for a masked one.
    offset, length : int
        The payload's first byte, from the start of the frame, and its number of bytes.
    coding : str
        "raw", "rans", "rans12", "rans14", "float16" or "bfloat16": a label of `Coding`.
    step : float or None
        Of a grid; None for other kinds.
    """

    kind: str
    noise: Noise | None
    dtype: str
    offset: int
    length: int
    coding: str = "raw"
    step: float | None = None

    @cached_property  # the frames of a round share their entries
    def mask_kind(self) -> MaskKind:
        """`kind` as a `MaskKind`, for a mask."""
        return MaskKind[self.kind.upper()]

    @cached_property
    def payload_coding(self) -> Coding:
        """`coding` as a `Coding`."""
        return Coding[self.coding.upper()]


@dataclass(frozen=True)
class Info:
    """The contents of a frame's header and table (spec 6.2 to 6.4).

    Attributes
    ----------
    version : (int, int)
        Major and minor.
    seed, base_model, round : int
        A base model or round of 0 means "not given".
    digest : bytes
        The 16 bytes that identify the schema (spec 5.4).
    schema : Schema or None
        The caller's; else the one embedded in the frame, if there is one.
    embedded : bool
        Whether the frame carries its schema.
    tensors : tuple of Entry
        In schema order.
    frame_bytes, mask_bytes, grid_bytes, dense_bytes, header_bytes : int
        The frame's length in bytes; that of its masks, of its grids, of its other payloads, and of all else.
    """

    version: tuple[int, int]
    seed: int
    base_model: int
    round: int
    digest: bytes
    schema: Schema | None
    embedded: bool
    tensors: tuple[Entry, ...]
    frame_bytes: int
    mask_bytes: int = field(init=False)
    grid_bytes: int = field(init=False)
    dense_bytes: int = field(init=False)
    header_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        masked = sum(e.length for e in self.tensors if e.noise)
        grids = sum(e.length for e in self.tensors if e.step)
        dense = sum(e.length for e in self.tensors) - masked - grids
        object.__setattr__(self, "mask_bytes", masked)
        object.__setattr__(self, "grid_bytes", grids)
        object.__setattr__(self, "dense_bytes", dense)
        object.__setattr__(self, "header_bytes", self.frame_bytes - masked - grids - dense)


def as_view(data: Buffer) -> memoryview:
    """A flat view of an object with contiguous bytes (bytes, memoryview, mmap, array and others); no copy.

    Raises
    ------
    ArgumentError
        `data` has no contiguous bytes.
    """
    try:
        return memoryview(data).cast("B")
    except (TypeError, ValueError) as error:
        raise errors.ArgumentError("frame", "contiguous bytes", f"{type(data).__name__} ({error})") from None


def build(
    schema: Schema,
    entries: Sequence[bytes],
    payloads: Sequence[np.ndarray],
    *,
    seed: int,
    base_model: int,
    round: int,
    embed_schema: bool,
) -> bytes:
    """The bytes of a frame with these entries and payloads (spec 6.1), in the lowest version, [E-01]."""
    heads = [ENTRY.unpack_from(entry) for entry in entries]
    minor = max((minor_of(kind, coding) for kind, _, coding, _, _ in heads), default=0)
    header = HEADER.pack(
        MAGIC, MAJOR, minor, SCHEMA_FLAG * embed_schema, seed, base_model, round, len(schema), schema.digest
    )
    embedded = struct.pack("<I", len(schema.data)) + schema.data if embed_schema else b""
    parts: list[Any] = [header, embedded, *entries, *payloads]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join([*parts, CHECKSUM.pack(checksum)])


def minor_of(kind: int, coding: int) -> int:
    """The first minor version that has an entry of this kind and coding (spec 6.2)."""
    return GRID_MINOR if kind == GRID else Coding(coding).minor


def masked_entry(noise: Noise, kind: MaskKind, coding: Coding, length: int) -> bytes:
    """The table entry of a mask (spec 6.4); `length` is its payload's, in bytes."""
    return ENTRY.pack(kind, noise.code, coding, 0, length) + SCALE.pack(noise.scale)


def dense_entry(dtype: Dtype, coding: Coding, length: int) -> bytes:
    """The table entry of elements (spec 6.4); `length` is their payload's, in bytes."""
    return ENTRY.pack(DENSE, dtype.code, coding, 0, length)


def grid_entry(dtype: Dtype, step: float, coding: Coding, length: int) -> bytes:
    """The table entry of a grid (spec 6.4); `length` is its payload's, in bytes."""
    return ENTRY.pack(GRID, dtype.code, coding, 0, length) + SCALE.pack(step)


def check_checksum(view: memoryview) -> None:
    """Check the CRC-32 of a frame, [F-27], or of a partial sum, [P-14]."""
    at = len(view) - CHECKSUM.size
    (found,) = CHECKSUM.unpack_from(view, at)
    computed = zlib.crc32(view[:at])
    if found != computed:
        raise errors.ChecksumError(
            "checksum", f"{computed:#010x}, the CRC-32 of the bytes before it", f"{found:#010x}", at
        )

"""The frame's layout (spec 6): its fields, what a reader is told of them, and how they are put together."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import errors
from ..primitives.codes import Coding, MaskKind
from ..primitives.dtypes import Dtype
from ..primitives.noise import Noise
from .schema import Schema

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC, MAJOR, MINOR = b"FMRN", 1, 1  # the highest minor version that is known
HEADER = struct.Struct("<4sBBHQQII16s")
ENTRY = struct.Struct("<BBBBQ")
SCALE = struct.Struct("<f")
CHECKSUM = struct.Struct("<I")
SCHEMA_FLAG = 1
DENSE = 0


class Header(NamedTuple):
    """The fields of spec 6.2, in their order."""

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
    """One tensor of a frame (spec 6.4).

    Attributes
    ----------
    kind : str
        "dense", "binary" or "signed".
    noise : Noise or None
        Distribution and scale of a masked tensor.
    dtype : str
        Of the decoded tensor; "float32" for a masked one.
    offset, length : int
        Where the payload lies in the frame, in bytes.
    coding : str
        How the payload is encoded: "raw"; "rans" for a mask; "float16" or "bfloat16" for a dense float32
        tensor.
    """

    kind: str
    noise: Noise | None
    dtype: str
    offset: int
    length: int
    coding: str = "raw"

    @property
    def mask_kind(self) -> MaskKind:
        """The code of `kind`, for a masked tensor."""
        return MaskKind[self.kind.upper()]

    @property
    def payload_coding(self) -> Coding:
        """The code of `coding`."""
        return Coding[self.coding.upper()]


@dataclass(frozen=True)
class Info:
    """What a frame says of itself before its payloads (spec 6.2 to 6.4).

    Attributes
    ----------
    version : (int, int)
    seed, base_model, round : int
        0 for the latter two means "not given".
    digest : bytes
        Of the schema: 16 bytes.
    schema : Schema or None
        The caller's, or else the one embedded in the frame.
    embedded : bool
        Whether the frame carries its schema.
    tensors : tuple of Entry
        In schema order.
    frame_bytes, mask_bytes, dense_bytes, header_bytes : int
        The frame's length, and its parts: masked payloads, dense payloads, everything else.
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
    dense_bytes: int = field(init=False)
    header_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        masked = sum(e.length for e in self.tensors if e.noise)
        dense = sum(e.length for e in self.tensors if not e.noise)
        object.__setattr__(self, "mask_bytes", masked)
        object.__setattr__(self, "dense_bytes", dense)
        object.__setattr__(self, "header_bytes", self.frame_bytes - masked - dense)


def as_view(data: Buffer) -> memoryview:
    """A flat view of the bytes of bytes, bytearray, memoryview, mmap or array; no copy.

    Raises
    ------
    ArgumentError
        If `data` has no contiguous bytes.
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
    """Put a frame together from its table entries and payloads (spec 6.1), of the lowest version, [E-01]."""
    minor = int(any(ENTRY.unpack_from(entry)[2] != Coding.RAW for entry in entries))
    header = HEADER.pack(
        MAGIC, MAJOR, minor, SCHEMA_FLAG * embed_schema, seed, base_model, round, len(schema), schema.digest
    )
    embedded = struct.pack("<I", len(schema.data)) + schema.data if embed_schema else b""
    parts: list[Any] = [header, embedded, *entries, *payloads]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"".join([*parts, CHECKSUM.pack(checksum)])


def masked_entry(noise: Noise, kind: MaskKind, coding: Coding, length: int) -> bytes:
    """A masked tensor's table entry (spec 6.4)."""
    return ENTRY.pack(kind, noise.code, coding, 0, length) + SCALE.pack(noise.scale)


def dense_entry(dtype: Dtype, coding: Coding, length: int) -> bytes:
    """A dense tensor's table entry (spec 6.4)."""
    return ENTRY.pack(DENSE, dtype.code, coding, 0, length)


def check_checksum(view: memoryview) -> None:
    """[F-27]; also the check of a partial sum, [P-14]."""
    at = len(view) - CHECKSUM.size
    (found,) = CHECKSUM.unpack_from(view, at)
    computed = zlib.crc32(view[:at])
    if found != computed:
        raise errors.ChecksumError(
            "checksum", f"{computed:#010x}, computed from the bytes", f"{found:#010x}", at
        )

"""Messages: their header, their checks in order, and their checksum (spec/SECAGG.md 7, 10)."""

from __future__ import annotations

import hashlib
import struct
import zlib
from enum import IntEnum
from typing import Any

import numpy as np

import fedmrn_codec as fm

from . import errors

MAGIC, VERSION = b"FMRX", 1
HEADER = struct.Struct("<4sBBHQ32s")
CHECKSUM = struct.Struct("<I")
LEAST = HEADER.size + CHECKSUM.size
FOR_ALL = 0
"""The id in a message to all clients."""


class Type(IntEnum):
    """The types of messages, in the order of a round."""

    KEYS = 1
    ROSTER = 2
    SHARES = 3
    BOXES = 4
    MASKED = 5
    SURVIVORS = 6
    REVEAL = 7


def label(name: str) -> bytes:
    """The bytes that keep one use of a hash or a key apart from all others (spec 4.1)."""
    return b"fedmrn secagg 1 " + name.encode() + b"\0"


def pack(kind: Type, id: int, digest: bytes, *parts: bytes) -> bytes:
    """A message with these parts of a body."""
    data = b"".join([HEADER.pack(MAGIC, VERSION, kind, 0, id, digest), *parts])
    return data + CHECKSUM.pack(zlib.crc32(data))


def digest_of(name: str, message: bytes) -> bytes:
    """The digest of a message under a label, without its checksum (spec 7.2)."""
    return hashlib.sha256(label(name) + message[: -CHECKSUM.size]).digest()


class Message:
    """A message whose header is right: [X-11] to [X-17].

    Parameters
    ----------
    data : bytes-like
    kind : Type
        The one that is waited for.
    id : int
        Of the client that sent it or for whom it is.
    digest : bytes
        The reader's own.

    Raises
    ------
    SecAggError
        A check fails; the first one determines the subclass.
    ArgumentError
        `data` has no contiguous bytes.
    """

    def __init__(self, data: Any, kind: Type, id: int, digest: bytes) -> None:
        try:
            self.view = memoryview(data).cast("B")
        except (TypeError, ValueError):
            raise fm.ArgumentError("message", "contiguous bytes", type(data).__name__) from None
        if len(self.view) < LEAST:
            raise errors.TruncatedError("message", f"at least {LEAST} bytes", len(self.view), 0)
        magic, version, its_kind, reserved, its_id, its_digest = HEADER.unpack_from(self.view)
        if magic != MAGIC:
            raise errors.MagicError("magic", repr(MAGIC), magic, 0)
        if version != VERSION:
            raise errors.VersionError("version", VERSION, version, 4)
        if its_kind != kind:
            raise errors.MessageTypeError("type", f"{kind.value} ({kind.name.lower()})", its_kind, 5)
        if reserved:
            raise errors.ReservedError("reserved", 0, reserved, 6)
        if its_id != id:
            raise errors.SenderError("id", id, its_id, 8)
        if its_digest != digest:
            expected = f"{digest.hex()}, that of this session, request, round and roster"
            raise errors.DigestError("digest", expected, its_digest.hex(), 16)

    @property
    def size(self) -> int:
        """The bytes of the body."""
        return len(self.view) - LEAST

    def part(self, begin: int, size: int) -> bytes:
        """Bytes of the body, before the length is checked; [X-20] if they are not there."""
        if self.size < begin + size:
            self._wrong_length(errors.TruncatedError, f"at least {begin + size + LEAST}")
        return bytes(self.view[HEADER.size + begin : HEADER.size + begin + size])

    def bitmap(self, size: int) -> np.ndarray:
        """The bitmap of so many bits at the start of the body: bool, shape (size,); [X-19]."""
        packed = self.part(0, (size + 7) // 8)
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(bool)
        if bits[size:].any():
            where = HEADER.size + len(packed) - 1
            raise errors.PaddingError("bitmap", f"0 in the bits after bit {size - 1}", hex(packed[-1]), where)
        return bits[:size]

    def body(self, size: int) -> memoryview:
        """The body, after the checks [X-20] to [X-22]; it has so many bytes."""
        if self.size < size:
            self._wrong_length(errors.TruncatedError, size + LEAST)
        if self.size > size:
            self._wrong_length(errors.TrailingError, size + LEAST)
        at = len(self.view) - CHECKSUM.size
        (found,) = CHECKSUM.unpack_from(self.view, at)
        computed = zlib.crc32(self.view[:at])
        if found != computed:
            expected = f"{computed:#010x}, the CRC-32 of the bytes before it"
            raise errors.ChecksumError("checksum", expected, f"{found:#010x}", at)
        return self.view[HEADER.size : at]

    def _wrong_length(self, error: type[errors.SecAggError], expected: object) -> None:
        raise error("message", f"{expected} bytes", len(self.view), min(len(self.view), LEAST))


def packed_bitmap(bits: np.ndarray) -> bytes:
    """The bytes of a bitmap: bool, shape (n,)."""
    return np.packbits(bits, bitorder="little").tobytes()

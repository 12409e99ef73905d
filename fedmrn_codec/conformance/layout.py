"""Where bytes differ, and bytes with the right digest and checksum."""

from __future__ import annotations

import hashlib
import struct
import zlib

from .fields import Field


def first_difference(expected: bytes, got: bytes) -> int:
    """The position of the first byte that differs; the length of the shorter if there is none."""
    pairs = zip(expected, got, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(got)))


def field_at(fields: list[Field], at: int) -> Field:
    """The field that holds byte `at`; the last field if `at` is beyond the end."""
    return next((field for field in fields if field.begin <= at < field.end), fields[-1])


def with_digest(data: bytes) -> bytes:
    """The frame with its header's digest set to that of the embedded schema, if there is one."""
    if len(data) < 56 or data[:4] != b"FMRN" or not data[6] & 1:
        return data
    raw = data[52 : 52 + int.from_bytes(data[48:52], "little")]
    return data[:32] + hashlib.sha256(raw).digest()[:16] + data[48:]


def with_checksum(data: bytes) -> bytes:
    """The bytes with the last four set to the checksum of the others."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4])) if len(data) >= 4 else data

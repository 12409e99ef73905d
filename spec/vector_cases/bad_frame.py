"""Bad frames made from good ones."""

from __future__ import annotations

import hashlib
import struct
from typing import Any, NamedTuple

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import Options, Schema
from vector_cases.basics import (
    SMALL,
    SMALL_SCHEMA,
    sealed,
)


def raw_tensor(name: bytes, role: int, dtype: int, *shape: int, rank: int | None = None) -> bytes:
    head = struct.pack("<H", len(name)) + name + bytes([role, dtype, len(shape) if rank is None else rank])
    return head + struct.pack(f"<{len(shape)}Q", *shape)


def embedding(
    raw: bytes, count: int = 1, digest: bytes | None = None, length: int | None = None, rest: bytes = b""
) -> bytes:
    """A frame that embeds these bytes as its schema, under their digest."""
    digest = hashlib.sha256(raw).digest()[:16] if digest is None else digest
    header = struct.pack("<4sBBHQQII16s", b"FMRN", 1, 0, 1, 7, 0, 0, count, digest)
    return sealed(header + struct.pack("<I", len(raw) if length is None else length) + raw + rest)


class Bad(NamedTuple):
    """A frame to be refused."""

    name: str
    comment: str
    data: bytes
    schema: Schema | None
    options: Options


def bad(name: str, comment: str, data: bytes, schema: Schema | None = SMALL_SCHEMA, **options: Any) -> Bad:
    """A frame that the reader of SMALL_SCHEMA refuses; the name begins with the number of the check."""
    return Bad(name, comment, data, schema, Options(**options))


def bare(name: str, comment: str, data: bytes, **options: Any) -> Bad:
    """A frame that a reader without a schema refuses."""
    return bad(name, comment, data, None, **options)


def number_of(name: str) -> str:
    """The number of the check in a name: [F-07] for `f07-most`."""
    return f"{name[0].upper()}-{name[1:3]}"


PLAIN, FULL = o.encode(SMALL), o.encode(SMALL, True)
SCHEMA_END = 52 + len(o.schema_bytes(SMALL_SCHEMA))  # of FULL
# Offsets in PLAIN of the table's entries and of the payloads
W, B, N, F, V, H = 48, 64, 76, 88, 100, 116
P_W, P_B, P_N, P_F, P_V, P_H = 128, 130, 138, 146, 149, 151
assert PLAIN[P_H:-4] == bytes.fromhex("003c")

"""The packed message: how methods whose updates are no masks over noise send them.

Little-endian; one part for each masked tensor of the schema, in its order, in a coding of the method's own.
The dense tensors travel in a frame (`spec/FORMAT.md`) inside, exactly as they do with masks; that frame also
carries the seed, the round and the base model.

| offset | size | name     | allowed                                                          |
|--------|------|----------|------------------------------------------------------------------|
| 0      | 4    | magic    | "FLPM"                                                           |
| 4      | 1    | version  | 1                                                                |
| 5      | 1    | method   | the id of the method, which fixes the coding of the parts        |
| 6      | 2    | reserved | 0                                                                |
| 8      | 16   | digest   | of the schema, masked and dense tensors (spec 5.4)               |
| 24     | 4    | parts    | how many; the schema's number of masked tensors                  |
| 28     | 4    | frame    | length of the frame in bytes                                     |
| 32     | 4 n  | lengths  | of each part in bytes                                            |
|        |      | contents | the parts one after the other, then the frame                    |
| -4     | 4    | checksum | CRC-32 (the zlib one) of all bytes before it                     |
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import fedmrn_codec as fm

MAGIC, VERSION = b"FLPM", 1
HEADER = struct.Struct("<4sBBH16sII")
LENGTH = struct.Struct("<I")
CHECKSUM = struct.Struct("<I")


class MessageError(fm.MalformedError):
    """A packed message that no server may accept; says field, offset, found and required."""

    code = "packed_message"


@dataclass(frozen=True)
class Part:
    """The coded elements of one tensor.

    Attributes
    ----------
    data : memoryview
        Its bytes.
    offset : int
        Where they lie in the message.
    """

    data: memoryview
    offset: int

    def error(self, field: str, expected: object, got: object, at: int = 0) -> MessageError:
        """An error of the byte `at` of this part."""
        return MessageError(field, expected, got, self.offset + at)


@dataclass(frozen=True)
class Packed:
    """A message whose outer checks have passed; the parts and the frame are still unread.

    Attributes
    ----------
    parts : tuple of Part
    frame : memoryview
    frame_bytes, mask_bytes, dense_bytes, header_bytes : int
        The whole message's length, and its parts: coded weights, dense payloads, everything else.
    """

    parts: tuple[Part, ...]
    frame: memoryview
    frame_bytes: int
    mask_bytes: int = field(init=False)
    dense_bytes: int = field(init=False)
    header_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        masked = sum(len(part.data) for part in self.parts)
        dense = fm.inspect(self.frame).dense_bytes
        object.__setattr__(self, "mask_bytes", masked)
        object.__setattr__(self, "dense_bytes", dense)
        object.__setattr__(self, "header_bytes", self.frame_bytes - masked - dense)


def dense_schema(schema: fm.Schema) -> fm.Schema:
    """The dense tensors of a schema: what the frame inside a packed message is of."""
    return fm.Schema(tensor for tensor in schema if not tensor.masked)


def build(method: int, schema: fm.Schema, parts: Sequence[bytes], frame: bytes) -> bytes:
    """Put a message together.

    Parameters
    ----------
    method : int
        0 to 255.
    schema : fedmrn_codec.Schema
    parts : sequence of bytes
        One for each masked tensor, in schema order.
    frame : bytes
        Of `dense_schema(schema)`.
    """
    header = HEADER.pack(MAGIC, VERSION, method, 0, schema.digest, len(parts), len(frame))
    body = b"".join([header, *(LENGTH.pack(len(part)) for part in parts), *parts, frame])
    return body + CHECKSUM.pack(zlib.crc32(body))


def parse(data: bytes | bytearray | memoryview, method: int, schema: fm.Schema) -> Packed:
    """Check a message from the outside and take it apart.

    Raises
    ------
    MessageError
        A field of the table above is not as allowed, the lengths do not fill the message, or its checksum
        is another.
    fedmrn_codec.FrameError
        The frame inside is none.
    """
    view = memoryview(data).cast("B")
    count = sum(tensor.masked for tensor in schema)
    start = HEADER.size + LENGTH.size * count
    if len(view) < start + CHECKSUM.size:
        expected = f"at least {start + CHECKSUM.size}"
        raise MessageError("message length", expected, len(view), len(view))
    _check_header(view, method, schema, count)
    *lengths, frame_length = [
        *(LENGTH.unpack_from(view, HEADER.size + LENGTH.size * i)[0] for i in range(count)),
        HEADER.unpack_from(view)[-1],
    ]
    end = start + sum(lengths) + frame_length
    if len(view) != end + CHECKSUM.size:
        raise MessageError(
            "message length", f"{end + CHECKSUM.size} bytes of parts", len(view), min(end, len(view))
        )
    (found,) = CHECKSUM.unpack_from(view, end)
    computed = zlib.crc32(view[:end])
    if found != computed:
        raise MessageError("checksum", f"{computed:#010x}, computed from the bytes", f"{found:#010x}", end)
    parts, at = [], start
    for length in lengths:
        parts.append(Part(view[at : at + length], at))
        at += length
    return Packed(tuple(parts), view[at:end], len(view))


def _check_header(view: memoryview, method: int, schema: fm.Schema, count: int) -> None:
    magic, version, its_method, reserved, digest, its_count, _ = HEADER.unpack_from(view)
    for name, found, required, offset in (
        ("magic", magic, MAGIC, 0),
        ("version", version, VERSION, 4),
        ("method", its_method, method, 5),
        ("reserved bytes", reserved, 0, 6),
        ("schema digest", digest.hex(), schema.digest.hex(), 8),
        ("part count", its_count, count, 24),
    ):
        if found != required:
            raise MessageError(name, repr(required), found, offset)

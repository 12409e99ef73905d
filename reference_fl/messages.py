"""The packed message: the format of methods whose updates are not masks over noise.

All integers are little-endian. The message has one part for each masked tensor of the schema, in schema
order; each method defines the coding of its parts. The dense tensors are in a frame (`spec/FORMAT.md`) inside
the message, encoded as with masks; that frame also carries the seed, the round and the base model.

| offset | size | name     | allowed                                                          |
|--------|------|----------|------------------------------------------------------------------|
| 0      | 4    | magic    | "FLPM"                                                           |
| 4      | 1    | version  | 1                                                                |
| 5      | 1    | method   | the id of the method, which defines the coding of the parts      |
| 6      | 2    | reserved | 0                                                                |
| 8      | 16   | digest   | of the schema, masked and dense tensors (spec 5.4)               |
| 24     | 4    | parts    | their number n: the schema's number of masked tensors            |
| 28     | 4    | frame    | length of the frame in bytes                                     |
| 32     | 4 n  | lengths  | length of each part in bytes                                     |
|        |      | contents | the parts one after the other, then the frame                    |
| -4     | 4    | checksum | CRC-32 (the zlib one) of all bytes before it                     |
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import fedmrn_codec as fm
from fedmrn_codec.primitives.arguments import given

MAGIC, VERSION = b"FLPM", 1
HEADER = struct.Struct("<4sBBH16sII")
LENGTH = struct.Struct("<I")
CHECKSUM = struct.Struct("<I")


class MessageError(fm.MalformedError):
    """A packed message fails a check; the message says field, offset, expected and got."""

    code = "packed_message"


@dataclass(frozen=True)
class Part:
    """The coded elements of one tensor.

    Attributes
    ----------
    data : memoryview
        Its bytes.
    offset : int
        The position of the first byte in the message.
    """

    data: memoryview
    offset: int

    def error(self, field: str, expected: object, got: object, at: int = 0) -> MessageError:
        """An error at byte `at` of this part."""
        return MessageError(field, expected, got, self.offset + at)


@dataclass(frozen=True)
class Packed:
    """A message whose header, lengths, checksum and frame have passed every check; the parts are unchecked.

    Attributes
    ----------
    parts : tuple of Part
    frame : fedmrn_codec.CheckedFrame
        The dense tensors.
    frame_bytes, mask_bytes, dense_bytes, header_bytes : int
        The length of the whole message, and how it divides: parts, dense payloads, everything else.
    """

    parts: tuple[Part, ...]
    frame: fm.CheckedFrame
    frame_bytes: int
    mask_bytes: int = field(init=False)
    dense_bytes: int = field(init=False)
    header_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        masked = sum(len(part.data) for part in self.parts)
        dense = self.frame.dense_bytes
        object.__setattr__(self, "mask_bytes", masked)
        object.__setattr__(self, "dense_bytes", dense)
        object.__setattr__(self, "header_bytes", self.frame_bytes - masked - dense)


def dense_schema(schema: fm.Schema) -> fm.Schema:
    """The dense tensors of a schema: the schema of the frame inside a packed message."""
    return fm.Schema(tensor for tensor in schema if not tensor.masked)


def verified(
    frame: bytes | memoryview, schema: fm.Schema, round: int | None, base_model: int | None, seed: int | None
) -> fm.CheckedFrame:
    """Check a frame, as `fedmrn_codec.verify` does; a round or base model of 0 accepts any value."""
    return fm.verify(frame, schema, round=given(round), base_model=given(base_model), seed=seed)


def build(method: int, schema: fm.Schema, parts: Sequence[bytes], frame: bytes) -> bytes:
    """Assemble a message.

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


def parse(
    data: bytes | bytearray | memoryview,
    method: int,
    schema: fm.Schema,
    *,
    round: int | None = None,
    base_model: int | None = None,
    seed: int | None = None,
) -> Packed:
    """Check a message and its frame, and split the message into parts.

    Parameters
    ----------
    data : bytes-like
    method : int
        The expected id.
    schema : fedmrn_codec.Schema
    round, base_model, seed : int, optional
        Refuse a frame with another value; a round or base model of 0 accepts any value.

    Raises
    ------
    MessageError
        A field has a value that the table above does not allow, the lengths do not add up to the length of
        the message, or the checksum differs.
    fedmrn_codec.FrameError
        The frame fails a check.
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
    (got,) = CHECKSUM.unpack_from(view, end)
    computed = zlib.crc32(view[:end])
    if got != computed:
        raise MessageError("checksum", f"{computed:#010x}, computed from the bytes", f"{got:#010x}", end)
    parts, at = [], start
    for length in lengths:
        parts.append(Part(view[at : at + length], at))
        at += length
    frame = verified(view[at:end], dense_schema(schema), round, base_model, seed)
    return Packed(tuple(parts), frame, len(view))


def _check_header(view: memoryview, method: int, schema: fm.Schema, count: int) -> None:
    magic, version, its_method, reserved, digest, its_count, _ = HEADER.unpack_from(view)
    for name, got, expected, offset in (
        ("magic", magic, MAGIC, 0),
        ("version", version, VERSION, 4),
        ("method", its_method, method, 5),
        ("reserved bytes", reserved, 0, 6),
        ("schema digest", digest.hex(), schema.digest.hex(), 8),
        ("part count", its_count, count, 24),
    ):
        if got != expected:
            raise MessageError(name, repr(expected), got, offset)

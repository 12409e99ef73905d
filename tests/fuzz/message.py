"""Frames, partial sums and tallies as their parts: read without checks, written with right lengths."""

import hashlib
import random
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from fedmrn_codec.conformance import oracle

MOST = 64
"""The number of entries, tensors and rows that are read; what follows is one payload."""

FRAME, PARTIAL, TALLY = b"FMRN", b"FMRS", b"FMRT"
HEADS = {FRAME: 48, PARTIAL: 56, TALLY: 60}
SCALED = (oracle.BINARY, oracle.SIGNED, oracle.GRID)


class Part(NamedTuple):
    """A table entry and its payload, or of a dense tensor in sums a row.

    Of a partial sum the noise of a tensor and its sums, of a tally the entry of a tensor and its counts.
    """

    entry: bytes
    payload: bytes


class Message(NamedTuple):
    """The parts of a frame, a partial sum or a tally, in the order in which they are written.

    Attributes
    ----------
    head : bytes
        The header.
    schema : bytes or None
        That of the frame; None if it has none.
    parts : list of Part
    rest : bytes
        What follows, without the checksum.
    checksum : bytes
        The last four bytes, or fewer.
    """

    head: bytes
    schema: bytes | None
    parts: list[Part]
    rest: bytes
    checksum: bytes

    @property
    def is_frame(self) -> bool:
        return self.head[:4] not in (PARTIAL, TALLY)

    def write(self) -> bytes:
        """The bytes, with the parts as they are."""
        out = self.head
        if self.schema is not None:
            out += struct.pack("<I", len(self.schema)) + self.schema
        if self.is_frame:
            out += b"".join(part.entry for part in self.parts) + b"".join(part.payload for part in self.parts)
        else:
            out += b"".join(part.entry + part.payload for part in self.parts)
        return out + self.rest + self.checksum


def read(data: bytes, tensors: oracle.Schema | None = None) -> Message:
    """The parts of any bytes, as far as they have parts; `write` gives the same bytes.

    The tensors of the schema of a partial sum or tally tell where its parts end.
    """
    body, checksum = (data[:-4], data[-4:]) if len(data) >= 4 else (b"", data)
    size = HEADS.get(data[:4], 0)
    head, at, schema = body[:size], min(size, len(body)), None
    if data[:4] in (PARTIAL, TALLY):
        parts, at = _sums(body, at, tensors or (), data[:4] == TALLY)
        return Message(head, None, parts, body[at:], checksum)
    if size and len(body) >= 52 and head[6] & 1:
        length = int.from_bytes(body[48:52], "little")
        if len(body) >= 52 + length:
            schema, at = body[52 : 52 + length], 52 + length
    count = int.from_bytes(head[28:32], "little") if len(head) == 48 else 0
    parts, at = _entries(body, at, min(count, MOST))
    return Message(head, schema, parts, body[at:], checksum)


def _entries(body: bytes, at: int, count: int) -> tuple[list[Part], int]:
    entries = []
    while len(entries) < count and at < len(body):
        size = 16 if body[at] in SCALED else 12
        if at + size > len(body):
            break
        entries.append(body[at : at + size])
        at += size
    parts = []
    for entry in entries:
        end = min(at + int.from_bytes(entry[4:12], "little"), len(body))
        parts.append(Part(entry, body[at:end]))
        at = end
    return parts, at


def _sums(body: bytes, at: int, tensors: oracle.Schema, counted: bool) -> tuple[list[Part], int]:
    parts = []
    for tensor in tensors[:MOST]:
        cells = 8 * tensor.elements
        if tensor.masked and counted:
            length = int.from_bytes(body[at + 8 : at + 16], "little")
            sizes = [(16, min(length, max(len(body) - at - 16, 0)))]
        elif tensor.masked:
            sizes = [(8, cells)]
        else:
            rows = min(int.from_bytes(body[at : at + 4], "little"), MOST)
            sizes = [(4, 0)] + [(4, cells)] * rows
        for first, second in sizes:
            if at + first + second > len(body):
                return parts, at
            parts.append(Part(body[at : at + first], body[at + first : at + first + second]))
            at += first + second
    return parts, at


# --- repairs ----------------------------------------------------------------------------------------


def repaired(message: Message, rng: random.Random, digest: bytes | None = None, often: float = 0.9) -> bytes:
    """The bytes with lengths, counts, minor version, digest and checksum made right, each with a probability.

    Parameters
    ----------
    digest : bytes, optional
        That of the caller's schema, for bytes that carry none.
    often : float
        The probability of each repair.
    """
    head, schema, parts, rest, checksum = message
    if message.is_frame and len(head) == 48:
        if rng.random() < often:
            parts = [with_length(part) for part in parts]
        if rng.random() < often:
            rest = b""
            count = len(parts)
            head = head[:28] + struct.pack("<I", count) + head[32:]
        if rng.random() < often:
            head = head[:5] + bytes([needed_minor(parts)]) + head[6:]
        if rng.random() < often:
            head = head[:6] + struct.pack("<H", schema is not None) + head[8:]
        if schema is not None and rng.random() < often:
            digest = hashlib.sha256(schema).digest()[:16]
    if head[:4] == TALLY and rng.random() < often:
        parts = [with_length(part, 8) if len(part.entry) == 16 else part for part in parts]
    if digest is not None and len(head) >= 48 and rng.random() < often:
        head = head[:32] + digest + head[48:]
    data = Message(head, schema, parts, rest, checksum).write()
    if rng.random() < often and len(data) >= 4:
        data = data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))
    return data


def with_length(part: Part, at: int = 4) -> Part:
    """The part of a frame, or of a tally (`at` is 8), with the length of its payload in its entry."""
    entry = part.entry[:at] + struct.pack("<Q", len(part.payload)) + part.entry[at + 8 :]
    return part._replace(entry=entry)


def needed_minor(parts: Sequence[Part]) -> int:
    """The minor version of a frame with these entries (spec 6.2); unknown codings need none."""
    return max(
        (3 if part.entry[0] == oracle.GRID else oracle.MINOR.get(part.entry[2], 0) for part in parts),
        default=0,
    )


def schema_bytes(tensors: Sequence[oracle.Tensor]) -> bytes:
    """The bytes of a schema (spec 5.1), whether or not a reader may accept them."""
    out = struct.pack("<I", len(tensors))
    for t in tensors:
        name = t.name.encode()
        out += struct.pack("<H", len(name)) + name + bytes([t.masked, t.dtype, len(t.shape)])
        out += b"".join(struct.pack("<Q", d % 2**64) for d in t.shape)
    return out

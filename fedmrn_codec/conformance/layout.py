"""The positions of the fields in valid bytes, to name the field that differs and to damage one."""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import NamedTuple

from . import oracle


class Field(NamedTuple):
    """Bytes `begin` to `end - 1`, their name, and the section that describes them."""

    begin: int
    end: int
    name: str
    section: str


class _Pen:
    """Collects fields that follow one another."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.fields = at, list[Field]()

    def put(self, size: int, name: str, section: str) -> None:
        self.fields.append(Field(self.at, self.at + size, name, section))
        self.at += size


def _header(pen: _Pen, *last: tuple[str, int], section: str) -> None:
    sizes = [("magic", 4), ("major", 1), ("minor", 1), ("flags", 2), *last]
    for name, size in sizes:
        pen.put(size, name, section)


def schema_fields(schema: oracle.Schema, at: int = 0) -> list[Field]:
    """The fields of a schema whose bytes begin at `at` (spec 5.1, 5.2)."""
    pen = _Pen(at)
    pen.put(4, "schema's count", "5.1")
    for tensor in schema:
        sizes = {"name_length": 2, "name": len(tensor.name.encode()), "role": 1, "dtype": 1, "rank": 1}
        for name, size in sizes.items():
            pen.put(size, f"{name} of {tensor.name!r}", "5.2")
        for k in range(len(tensor.shape)):
            pen.put(8, f"dimension {k} of {tensor.name!r}", "5.2")
    return pen.fields


def frame_fields(data: bytes, schema: oracle.Schema) -> list[Field]:
    """The fields of a valid frame (spec 6)."""
    pen = _Pen()
    last = (("seed", 8), ("base_model", 8), ("round", 4), ("tensor_count", 4), ("schema_digest", 16))
    _header(pen, *last, section="6.2")
    if data[6] & 1:
        pen.put(4, "schema's length", "6.3")
        pen.fields += schema_fields(schema, pen.at)
        pen.at = pen.fields[-1].end
    for tensor in schema:
        scale = 0 if data[pen.at] == oracle.DENSE else 4
        sizes = {"kind": 1, "type": 1, "coding": 1, "reserved": 1, "length": 8, "scale": scale}
        for name, size in sizes.items():
            if size:
                pen.put(size, f"{name} of {tensor.name!r}", "6.4")
    entries = [field.begin - 4 for field in pen.fields if field.name.startswith("length of ")]
    for tensor, at in zip(schema, entries, strict=True):
        length = int.from_bytes(data[at + 4 : at + 12], "little")
        if data[at + 2] == oracle.RANS:
            _coded(pen, tensor, data[pen.at : pen.at + length])
        elif data[at + 2] == oracle.RANS12:
            _coded_12(pen, tensor, data[pen.at : pen.at + length], data[at + 1])
        elif data[at + 2] == oracle.RANS14:
            _coded_14(pen, tensor, data[pen.at : pen.at + length])
        else:
            pen.put(length, f"payload of {tensor.name!r}", "6.9" if data[at + 2] else "6.5")
    pen.put(4, "checksum", "6.6")
    return pen.fields


def _coded(pen: _Pen, tensor: oracle.Tensor, wire: bytes) -> None:
    """Add the fields of a mask in coding 1 to `pen`."""
    blocks = (tensor.elements + 65535) // 65536
    counts = struct.unpack_from(f"<{blocks}H", wire, 16)
    for name, size in (("P", 16), ("counts", 2 * blocks)):
        pen.put(size, f"{name} of {tensor.name!r}", "6.8")
    _blocks(pen, tensor, counts, ("states", 32, "6.8"), "6.8")


def _coded_12(pen: _Pen, tensor: oracle.Tensor, wire: bytes, distribution: int) -> None:
    """Add the fields of a mask in coding 4 to `pen`."""
    blocks = (tensor.elements + 65535) // 65536
    _, size = oracle.take_indices(wire, distribution)
    counts = struct.unpack_from(f"<{blocks - 1}H", wire, size)
    last = (len(wire) - size - 2 * (blocks - 1) - 4 * blocks) // 2 - sum(counts)
    for name, length in (("k(0)", 1), ("bits of k", size - 1), ("counts", 2 * blocks - 2)):
        pen.put(length, f"{name} of {tensor.name!r}", "6.11")
    _blocks(pen, tensor, (*counts, last), ("state", 4, "6.11"), "6.10")


def _coded_14(pen: _Pen, tensor: oracle.Tensor, wire: bytes) -> None:
    """Add the fields of a grid in coding 5 to `pen`."""
    blocks = (tensor.elements + 65535) // 65536
    _, size = oracle.take_frequencies(wire)
    counts = struct.unpack_from(f"<{blocks - 1}I", wire, size)
    last = (len(wire) - size - 4 * (blocks - 1) - 4 * blocks) // 2 - sum(counts)
    for name, length in (("last", 1), ("bits of f", size - 1), ("counts", 4 * blocks - 4)):
        pen.put(length, f"{name} of {tensor.name!r}", "6.14")
    _blocks(pen, tensor, (*counts, last), ("state", 4, "6.14"), "6.13")


def _blocks(
    pen: _Pen, tensor: oracle.Tensor, counts: tuple[int, ...], state: tuple[str, int, str], words: str
) -> None:
    """Add the state or states and the words of each block to `pen`."""
    name, size, section = state
    for b, count in enumerate(counts):
        of = f"of block {b} of {tensor.name!r}" if len(counts) > 1 else f"of {tensor.name!r}"
        pen.put(size, f"{name} {of}", section)
        pen.put(2 * count, f"words {of}", words)


def partial_fields(data: bytes, schema: oracle.Schema) -> list[Field]:
    """The fields of a valid partial sum (spec 8.5)."""
    pen = _Pen()
    last = (("weight", 8), ("base_model", 8), ("round", 4), ("tensor_count", 4), ("schema_digest", 16))
    _header(pen, *last, ("frames", 8), section="8.5")
    for tensor in schema:
        of = f"of {tensor.name!r}"
        if tensor.masked:
            for name, size in (("distribution", 1), ("reserved", 3), ("scale", 4)):
                pen.put(size, f"{name} {of}", "8.5")
            pen.put(8 * tensor.elements, f"sums {of}", "8.2")
            continue
        rows = int.from_bytes(data[pen.at : pen.at + 4], "little")
        pen.put(4, f"rows {of}", "8.5")
        for _ in range(rows):
            pen.put(4, f"limb {of}", "8.5")
            pen.put(8 * tensor.elements, f"limbs {of}", "8.4")
    pen.put(4, "checksum", "8.5")
    return pen.fields


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

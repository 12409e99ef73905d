"""The fields of a frame, a schema or a partial sum, in their order; of damaged bytes, as far as known."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import repeat
from typing import NamedTuple

from . import oracle

HEADER, PARTIAL_HEADER, TALLY_HEADER, CHECKSUM = 48, 56, 60, 4
"""The lengths of the three headers and of a checksum (spec 6.2, 6.6, 8.5, 8.6)."""

UNREAD = "bytes that belong to no field"


class Field(NamedTuple):
    """Bytes `begin` to `end - 1`, their name, and the section that describes them.

    `form` says how the bytes are read: "number", "text", "hex", "bits", the name of a dtype, or what the
    number stands for ("kind", "role", "dtype", "distribution", "coding").
    """

    begin: int
    end: int
    name: str
    section: str
    form: str = "number"


class _End(Exception):
    """The bytes end, or have a value that does not tell what follows."""


class _Pen:
    """Collects fields that follow one another in `data`, up to byte `end`."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end
        self.fields = list[Field]()

    def put(self, size: int, name: str, section: str, form: str = "number") -> bytes:
        """Add a field, or as much of it as there is; return its bytes."""
        begin, self.at = self.at, min(self.at + size, self.end)
        if self.at > begin or not size:
            self.fields.append(Field(begin, self.at, name, section, form))
        if self.at < begin + size:
            raise _End
        return self.data[begin : self.at]

    def number(self, size: int, name: str, section: str, form: str = "number") -> int:
        """Add a field; return its value."""
        return int.from_bytes(self.put(size, name, section, form), "little")


def shown(raw: bytes) -> str:
    """Text in quotes; bytes that are not UTF-8 as Python writes them."""
    try:
        return repr(raw.decode())
    except UnicodeDecodeError:
        return repr(raw)


def schema_fields(data: bytes) -> list[Field]:
    """The fields of the bytes of a schema (spec 5.1, 5.2)."""
    pen = _Pen(data, 0, len(data))
    with suppress(_End):
        _schema(pen)
    return _with_rest(pen, "5.1", len(data))


def frame_fields(data: bytes, schema: oracle.Schema | None = None) -> list[Field]:
    """The fields of a frame (spec 6).

    The names and elements of tensors are those of the embedded schema or else of `schema`. Without one, an
    entropy-coded payload is one field.
    """
    complete = len(data) >= HEADER + CHECKSUM
    pen = _Pen(data, 0, len(data) - CHECKSUM if complete else len(data))
    with suppress(_End):
        _frame(pen, schema)
    return _with_rest(pen, "6.1", len(data))


def partial_fields(data: bytes, schema: oracle.Schema | None = None) -> list[Field]:
    """The fields of a partial sum (spec 8.5); without its schema, the sums are not told apart."""
    complete = len(data) >= PARTIAL_HEADER + CHECKSUM
    pen = _Pen(data, 0, len(data) - CHECKSUM if complete else len(data))
    with suppress(_End):
        _header(pen, "weight", "8.5")
        pen.put(8, "frames", "8.5")
        for tensor in schema or ():
            _sums(pen, tensor)
    return _with_rest(pen, "8.5", len(data))


def tally_fields(data: bytes, schema: oracle.Schema | None = None) -> list[Field]:
    """The fields of a tally (spec 8.6); without its schema, the tensors are not told apart."""
    complete = len(data) >= TALLY_HEADER + CHECKSUM
    pen = _Pen(data, 0, len(data) - CHECKSUM if complete else len(data))
    with suppress(_End):
        _header(pen, "seed", "8.6")
        pen.put(8, "weight", "8.6")
        pen.put(4, "frames", "8.6")
        for tensor in schema or ():
            if tensor.masked:
                _counts_of(pen, tensor)
            else:
                _limbs(pen, tensor, "8.6")
    return _with_rest(pen, "8.6", len(data))


def _with_rest(pen: _Pen, section: str, size: int) -> list[Field]:
    """The fields, then those bytes that were not read, then the checksum."""
    if pen.at < pen.end:
        pen.fields.append(Field(pen.at, pen.end, UNREAD, section, "hex"))
    if pen.end < size:
        pen.fields.append(Field(pen.end, size, "checksum", "6.6" if section == "6.1" else section, "hex"))
    return pen.fields


def _header(pen: _Pen, third: str, section: str) -> int:
    """Add the header of a frame or a partial sum; return its flags."""
    pen.put(4, "magic", section, "text")
    pen.put(1, "major", section)
    pen.put(1, "minor", section)
    flags = pen.number(2, "flags", section)
    pen.put(8, third, section)
    pen.put(8, "base_model", section)
    pen.put(4, "round", section)
    pen.put(4, "tensor_count", section)
    pen.put(16, "schema_digest", section, "hex")
    return flags


def _schema(pen: _Pen) -> None:
    for position in range(pen.number(4, "schema's count", "5.1")):
        of = f"of tensor {position}"
        size = pen.number(2, f"name_length {of}", "5.2")
        raw = pen.put(size, f"name {of}", "5.2", "text")
        of = f"of {shown(raw)}"
        pen.fields[-2:] = [field._replace(name=f"{field.name.split()[0]} {of}") for field in pen.fields[-2:]]
        pen.put(1, f"role {of}", "5.2", "role")
        pen.put(1, f"dtype {of}", "5.2", "dtype")
        for k in range(pen.number(1, f"rank {of}", "5.2")):
            pen.put(8, f"dimension {k} {of}", "5.2")


def _frame(pen: _Pen, schema: oracle.Schema | None) -> None:
    flags = _header(pen, "seed", "6.2")
    count = int.from_bytes(pen.data[28:32], "little")
    if flags & 1:
        size = pen.number(4, "schema's length", "6.3")
        inner = schema_fields(pen.data[pen.at : min(pen.at + size, pen.end)])
        pen.fields += [f._replace(begin=pen.at + f.begin, end=pen.at + f.end) for f in inner]
        if pen.end - pen.at < size:
            pen.at = pen.end
            raise _End
        try:
            schema = oracle.parse_schema(pen.data[pen.at : pen.at + size])
        except oracle.Refusal:
            schema = None
        pen.at += size
    # A damaged count may be as large as 2^32 - 1; `_entry` stops where the bytes end.
    tensors: Iterable[oracle.Tensor | None] = repeat(None, count) if schema is None else schema
    entries = [
        _entry(pen, tensor, f"of tensor {position}" if tensor is None else f"of {tensor.name!r}")
        for position, tensor in enumerate(tensors)
    ]
    for entry in entries:
        _payload(pen, entry)


class _Entry(NamedTuple):
    """What a table entry says of its payload."""

    tensor: oracle.Tensor | None
    of: str
    kind: int
    type: int
    coding: int
    length: int


def _entry(pen: _Pen, tensor: oracle.Tensor | None, of: str) -> _Entry:
    kind = pen.number(1, f"kind {of}", "6.4", "kind")
    if kind > oracle.GRID:
        raise _End
    mask = kind in (oracle.BINARY, oracle.SIGNED)
    type = pen.number(1, f"type {of}", "6.4", "distribution" if mask else "dtype")
    coding = pen.number(1, f"coding {of}", "6.4", "coding")
    pen.put(1, f"reserved {of}", "6.4")
    length = pen.number(8, f"length {of}", "6.4")
    if kind != oracle.DENSE:
        pen.put(4, f"scale {of}", "6.4", "float32")
    return _Entry(tensor, of, kind, type, coding, length)


def _payload(pen: _Pen, entry: _Entry) -> None:
    begin, end = pen.at, min(pen.at + entry.length, pen.end)
    walk = _CODED.get(entry.coding)
    whole = end == begin + entry.length
    if walk is not None and entry.tensor is not None and entry.tensor.elements and whole:
        inner = _Pen(pen.data, begin, end)
        try:
            walk(inner, entry, (entry.tensor.elements + 65535) // 65536)
        except (_End, oracle.Refusal, IndexError, ValueError):
            pass  # what is left is one field
        else:
            pen.fields += inner.fields
            pen.at = end
            return
    pen.put(entry.length, f"payload {entry.of}", _SECTIONS.get(entry.coding, "6.5"), _form(entry))


def _form(entry: _Entry) -> str:
    """How a payload that is not entropy-coded is read."""
    if entry.coding in oracle.HALF_DTYPE:
        return oracle.DTYPES[oracle.HALF_DTYPE[entry.coding]].name
    if entry.coding != oracle.RAW:
        return "hex"
    if entry.kind == oracle.DENSE:
        return oracle.DTYPES[entry.type].name if entry.type in oracle.DTYPES else "hex"
    return "int32" if entry.kind == oracle.GRID else "bits"


def _coded(pen: _Pen, entry: _Entry, blocks: int) -> None:
    """Coding 1."""
    pen.put(16, f"P {entry.of}", "6.8", "uint8")
    counts = _counts(pen.put(2 * blocks, f"counts {entry.of}", "6.8", "uint16"), 2)
    _blocks(pen, entry, counts, ("states", 32, "6.8", "uint32"), "6.8")


def _coded_12(pen: _Pen, entry: _Entry, blocks: int) -> None:
    """Coding 4; the last block has the words that are left."""
    _, size = oracle.take_indices(pen.data[pen.at : pen.end], entry.type)
    pen.put(1, f"k(0) {entry.of}", "6.11")
    pen.put(size - 1, f"bits of k {entry.of}", "6.11", "bits")
    counts = _counts(pen.put(2 * blocks - 2, f"counts {entry.of}", "6.11", "uint16"), 2)
    last = (pen.end - pen.at - 4 * blocks) // 2 - sum(counts)
    _blocks(pen, entry, [*counts, last], ("state", 4, "6.11", "number"), "6.10")


def _coded_14(pen: _Pen, entry: _Entry, blocks: int) -> None:
    """Coding 5; the last block has the words that are left."""
    _, size = oracle.take_frequencies(pen.data[pen.at : pen.end])
    pen.put(1, f"last {entry.of}", "6.14")
    pen.put(size - 1, f"bits of f {entry.of}", "6.14", "bits")
    counts = _counts(pen.put(4 * blocks - 4, f"counts {entry.of}", "6.14", "uint32"), 4)
    last = (pen.end - pen.at - 4 * blocks) // 2 - sum(counts)
    _blocks(pen, entry, [*counts, last], ("state", 4, "6.14", "number"), "6.13")


def _counts(raw: bytes, size: int) -> list[int]:
    return [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]


def _blocks(
    pen: _Pen, entry: _Entry, counts: list[int], state: tuple[str, int, str, str], words: str
) -> None:
    """The state or states and the words of each block; of one block if the counts do not fit the bytes."""
    name, size, section, form = state
    needed = sum(size + 2 * count for count in counts)
    if min(counts) < 0 or needed != pen.end - pen.at:
        counts = [max((pen.end - pen.at - size + 1) // 2, 0)]
    for b, count in enumerate(counts):
        of = entry.of.replace("of ", f"of block {b} of ", 1) if len(counts) > 1 else entry.of
        pen.put(size, f"{name} {of}", section, form)
        pen.put(min(2 * count, pen.end - pen.at), f"words {of}", words, "hex")


_CODED = {oracle.RANS: _coded, oracle.RANS12: _coded_12, oracle.RANS14: _coded_14}
_SECTIONS = {
    oracle.RANS: "6.8",
    oracle.IN_FLOAT16: "6.9",
    oracle.IN_BFLOAT16: "6.9",
    oracle.RANS12: "6.11",
    oracle.RANS14: "6.14",
}


def _sums(pen: _Pen, tensor: oracle.Tensor) -> None:
    """The sums of one tensor (spec 8.5)."""
    of = f"of {tensor.name!r}"
    if tensor.masked:
        pen.put(1, f"distribution {of}", "8.5", "distribution")
        pen.put(3, f"reserved {of}", "8.5")
        pen.put(4, f"scale {of}", "8.5", "float32")
        pen.put(8 * tensor.elements, f"sums {of}", "8.2", "int64")
    else:
        _limbs(pen, tensor, "8.5")


def _counts_of(pen: _Pen, tensor: oracle.Tensor) -> None:
    """The counts of one masked tensor (spec 8.6)."""
    of = f"of {tensor.name!r}"
    pen.put(1, f"kind {of}", "8.6", "kind")
    distribution = pen.number(1, f"distribution {of}", "8.6", "distribution")
    coding = pen.number(1, f"coding {of}", "8.6", "coding")
    pen.put(1, f"reserved {of}", "8.6")
    pen.put(4, f"scale {of}", "8.6", "float32")
    length = pen.number(8, f"length {of}", "8.6")
    if coding == oracle.RANS14:
        _payload(pen, _Entry(tensor, of, oracle.GRID, distribution, coding, length))
    else:
        pen.put(length, f"payload {of}", "4.1", "bits")


def _limbs(pen: _Pen, tensor: oracle.Tensor, section: str) -> None:
    """The rows of one dense tensor (spec 8.5, 8.6)."""
    of = f"of {tensor.name!r}"
    for _ in range(pen.number(4, f"rows {of}", section)):
        pen.put(4, f"limb {of}", section)
        pen.put(8 * tensor.elements, f"limbs {of}", "8.4", "int64")

"""An annotated view of a frame, a partial sum, a tally or a schema: its bytes, and beside them their meaning.

The view marks the place of the first check that fails, and `bytes_of` gives its bytes back. A line of bytes
has their offset and the bytes in hexadecimal, then after `|` the field, its value and the section of
spec/FORMAT.md; other lines begin with `#` or `!`, or are blank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .. import errors
from .faults import Fault, find
from .fields import Field, frame_fields, partial_fields, schema_fields, tally_fields
from .inputs import Input
from .values import meaning, values

ROW = 16
"""The bytes of a line."""

TITLE = "fedmrn annotated view 1"
NO_SCHEMA = {
    "frame": "The schema is not known: only the checks of header and table that need none are made.",
    "partial-sum": "The schema is not known: no check is made.",
    "tally": "The schema is not known: no check is made.",
}
LINE = re.compile(r"([0-9a-f]{8,})  ((?:[0-9a-f]{2} )*[0-9a-f]{2}) *\|")
END = re.compile(r"# end: ([0-9]+) bytes\s*")


class View(NamedTuple):
    """The text of a view, and the first check that fails, or None."""

    text: str
    fault: Fault | None


def annotated(given: Input) -> View:
    """The annotated view of any bytes.

    Parameters
    ----------
    given : Input
        The bytes, what they are to be read as, and the reader's schema, expected values and limits.
    """
    fields = fields_of(given)
    fault = find(given, fields)
    lines = [f"# {TITLE}: {given.what}, {len(given.data)} bytes"]
    if given.schema_missing:
        lines.append(f"# {NO_SCHEMA[given.what]}")
    for field in fields:
        lines += _lines_of(given.data, field, fault)
    if fault is not None and fault.offset >= len(given.data):
        lines.append(_marker(0, 0, fault))
    lines += [f"# end: {len(given.data)} bytes", ""]
    return View("\n".join(lines), fault)


def fields_of(given: Input) -> list[Field]:
    """The fields of any bytes, as far as they can be found."""
    if given.what == "schema":
        return schema_fields(given.data)
    walks = {"frame": frame_fields, "partial-sum": partial_fields, "tally": tally_fields}
    return walks[given.what](given.data, given.reference_schema)


def _lines_of(data: bytes, field: Field, fault: Fault | None) -> Iterator[str]:
    """The lines of one field, and the marker of the fault after the line that holds its place."""
    for begin in range(field.begin, field.end, ROW):
        end = min(begin + ROW, field.end)
        row = data[begin:end]
        if begin == field.begin:
            text = f"{field.name:<30}  {meaning(field, data):<24}  spec {field.section}"
        else:
            text = " " * 32 + values(row, field.form)
        yield f"{begin:08x}  {row.hex(' '):<{3 * ROW - 1}} | {_printable(text)}".rstrip()
        if fault is not None and begin <= fault.offset < end:
            yield _marker(fault.offset - begin, end - fault.offset, fault)


def _marker(column: int, size: int, fault: Fault) -> str:
    under = "^" * max(3 * size - 1, 2)
    return f"!{' ' * (9 + 3 * column)}{under} {_printable(str(fault))}"


def _printable(text: str) -> str:
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def bytes_of(text: str) -> bytes:
    """The bytes of an annotated view, the inverse of `annotated`.

    Raises
    ------
    ArgumentError
        The text is no such view, a line of bytes is missing or not at its place, or the end is.
    """
    lines = text.splitlines()
    if not lines or not lines[0].startswith(f"# {TITLE}"):
        raise errors.ArgumentError("line 1", f"a text that begins with '# {TITLE}'", repr("".join(lines[:1])))
    data = bytearray()
    for number, line in enumerate(lines, 1):
        if match := END.fullmatch(line):
            if int(match[1]) != len(data):
                raise errors.ArgumentError(f"line {number}", f"the end at {len(data)} bytes", match[1])
            return bytes(data)
        if line[:1] in ("#", "!", ""):
            continue
        match = LINE.match(line)
        if match is None or int(match[1], 16) != len(data):
            expected = f"the bytes from {len(data):08x} in hexadecimal, and '|'"
            raise errors.ArgumentError(f"line {number}", expected, repr(line))
        data += bytes.fromhex(match[2])
    raise errors.ArgumentError(f"line {len(lines) + 1}", "a line '# end: N bytes'", "the end of the text")

"""Hypothesis strategies that damage valid bytes, mostly with a right checksum."""

from __future__ import annotations

from hypothesis import strategies as st

from .fields import Field
from .layout import with_checksum, with_digest


def _numbers(old: int, size: int) -> st.SearchStrategy[int]:
    top = 1 << 8 * size
    near = st.sampled_from([old + 1, old - 1, 0, 1, 2, 3, 4, 14, 128, 255, top - 1, top >> 1]).map(
        lambda n: n % top
    )
    flipped = st.integers(0, 8 * size - 1).map(lambda bit: old ^ 1 << bit)
    return near | near | flipped | st.integers(0, top - 1)


OFTEN = ("4.1", "6.4", "6.5", "6.8", "6.10", "6.11", "6.13", "6.14", "8.2", "8.4")
"""The sections of the table and the payloads, whose fields are damaged more often than others."""


@st.composite
def _with_field(draw: st.DrawFn, data: bytes, fields: list[Field]) -> bytes:
    """Give a field another value, or change up to 8 bytes of a long field."""
    present = [field for field in fields if field.end > field.begin]
    sections = {field.section for field in present}
    section = draw(st.sampled_from([s for s in OFTEN if s in sections] * 2 + sorted(sections)))
    field = draw(st.sampled_from([field for field in present if field.section == section]))
    length = field.end - field.begin
    size = length if length <= 8 else draw(st.sampled_from([1, 2, 4, 8]))
    begin = field.begin + draw(st.integers(0, length - size))
    old = int.from_bytes(data[begin : begin + size], "little")
    new: int = draw(_numbers(old, size))
    return data[:begin] + new.to_bytes(size, "little") + data[begin + size :]


@st.composite
def _with_length(draw: st.DrawFn, data: bytes, fields: list[Field]) -> bytes:
    """Cut off, remove or insert bytes, at the edge of a field or anywhere."""
    edges = st.sampled_from(sorted({f.begin for f in fields} | {f.end for f in fields}))
    at = draw(edges | st.integers(0, len(data)))
    how = draw(st.sampled_from(["cut", "remove", "insert"]))
    if how == "cut":
        return data[:at]
    if how == "remove":
        return data[:at] + data[at + draw(st.integers(1, 16)) :]
    extra: bytes = draw(st.binary(min_size=1, max_size=16))
    return data[:at] + extra + data[at:]


@st.composite
def damaged(draw: st.DrawFn, data: bytes, fields: list[Field]) -> bytes:
    """Valid bytes with one to three defects; digest and checksum are mostly right."""
    defects = draw(st.sampled_from([1, 1, 1, 2, 3]))
    for _ in range(defects - 1):
        data = draw(_with_field(data, fields))
    how = draw(st.sampled_from([_with_field, _with_field, _with_field, _with_length]))
    data = draw(how(data, fields))
    if draw(st.sampled_from([True, True, True, False])):
        data = with_digest(data)
    return with_checksum(data) if draw(st.sampled_from([True, True, True, False])) else data

"""Frames that a client refuses when it is to mask them, alone and with bad boxes (SECAGG.md 8)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from vector_cases.basics import Case, f32, grid, ints, sealed
from vector_cases.secagg_edges import IDS, LONG, X, contents, edges, frame_of
from vector_cases.secagg_messages import CODES, put, resealed

READER = IDS[1]
"""A client of weight 1."""

FRAME_CODES = o.CODES | CODES | {"X-04": "value_range", "X-37": "reply"}


def case(name: str, comment: str, frame: bytes, boxes: bytes | None = None) -> Case:
    """A client that is given a frame and boxes, of which it refuses one."""
    number = f"{name[0].upper()}-{name[1:3]}"
    return {
        "id": name,
        "spec": [number],
        "comment": comment,
        "result": "invalid",
        "code": FRAME_CODES[number],
        "kind": "frame",
        "round": "secagg/round-edges",
        "reader": READER,
        "frame": frame.hex(),
        "boxes": (edges().boxes_for[READER] if boxes is None else boxes).hex(),
    }


def with_content(stream: int, content: o.Content) -> bytes:
    """A frame with the content of one tensor replaced."""
    found = contents("refused")
    found[stream] = content
    return o.encode(frame_of(found))


def with_nan(frame: bytes) -> bytes:
    """A frame with a NaN as the first float32."""
    first = contents("refused")[1].payload
    assert frame.count(first) == 1
    return sealed(frame[:-4].replace(first, struct.pack("<I", 0x7FC00000) + first[4:]))


def frame_cases() -> Iterator[Case]:
    good = o.encode(frame_of(contents("refused")))
    stream = LONG
    for name, values in (("above", [X + 1, 0]), ("below", [0, -X - 1]), ("least", [-(2**63), 0])):
        data = with_content(stream, o.Content(ints("int64", values)))
        yield case(f"x04-{name}", f"an int64 of {min(values) or max(values)}", data)
    for name, value in (("unsigned", X + 1), ("most", 2**64 - 1)):
        data = with_content(stream + 1, o.Content(ints("uint64", [value])))
        yield case(f"x04-{name}", f"a uint64 of {value}", data)
    yield case("f12-round", "a frame of another round", o.encode(frame_of(contents("refused"), 12)))
    yield case("f13-base-model", "another base model", o.encode(frame_of(contents("refused"), base=13)))
    yield case("f14-seed", "another seed", o.encode(frame_of(contents("refused"), seed=12)))
    yield case("f27-checksum", "another checksum", good[:-1] + bytes([good[-1] ^ 1]))
    yield case("f29-nan", "a NaN in a dense tensor", with_nan(good))
    kind = o.encode(frame_of(contents("refused", o.BINARY)))
    yield case("x37-kind", "a binary mask in the place of a signed one", kind)
    scale = o.encode(frame_of(contents("refused", scale=f32(0.02))))
    yield case("x37-scale", "another scale", scale)
    noise = o.Content(contents("refused")[0].payload, o.SIGNED, o.UNIFORM, f32(0.01))
    yield case("x37-distribution", "another distribution", with_content(0, noise))
    yield case("x37-grid", "a masked tensor on a grid", with_content(0, grid([1] * 9, 0.5)))
    damaged = kind[:-1] + bytes([kind[-1] ^ 1])
    yield case("f27-and-x37", "the checksum comes before the kind", damaged)
    yield case("f29-and-x37", "the elements come before the kind", with_nan(kind))
    both = contents("refused", o.BINARY)
    both[stream] = o.Content(ints("int64", [X + 1, 0]))
    yield case("x37-and-x04", "the kind comes before the range of integers", o.encode(frame_of(both)))
    right, old = edges().boxes_for[READER], o.encode(frame_of(contents("refused"), 12))
    comment = "a box that does not open, and a frame of another round"
    for_all = resealed(right, put(8, bytes(8)))
    yield case("x16-and-frame", "boxes for all, and a frame of another round", old, for_all)
    broken = resealed(right, put(60, bytes([right[60] ^ 1])))
    yield case("x33-and-frame", comment, old, broken)
    beyond = with_content(stream, o.Content(ints("int64", [X + 1, 0])))
    yield case("x33-and-range", "a box that does not open, and an integer beyond X", beyond, broken)

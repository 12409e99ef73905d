"""A round of secure aggregation at the ends of its ranges (SECAGG.md 6.3, 10): ties, bounds, few boxes."""

from __future__ import annotations

import struct
from functools import cache

from fedmrn_codec.conformance import oracle as o
from vector_cases.basics import chaos, dense, f32, f32s, frame, grid, ints, mask, masked
from vector_cases.secagg_round import FLOATS, Agreed, Member, Round, integers

SCHEMA = (
    masked("m", 9),
    dense("ties", "float32", 6),
    dense("range", "float32", 6),
    dense("wide", "float64", 6),
    dense("brain", "bfloat16", 3),
    dense("other grid", "float32", 6),
    dense("same grid", "float16", 3),
    dense("long", "int64", 2),
    dense("unsigned", "uint64", 1),
    dense("flag", "bool", 2),
)
STEPS = {
    "ties": 2.0**-10,
    "range": 2.0**-18,
    "wide": 2.0**-126,
    "brain": 2.0**-7,
    "other grid": 2.0**-18,
    "same grid": 2.0**-10,
}
EDGES = Agreed(
    SCHEMA,
    (o.SIGNED, o.BERNOULLI, f32(0.01)),
    STEPS,
    threshold=4,
    largest_weight=100,
    seed=11,
    base_model=12,
    round=13,
)
IDS = (11, 12, 13, 14, 2**52 + 1)
WEIGHTS = (100, 1, 37, 64, 2)
MOST = len(IDS) * EDGES.largest_weight
Z = (2**31 - 1) // MOST
"""The largest z of most dtypes; that of n alone would be larger."""

X = (2**63 - 1) // MOST
HALVES = (0.5, 1.5, 2.5, -0.5, -1.5, -2.5)
LONG = 7
"""The stream of the tensor of int64; that of uint64 follows."""


def contents(tag: str, kind: int = EDGES.masks[0], scale: float = EDGES.masks[2]) -> list[o.Content]:
    """What a frame holds."""
    steps = STEPS
    top = 2.0**1000
    return [
        o.Content(mask(tag, 9), kind, EDGES.masks[1], scale),
        o.Content(f32s([half * steps["ties"] for half in HALVES])),
        o.Content(f32s([f32(z * steps["range"]) for z in (Z, -Z, Z + 1, -Z - 1, -Z - 0.5, 2**24 - 1)])),
        o.Content(struct.pack("<6d", top, -top, *(half * steps["wide"] for half in HALVES[1:5]))),
        o.Content(
            struct.pack("<3H", 0x3FFF, 0x4000, 0xC000)
        ),  # 1.9921875, 2, -2; the range ends at 255 / 128
        grid([2, 6, 10, -2, -6, -10], steps["other grid"] / 4),
        grid([2047, -2047, 3], steps["same grid"]),
        o.Content(ints("int64", [X, -X])),
        o.Content(ints("uint64", [X])),
        o.Content(bytes([1, 0])),
    ]


def frame_of(found: list[o.Content], round_: int = EDGES.round, **other: int) -> o.Frame:
    """A frame of these contents; `other` may give another seed or base model."""
    fields = {"seed": EDGES.seed, "base": EDGES.base_model, **other}
    return frame(SCHEMA, found, round_=round_, **fields)


def member(id: int, weight: int) -> Member:
    t = EDGES.threshold
    draws = [chaos(f"edges {id} {i}", 16) for i in range(2 * t)]
    return Member(
        id,
        weight,
        chaos(f"edges {id} box", 32),
        draws[0],
        draws[1],
        tuple(draws[2 : 1 + t]),
        tuple(draws[1 + t :]),
        frame_of(contents(f"edges {id}")),
    )


@cache
def edges() -> Round:
    """Values at the ends of their ranges, ties, and exactly t - 1 boxes for each client"""
    members = [member(id, weight) for id, weight in zip(IDS, WEIGHTS, strict=True)]
    left = IDS[: EDGES.threshold]
    return Round(EDGES, members, left, left, left)


def clipped(found: Member) -> int:
    """How many z of a client's frame are beyond their range."""
    count = 0
    for tensor, content in zip(SCHEMA, found.frame.contents, strict=True):
        name = o.DTYPES[tensor.dtype].name
        if not tensor.masked and name in FLOATS:
            most = min(FLOATS[name], Z)
            count += sum(abs(z) > most for z in integers(tensor, content, STEPS[tensor.name]))
    return count

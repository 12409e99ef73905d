"""Frames, merges and additions that a tally or an aggregator refuses (FORMAT.md 8.6, [A-08] to [A-10])."""

from __future__ import annotations

from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import GAUSSIAN, SIGNED, Content, Counts, Frame, Tally
from fedmrn_codec.conformance.reference import Reference
from fedmrn_codec.conformance.request import AddTallies, Count, MergeTallies, Request
from fedmrn_codec.conformance.target import Refused
from vector_cases.basics import (
    EXAMPLE_FRAME,
    EXAMPLE_SCHEMA,
    Case,
    grid,
    invalid,
    masked,
    schema_json,
    u64,
)

BASE = EXAMPLE_FRAME._replace(base_model=9, round=4)
SCHEMA = o.schema_bytes(EXAMPLE_SCHEMA)
REFERENCE = Reference()


def with_first(content: Content) -> Frame:
    """The frame with another content of its masked tensor."""
    return BASE._replace(contents=(content, BASE.contents[1]))


FIRST = BASE.contents[0]
OTHERS = {
    "seed": BASE._replace(seed=8),
    "base-model": BASE._replace(base_model=8),
    "round": BASE._replace(round=5),
    "kind": with_first(FIRST._replace(kind=SIGNED)),
    "distribution": with_first(FIRST._replace(distribution=GAUSSIAN)),
    "scale": with_first(FIRST._replace(scale=0.5)),
    "grid": with_first(grid(range(10), 0.5)),
}
"""Frames that one tally cannot hold beside the example."""


def refused(name: str, number: str, comment: str, request: Request) -> Case:
    """A case of a request that the oracle refuses by this number."""
    found = ""
    try:
        REFERENCE.ask(request)
    except Refused as refusal:
        found = refusal.number
    assert found == number, (name, number, found)
    fields: Case = {"op": request.op, "schema": schema_json(o.parse_schema(request.schema or b""))}  # type: ignore[union-attr]
    if isinstance(request, Count):
        fields |= {"frames": [data.hex() for data in request.frames], "weight": request.weight}
    if isinstance(request, MergeTallies | AddTallies):
        fields["tallies"] = [data.hex() for data in request.tallies]
    if isinstance(request, AddTallies) and request.seed is not None:
        fields["seed"] = u64(request.seed)
    if isinstance(request, Count | AddTallies):
        fields |= {"base_model": u64(request.base_model), "round": request.round}
    return invalid(name, number, comment, **fields)


def refused_tallies() -> Iterator[Case]:
    yield from _frames()
    yield from _merges()
    yield from _additions()


def _frames() -> Iterator[Case]:
    good = o.encode(BASE)
    broken = good[:-1] + bytes([good[-1] ^ 1])

    def of(name: str, number: str, comment: str, *frames: bytes, weight: int = 1, round_: int = 0) -> Case:
        request = Count(schema=SCHEMA, frames=frames, weight=weight, round=round_)
        return refused(name, number, comment, request)

    for label, weight in (("zero", 0), ("negative", -1), ("2-39", 2**39), ("2-40", 2**40)):
        yield of(f"a08-weight-{label}", "A-08", f"a weight of {weight}", good, weight=weight)
    yield of("a08-weights", "A-08", "two frames of weight 2^38", good, good, weight=2**38)
    yield of(
        "a08-weights-and-checksum", "A-08", "the numbers come before the frame", good, broken, weight=2**38
    )
    for label, other in OTHERS.items():
        yield of(f"a08-{label}", "A-08", f"another {label.replace('-', ' ')}", good, o.encode(other))
    alone = o.encode(OTHERS["grid"])
    yield of("a08-grid-alone", "A-08", "one frame whose masked tensor is on a grid", alone)
    other = bytearray(o.encode(OTHERS["seed"]))
    other[-1] ^= 1
    yield of("a08-checksum-and-seed", "F-27", "the frame's checks come before the seed", good, bytes(other))
    yield of("a08-expected-round", "F-12", "an expected round is checked in each frame", good, good, round_=5)
    both = o.encode(OTHERS["round"])
    yield of("a08-expected-round-second", "F-12", "the second frame has another round", good, both, round_=4)


def _made(n: int = 1, weight: int = 1, seed: int = 7, base_model: int = 0, round_: int = 0) -> Tally:
    counts = Counts(((0, n, 0),), SIGNED, o.BERNOULLI, 0.5)
    return Tally((masked("w", 3),), seed, base_model, round_, weight, n, (counts,))


def _merges() -> Iterator[Case]:
    one = _made()
    counts = one.tensors[0]
    for name, comment, a, b in (
        ("seed", "another seed", one, _made(seed=8)),
        ("weight", "another weight", one, _made(weight=2)),
        ("base-model", "one side expected a base model", one, _made(base_model=9)),
        ("round", "one side expected a round", one, _made(round_=3)),
        ("kind", "another kind", one, one._replace(tensors=(counts._replace(kind=o.BINARY),))),
        ("scale", "another scale", one, one._replace(tensors=(counts._replace(scale=0.25),))),
        (
            "distribution",
            "another distribution",
            one,
            one._replace(tensors=(counts._replace(distribution=1),)),
        ),
        ("frames", "2^24 frames together", _made(2**24 - 1), one),
        ("weights", "weights of 2^39 together", _made(2, 2**37), _made(2, 2**37)),
    ):
        parts = tuple(o.tally_to_bytes(part) for part in (a, b))
        yield refused(
            f"a09-{name}", "A-09", comment, MergeTallies(schema=o.schema_bytes(one.schema), tallies=parts)
        )
    other, broken = o.tally_to_bytes(_made(seed=8)), bytearray(o.tally_to_bytes(one))
    broken[-1] ^= 1
    parts = (o.tally_to_bytes(one), other, bytes(broken))
    request = MergeTallies(schema=o.schema_bytes(one.schema), tallies=parts)
    yield refused("a09-and-checksum", "T-18", "all tallies are read before any is merged", request)


def _additions() -> Iterator[Case]:
    one = _made()
    schema, counts = o.schema_bytes(one.schema), one.tensors[0]

    def of(name: str, number: str, comment: str, *tallies: Tally, **expected: int) -> Case:
        wire = tuple(map(o.tally_to_bytes, tallies))
        return refused(name, number, comment, AddTallies(schema=schema, tallies=wire, **expected))

    yield of("a10-round", "A-10", "another round than the expected one", _made(round_=3), round=4)
    yield of("a10-round-not-given", "A-10", "no round, where one is expected", one, round=4)
    yield of("a10-round-given", "A-10", "a round, where none is expected", _made(round_=3))
    yield of("a10-base-model", "A-10", "another base model", _made(base_model=3), base_model=4)
    yield of("a10-base-model-given", "A-10", "a base model, where none is expected", _made(base_model=3))
    for name, changed in (("scale", {"scale": 0.25}), ("distribution", {"distribution": 1})):
        other = one._replace(tensors=(counts._replace(**changed),))  # type: ignore[arg-type]
        yield of(f"a10-{name}", "A-10", f"another {name} than the tally before", one, other)
    yield of("a10-weights", "A-10", "weights of 2^39 together", _made(2, 2**37), _made(2, 2**37))
    yield of(
        "a10-seed",
        "T-09",
        "the second tally has another seed than the expected one",
        one,
        _made(seed=8),
        seed=7,
    )
    wire = o.tally_to_bytes(_made(round_=3)), o.tally_to_bytes(one)[:-1] + b"\0"
    request = AddTallies(schema=schema, tallies=wire)
    yield refused("a10-and-checksum", "A-10", "a tally is added before the next is read", request)

"""Hypothesis strategies of requests about tallies (spec 8.6)."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from hypothesis import strategies as st

from . import oracle
from . import strategies as some
from .fields import frame_fields, tally_fields
from .hostile import damaged
from .layout import with_checksum
from .request import AddTallies, Count, MergeTallies, Request

CODINGS = st.sampled_from([None, "raw", "rans14"])
WEIGHTS = st.integers(1, 9) | st.sampled_from([600, 2**31 - 1, 2**31, 2**33])
FRAMES = (1, 2, 3, 7, 8, 15, 16, 255, 256, 65_535, 65_536, 2**24 - 1)
"""Numbers of frames at which counts need one bit more, and around them."""


class _Alike(NamedTuple):
    """Frames of one tally, their weight, and the expected round and base model."""

    frames: list[oracle.Frame]
    weight: int
    expected: dict[str, int]


@st.composite
def _alike(draw: st.DrawFn) -> _Alike:
    """Frames with one seed, round and base model, and one mask kind a tensor."""
    count = draw(st.integers(1, 5))
    table = draw(some.tables(count, of=some.small_shapes))
    columns = []
    for tensor, contents in table:
        kind, of_grid = draw(some.kinds), not tensor.masked and tensor.dtype in oracle.GRIDS
        if tensor.masked:
            contents = tuple(content._replace(kind=kind) for content in contents)
        elif of_grid and draw(st.booleans()):
            contents = tuple(draw(some.any_contents(tensor)) for _ in contents)
        columns.append((tensor, contents))
    head = {"seed": draw(some.u64s), "base_model": draw(some.u64s), "round": draw(some.u32s)}
    expected = {name: head[name] if draw(st.booleans()) else 0 for name in ("base_model", "round")}
    frames = [some.frame_of(columns, i, **head) for i in range(count)]
    return _Alike(frames, draw(WEIGHTS), expected)


@st.composite
def counts(draw: st.DrawFn) -> Request:
    """Frames to count; sometimes one of them is not like the others, or the weight is wrong."""
    frames, weight, expected = draw(_alike())
    data, schema = [oracle.encode(frame) for frame in frames], frames[0].schema
    if not draw(st.integers(0, 2)):
        i = draw(st.integers(0, len(frames) - 1))
        how = draw(st.sampled_from(["weight", "frame", "content", "seed", "round", "base_model"]))
        if how == "weight":
            weight = draw(st.sampled_from([0, -1, oracle.MAX_WEIGHT, oracle.MAX_WEIGHT + 1, 2**70]))
        elif how == "frame":
            data[i] = draw(damaged(data[i], frame_fields(data[i], schema)))
        elif how == "content":
            other = tuple(draw(some.any_contents(tensor)) for tensor in schema)
            data[i] = oracle.encode(frames[i]._replace(contents=other))
        else:
            changed = frames[i]._replace(**{how: getattr(frames[i], how) ^ 1})
            data[i] = oracle.encode(changed)
    return Count(
        schema=oracle.schema_bytes(schema),
        frames=tuple(data),
        weight=weight,
        coding=draw(CODINGS),
        **expected,
    )


@st.composite
def _tallies(
    draw: st.DrawFn, schema: oracle.Schema, head: list[oracle.Counts], most: int
) -> list[oracle.Tally]:
    """Up to three tallies of any numbers of frames, with any counts and limbs."""
    seed, weight = draw(some.u64s), draw(WEIGHTS)
    base_model, round_ = draw(st.just(0) | some.u64s), draw(st.just(0) | some.u32s)
    tallies = []
    for _ in range(draw(st.integers(1, 3))):
        allowed = [n for n in FRAMES if n * weight <= most]
        n = draw(st.sampled_from(allowed) | st.integers(1, 20))
        tensors = []
        for tensor, like in zip(schema, head, strict=True):
            if tensor.masked:
                near = st.sampled_from([0, n // 2, n]) | st.integers(0, n)
                row = tuple(draw(near) for _ in range(tensor.elements))
                tensors.append(like._replace(rows=(row,)))
                continue
            bound = n * (oracle.DIGIT - 1)
            one = st.just(0) | st.integers(-5, 5) | st.sampled_from([-bound, bound])
            limbs = range(oracle.DTYPES[tensor.dtype].limbs)
            used = draw(st.sets(st.sampled_from(list(limbs)), max_size=2))
            zeros = (0,) * tensor.elements
            rows = [tuple(draw(one) for _ in zeros) if limb in used else zeros for limb in limbs]
            tensors.append(oracle.Counts(tuple(rows)))
        tallies.append(oracle.Tally(schema, seed, base_model, round_, weight, n, tuple(tensors)))
    return tallies


@st.composite
def _made(draw: st.DrawFn) -> list[oracle.Tally]:
    tensors = draw(
        st.lists(some.tensors(some.small_shapes), min_size=1, max_size=3, unique_by=lambda t: t.name)
    )
    head = [
        oracle.Counts((), draw(some.kinds), *draw(some.noises())) if tensor.masked else oracle.Counts(())
        for tensor in tensors
    ]
    return draw(_tallies(tuple(tensors), head, oracle.MAX_WEIGHT // 4))


@st.composite
def _bytes_of(draw: st.DrawFn, tallies: list[oracle.Tally]) -> tuple[bytes, ...]:
    """The bytes of tallies, raw or coded, sometimes one of them damaged."""
    coding = draw(st.sampled_from([oracle.RAW, oracle.RANS14]))
    data = [oracle.tally_to_bytes(tally, coding) for tally in tallies]
    if draw(st.booleans()):
        i = draw(st.integers(0, len(data) - 1))
        data[i] = draw(_damaged(data[i], tallies[i]))
    return tuple(data)


@st.composite
def _damaged(draw: st.DrawFn, data: bytes, tally: oracle.Tally) -> bytes:
    """Damage bytes, or the numbers of frames and of the weight, whose product may exceed 64 bits."""
    if draw(st.integers(0, 4)):
        wrong: bytes = draw(damaged(data, tally_fields(data, tally.schema)))
        return wrong
    weight = draw(st.sampled_from([0, 1, 2**39 - 1, 2**39, 2**40, 2**63, 2**64 - 1]))
    frames = draw(st.sampled_from([0, 1, tally.frames, 2**24 - 1, 2**24, 2**32 - 1]))
    return with_checksum(data[:48] + struct.pack("<QI", weight, frames) + data[60:])


@st.composite
def merges(draw: st.DrawFn) -> Request:
    """Tallies to merge, some damaged, and some that differ."""
    tallies = draw(_made())
    if not draw(st.integers(0, 3)):
        how = draw(st.sampled_from(["seed", "base_model", "round", "weight"]))
        other: dict[str, Any] = {how: getattr(tallies[-1], how) ^ 2 or 1}
        tallies[-1] = tallies[-1]._replace(**other)
    schema = oracle.schema_bytes(tallies[0].schema)
    return MergeTallies(schema=schema, tallies=draw(_bytes_of(tallies)), coding=draw(CODINGS))


@st.composite
def additions(draw: st.DrawFn) -> Request:
    """Tallies to add, of different seeds too; some damaged, and some that the aggregator does not expect."""
    tallies = draw(_made())
    first = tallies[0]
    seed = draw(st.sampled_from([None, None, None, first.seed]))
    if draw(st.booleans()):
        tallies = [tally._replace(seed=draw(some.u64s)) for tally in tallies]
    expected = {"base_model": first.base_model, "round": first.round}
    if not draw(st.integers(0, 5)):
        expected[draw(st.sampled_from(sorted(expected)))] ^= 1
    schema = oracle.schema_bytes(first.schema)
    return AddTallies(schema=schema, tallies=draw(_bytes_of(tallies)), seed=seed, **expected)

"""Hypothesis strategies of whole requests, beyond those of the vectors."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from typing import Any, NamedTuple

from hypothesis import strategies as st

from ..primitives.codes import MaskKind
from . import oracle
from . import strategies as some
from .fields import frame_fields, partial_fields, schema_fields
from .hostile import damaged
from .layout import with_checksum
from .reference import CODINGS, DISTRIBUTIONS, KINDS
from .request import Aggregate, Decode, Digest, Encode, Merge, Noise, Part, Request, Sample, Words

DISTRIBUTION_NAMES = {code: name for name, code in DISTRIBUTIONS.items()}
KIND_NAMES = {code: name for name, code in KINDS.items()}
CODING_NAMES = {code: name for name, code in CODINGS.items()}


@st.composite
def words(draw: st.DrawFn) -> Request:
    """Words anywhere below 2^63."""
    count = draw(st.integers(1, 12))
    start = draw(some.positions(2**63 - count))
    return Words(seed=draw(some.u64s), stream=draw(some.u64s), start=start, count=count)


@st.composite
def noise(draw: st.DrawFn) -> Request:
    """Noise of the elements that a tensor can have."""
    distribution, count = draw(some.distributions), draw(st.integers(1, 40))
    return Noise(
        distribution=DISTRIBUTION_NAMES[distribution],
        scale=draw(some.scales(distribution)),
        seed=draw(some.u64s),
        stream=draw(some.u64s),
        start=draw(some.positions(some.ELEMENTS - count)),
        count=count,
    )


@st.composite
def digests(draw: st.DrawFn) -> Request:
    """Schemas, some of them damaged."""
    schema = draw(some.schemas)
    raw = oracle.schema_bytes(schema)
    if draw(st.booleans()):
        raw = draw(_damaged_schema(raw))
    return Digest(schema=raw)


@st.composite
def _damaged_schema(draw: st.DrawFn, raw: bytes) -> bytes:
    four = b"\0\0\0\0"  # where damaged() may write a checksum
    data: bytes = draw(damaged(raw + four, schema_fields(raw)))
    return data[:-4]


@st.composite
def decodings(draw: st.DrawFn) -> Request:
    """Valid frames, read with and without the caller's schema and expected values."""
    frame = draw(some.frames(least=0))
    embed, expected = draw(st.booleans()), draw(st.booleans())
    known = not embed or draw(st.booleans())
    return Decode(
        frame=oracle.encode(frame, embed),
        schema=oracle.schema_bytes(frame.schema) if known else None,
        round=frame.round if expected else None,
        base_model=frame.base_model if expected else None,
        seed=frame.seed if expected else None,
    )


@st.composite
def hostile(draw: st.DrawFn) -> Request:
    """Frames with one or more defects, or of other values than the expected ones."""
    frame = draw(some.frames())
    embed = draw(st.booleans())
    data = oracle.encode(frame, embed)
    raw = oracle.schema_bytes(frame.schema)
    known = raw if not embed or draw(st.booleans()) else None
    how = draw(st.sampled_from(["damaged"] * 5 + ["another schema", "other values", "no schema"]))
    if how == "damaged":
        return Decode(frame=draw(damaged(data, frame_fields(data, frame.schema))), schema=known)
    if how == "another schema":
        known = oracle.schema_bytes(draw(_another(frame.schema)))
        if draw(st.booleans()):  # and the frame has the digest of this schema
            data = with_checksum(data[:32] + hashlib.sha256(known).digest()[:16] + data[48:])
    request = Decode(frame=data, schema=None if how == "no schema" else known)
    return draw(_with_expected(request, frame, len(raw))) if how == "other values" else request


@st.composite
def coded(draw: st.DrawFn) -> Request:
    """Frames of versions 1.1 and 1.2: entropy-coded masks, and floats of 16 bits."""
    frame = draw(some.coded_frames())
    return Decode(frame=oracle.encode(frame), schema=oracle.schema_bytes(frame.schema))


@st.composite
def hostile_codings(draw: st.DrawFn) -> Request:
    """Frames of versions 1.1 and 1.2 with defects."""
    frame = draw(some.coded_frames())
    data = oracle.encode(frame)
    data = draw(damaged(data, frame_fields(data, frame.schema)))
    return Decode(frame=data, schema=oracle.schema_bytes(frame.schema))


@st.composite
def codings(draw: st.DrawFn) -> Request:
    """Masks to entropy-code, whether shorter or not, and floats to round, in or out of range."""
    frame = draw(some.coded_frames())
    parts = list(_parts(frame))
    i = next(i for i, part in enumerate(parts) if part.kind == "dense")
    if draw(st.booleans()):
        payload = draw(some.elements(oracle.FLOAT32, frame.schema[i].elements))
        parts[i] = dataclasses.replace(parts[i], payload=payload)
    raw = oracle.schema_bytes(frame.schema)
    return Encode(
        schema=raw, seed=frame.seed, base_model=0, round=0, embed_schema=False, tensors=tuple(parts)
    )


@st.composite
def grids(draw: st.DrawFn) -> Request:
    """Frames of version 1.3: grids, some of them coded, beside masks and elements."""
    frame = draw(some.grid_frames())
    embed = draw(st.booleans())
    known = not embed or draw(st.booleans())
    schema = oracle.schema_bytes(frame.schema) if known else None
    return Decode(frame=oracle.encode(frame, embed), schema=schema)


@st.composite
def hostile_grids(draw: st.DrawFn) -> Request:
    """Frames of version 1.3 with defects."""
    frame = draw(some.grid_frames())
    data = oracle.encode(frame)
    data = draw(damaged(data, frame_fields(data, frame.schema)))
    return Decode(frame=data, schema=oracle.schema_bytes(frame.schema))


@st.composite
def grid_encodings(draw: st.DrawFn) -> Request:
    """Grids to encode, in coding 5 where that is shorter; one in four must be refused."""
    frame = draw(some.grid_frames(alone=draw(st.sampled_from([True, True, True, False]))))
    parts = list(_parts(frame))
    if draw(st.integers(0, 3)) == 0:
        i = next(i for i, part in enumerate(parts) if part.kind == "grid")
        parts[i] = draw(_damaged_grid(parts[i], frame.schema[i]))
    return Encode(
        schema=oracle.schema_bytes(frame.schema),
        seed=frame.seed,
        base_model=frame.base_model,
        round=frame.round,
        embed_schema=draw(st.booleans()),
        tensors=tuple(parts),
    )


@st.composite
def _damaged_grid(draw: st.DrawFn, part: Part, tensor: oracle.Tensor) -> Part:
    """A step that is not allowed, or, where there is an element, an integer out of bounds."""
    most, least, largest = oracle.GRIDS[tensor.dtype]
    if part.payload and draw(st.booleans()):
        z = draw(st.sampled_from([most + 1, -most - 1, 2**30, -(2**31)]))
        at = 4 * draw(st.integers(0, len(part.payload) // 4 - 1))
        payload = part.payload[:at] + struct.pack("<i", z) + part.payload[at + 4 :]
        return dataclasses.replace(part, payload=payload)
    outside = [(127 + largest + 1) << 23, (127 + least - 1) << 23 or 1 << 22, 0x3FC00000, 0xBF800000, 0]
    return dataclasses.replace(part, scale=draw(st.sampled_from(outside)))


@st.composite
def _another(draw: st.DrawFn, schema: oracle.Schema) -> oracle.Schema:
    """A schema that differs in a tensor's role, dtype or shape, or in the order or number of tensors."""
    i = draw(st.integers(0, len(schema) - 1))
    tensor = schema[i]
    how = draw(st.sampled_from(["role", "dtype", "shape", "order", "number"]))
    if how == "order":
        return tuple(reversed(schema))
    if how == "number":
        return schema[:-1]
    if how == "role":
        tensor = tensor._replace(masked=not tensor.masked, dtype=oracle.FLOAT32)
    elif how == "dtype":
        tensor = tensor._replace(masked=False, dtype=draw(st.sampled_from(list(oracle.DTYPES))))
    else:
        tensor = tensor._replace(shape=draw(some.shapes))
    return (*schema[:i], tensor, *schema[i + 1 :])


@st.composite
def _with_expected(draw: st.DrawFn, request: Decode, frame: oracle.Frame, schema_bytes: int) -> Decode:
    """Expect another round, base model or seed, or set a limit near the frame's value."""
    elements = sum(tensor.elements for tensor in frame.schema)
    limits = {"max_tensors": len(frame.schema), "max_schema_bytes": schema_bytes, "max_elements": elements}
    name = draw(st.sampled_from(["round", "base_model", "seed", *limits]))
    value = max(limits[name] + draw(st.sampled_from([-1, 0, 1])), 0) if name in limits else draw(some.u32s)
    changes: dict[str, Any] = {name: value}
    return dataclasses.replace(request, **changes)


@st.composite
def samples(draw: st.DrawFn) -> Request:
    """Updates near the noise, and random integers near the threshold."""
    (distribution, scale), kind = draw(some.noises()), draw(some.kinds)
    seed, stream = draw(some.u64s), draw(st.integers(0, 5) | some.u64s)
    n = draw(st.integers(1, 20))
    values = [oracle.noise(distribution, scale, seed, stream, i) for i in range(n)]
    pairs = [draw(some.sampled(kind, value)) for value in values]
    return Sample(
        kind=MaskKind(kind).label,
        distribution=DISTRIBUTION_NAMES[distribution],
        scale=oracle.f32_bits(scale),
        seed=seed,
        stream=stream,
        update=struct.pack(f"<{n}I", *(word for word, _ in pairs)),
        draws=struct.pack(f"<{n}I", *(r for _, r in pairs)),
    )


def _parts(frame: oracle.Frame) -> tuple[Part, ...]:
    return tuple(
        Part(
            kind=KIND_NAMES[c.kind],
            payload=c.payload,
            coding=CODING_NAMES[c.coding],
            distribution=DISTRIBUTION_NAMES.get(c.distribution),
            scale=oracle.f32_bits(c.scale) if c.kind else None,
        )
        for c in frame.contents
    )


@st.composite
def encodings(draw: st.DrawFn) -> Request:
    """Frames to encode; one in four holds something that an encoder must refuse."""
    frame = draw(some.frames(least=0))
    parts = list(_parts(frame))
    if parts and draw(st.integers(0, 3)) == 0:
        i = draw(st.integers(0, len(parts) - 1))
        parts[i] = draw(_damaged_part(parts[i], frame.schema[i]))
    return Encode(
        schema=oracle.schema_bytes(frame.schema),
        seed=frame.seed,
        base_model=frame.base_model,
        round=frame.round,
        embed_schema=draw(st.booleans()),
        tensors=tuple(parts),
    )


@st.composite
def _damaged_part(draw: st.DrawFn, part: Part, tensor: oracle.Tensor) -> Part:
    """A scale out of bounds, a NaN or an infinity, an element too many; or the part as it is."""
    kind = oracle.DTYPES[tensor.dtype]
    if tensor.masked:
        scale = draw(st.sampled_from([0, 1, 0x80000000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000]))
        return dataclasses.replace(part, scale=scale)
    infinity = (((1 << kind.exponent) - 1) << kind.fraction).to_bytes(kind.size, "little")
    if not kind.fraction or not part.payload or draw(st.booleans()):
        return dataclasses.replace(part, payload=part.payload + bytes(kind.size))
    at = draw(st.integers(0, len(part.payload) // kind.size - 1)) * kind.size
    nan = bytes([infinity[0] | 1]) + infinity[1:]
    word = draw(st.sampled_from([infinity, nan]))
    return dataclasses.replace(part, payload=part.payload[:at] + word + part.payload[at + kind.size :])


class _Weighted(NamedTuple):
    """Frames of one schema, noise and steps, their weights, and the expected round and base model."""

    schema: oracle.Schema
    frames: list[oracle.Frame]
    weights: list[int]
    expected: dict[str, int]


@st.composite
def _weighted(draw: st.DrawFn) -> _Weighted:
    count = draw(st.integers(1, 4))
    table = draw(some.tables(count, of=some.small_shapes, grids=True))
    expected = {"base_model": draw(st.just(0) | some.u64s), "round": draw(st.just(0) | some.u32s)}
    headers = [
        {"seed": draw(some.u64s)}
        | {name: value or draw(some.u32s) for name, value in expected.items()}  # any, where 0
        for _ in range(count)
    ]
    frames = [some.frame_of(table, i, **header) for i, header in enumerate(headers)]
    return _Weighted(frames[0].schema, frames, [draw(some.weights) for _ in frames], expected)


@st.composite
def aggregates(draw: st.DrawFn) -> Request:
    """Weighted frames; sometimes with a wrong weight, frame or expected value."""
    schema, frames, weights, expected = draw(_weighted())
    data = [oracle.encode(frame) for frame in frames]
    if not draw(st.integers(0, 3)):
        i = draw(st.integers(0, len(frames) - 1))
        how = draw(st.sampled_from(["weight", "frame", "noise", "expected", "nothing"]))
        if how == "weight":
            weights[i] = draw(st.sampled_from([0, -1, oracle.MAX_WEIGHT, oracle.MAX_WEIGHT + 1, 2**62]))
        elif how == "frame":
            data[i] = draw(damaged(data[i], frame_fields(data[i], schema)))
        elif how == "noise":
            other = tuple(draw(some.any_contents(tensor)) for tensor in schema)
            data[i] = oracle.encode(frames[i]._replace(contents=other))
        elif how == "expected":
            expected["round"] ^= 1
        else:
            data, weights = [], []
    return Aggregate(
        schema=oracle.schema_bytes(schema), frames=tuple(data), weights=tuple(weights), **expected
    )


@st.composite
def merges(draw: st.DrawFn) -> Request:
    """The partial sums of groups of frames, some damaged; or one whose means are hard to round."""
    if draw(st.booleans()):
        return draw(_tied())
    schema, frames, weights, expected = draw(_weighted())
    ends = sorted({draw(st.integers(1, len(frames))), len(frames)})
    groups = [range(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    sums = [oracle.partial_sum([frames[i] for i in g], [weights[i] for i in g], **expected) for g in groups]
    how = draw(st.sampled_from(["right", "damaged", "other"]))
    if how == "other":
        last = sums[-1]
        sums[-1] = last._replace(round=5) if draw(st.booleans()) else last._replace(base_model=5)
    parts = [oracle.partial_to_bytes(part) for part in sums]
    if how == "damaged":
        parts = [draw(damaged(parts[0], partial_fields(parts[0], schema)))]
    return Merge(schema=oracle.schema_bytes(schema), partials=tuple(parts))


@st.composite
def _tied(draw: st.DrawFn) -> Request:
    """A partial sum of any weight, whose means are on or near the middle of two values."""
    schema = tuple(
        draw(st.lists(some.tensors(some.small_shapes), min_size=1, max_size=2, unique_by=lambda t: t.name))
    )
    weight = draw(some.weights | st.integers(2**28, 2**36))
    sums = tuple(draw(some.tied_sums(tensor, weight)) for tensor in schema)
    part = oracle.PartialSum(schema, weight, draw(st.integers(1, weight)), 0, 0, sums)
    return Merge(schema=oracle.schema_bytes(schema), partials=(oracle.partial_to_bytes(part),))

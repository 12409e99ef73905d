"""Checks with known answers beyond the vectors: refusals of aggregators and encoders, and bounds."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from . import oracle
from .check import Case
from .layout import with_checksum
from .reference import DISTRIBUTIONS
from .request import Aggregate, Decode, Encode, Merge, Noise, Part, Request, Sample
from .target import Refused

SCALE = 0x3C23D70A
STEP = 0x3F000000
ONE = 0x3F800000
NOISE = oracle.f32_from_bits(SCALE)
SCHEMA = (
    oracle.Tensor("weight", True, oracle.FLOAT32, (9,)),
    oracle.Tensor("bias", False, oracle.FLOAT32, (2,)),
)
RAW = oracle.schema_bytes(SCHEMA)
BIAS = bytes.fromhex("0000803f000000c0")


GRID = oracle.Content(struct.pack("<9i", *range(-4, 5)), oracle.GRID, scale=oracle.f32_from_bits(STEP))


def _frame(scale: float = NOISE, round: int = 4, base_model: int = 6) -> bytes:
    mask = oracle.Content(b"\xa5\1", oracle.BINARY, oracle.UNIFORM, scale)
    return oracle.encode(oracle.Frame(7, base_model, round, SCHEMA, (mask, oracle.Content(BIAS))))


def _case(name: str, number: str, request: Request, code: str | None = None) -> Case:
    refusal = Refused(oracle.CODES[number] if code is None else code, number)
    return Case(f"extra/{name}:{request.op}", (number,), ((request, refusal),))


# --- decode -----------------------------------------------------------------------------------------


def frames() -> Iterator[Case]:
    """A schema length that is cut to three bytes, whose value is above the caller's limit."""
    embedding = oracle.encode(oracle.Frame(7, 0, 0, (), ()), True)
    cut = with_checksum(embedding[:48] + b"\xff\xff\xff" + bytes(4))
    yield _case("f06-and-limit", "F-06", Decode(frame=cut, max_schema_bytes=100))


# --- noise and sampling -----------------------------------------------------------------------------


def noises() -> Iterator[Case]:
    """Scales that [N-03] does not allow, for noise and, at one of them, for sampling."""
    for name, code in DISTRIBUTIONS.items():
        least, largest = oracle.SCALES[code]
        scales = {"zero": 0, "negative": SCALE | 1 << 31, "nan": 0x7FC00000}
        for what, bits in (scales | {"below": least - 1, "above": largest + 1}).items():
            noise = Noise(distribution=name, scale=bits, seed=7, stream=1, start=0, count=3)
            yield _case(f"n03-{what}-{name}", "N-03", noise, code="scale")


def samples() -> Iterator[Case]:
    """Updates and scales that cannot be sampled: the scale comes first."""
    words = {"infinity": 0x7F800000, "minus-infinity": 0xFF800000, "nan": 0x7FC00000}
    for kind in ("binary", "signed"):
        for what, word in words.items():
            yield _case(f"e02-{what}-{kind}", "E-02", _sampling(kind, SCALE, word), code="non_finite")
        yield _case(f"n03-{kind}", "N-03", _sampling(kind, 0, 0), code="scale")
        yield _case(f"n03-and-nan-{kind}", "N-03", _sampling(kind, 0, words["nan"]), code="scale")


def _sampling(kind: str, scale: int, word: int) -> Sample:
    update = struct.pack("<2I", ONE, word)
    return Sample(
        kind=kind, distribution="uniform", scale=scale, seed=7, stream=1, update=update, draws=bytes(8)
    )


# --- encode -----------------------------------------------------------------------------------------


def updates() -> Iterator[Case]:
    """Updates that an encoder must refuse, [E-02]."""
    mask = Part(kind="binary", payload=b"\xa5\1", distribution="uniform", scale=SCALE)
    bias = Part(kind="dense", payload=BIAS)
    for code, dtype in oracle.DTYPES.items():
        if dtype.fraction:
            infinity = ((1 << dtype.exponent) - 1) << dtype.fraction
            top = 1 << 8 * dtype.size - 1
            words = {"infinity": infinity, "minus-infinity": infinity | top, "nan": infinity | 1}
            for what, word in words.items():
                schema = (oracle.Tensor("x", False, code, (2,)),)
                payload = bytes(dtype.size) + word.to_bytes(dtype.size, "little")
                yield _refused_update(f"{what}-{dtype.name}", schema, Part(kind="dense", payload=payload))
    yield _refused_update("too-long", SCHEMA, mask, Part(kind="dense", payload=BIAS + BIAS))
    yield _refused_update("too-short", SCHEMA, mask, Part(kind="dense", payload=BIAS[:4]))
    yield _refused_update("dense-for-masked", SCHEMA, Part(kind="dense", payload=bytes(36)), bias)
    scales = {"zero": 0, "negative": SCALE | 1 << 31, "infinite": 0x7F800000, "nan": 0x7FC00000, "low": 1}
    for what, bits in scales.items():
        part = Part(kind="signed", payload=b"\xa5\1", distribution="bernoulli", scale=bits)
        yield _refused_update(f"scale-{what}", SCHEMA, part, bias)


def grids() -> Iterator[Case]:
    """Grids that an encoder must refuse, [E-02]."""
    for code, (most, least, largest) in oracle.GRIDS.items():
        schema, name = (oracle.Tensor("x", False, code, (2,)),), oracle.DTYPES[code].name
        steps = {
            "above": (127 + largest + 1) << 23,
            "below": (127 + least - 1) << 23 or 1 << 22,
            "three": 0x40400000,
            "zero": 0,
            "negative": 0xBF800000,
        }
        for what, bits in steps.items():
            part = Part(kind="grid", payload=bytes(8), scale=bits)
            yield _refused_update(f"step-{what}-{name}", schema, part)
        for what, z in (("above", most + 1), ("below", -most - 1)):
            for coding in ("raw", "rans14"):
                payload = struct.pack("<2i", 0, z)
                part = Part(kind="grid", payload=payload, scale=STEP, coding=coding)
                yield _refused_update(f"grid-{what}-{name}-{coding}", schema, part)
    for what, n in (("short", 8), ("long", 10)):
        part = Part(kind="grid", payload=bytes(4 * n), scale=STEP)
        yield _refused_update(f"grid-too-{what}", SCHEMA[:1], part)


def _refused_update(name: str, schema: oracle.Schema, *parts: Part) -> Case:
    request = Encode(
        schema=oracle.schema_bytes(schema), seed=7, base_model=0, round=0, embed_schema=False, tensors=parts
    )
    return _case(f"e02-{name}", "E-02", request, code="")


# --- aggregate --------------------------------------------------------------------------------------


def sums() -> Iterator[Case]:
    """The checks of an aggregator, in their order: the weight, the frame, the expected values."""
    good = _frame()
    other = _frame(scale=0.5)
    broken = good[:-1] + bytes([good[-1] ^ 1])
    yield _sum("no-frames", "A-05", (), (), code="aggregate")
    yield _sum("round", "F-12", (good, _frame(round=5)), (1, 1), round=4)
    yield _sum("round-not-given", "F-12", (good, _frame(round=0)), (1, 1), round=4)
    yield _sum("base-model", "F-13", (good, _frame(base_model=7)), (1, 1), base_model=6)
    yield _sum("checksum", "F-27", (good, broken), (1, 1))
    yield _sum("padding", "F-28", (good, with_checksum(good[:-13] + b"\3" + good[-12:])), (1, 1))
    yield _sum("weight-and-checksum", "A-01", (good, broken), (1, 0))
    yield _sum("checksum-and-noise", "F-27", (good, other[:-1] + bytes([other[-1] ^ 1])), (1, 1))
    yield _sum("another-schema", "F-10", (good, oracle.encode(oracle.Frame(7, 6, 4, (), ()))), (1, 1))
    weight = 1000
    for name, code in (("uniform", 1), ("gaussian", 2), ("bernoulli", 3)):
        for sign in (1, -1):
            request = _forged(code, weight, sign * (oracle.LARGEST_DRAW[code] * weight + 1))
            yield _case(f"p15-{name}-{'above' if sign > 0 else 'below'}", "P-15", request)
    grid = oracle.encode(oracle.Frame(7, 6, 4, SCHEMA, (GRID, oracle.Content(BIAS))))
    beyond = with_checksum(grid[: -4 - len(BIAS) - 1] + b"\1" + grid[-4 - len(BIAS) :])
    yield _sum("grid-and-mask", "A-02", (good, grid), (1, 1))
    yield _sum("integers-and-noise", "F-32", (good, beyond), (1, 1))
    yield _case("a-bad-sum-after-one-that-differs", "P-14", _merge_of_three())


def _merge_of_three() -> Merge:
    """A partial sum, one of another round, and a damaged one: all are read before any is added."""
    first, second = (
        oracle.partial_to_bytes(oracle.sum_frame(oracle.parse(_frame(), SCHEMA), 1, 6, round))
        for round in (4, 5)
    )
    return Merge(schema=RAW, partials=(first, second, first[:-1] + bytes([first[-1] ^ 1])))


def _sum(
    name: str,
    number: str,
    frames: tuple[bytes, ...],
    weights: tuple[int, ...],
    round: int = 0,
    base_model: int = 0,
    code: str | None = None,
) -> Case:
    request = Aggregate(schema=RAW, frames=frames, weights=weights, round=round, base_model=base_model)
    return _case(name, number, request, code)


def _forged(distribution: int, weight: int, total: int) -> Merge:
    schema = (oracle.Tensor("x", True, oracle.FLOAT32, (2,)),)
    part = oracle.Sums(((0, total),), distribution, NOISE)
    data = oracle.partial_to_bytes(oracle.PartialSum(schema, weight, 1, 0, 0, (part,)))
    return Merge(schema=oracle.schema_bytes(schema), partials=(data,))

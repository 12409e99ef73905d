"""The inputs to begin with: those of the vectors, valid frames of many kinds, and those in `corpus/`."""

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.conformance import oracle, replay, tally_vectors
from fedmrn_codec.conformance.check import Case
from fedmrn_codec.conformance.request import AddTallies, Aggregate, Decode, Merge, MergeTallies
from fedmrn_codec.errors import CodecError

CORPUS = Path(__file__).with_name("corpus")
LONGEST = 4096
"""Bytes of a seed; short inputs are changed and read faster."""

NOISES = (fm.Uniform(0.01), fm.Gaussian(0.5), fm.Bernoulli(1.0))


@cache
def schemas() -> dict[bytes, fm.Schema]:
    """Every schema of a seed, by its digest; a reader is given the one that its bytes name."""
    found: dict[bytes, fm.Schema] = {}
    for case in (*_cases(), *_tally_cases()):
        raw = getattr(case.steps[0][0], "schema", None)
        if raw:
            schema = fm.Schema.from_bytes(raw)
            found[schema.digest] = schema
    return found | {schema.digest: schema for schema in (*_models(), LARGE)}


def schema_of(data: bytes) -> fm.Schema | None:
    """The schema that a reader of these bytes is given: that of the digest in their header, if known."""
    return schemas().get(bytes(data[32:48]))


@cache
def tensors_of(digest: bytes) -> oracle.Schema | None:
    """The tensors of a known schema, as the oracle has them."""
    schema = schemas().get(digest)
    return None if schema is None else oracle.parse_schema(schema.data)


@cache
def frames() -> tuple[bytes, ...]:
    """Frames, valid and not."""
    return _unique((*_of_vectors("frame"), *made_frames()))


@cache
def partials() -> tuple[bytes, ...]:
    """Partial sums, valid and not."""
    return _unique((*_of_vectors("partial"), *_made_partials()))


@cache
def tallies() -> tuple[bytes, ...]:
    """Tallies, valid and not."""
    found = []
    for case in _tally_cases():
        for request, outcome in case.steps:
            if isinstance(request, MergeTallies | AddTallies):
                found += request.tallies
            if isinstance(outcome, dict) and isinstance(data := outcome.get("tally"), bytes):
                found.append(data)
    return _unique((*found, *_made_tallies()))


@cache
def finds(name: str) -> tuple[bytes, ...]:
    """The inputs that earlier runs of a harness have found: a line of hexadecimal digits each."""
    path = CORPUS / f"{name}.txt"
    return tuple(map(bytes.fromhex, path.read_text().split())) if path.exists() else ()


def _unique(items: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(item for item in items if len(item) <= LONGEST))


def _cases() -> tuple[Case, ...]:
    return (*replay.frames(), *replay.refusals(), *replay.means(), *replay.bad_partials())


def _tally_cases() -> tuple[Case, ...]:
    return (*tally_vectors.tallies(), *tally_vectors.bad_tallies())


def _of_vectors(kind: str) -> Iterator[bytes]:
    for case in _cases():
        for request, outcome in case.steps:
            if kind == "frame" and isinstance(request, Decode):
                yield request.frame
            elif kind == "frame" and isinstance(request, Aggregate):
                yield from request.frames
            elif kind == "partial" and isinstance(request, Merge):
                yield from request.partials
            elif kind == "partial" and isinstance(outcome, dict) and "partial" in outcome:
                assert isinstance(outcome["partial"], bytes)
                yield outcome["partial"]


# --- made frames ------------------------------------------------------------------------------------

FLOATS = ("float32", "float64", "float16", "bfloat16")
OTHERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
LARGE = fm.Schema([fm.Tensor("w", (70_000,), masked=True)])
"""More than one block of each entropy coding (spec 6.8 to 6.14)."""


def _models() -> tuple[fm.Schema, ...]:
    """Schemas with every dtype, and tensors that are long enough for the entropy codings."""
    return (
        fm.Schema(
            [fm.Tensor("w", (6, 10), masked=True), fm.Tensor("v", (9,), masked=True)]
            + [fm.Tensor(dtype, (3,), dtype=dtype) for dtype in (*FLOATS, *OTHERS)]
        ),
        fm.Schema([fm.Tensor("a", (560,), masked=True), fm.Tensor("b", (20,))]),
        fm.Schema([fm.Tensor("c", (40,)), fm.Tensor("d", (0, 3), masked=True), fm.Tensor("e", ())]),
        fm.Schema([fm.Tensor("half", (60,), dtype="float16"), fm.Tensor("step", (), dtype="int64")]),
    )


def _update(schema: fm.Schema, rng: np.random.Generator, scale: float) -> dict[str, np.ndarray]:
    out = {}
    for tensor in schema:
        values = np.rint(rng.normal(0, scale, tensor.shape) * 8) / 8
        if tensor.dtype == "bfloat16":
            out[tensor.name] = (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        elif tensor.dtype == "bool":
            out[tensor.name] = np.asarray(values > 0)
        else:
            out[tensor.name] = np.asarray(np.abs(values) if tensor.dtype[0] == "u" else values).astype(
                tensor.type.numpy
            )
    return out


@cache
def made_frames() -> tuple[bytes, ...]:
    """Valid frames of every kind, coding and dtype."""
    rng, out = np.random.default_rng(5), []
    for schema in _models():
        for i, (noise, coding) in enumerate((n, c) for n in NOISES for c in ("raw", "rans", "rans12")):
            few = {t.name: rng.random(t.shape) < 0.05 for t in schema if t.masked}
            dense = {k: v for k, v in _update(schema, rng, 1.0).items() if k not in few}
            out.append(
                fm.encode_bits(
                    few, schema, seed=7 + i, noise=noise, mask=("binary", "signed")[i % 2], dense=dense,
                    round=1, base_model=2, embed_schema=i % 4 == 0, coding=coding,
                    dense_coding=("raw", "float16", "bfloat16")[i % 3], backend="numpy",
                )
            )  # fmt: skip
        for coding in ("raw", "rans14"):
            for scale, step in ((0.5, 0.125), (12.0, 0.125)):
                steps = {t.name: step for t in schema if t.type.is_float}
                out.append(
                    fm.encode_grid(
                        _update(schema, rng, scale), schema, step=steps, coding=coding, backend="numpy"
                    )
                )
    return tuple(out)


@cache
def large_frames() -> tuple[bytes, ...]:
    """Valid frames with two blocks of each entropy coding; they are short, since nearly all is 0."""
    few = np.zeros(LARGE.elements, bool)
    few[::1501] = True
    masks = [
        fm.encode_bits({"w": few}, LARGE, seed=3, noise=noise, coding=coding, backend="numpy")
        for noise in NOISES
        for coding in ("rans", "rans12")
    ]
    grid = {"w": few * np.float32(0.5)}
    return (*masks, fm.encode_grid(grid, LARGE, step=0.5, coding="rans14", backend="numpy"))


def _made_partials() -> tuple[bytes, ...]:
    out = []
    for data in made_frames():
        schema = schema_of(data)
        assert schema is not None
        total = fm.Aggregator(schema, backend="numpy")
        total.add(data, 3)
        out.append(total.to_bytes())
    return tuple(out)


def _made_tallies() -> tuple[bytes, ...]:
    """Tallies of a few frames, raw and coded, of those that have masks only."""
    out = []
    for i, data in enumerate(made_frames()):
        schema = schema_of(data)
        assert schema is not None
        tally = fm.Tally(schema, weight=3, backend="numpy")
        try:
            for _ in range(1 + i % 4):
                tally.add(data)
        except CodecError:  # a grid in place of a mask
            continue
        out += [tally.to_bytes("raw"), tally.to_bytes("rans14")]
    return tuple(out)


def with_schema(data: bytes) -> bytes:
    """The bytes after the schema that a reader is given, if it is known: how the target in C takes them."""
    schema = schema_of(data)
    raw = b"" if schema is None else schema.data
    return struct.pack("<H", len(raw)) + raw + data if len(raw) < 2**16 else b"\0\0" + data

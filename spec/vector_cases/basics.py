"""Functions and frames that the cases are built from."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import (
    BERNOULLI,
    BINARY,
    GAUSSIAN,
    SIGNED,
    UNIFORM,
    Content,
    Frame,
    Options,
    Schema,
    Tensor,
)

Case = dict[str, Any]
DISTRIBUTIONS = {UNIFORM: "uniform", GAUSSIAN: "gaussian", BERNOULLI: "bernoulli"}
KINDS = {BINARY: "binary", SIGNED: "signed"}
CODINGS = {o.RANS: "rans", o.IN_FLOAT16: "float16", o.IN_BFLOAT16: "bfloat16", o.RANS12: "rans12"}
CODINGS[o.RANS14] = "rans14"
DTYPES = {dtype.name: code for code, dtype in o.DTYPES.items()}
TOP = 2**64 - 1


class Good(NamedTuple):
    """A valid frame; whether it embeds its schema, and whether the reader has the schema."""

    name: str
    comment: str
    frame: Frame
    embed: bool = False
    known: bool = True
    options: Options = Options()


class Average(NamedTuple):
    """Frames to average, their weights, and the base model and round that the aggregator checks."""

    name: str
    comment: str
    frames: list[Frame]
    weights: list[int]
    base_model: int = 0
    round: int = 0


class Broken(NamedTuple):
    """A partial sum to be refused."""

    name: str
    comment: str
    data: bytes
    schema: Schema


def valid(name: str, spec: str, comment: str, **fields: Any) -> Case:
    """A case that an implementation must reproduce."""
    return {"id": name, "spec": spec.split(), "comment": comment, "result": "valid", **fields}


def invalid(name: str, number: str, comment: str, **fields: Any) -> Case:
    """A case that an implementation must refuse, under the code of a numbered check."""
    code = o.CODES[number]
    return {"id": name, "spec": [number], "comment": comment, "result": "invalid", "code": code, **fields}


def u64(value: int) -> str:
    return f"0x{value:x}"


def u32(value: int) -> str:
    return f"0x{value:08x}"


def f32(value: float) -> float:
    """The f32 nearest to a double."""
    return o.f32_round(Fraction(value))


def f32s(values: Sequence[float]) -> bytes:
    return b"".join(struct.pack("<I", o.f32_bits(value)) for value in values)


def chaos(tag: str, size: int) -> bytes:
    """Pseudo-random bytes, the same on every run."""
    return hashlib.shake_256(tag.encode()).digest(size)


def mask(tag: str, n: int) -> bytes:
    return o.pack(o.unpack(chaos(tag, 8 * n)[:n], 8 * n)[:n])


def rare(tag: str, n: int) -> bytes:
    """A mask of n bits, one in 16 of them set, for codings 1 and 4."""
    return o.pack([int(byte < 16) for byte in chaos(tag, n)])


def masked(name: str, *shape: int) -> Tensor:
    return Tensor(name, True, o.FLOAT32, shape)


def dense(name: str, dtype: str, *shape: int) -> Tensor:
    return Tensor(name, False, DTYPES[dtype], shape)


def ints(dtype: str, values: Sequence[int]) -> bytes:
    size = o.DTYPES[DTYPES[dtype]].size
    return b"".join((value % (1 << 8 * size)).to_bytes(size, "little") for value in values)


def grid(values: Sequence[int], step: float, coding: int = o.RAW) -> Content:
    """Integers on a grid."""
    return Content(ints("int32", values), o.GRID, scale=step, coding=coding)


def frame(
    schema: Schema, contents: Sequence[Content], seed: int = 7, base: int = 0, round_: int = 0
) -> Frame:
    return Frame(seed, base, round_, schema, tuple(contents))


def schema_json(schema: Schema | None) -> list[Case] | None:
    if schema is None:
        return None
    return [
        {
            "name": tensor.name,
            "role": "masked" if tensor.masked else "dense",
            "dtype": o.DTYPES[tensor.dtype].name,
            "shape": list(tensor.shape),
        }
        for tensor in schema
    ]


def options_json(options: Options) -> Case:
    """The options that differ from the defaults."""
    changed = {k: v for k, v in options._asdict().items() if v != Options._field_defaults[k]}
    return {k: u64(v) if k in ("base_model", "seed") else v for k, v in changed.items()}


EXAMPLE_SCHEMA = (masked("conv.weight", 2, 1, 1, 5), dense("conv.bias", "float32", 2))
EXAMPLE_FRAME = frame(
    EXAMPLE_SCHEMA,
    [
        Content(o.pack([1, 0, 1, 1, 0, 0, 1, 0, 1, 1]), BINARY, UNIFORM, f32(0.01)),
        Content(f32s([0.5, -0.25])),
    ],
)
SMALL_SCHEMA = (
    masked("w", 2, 5),
    dense("b", "float32", 2),
    dense("n", "int64"),
    dense("f", "bool", 3),
    masked("v", 9),
    dense("h", "float16", 1),
)
SMALL = frame(
    SMALL_SCHEMA,
    [
        Content(mask("w", 10), BINARY, GAUSSIAN, f32(0.02)),
        Content(f32s([1.5, -0.0])),
        Content(ints("int64", [-3])),
        Content(bytes([1, 0, 1])),
        Content(mask("v", 9), SIGNED, BERNOULLI, f32(0.001)),
        Content(bytes.fromhex("003c")),
    ],
    seed=0x0123456789ABCDEF,
    base=0xFEDCBA9876543210,
    round_=41,
)

CODED_SCHEMA = (masked("w", 1001), dense("b", "float32", 3), dense("d", "float64", 1), dense("n", "int64"))
CODED = frame(
    CODED_SCHEMA,
    [
        Content(rare("coded", 1001), BINARY, UNIFORM, f32(0.01), o.RANS),
        Content(f32s([1.5, -0.0, -0.25]), coding=o.IN_FLOAT16),
        Content(struct.pack("<d", 0.5)),
        Content(ints("int64", [-3])),
    ],
    seed=0x0123456789ABCDEF,
)


CODED_12 = CODED._replace(
    contents=(CODED.contents[0]._replace(coding=o.RANS12), *CODED.contents[1:]),
)

EXAMPLE_12_SCHEMA = (masked("weight", 96),)
EXAMPLE_12 = frame(
    EXAMPLE_12_SCHEMA,
    [Content(o.pack([int(i in (3, 40, 41, 77)) for i in range(96)]), BINARY, BERNOULLI, 0.5, o.RANS12)],
)


EXAMPLE_14_SCHEMA = (masked("weight", 8),)
EXAMPLE_14 = frame(EXAMPLE_14_SCHEMA, [grid([0, 1, 0, 0, -2, 0, -1000, 0], 2.0**-10, o.RANS14)], seed=0)


def empty_mask(minor: int, coding: int, length: int) -> bytes:
    """A frame of an empty mask, in a coding that is not possible there; for the schema (masked("w", 0),)."""
    data = o.encode(frame((masked("w", 0),), [Content(b"", BINARY, BERNOULLI, 0.5)]))
    return patched(data, (5, f"{minor:02x}"), (50, f"{coding:02x}"), (52, struct.pack("<Q", length).hex()))


def sealed(body: bytes) -> bytes:
    """A frame's bytes and their checksum."""
    return body + struct.pack("<I", zlib.crc32(body))


def patched(data: bytes, *patches: tuple[int, str]) -> bytes:
    """A frame with bytes replaced and the checksum corrected."""
    body = bytearray(data[:-4])
    for at, new in patches:
        raw = bytes.fromhex(new)
        assert at + len(raw) <= len(body)
        body[at : at + len(raw)] = raw
    return sealed(bytes(body))


def refusal(action: Callable[[], object]) -> str:
    """The number of the check that refuses the input."""
    try:
        action()
    except o.Refusal as refused:
        return refused.number
    return "none"

"""Cases of schemas and valid frames (FORMAT.md 5, 6)."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import (
    BERNOULLI,
    BINARY,
    GAUSSIAN,
    SIGNED,
    UNIFORM,
    Content,
    Options,
    Schema,
)
from vector_cases.basics import (
    CODED,
    CODED_12,
    CODINGS,
    DISTRIBUTIONS,
    DTYPES,
    EXAMPLE_12,
    EXAMPLE_FRAME,
    KINDS,
    SMALL,
    SMALL_SCHEMA,
    TOP,
    Case,
    Good,
    dense,
    f32,
    f32s,
    frame,
    ints,
    mask,
    masked,
    options_json,
    rare,
    schema_json,
    u32,
    u64,
    valid,
)
from vector_cases.example_coded import EXAMPLE_1
from vector_cases.grids import grids


def schemas() -> Iterator[tuple[str, str, Schema]]:
    yield "empty", "no tensors", ()
    yield "one-masked", "one masked tensor", (masked("weight", 3, 4),)
    yield "one-dense", "one dense tensor", (dense("bias", "float32", 4),)
    yield (
        "conv-bn",
        "a layer with its batch statistics",
        (
            masked("conv.weight", 8, 3, 3, 3),
            dense("bn.weight", "float32", 8),
            dense("bn.running_mean", "float32", 8),
            dense("bn.num_batches_tracked", "int64"),
        ),
    )
    yield (
        "order",
        "the same tensors in another order are another schema",
        (
            dense("bn.weight", "float32", 8),
            masked("conv.weight", 8, 3, 3, 3),
            dense("bn.running_mean", "float32", 8),
            dense("bn.num_batches_tracked", "int64"),
        ),
    )
    yield "dtypes", "every dtype", tuple(dense(f"t.{name}", name, code) for name, code in DTYPES.items())
    yield "scalars", "rank 0: one element", (masked("m"), dense("d", "float64"))
    yield (
        "empty-tensors",
        "a dimension of 0; the others may still be large",
        (masked("m", 0), dense("d", "int8", 3, 0, 5), dense("e", "uint8", 2**48, 0)),
    )
    yield "rank-32", "32 dimensions", (masked("deep", *([1] * 31), 2),)
    yield "largest", "2^48 elements, the most allowed", (masked("m", 2**24, 2**24), dense("d", "bool", 2**48))
    yield (
        "names",
        "names beyond ASCII, of one byte, with spaces, dots and a zero byte",
        (
            dense("a", "bool"),
            dense("\u0432\u0435\u0441", "bool"),
            dense("\u6b0a\u91cd.\U0001f600", "bool"),
            dense(" ", "bool"),
            dense("a.b/c d", "bool"),
            dense("nul\0nul", "bool"),
            dense("\ufeffbom", "bool"),
        ),
    )
    yield (
        "no-normalisation",
        "composed and decomposed e with acute are two names",
        (dense("caf\u00e9", "float32", 1), dense("cafe\u0301", "float32", 1)),
    )
    yield "case", "names differ in case only", (masked("W", 2), masked("w", 2))
    yield "long-name", "a name of 300 bytes: both bytes of name_length count", (masked("n" * 300, 2),)


def schema_cases() -> Iterator[Case]:
    for name, comment, schema in schemas():
        raw = o.schema_bytes(schema)
        assert o.parse_schema(raw) == schema
        fields = {"schema": schema_json(schema), "bytes": raw.hex(), "digest": o.schema_digest(schema).hex()}
        yield valid(name, "5.1 5.2 5.3 5.4", comment, **fields)


DENSE_EXAMPLES = {
    "float32": f32s([-0.0, o.f32_from_bits(1), o.f32_from_bits(0x7F7FFFFF), f32(0.1)]),
    "float64": struct.pack("<4d", -0.0, 5e-324, sys.float_info.max, 0.1),
    "float16": bytes.fromhex("0080 0100 ff7b 662e"),
    "bfloat16": bytes.fromhex("0080 0100 7f7f cd3d"),
    **{f"int{n}": ints(f"int{n}", [-(2 ** (n - 1)), 2 ** (n - 1) - 1, -1, 0]) for n in (8, 16, 32, 64)},
    **{f"uint{n}": ints(f"uint{n}", [2**n - 1, 2 ** (n - 1), 1, 0]) for n in (8, 16, 32, 64)},
    "bool": bytes([0, 1, 1, 0]),
}


def frames() -> Iterator[Good]:
    yield Good("worked-example", "the frame of section 12", EXAMPLE_FRAME)
    yield Good("worked-example-embedded", "the same with its schema", EXAMPLE_FRAME, embed=True, known=False)
    yield Good(
        "embedded-and-known", "the reader has the schema that the frame embeds", EXAMPLE_FRAME, embed=True
    )
    yield Good("nothing", "no tensors: the shortest frame, 52 bytes", frame((), []))
    yield Good("nothing-embedded", "no tensors, with the schema", frame((), []), embed=True, known=False)
    yield Good("mixed", "kinds, distributions, scales and dtypes mixed; round and base model given", SMALL)
    yield Good("mixed-embedded", "the same with its schema", SMALL, embed=True, known=False)
    wanted = Options(round=41, base_model=SMALL.base_model, seed=SMALL.seed)
    yield Good(
        "mixed-wanted", "the reader asks for round, base model and seed, and gets them", SMALL, options=wanted
    )
    zero = Options(round=0, base_model=0, seed=0)
    yield Good(
        "zero-wanted",
        "0 is a value like others when a reader asks for it",
        EXAMPLE_FRAME._replace(seed=0),
        options=zero,
    )
    limits = Options(max_tensors=6, max_schema_bytes=len(o.schema_bytes(SMALL_SCHEMA)), max_elements=26)
    yield Good(
        "at-the-limits",
        "each limit is exactly what the frame has",
        SMALL,
        embed=True,
        known=False,
        options=limits,
    )
    most = SMALL._replace(seed=TOP, base_model=TOP, round=2**32 - 1)
    yield Good(
        "most",
        "the largest seed, base model and round",
        most,
        options=Options(round=2**32 - 1, base_model=TOP, seed=TOP),
    )
    for distribution, label in DISTRIBUTIONS.items():
        least, largest = (o.f32_from_bits(bits) for bits in o.SCALES[distribution])
        for kind, kind_label in KINDS.items():
            for suffix, scale, n in (("", f32(0.05), 37), ("-least", least, 8), ("-largest", largest, 8)):
                content = Content(mask(f"{label}{n}", n), kind, distribution, scale)
                comment = f"{label} noise, {kind_label} mask" + (
                    f", the {suffix[1:]} scale" if suffix else ""
                )
                yield Good(
                    f"{label}-{kind_label}{suffix}", comment, frame((masked("w", n),), [content], seed=n)
                )
    for name, payload in DENSE_EXAMPLES.items():
        yield Good(
            f"dense-{name}", f"extreme values of {name}", frame((dense("x", name, 2, 2),), [Content(payload)])
        )
    every = tuple(dense(name, name, 4) for name in DENSE_EXAMPLES)
    yield Good(
        "dense-all",
        "every dtype in one frame",
        frame(every, [Content(p) for p in DENSE_EXAMPLES.values()]),
        embed=True,
        known=False,
    )
    content = Content(mask("streams", 12), SIGNED, UNIFORM, 1.0)
    schema = (dense("a", "int8", 1), masked("b", 12), dense("c", "int8", 0), masked("d", 12))
    contents = [Content(b"\1"), content, Content(b""), content]
    yield Good(
        "streams", "dense tensors count: the masked ones have streams 1 and 3", frame(schema, contents)
    )
    schema = (masked("m0", 0), dense("d0", "float64", 4, 0), masked("m", 3), masked("m00", 2, 0))
    contents = [
        Content(b"", BINARY, UNIFORM, 1.0),
        Content(b""),
        Content(b"\5", SIGNED, BERNOULLI, 2.0),
        Content(b"", SIGNED, GAUSSIAN, 1.0),
    ]
    yield Good(
        "empty-tensors", "empty tensors keep their entries, masked ones with a scale", frame(schema, contents)
    )
    schema = (masked("m"), dense("d", "float64"), dense("k", "bool"))
    contents = [Content(b"\1", BINARY, GAUSSIAN, f32(0.3)), Content(struct.pack("<d", -0.0)), Content(b"\1")]
    yield Good("scalars", "rank 0", frame(schema, contents), embed=True)
    for bit in (0, 1):
        for kind, label in KINDS.items():
            packed = o.pack([bit] * 11)
            content = Content(packed, kind, UNIFORM, f32(0.1))
            yield Good(f"all-{bit}-{label}", f"every bit {bit}", frame((masked("w", 11),), [content]))
    for n in (1, 7, 8, 9, 32, 33, 65):
        content = Content(mask("sizes", n), SIGNED, BERNOULLI, 0.5)
        yield Good(
            f"size-{n}", f"{n} elements, bernoulli: 32 to a word", frame((masked("w", n),), [content], seed=3)
        )
    for seed in (0, 2**32, 2**53 + 1, 2**63, TOP):
        content = Content(o.pack([1] * 5), BINARY, GAUSSIAN, 1.0)
        yield Good(f"seed-{seed:x}", "the seed's width", frame((masked("w", 5),), [content], seed=seed))
    names = next(schema for name, _, schema in schemas() if name == "names")
    yield Good(
        "names", "names beyond ASCII", frame(names, [Content(b"\x01")] * len(names)), embed=True, known=False
    )
    wide = (*names[:2], dense("unused", "uint8", 0, 2**40))
    contents = [Content(b"\0"), Content(b"\1"), Content(b"")]
    yield Good(
        "empty-but-wide",
        "an empty tensor with a large dimension counts no elements",
        frame(wide, contents),
        embed=True,
        known=False,
        options=Options(max_elements=2),
    )


HALVES = [0.0, -0.0, 1.0, -1.5, 1 / 3, 2049.0, 2051.0, 65504.0, 65519.0, 6e-8, 2.0**-25, -3e-8, 1e-40]
"""Floats that include ties and the ends of float16's range."""


def coded() -> Iterator[Good]:
    """Codings 1 to 3 (FORMAT.md 6.8, 6.9)."""
    yield Good("coded-example", "the frame with coding 1 of section 12", EXAMPLE_1)
    yield Good("coded", "codings 1 and 2 beside raw tensors", CODED)
    for distribution, name in DISTRIBUTIONS.items():
        for kind, n in ((BINARY, 1200), (SIGNED, 1003)):
            schema = (dense("empty", "float32", 0), masked("w", n))
            content = Content(rare(f"coded {name}", n), kind, distribution, f32(0.01), o.RANS)
            source = frame(schema, [Content(b""), content], seed=TOP)
            yield Good(f"coded-{name}-{KINDS[kind]}", f"coding 1, {name} noise, {n} elements", source)
    for label, n, payload, comment in (
        ("none", 600, bytes(75), "no bit is set: every P is 1, or 128 for an empty bucket"),
        ("all", 600, b"\xff" * 75, "all bits are set: every P is 255, or 128"),
        ("fair", 1600, mask("fair", 1600), "coding 1 is asked for and would be longer: raw, of version 1.0"),
        ("small", 80, bytes(10), "too few elements for coding 1: raw"),
    ):
        content = Content(payload, BINARY, UNIFORM, f32(0.01), o.RANS)
        yield Good(f"coded-{label}", comment, frame((masked("w", n),), [content]), embed=True)
    tie = o.pack([int(i >= 1568 or (i < 1496 and i % 22 == 0)) for i in range(1600)])
    every = o.pack([int(i % 8 == 0) for i in range(800)])
    for label, payload, comment in (
        ("at-the-limit", tie, "Bernoulli noise, P(0) = 16: a state is f * 2^24, so a word is due"),
        ("as-long-as-raw", every, "coding 1 would be as long as raw: raw"),
    ):
        content = Content(payload, BINARY, BERNOULLI, f32(0.01), o.RANS)
        yield Good(f"coded-{label}", comment, frame((masked("w", 8 * len(payload)),), [content]))
    nothing = frame((dense("x", "float32", 0),), [Content(b"", coding=o.IN_FLOAT16)])
    yield Good("halves-empty", "an empty tensor in coding 2", nothing)
    floats = dense("x", "float32", len(HALVES))
    for coding, name in ((o.IN_FLOAT16, "float16"), (o.IN_BFLOAT16, "bfloat16")):
        content = Content(f32s([f32(value) for value in HALVES]), coding=coding)
        comment = f"f32 rounded to {name}: ties, and the ends of float16's range"
        yield Good(f"halves-{name}", comment, frame((floats,), [content]))
    ends = [o.f32_from_bits(word) for word in (0x7F7F7FFF, 0xFF000000, 0x3F808000, 0x3F818000, 0x00008000)]
    content = Content(f32s(ends), coding=o.IN_BFLOAT16)
    comment = "the largest f32 that bfloat16 can hold, rounded; ties; half of the least"
    yield Good("halves-bfloat16-ends", comment, frame((dense("x", "float32", len(ends)),), [content]))


def coded_12() -> Iterator[Good]:
    """Coding 4 (FORMAT.md 6.11)."""
    yield Good("coded12-example", "the second frame of section 12", EXAMPLE_12)
    yield Good("coded12", "codings 4 and 2 beside raw tensors", CODED_12)
    w, *others = CODED.contents
    both = frame(
        (CODED_12.schema[0], CODED_12.schema[1], masked("v", 1001)),
        [w, others[0], CODED_12.contents[0]],
        seed=CODED.seed,
    )
    yield Good("coded12-and-1", "codings 1, 2 and 4 in one frame", both, embed=True, known=False)
    for distribution, name in DISTRIBUTIONS.items():
        for kind, n in ((BINARY, 1200), (SIGNED, 1003)):
            schema = (dense("empty", "float32", 0), masked("w", n))
            content = Content(rare(f"coded {name}", n), kind, distribution, f32(0.01), o.RANS12)
            source = frame(schema, [Content(b""), content], seed=TOP)
            yield Good(f"coded12-{name}-{KINDS[kind]}", f"coding 4, {name} noise, {n} elements", source)
    seed, n = 12, 4000
    buckets = [o.bucket(UNIFORM, o.draw(UNIFORM, seed, 0, i)) for i in range(n)]
    every = o.pack([c % 2 for c in buckets])
    content = Content(every, BINARY, UNIFORM, f32(0.01), o.RANS12)
    steps = frame((masked("w", n),), [content], seed=seed)
    yield Good("coded12-steps", "k is 0 and 78 by turns: the largest differences", steps)
    limit = o.pack([int(i % 16 == 0 if i < 1536 else i >= 1596) for i in range(1600)])
    for label, distribution, payload, n, comment in (
        ("none", UNIFORM, bytes(75), 600, "no bit is set: every k is 0"),
        ("all", UNIFORM, b"\xff" * 75, 600, "all bits are set: every k is 78"),
        ("least", BERNOULLI, bytes(5) + b"\0", 41, "the least number of elements: 5 bytes, and 6 raw"),
        ("small", BERNOULLI, bytes(5), 40, "too few elements for coding 4: raw"),
        ("few", GAUSSIAN, o.pack([0] * 398 + [1, 1]), 400, "some buckets are empty"),
        ("fair", UNIFORM, mask("fair", 1600), 1600, "coding 4 is asked for and would be longer: raw"),
        ("at-the-limit", BERNOULLI, limit, 1600, "v is 256: a state is f * 2^20, so a word is due"),
        ("as-long-as-raw", BERNOULLI, b"\1" * 7, 56, "coding 4 would be as long as raw: raw"),
    ):
        content = Content(payload, BINARY, distribution, f32(0.01), o.RANS12)
        yield Good(f"coded12-{label}", comment, frame((masked("w", n),), [content]))
    for ones, total in ((3, 2048), (2, 2048), (1, 1024), (9, 4096), (4087, 4096), (1639, 4096)):
        packed = o.pack([int(i < ones) for i in range(total)])
        content = Content(packed, BINARY, BERNOULLI, f32(0.01), o.RANS12)
        comment = f"the share {ones} / {total}, in or near the middle of two frequencies"
        yield Good(f"coded12-share-{ones}-{total}", comment, frame((masked("w", total),), [content]))


def tensor_json(content: Content) -> Case:
    line: Case = {"kind": "dense" if content.kind == o.DENSE else {**KINDS, o.GRID: "grid"}[content.kind]}
    if content.kind in KINDS:
        line["distribution"] = DISTRIBUTIONS[content.distribution]
    if content.kind:
        line["scale"] = u32(o.f32_bits(content.scale))
    line["payload"] = content.payload.hex()
    if content.coding:
        line["coding"] = CODINGS[content.coding]
    return line


def frame_cases() -> Iterator[Case]:
    for name, comment, source, embed, known, options in (*frames(), *coded(), *coded_12(), *grids()):
        data = o.encode(source, embed)
        schema = source.schema if known else None
        assert o.parse(data, schema, options) == o.with_codings(source)[0]
        masks = any(c.coding in o.CODERS for c in source.contents)
        grid = any(c.coding == o.RANS14 for c in source.contents)
        yield valid(
            name,
            "6 M-02 E-01" + " E-03" * masks + " E-04" * grid,
            comment,
            schema=schema_json(source.schema),
            schema_bytes=o.schema_bytes(source.schema).hex(),
            seed=u64(source.seed),
            base_model=u64(source.base_model),
            round=source.round,
            embed_schema=embed,
            tensors=[tensor_json(content) for content in source.contents],
            frame=data.hex(),
            caller_has_schema=known,
            options=options_json(options),
            decoded=[update.hex() for update in o.decode(data, schema, options)],
        )

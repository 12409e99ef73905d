"""Cases of tallies: of frames, merged, and added to an aggregator (FORMAT.md 8.6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import (
    BERNOULLI,
    BINARY,
    GAUSSIAN,
    SIGNED,
    UNIFORM,
    Content,
    Counts,
    Frame,
    Schema,
    Tally,
)
from vector_cases.basics import (
    CODED,
    CODED_12,
    CODED_SCHEMA,
    DISTRIBUTIONS,
    DTYPES,
    EXAMPLE_FRAME,
    EXAMPLE_SCHEMA,
    KINDS,
    SMALL,
    SMALL_SCHEMA,
    TOP,
    Case,
    chaos,
    dense,
    f32,
    f32s,
    frame,
    grid,
    ints,
    mask,
    masked,
    rare,
    schema_json,
    u64,
    valid,
)
from vector_cases.tallies_refused import refused_tallies

LABELS = {o.RAW: None, o.RANS14: "rans14"}
MOST = o.MAX_FRAMES


class Counted(NamedTuple):
    """Frames to count, their weight, and the base model and round that the program expects."""

    name: str
    comment: str
    frames: Sequence[Frame]
    weight: int = 1
    base_model: int = 0
    round: int = 0
    coding: int = o.RAW


def one_mask(payloads: Sequence[bytes], n: int, kind: int = SIGNED, noise: int = BERNOULLI) -> list[Frame]:
    """Frames of one masked tensor of n elements."""
    return [frame((masked("w", n),), [Content(each, kind, noise, f32(0.1))]) for each in payloads]


def mixed(k: int, base: int = 77, round_: int = 41) -> Frame:
    """A frame of two masked tensors and others of several dtypes, the same seed for every k."""
    contents = [
        Content(mask(f"w{k}", 10), BINARY, GAUSSIAN, f32(0.02)),
        Content(f32s([f32(0.1 * k), -1.0 / 4**k])),
        Content(ints("int64", [10**12 * k - 5])),
        Content(bytes([k & 1, k >> 1 & 1, 1])),
        Content(mask(f"v{k}", 9), SIGNED, BERNOULLI, f32(0.001)),
        Content(bytes([k, 0x3C])),
    ]
    return frame(SMALL_SCHEMA, contents, seed=1000, base=base, round_=round_)


EXAMPLE = [
    EXAMPLE_FRAME._replace(
        contents=(content._replace(payload=o.pack(bits)), EXAMPLE_FRAME.contents[1]),
    )
    for content in EXAMPLE_FRAME.contents[:1]
    for bits in (
        [1, 0, 1, 1, 0, 0, 1, 0, 1, 1],
        [1, 1, 0, 1, 0, 0, 1, 0, 0, 1],
        [1, 0, 1, 1, 0, 1, 0, 0, 1, 1],
    )
]
"""The frame of the first worked example with three masks; the first is its own."""
EXAMPLE_WEIGHT = 2


def counted() -> Iterator[Counted]:
    yield Counted("one", "one frame, counts of one bit: its mean is what it decodes to", [SMALL])
    yield Counted("one-heavy", "one frame of the largest weight", [SMALL], o.MAX_WEIGHT)
    yield Counted("example", "the worked example: three masks of one seed", EXAMPLE, EXAMPLE_WEIGHT)
    many = [mixed(k) for k in range(9)]
    yield Counted("mixed", "three frames, counts of two bits, and sums of dense tensors", many[:3], 5)
    yield Counted("mixed-twice", "two frames of weight 2, with dense tensors", many[3:5], 2)
    one_of_nine = (dense("b", "float32", 9), dense("d", "float64", 9))
    sparse = [Content(f32s([0.0] * 8 + [0.375])), Content(struct.pack("<9d", *[0.0] * 8, -3e-300))]
    yield Counted(
        "sparse-twice", "weight 2, and dense tensors with one element", [frame(one_of_nine, sparse)] * 2, 2
    )
    yield Counted("mixed-order", "the same frames in another order: the same bytes", [*many[2::-1]], 5)
    yield Counted("mixed-many", "nine frames, counts of four bits", many, 1000)
    yield Counted("mixed-coded", "coding 5 is chosen and not shorter: raw", many, 1000, coding=o.RANS14)
    yield Counted("checked", "base model and round expected, and so recorded", many[:2], 3, 77, 41)
    for n in (2, 3, 4, 7, 8, 15, 16, 31, 32):
        yield Counted(f"n-{n}", f"{n} frames, counts of {n.bit_length()} bits", one_mask(
            [mask(f"{n} {k}", 5) for k in range(n)], 5))  # fmt: skip
    yield Counted("n-256", "256 frames, all bits of element 0 set", one_mask(
        [bytes([1 | 2 * (k % 3 == 0)]) for k in range(256)], 3))  # fmt: skip
    for distribution, label in DISTRIBUTIONS.items():
        least, largest = (o.f32_from_bits(bits) for bits in o.SCALES[distribution])
        for kind, kind_label in KINDS.items():
            for suffix, scale, weight in (
                ("", f32(0.1), 7),
                ("-huge", f32(0.1), o.MAX_WEIGHT // 3),
                ("-least", least, 2**20),
                ("-largest", largest, 1),
            ):
                contents = [Content(mask(f"{label}{k}", 9), kind, distribution, scale) for k in range(3)]
                frames = [frame((masked("w", 9),), [content], seed=TOP - 5) for content in contents]
                end = f", {suffix[1:]}: weight or scale at the end of its range" if suffix else ""
                name = f"{label}-{kind_label}{suffix}"
                yield Counted(name, f"{label} noise, {kind_label} masks{end}", frames, weight)
    some = [int(i < 30 and i % 2 == 0) for i in range(32)], [int(i < 30 and i % 2 == 1) for i in range(32)]
    yield Counted(
        "coded-as-long-as-raw",
        "coding 5 is chosen and takes 8 bytes, as many as raw: raw",
        one_mask([o.pack(bits) for bits in some], 32),
        coding=o.RANS14,
    )
    yield Counted("nothing", "no tensors", [frame((), [])] * 2, 4)
    empty = (masked("m", 0), dense("d", "float64", 0), masked("n", 3, 0, 2))
    held = [Content(b"", BINARY, UNIFORM, 1.0), Content(b""), Content(b"", SIGNED, GAUSSIAN, 1.0)]
    for label, coding in (("", o.RAW), ("-coded", o.RANS14)):
        yield Counted(
            f"empty-tensors{label}",
            "empty tensors, raw in any case",
            [frame(empty, held)] * 2,
            4,
            coding=coding,
        )
    yield from of_dense_tensors()
    yield from coded_tallies()


def of_dense_tensors() -> Iterator[Counted]:
    """Sums of dense tensors of all dtypes, of grids and elements."""
    schema = tuple(dense(name, name, 3) for name in DTYPES)

    def contents(k: int) -> list[Content]:
        out = []
        for name, code in DTYPES.items():
            dtype, raw = o.DTYPES[code], bytearray(chaos(f"{name} {k}", 3 * o.DTYPES[code].size))
            if name == "bool":
                raw = bytearray(byte & 1 for byte in raw)
            elif dtype.fraction:
                for at in range(dtype.size - 1, len(raw), dtype.size):
                    raw[at] &= 0xBF
            out.append(Content(bytes(raw)))
        return out

    frames = [frame(schema, contents(k)) for k in range(3)]
    yield Counted("dense", "every dtype, without masks", frames, 2**36)
    x = (dense("x", "float32", 2), masked("w", 3))
    m = Content(b"\5", SIGNED, UNIFORM, 0.5)
    both = [
        frame(x, [grid([3, -1], 2.0**-4), m]),
        frame(x, [grid([2**24 - 1, 0], 2.0**-126, o.RANS14), m]),
        frame(x, [Content(f32s([f32(0.1), -0.0])), m]),
    ]
    yield Counted("dense-grids", "a dense tensor on two grids, and as elements", both, 9)
    opposite = [frame(x, [Content(f32s([a, -a])), m]) for a in (1.5, -1.5)]
    yield Counted("dense-cancel", "limbs that cancel: no rows", opposite, 3)


def coded_tallies() -> Iterator[Counted]:
    """Tallies whose counts are shorter in coding 5, and frames that are coded themselves."""
    alike = [o.pack([int(i % 97 == k) for i in range(300)]) for k in range(5)]
    few = one_mask(alike, 300, BINARY, UNIFORM)
    yield Counted("coded", "few bits are set: coding 5 is shorter", few, 3, coding=o.RANS14)
    yield Counted("coded-raw", "the same frames, raw", few, 3)
    schema = (masked("w", 200), masked("v", 9), dense("n", "int8", 1), masked("u", 200))

    def beside(k: int) -> Frame:
        return frame(
            schema,
            [
                Content(o.pack([int(i < 190 or i == 190 + k) for i in range(200)]), SIGNED, BERNOULLI, 1.0),
                Content(mask(f"v{k}", 9), BINARY, UNIFORM, 0.5),
                Content(ints("int8", [k - 3])),
                Content(mask(f"u{k}", 200), SIGNED, GAUSSIAN, 0.25),
            ],
        )

    frames = [beside(k) for k in range(6)]
    yield Counted("coded-beside", "coding 5 where it is shorter, raw where not", frames, 2, coding=o.RANS14)
    raw = frame(CODED_SCHEMA, [c._replace(coding=o.RAW) for c in CODED.contents], seed=CODED.seed)
    other = raw._replace(contents=(raw.contents[0]._replace(payload=rare("x", 1001)), *raw.contents[1:]))
    yield Counted("coded-frames", "frames of versions 1.0, 1.1 and 1.2", [CODED, CODED_12, raw, other])


# --- counts of more frames than a vector can hold -----------------------------------------------------


def made(
    n: int,
    counts: Sequence[int],
    *,
    kind: int = SIGNED,
    distribution: int = BERNOULLI,
    weight: int = 1,
    seed: int = 7,
    scale: float = 0.25,
    schema: Schema | None = None,
) -> Tally:
    """The tally of n frames of one masked tensor with these counts."""
    known = (masked("w", len(counts)),) if schema is None else schema
    return Tally(known, seed, 0, 0, weight, n, (Counts((tuple(counts),), kind, distribution, scale),))


def merged() -> Iterator[tuple[str, str, list[Tally], int]]:
    thirds = [o.tally([mixed(k) for k in range(3 * i, 3 * i + 3)], 1000) for i in range(3)]
    yield "merge-mixed", "three tallies of `mixed-many` merge to it", thirds, o.RAW
    yield "merge-one", "one tally is written again as it is", thirds[:1], o.RAW
    for n in (1, 255, 65535, MOST - 1):
        low, ends = made(n, [0, n, n // 2, 1 % (n + 1), n]), made(1, [0, 0, 1, 1, 1])
        comment = f"{n} frames and one more: counts of {(n + 1).bit_length()} bits"
        for suffix, coding in (("", o.RAW), ("-coded", o.RANS14)):
            yield f"merge-{n}-and-1{suffix}", comment, [low, ends], coding
    a, b = (made(n, [k % 7 == 0 for k in range(90)]) for n in (40, 41))
    yield "merge-coded", "two coded tallies, written coded", [a, b], o.RANS14
    x = (dense("x", "int32", 2),)
    limbs = [
        Tally(
            x,
            7,
            0,
            0,
            5,
            3,
            (
                Counts(
                    ((s * 9, s), (0, s * 4)),
                ),
            ),
        )
        for s in (1, -1)
    ]
    yield "merge-cancel", "limbs that cancel: no rows", limbs, o.RAW
    size = 65537
    blocks = [made(2, [int(i % 20000 == k) for i in range(size)]) for k in (0, 9)]
    yield "merge-blocks", "two blocks of coding 5", blocks, o.RANS14


def added() -> Iterator[tuple[str, str, list[Tally]]]:
    groups = [o.tally([f._replace(seed=s) for f in EXAMPLE[: s + 1]], 3 + s) for s in range(3)]
    yield "add-groups", "tallies of three seeds, numbers of frames and weights", groups
    yield "add-twice", "the same tally twice", [groups[1]] * 2
    kinds = [made(3, [0, 1, 2, 3], kind=kind, weight=w) for kind, w in ((BINARY, 5), (SIGNED, 7))]
    yield "add-kinds", "mask kinds may differ from tally to tally", kinds
    for distribution, label in DISTRIBUTIONS.items():
        for n in (1, 2, 255, 256, 65535, 65536, MOST):
            row = [0, n, n // 2, (n + 1) // 2, n - 1]
            of = {"distribution": distribution, "weight": o.MAX_WEIGHT // n, "scale": f32(0.1)}
            both = [made(n, row, kind=kind, **of)._replace(weight=o.MAX_WEIGHT // n // 2) for kind in KINDS]
            yield f"add-{label}-{n}", f"{n} frames of {label} noise, and weights of 2^39 together", both


def tally_cases() -> Iterator[Case]:
    for name, comment, frames, weight, base_model, round_, coding in counted():
        total = o.tally([o.with_codings(one)[0] for one in frames], weight, base_model, round_)
        sums = o.sums_of_tally(total)
        each = [o.sum_frame(o.with_codings(one)[0], weight, base_model, round_) for one in frames]
        assert sums == o.merge_all(each), name
        raw = o.tally_to_bytes(total, coding)
        assert o.tally_from_bytes(raw, total.schema) == total, name
        yield valid(
            name,
            "8.6 A-08 A-10 E-05",
            comment,
            op="tally",
            schema=schema_json(total.schema),
            frames=[o.encode(one).hex() for one in frames],
            weight=weight,
            coding=LABELS[coding],
            base_model=u64(base_model),
            round=round_,
            tally=raw.hex(),
            **of_sums(sums),
        )
    example = [EXAMPLE_FRAME, EXAMPLE_FRAME]
    total = o.tally(example, 3, 0, 0)
    yield valid(
        "embedded-schema",
        "8.6 A-08 A-10 E-05",
        "The second frame embeds its schema",
        op="tally",
        schema=schema_json(EXAMPLE_SCHEMA),
        frames=[o.encode(example[0]).hex(), o.encode(example[1], True).hex()],
        weight=3,
        coding=LABELS[o.RAW],
        base_model=u64(0),
        round=0,
        tally=o.tally_to_bytes(total).hex(),
        **of_sums(o.sums_of_tally(total)),
    )
    for name, comment, parts, coding in merged():
        total = o.merge_all_tallies(parts)
        wire = [o.tally_to_bytes(part, coding).hex() for part in parts]
        raw = o.tally_to_bytes(total, coding)
        given = {"schema": schema_json(total.schema), "tallies": wire, "coding": LABELS[coding]}
        yield valid(name, "8.6 A-09 E-05", comment, op="merge_tallies", **given, tally=raw.hex())
    for name, comment, parts in added():
        sums = None
        for part in parts:
            sums = o.add_tally(sums, part)
        assert sums is not None
        wire = [o.tally_to_bytes(part).hex() for part in parts]
        given = {"schema": schema_json(parts[0].schema), "tallies": wire}
        if name == "add-twice":
            given |= {"seed": u64(parts[0].seed)}
        yield valid(name, "8.6 A-10", comment, op="add_tallies", **given, **of_sums(sums))
    yield from refused_tallies()


def of_sums(sums: o.PartialSum) -> dict[str, Any]:
    """The mean and the partial sum of a case."""
    return {"partial": o.partial_to_bytes(sums).hex(), "mean": [each.hex() for each in o.mean(sums)]}


assert EXAMPLE[0] == EXAMPLE_FRAME
assert EXAMPLE[0].schema == EXAMPLE_SCHEMA

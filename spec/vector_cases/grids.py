"""Cases of valid frames with grids, and their means (FORMAT.md 6.12 to 6.14, 8)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BINARY, GAUSSIAN, SIGNED, UNIFORM, Content, Frame
from vector_cases.basics import (
    DTYPES,
    EXAMPLE_14,
    TOP,
    Average,
    Case,
    Good,
    chaos,
    dense,
    f32,
    f32s,
    frame,
    grid,
    ints,
    invalid,
    mask,
    masked,
    rare,
    refusal,
    schema_json,
)

FLOATS = {o.DTYPES[code].name: code for code in o.GRIDS}
LARGEST = 2**24 - 1


def small(tag: str, n: int) -> list[int]:
    """Integers near 0, for coding 5."""
    return [byte.bit_count() - 4 for byte in chaos(tag, n)]


def boundaries() -> list[int]:
    """The least and the largest integer of each class of 6.14, both signs."""
    magnitudes = set(range(32))
    for e in range(5, 24):
        magnitudes |= {(4 + q << e - 2) + end for q in range(4) for end in (0, 2 ** (e - 2) - 1)}
    return [sign * m for m in sorted(magnitudes) for sign in (1, -1)]


def grids() -> Iterator[Good]:
    """Valid frames of version 1.3."""
    yield Good("grid-example", "the third frame of section 12", EXAMPLE_14)
    yield from _of_each_dtype()
    yield from _codings()
    yield from _mixtures()


def _of_each_dtype() -> Iterator[Good]:
    for name, code in FLOATS.items():
        most, least, largest = o.GRIDS[code]
        values = [0, 1, -1, most, -most, 3]
        x = (dense("x", name, 2, 3),)
        yield Good(f"grid-{name}", f"integers times 2^-8 as {name}, raw", frame(x, [grid(values, 2.0**-8)]))
        for label, exponent in (("least", least), ("largest", largest)):
            comment = f"the {label} step of {name}, 2^{exponent}, and the largest integers"
            yield Good(f"grid-{name}-{label}", comment, frame(x, [grid(values, 2.0**exponent)]))
        coded = grid([*small(name, 41), most, -most], 2.0**-4, o.RANS14)
        source = frame((dense("x", name, 43),), [coded], seed=0)
        yield Good(f"grid-{name}-coded", f"coding 5 of {name}", source, embed=True, known=False)


def _codings() -> Iterator[Good]:
    edges = boundaries()
    for label, values, comment in (
        ("empty", [], "no elements: coding 5 is asked for, raw is used"),
        ("one", [0], "one element: too few for coding 5, so raw"),
        ("two", [0, 0], "two zeros, the fewest elements of coding 5: 5 bytes"),
        ("zeros", [0] * 100, "all zeros: 5 bytes"),
        ("same", [-7] * 30, "all the same: only the last symbol occurs, and f(0) is 0"),
        ("as-long-as-raw", [0, 1, -1], "coding 5 would be as long as raw: raw"),
        ("longer", [LARGEST, -5000, 3, 77_777], "coding 5 would be longer: raw"),
        ("extremes", [LARGEST, -LARGEST] * 16, "the largest integers: 16 plain bits, then 5"),
        ("plain", [s * m for m in (31, 32, 2**18, 2**19 - 1, 2**19) for s in (1, -1)] * 4,
         "no plain bits, 3, 16, and 17 in two parts"),
        ("classes", edges, "the least and the largest integer of each class"),
        ("excess", [*[0] * 40_00, *edges], "many rare symbols: f of the most frequent one is lowered"),
        ("tie", [2, 1, 2, 1, 2, 1, 0, 0, 0], "the first of the most frequent symbols has what is missing"),
        ("at-the-limit", [1] * 16 + [0] * 16, "a state is f * 2^18, so a word is due"),
        ("plain-at-the-limit", [0] * 3 + [32] * 16 + [0] * 13, "a word is due before 3 plain bits"),
    ):  # fmt: skip
        source = frame((masked("w", len(values)),), [grid(values, 2.0**-6, o.RANS14)], seed=0)
        expected = o.RAW if label in ("empty", "one", "as-long-as-raw", "longer") else o.RANS14
        assert o.with_codings(source)[0].contents[0].coding == expected, label
        yield Good(f"grid-{label}", comment, source)
    scalar = frame((masked("m"), dense("d", "float64")), [grid([-9], 0.5), grid([LARGEST], 2.0**104)])
    yield Good("grid-scalars", "rank 0", scalar)
    n = 65_537
    values = [0] * n
    values[5], values[65_535], values[65_536] = -3, 700, 1
    source = frame((dense("x", "float16", n),), [grid(values, 0.25, o.RANS14)], seed=0)
    yield Good("grid-blocks", "coding 5 in two blocks, the second of one element", source)


def _mixtures() -> Iterator[Good]:
    schema = (
        masked("w", 5, 10),
        dense("b", "float32", 5),
        masked("m", 9),
        masked("empty", 0),
        dense("half", "float16", 7),
        dense("n", "int64"),
        masked("c", 400),
        dense("e", "bfloat16", 0),
        dense("raw", "float32", 2),
        dense("f", "bool", 2),
    )
    contents = [
        grid(small("w", 50), 2.0**-12, o.RANS14),
        grid([1, -2, 300, -4000, 0], 2.0**-20),
        Content(mask("m", 9), SIGNED, GAUSSIAN, f32(0.02)),
        grid([], 1.0),
        grid([1, 1, 1, 1, 1, 1, -2047], 2.0**-24, o.RANS14),
        Content(ints("int64", [-3])),
        Content(rare("c", 400), BINARY, UNIFORM, f32(0.01), o.RANS12),
        grid([], 2.0**120),
        Content(f32s([1.5, -0.0]), coding=o.IN_FLOAT16),
        Content(b"\1\0"),
    ]
    mixed = frame(schema, contents, seed=0x0123456789ABCDEF, base=TOP, round_=41)
    yield Good("grid-mixed", "grids, masks and elements in one frame, raw and in codings 5, 4 and 2", mixed)
    comment = "the same with its schema, for a reader that has none"
    yield Good("grid-mixed-embedded", comment, mixed, embed=True, known=False)
    schema = (masked("conv.weight", 2, 3, 3), dense("bn.weight", "float32", 2), dense("steps", "int64"))
    model = [
        grid(small("conv", 18), 2.0**-10, o.RANS14),
        grid([1024, 1023], 2.0**-10, o.RANS14),
        Content(ints("int64", [7])),
    ]
    yield Good(
        "grid-model", "a model as an update to zeros: seed 0, base model 0", frame(schema, model, seed=0)
    )


# 8 Aggregation


def grid_averages() -> Iterator[Average]:
    """Means of grids."""
    w = (masked("w", 6),)

    def one(values: list[int], step: float, coding: int = o.RAW, seed: int = 0) -> Frame:
        return frame(w, [grid(values, step, coding)], seed=seed)

    first = one([0, 1, -1, 77, LARGEST, -LARGEST], 2.0**-9)
    three = [first, one([5] * 6, 2.0**-9, o.RANS14, 3), one([-8, 0, 0, 1, LARGEST, 2], 2.0**-9)]
    assert o.with_codings(three[1])[0].contents[0].coding == o.RANS14
    yield Average("grid-one", "one grid: the mean is what it decodes to", [first], [2**29 - 1])
    yield Average("grid", "grids of a masked tensor, raw and coded", three, [3, 5, 1])
    yield Average("grid-huge", "weights at the end of their range", three, [2**38, 2**37, 2**37 - 1])
    for label, exponent in (("least", -126), ("largest", 104)):
        step = 2.0**exponent
        inputs = [one([1, -1, 2, 0, LARGEST, -LARGEST], step), one([0, 0, -1, 0, LARGEST, 1], step)]
        comment = f"the {label} step; means are subnormal, and a negative one is -0.0"
        yield Average(f"grid-{label}", comment, inputs, [1, 2**30])
    even = LARGEST - 1
    comment = "the f64 steps count: the exact fraction rounded once gives another float"
    near = [one([even - k for k in range(0, 12, 2)], 1.0), one([even + 1 - k for k in range(0, 12, 2)], 1.0)]
    weights = [2**37 - 1, 2**37]
    exact = o.round_float(Fraction(weights[0] * even + weights[1] * (even + 1), sum(weights)), o.F32)
    assert o.mean(o.partial_sum(near, weights))[0][:4] != exact.to_bytes(4, "little")
    yield Average("grid-f64-exact", comment, near, weights)
    mixed = (masked("w", 3), masked("m", 9), dense("b", "float32", 2), dense("n", "int8", 1))
    beside = [
        frame(
            mixed,
            [
                grid([k, -k, 100 * k], 2.0**-5),
                Content(mask(f"m{k}", 9), 1 + k % 2, UNIFORM, f32(0.1)),
                grid([k, -1], 2.0**-k) if k else Content(f32s([f32(0.1), -0.0])),
                Content(ints("int8", [-k])),
            ],
            seed=k,
        )
        for k in range(3)
    ]
    yield Average(
        "grid-beside", "a grid, masks of another tensor, elements and grids of a third", beside, [3, 1, 2]
    )
    yield Average("grid-checked", "base model and round checked, and so recorded",
                  [f._replace(base_model=9, round=4) for f in three], [1, 2, 3], 9, 4)  # fmt: skip
    for name, code in FLOATS.items():
        most, least, largest = o.GRIDS[code]
        x = (dense("x", name, 4),)
        size = o.DTYPES[DTYPES[name]].size
        inputs = [
            frame(x, [grid([1, -1, most, 0], 2.0**least)]),
            frame(x, [grid([1, 1, -most, 0], 2.0**largest)]),
            frame(x, [Content(bytes(3 * size) + bytes(size - 1) + b"\x80")]),
        ]
        comment = f"a dense {name}: two steps and elements, summed by value"
        yield Average(f"grid-dense-{name}", comment, inputs, [2**20, 1, 3])
    empty = frame((masked("m", 0), dense("d", "float64", 0)), [grid([], 1.0), grid([], 0.5)])
    yield Average("grid-empty", "empty tensors", [empty] * 2, [4, 5])


def refused_grids() -> Iterator[Case]:
    """Grids and masks of one masked tensor that have no common sum, [A-02]."""
    w = (masked("w", 3),)
    good = frame(w, [grid([1, 2, 3], 0.5)])
    for label, comment, content in (
        ("steps", "one tensor with two steps", grid([1, 2, 3], 0.25)),
        (
            "mask",
            "a grid and a mask of one tensor, step and scale equal",
            Content(b"\5", BINARY, UNIFORM, 0.5),
        ),
    ):
        other = frame(w, [content])
        for order, inputs in (("", [good, other]), ("-first", [other, good])):
            found = refusal(lambda f=inputs: o.partial_sum(f, [1, 1]))  # type: ignore[misc]
            assert found == "A-02", (label, found)
            fields = {
                "schema": schema_json(w),
                "frames": [o.encode(f).hex() for f in inputs],
                "weights": [1, 1],
            }
            yield invalid(f"grid-two-{label}{order}", "A-02", comment, op="mean", **fields)
        parts = [o.partial_to_bytes(o.sum_frame(f, 1)).hex() for f in (good, other)]
        yield invalid(f"merge-grid-{label}", "A-02", comment, op="merge", schema=schema_json(w), parts=parts)

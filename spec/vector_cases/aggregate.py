"""Cases of means, partial sums and merges (FORMAT.md 8)."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import (
    BERNOULLI,
    BINARY,
    GAUSSIAN,
    SIGNED,
    UNIFORM,
    Content,
    Frame,
    Tensor,
)
from vector_cases.basics import (
    CODED,
    CODED_SCHEMA,
    DISTRIBUTIONS,
    DTYPES,
    EXAMPLE_FRAME,
    EXAMPLE_SCHEMA,
    SMALL,
    SMALL_SCHEMA,
    Average,
    Case,
    dense,
    f32,
    f32s,
    frame,
    ints,
    invalid,
    mask,
    masked,
    refusal,
    schema_json,
    u64,
    valid,
)
from vector_cases.grids import grid_averages, refused_grids
from vector_cases.sticky import sticky_averages


def single(tensor: Tensor, payloads: Sequence[bytes]) -> list[Frame]:
    return [frame((tensor,), [Content(payload)], seed=seed) for seed, payload in enumerate(payloads)]


# Plausible but wrong ways to compute the mean of 8.2: numerator S, denominator W and step to the f32's bits.
OTHER_MEANS: dict[str, tuple[str, Callable[[int, int, Fraction], int]]] = {
    "exact": (
        "the f64 steps count: the exact fraction rounded once gives another float",
        lambda s, w, a: o.round_float(Fraction(s, w) * a, o.F32),
    ),
    "integer-division": (
        "S is rounded to f64 before the division: the rounded quotient of the integers gives another float",
        lambda s, w, a: o.round_float(Fraction(s / w * float(a)), o.F32),
    ),
    "product-first": (
        "division first, then the product: the other order gives another float",
        lambda s, w, a: o.round_float(Fraction(float(s) * float(a) / float(w)), o.F32),
    ),
    "reciprocal": (
        "a division, not a product with 1 / W, which gives another float",
        lambda s, w, a: o.round_float(Fraction(float(s) * (1.0 / float(w)) * float(a)), o.F32),
    ),
    "step-over-weight": (
        "S times (step / W) gives another float",
        lambda s, w, a: o.round_float(Fraction(float(s) * (float(a) / float(w))), o.F32),
    ),
}


def hard_average(other: Callable[[int, int, Fraction], int]) -> tuple[list[Frame], list[int]]:
    """Two frames of one element, and weights, whose mean is wrong when computed the other way.

    The weights put the mean as near as they can to the middle of two floats.
    """
    scale = f32(0.1)
    step = o.step(UNIFORM, scale)
    for k in range(100_000):
        x, y = (o.draw(UNIFORM, seed, 0, 0) for seed in (k, k + 1))
        word = o.round_float((x + y) * step / 2, o.F32)
        middle = (o.exact_value(word, o.F32) + o.exact_value(word + 1, o.F32)) / 2 / step
        if not min(x, y) < middle < max(x, y):
            continue
        ratio = ((middle - y) / (x - middle)).limit_denominator(2**37)
        weights = [ratio.numerator, ratio.denominator]
        total = sum(weights)
        if not total // 2**36 or total > o.MAX_WEIGHT:
            continue
        content = [Content(b"\1", BINARY, UNIFORM, scale)]
        inputs = [frame((masked("w", 1),), content, seed=seed) for seed in (k, k + 1)]
        (mean,) = o.mean(o.partial_sum(inputs, weights))
        if int.from_bytes(mean, "little") != other(weights[0] * x + weights[1] * y, total, step):
            return inputs, weights
    raise AssertionError("no such weights")


def averages() -> Iterator[Average]:
    yield Average("one", "one frame: the mean is what it decodes to, -0.0 becoming +0.0", [SMALL], [1])
    yield Average("one-heavy", "one frame of weight 2^29 - 1: the same mean", [SMALL], [2**29 - 1])
    yield Average(
        "example",
        "the worked example three times, by seed",
        [EXAMPLE_FRAME._replace(seed=k) for k in (7, 8, 9)],
        [1, 2, 3],
    )

    def mixed(k: int) -> Frame:
        contents = [
            Content(mask(f"w{k}", 10), 1 + k % 2, GAUSSIAN, f32(0.02)),
            Content(f32s([f32(0.1 * k), -1.0 / 4**k])),
            Content(ints("int64", [10**12 * k - 5])),
            Content(bytes([k & 1, k >> 1 & 1, 1])),
            Content(mask(f"v{k}", 9), 2 - k % 2, BERNOULLI, f32(0.001)),
            Content(bytes([k, 0x3C])),
        ]
        return frame(SMALL_SCHEMA, contents, seed=1000 + k, base=77, round_=41)

    three = [mixed(k) for k in range(3)]
    yield Average("mixed", "three frames, mask kinds mixed", three, [3, 5, 1])
    yield Average(
        "mixed-order",
        "the same frames in another order: the same bytes",
        [three[2], three[0], three[1]],
        [1, 3, 5],
    )
    yield Average("mixed-checked", "base model and round checked, and so recorded", three, [3, 5, 1], 77, 41)
    yield Average("mixed-many", "nine frames", [mixed(k) for k in range(9)], [k * k + 1 for k in range(9)])
    yield Average("nothing", "no tensors", [frame((), [])] * 2, [4, 5])
    empty = frame(
        (masked("m", 0), dense("d", "float64", 0)), [Content(b"", BINARY, UNIFORM, 1.0), Content(b"")]
    )
    yield Average("empty-tensors", "empty tensors", [empty] * 2, [4, 5])
    for distribution, label in DISTRIBUTIONS.items():
        schema = (masked("w", 9),)
        least, largest = (o.f32_from_bits(bits) for bits in o.SCALES[distribution])
        for suffix, scale, weights in (
            ("", f32(0.1), [7, 11, 13]),
            ("-huge", f32(0.1), [2**38, 2**37, 2**37 - 1]),
            ("-least", least, [1, 2**20, 3]),
            ("-largest", largest, [5, 1, 9]),
        ):
            contents = [Content(mask(f"{label}{k}", 9), 1 + k % 2, distribution, scale) for k in range(3)]
            comment = f"{label} noise" + (
                f", {suffix[1:]}: weights or scale at the end of their range" if suffix else ""
            )
            inputs = [frame(schema, [content], seed=k) for k, content in enumerate(contents)]
            yield Average(f"{label}{suffix}", comment, inputs, weights)
    both = [
        frame((masked("w", 9),), [Content(o.pack(bits), SIGNED, UNIFORM, 0.5)]) for bits in ([1] * 9, [0] * 9)
    ]
    yield Average("cancel", "noise and negated noise of one seed: every mean is +0.0", both, [6, 6])
    yield Average(
        "cancel-nearly",
        "the same with weights 2^38 and 2^38 - 1: sums are small, W is the largest",
        both,
        [2**38, 2**38 - 1],
    )
    for name, (comment, other) in OTHER_MEANS.items():
        yield Average(f"f64-{name}", comment, *hard_average(other))
    flip = [
        frame((masked("w", 4),), [Content(bytes([bits]), SIGNED, BERNOULLI, 2.0**-126)], seed=k)
        for k, bits in enumerate((15, 6, 9))
    ]
    yield Average(
        "subnormal", "the mean of the least bernoulli noise is subnormal or 0", flip, [2**30, 2**30 + 1, 1]
    )

    x32 = dense("x", "float32", 4)
    bits = o.f32_from_bits
    yield Average(
        "float32-cancel",
        "1e30 + 1 - 1e30",
        single(
            x32,
            [
                f32s([f32(1e30), 1.0, -0.0, f32(0.1)]),
                f32s([1.0, -1.0, -0.0, f32(0.2)]),
                f32s([-f32(1e30), 0.0, 0.0, f32(0.3)]),
            ],
        ),
        [1, 1, 1],
    )
    yield Average(
        "float32-ties",
        "means half way between two floats, to the even one",
        single(
            x32,
            [
                f32s([1.0, 1 + 2 ** (-23), bits(1), bits(2139095039)]),
                f32s([1 + 2 ** (-23), 1 + 2 ** (-22), bits(2), bits(2139095038)]),
            ],
        ),
        [1, 1],
    )
    yield Average(
        "float32-subnormal",
        "subnormal means, ties among them",
        single(
            x32,
            [
                f32s([bits(1), bits(3), bits(8388608), bits(16777215)]),
                f32s([0.0, 0.0, bits(8388607), bits(1)]),
            ],
        ),
        [1, 1],
    )
    yield Average(
        "float32-underflow",
        "a mean too small for a float rounds to +0.0, a negative one too",
        single(x32, [f32s([-bits(1), bits(1), -bits(1), -bits(3)]), f32s([0.0, 0.0, bits(1), bits(1)])]),
        [1, 1],
    )
    yield Average(
        "float32-range",
        "all exponents at once",
        single(
            x32,
            [
                f32s([bits(2139095039), bits(1), 1.0, -bits(2139095039)]),
                f32s([bits(1), bits(2139095039), -1.0, -bits(2139095039)]),
            ],
        ),
        [2**38, 2**38 - 1],
    )
    for name, one in (
        ("float32", 0x3F800000),
        ("float64", 0x3FF << 52),
        ("float16", 0x3C00),
        ("bfloat16", 0x3F80),
    ):
        code, sign = DTYPES[name], 1 << (8 * o.DTYPES[DTYPES[name]].size - 1)
        assert o.exact_value(one, o.DTYPES[code]) == 1
        yield Average(
            f"{name}-nearly-half",
            f"half way between two {name} but for 2^-40 of their distance: no rounding before the last",
            single(
                dense("x", name, 4),
                [
                    ints(name, [one, one + 2, sign + one, sign + one + 2]),
                    ints(name, [one + 1, one + 1, sign + one + 1, sign + one + 1]),
                    ints(name, [one + 1, one + 1, sign + one + 1, sign + one + 1]),
                ],
            ),
            [2**38 - 1, 2**38 - 1, 1],
        )
    x64 = dense("x", "float64", 4)
    pack = struct.Struct("<4d").pack
    top, tiny = sys.float_info.max, 5e-324
    yield Average(
        "float64",
        "thirds and tenths",
        single(x64, [pack(0.1, 1.0, -1.0, 1e300), pack(0.2, 1.0, 2.0, -1e300), pack(0.3, 2.0, 2.0, 1.0)]),
        [1, 1, 1],
    )
    yield Average(
        "float64-range",
        "the largest and the least together",
        single(x64, [pack(top, tiny, -top, tiny), pack(tiny, top, -top, -tiny)]),
        [2**38, 2**38 - 1],
    )
    yield Average(
        "float64-subnormal",
        "subnormal means, ties among them",
        single(x64, [pack(tiny, 3 * tiny, -tiny, 2.0 ** (-1022)), pack(0, 0, 0, tiny)]),
        [1, 1],
    )
    yield Average(
        "float64-ties",
        "1 and its neighbours",
        single(
            x64,
            [
                pack(1, 1 + 2 ** (-52), 1, 1),
                pack(1 + 2 ** (-52), 1 + 2 ** (-51), 1, 1 - 2 ** (-53)),
                pack(0, 0, tiny, 0),
            ],
        ),
        [2**20, 2**20, 1],
    )
    for name, words in (
        ("float16", ("003c 013c 0100 ff7b", "013c 023c 0200 fe7b", "0080 ff03 0004 fffb")),
        ("bfloat16", ("803f 813f 0100 7f7f", "813f 823f 0200 7e7f", "0080 7f00 8000 7fff")),
    ):
        tensor = dense("x", name, 4)
        a, b, c = (bytes.fromhex(word) for word in words)
        yield Average(
            f"{name}-ties", f"{name} means half way, to the even one", single(tensor, [a, b]), [1, 1]
        )
        yield Average(
            f"{name}-subnormal",
            f"{name}: subnormal and largest values",
            single(tensor, [c, bytes(8), a]),
            [1, 1, 2],
        )
        yield Average(
            f"{name}-weights", f"{name}: heavy weights", single(tensor, [a, b, c]), [2**38, 2**37, 2**37 - 1]
        )
    for n in (8, 16, 32, 64):
        low, high = -(2 ** (n - 1)), 2 ** (n - 1) - 1
        payloads = [
            ints(f"int{n}", row) for row in ([0, 1, -1, low, high, -3, low], [1, 2, 0, low, high, 0, high])
        ]
        yield Average(
            f"int{n}",
            "halves to the even integer, and the ends of the range",
            single(dense("x", f"int{n}", 7), payloads),
            [1, 1],
        )
        payloads = [ints(f"uint{n}", row) for row in ([0, 1, 2**n - 1, 2**n - 1], [1, 2, 2**n - 2, 0])]
        yield Average(
            f"uint{n}",
            "halves to the even integer, and the ends of the range",
            single(dense("x", f"uint{n}", 4), payloads),
            [2**38 - 1, 2**38 - 1],
        )
    payloads = [bytes([0, 1, 1, 0]), bytes([1, 0, 1, 0])]
    yield Average("bool-half", "half is 0", single(dense("x", "bool", 4), payloads), [2, 2])
    yield Average("bool-majority", "the heavier side", single(dense("x", "bool", 4), payloads), [2, 3])
    yield from grid_averages()
    yield from sticky_averages()


def aggregate_cases() -> Iterator[Case]:
    yield from coded_frames()
    for name, comment, inputs, weights, base_model, round_ in averages():
        schema = inputs[0].schema
        partial = o.partial_sum(inputs, weights, base_model, round_)
        raw = o.partial_to_bytes(partial)
        assert o.partial_from_bytes(raw, schema) == partial
        yield valid(
            name,
            "8.2 8.3 8.5 A-03 A-04",
            comment,
            op="mean",
            schema=schema_json(schema),
            frames=[o.encode(f).hex() for f in inputs],
            weights=weights,
            base_model=u64(base_model),
            round=round_,
            partial=raw.hex(),
            mean=[update.hex() for update in o.mean(partial)],
        )
    example = [EXAMPLE_FRAME._replace(seed=seed) for seed in (7, 8)]
    partial = o.partial_sum(example, [1, 2])
    yield valid(
        "embedded-schema",
        "8.1 A-03 A-04",
        "The second frame embeds its schema",
        op="mean",
        schema=schema_json(EXAMPLE_SCHEMA),
        frames=[o.encode(example[0]).hex(), o.encode(example[1], True).hex()],
        weights=[1, 2],
        base_model=u64(0),
        round=0,
        partial=o.partial_to_bytes(partial).hex(),
        mean=[update.hex() for update in o.mean(partial)],
    )
    several = {name: (inputs, weights) for name, _, inputs, weights, _, _ in averages()}
    for name, split in (
        ("mixed-many", (1, 4)),
        ("mixed-many", (3, 3)),
        ("float32-cancel", (1, 2)),
        ("float64-range", (1, 1)),
        ("cancel", (1, 1)),
        ("uniform-huge", (1, 2)),
        ("nothing", (1, 1)),
        ("uint64", (1, 1)),
        ("grid", (1, 2)),
        ("grid-beside", (1, 1)),
    ):
        inputs, weights = several[name]
        borders = [0, split[0], split[1], len(inputs)]
        spans = [(a, b) for a, b in pairwise(borders) if a < b]
        parts = [o.partial_sum(inputs[a:b], weights[a:b]) for a, b in spans]
        merged = o.merge_all(parts)
        assert merged == o.partial_sum(inputs, weights)
        yield valid(
            f"merge-{name}-{len(parts)}",
            "8.5 A-03 A-04",
            f"{len(parts)} partial sums of the frames of `{name}` merge to its partial sum",
            op="merge",
            schema=schema_json(inputs[0].schema),
            parts=[o.partial_to_bytes(part).hex() for part in parts],
            merged=o.partial_to_bytes(merged).hex(),
            mean=[update.hex() for update in o.mean(merged)],
        )
    yield from refused_aggregates()


def refused_aggregates() -> Iterator[Case]:
    """Violations of [A-01], [A-02], [A-06] and [A-07]."""
    other_scale = EXAMPLE_FRAME.contents[0]._replace(scale=0.5)
    other_noise = EXAMPLE_FRAME.contents[0]._replace(distribution=GAUSSIAN)
    scaled, gaussian = (
        EXAMPLE_FRAME._replace(contents=(c, EXAMPLE_FRAME.contents[1])) for c in (other_scale, other_noise)
    )
    for name, number, comment, inputs, weights in (
        ("weight-zero", "A-01", "a weight of 0", [EXAMPLE_FRAME] * 2, [1, 0]),
        ("weight-negative", "A-01", "a negative weight", [EXAMPLE_FRAME] * 2, [2, -1]),
        ("weight-one-too-heavy", "A-01", "one weight of 2^39", [EXAMPLE_FRAME], [2**39]),
        ("weight-sum-too-heavy", "A-01", "weights that add up to 2^39", [EXAMPLE_FRAME] * 2, [2**38, 2**38]),
        ("two-scales", "A-02", "one tensor with two scales", [EXAMPLE_FRAME, scaled], [1, 1]),
        ("two-distributions", "A-02", "one tensor with two distributions", [EXAMPLE_FRAME, gaussian], [1, 1]),
    ):
        assert refusal(lambda f=inputs, w=weights: o.partial_sum(f, w)) == number, name  # type: ignore[misc]
        fields = {
            "schema": schema_json(EXAMPLE_SCHEMA),
            "frames": [o.encode(f).hex() for f in inputs],
            "weights": weights,
        }
        yield invalid(name, number, comment, op="mean", **fields)
    yield from refused_grids()
    yield from refused_merges(scaled, gaussian)
    yield from means_beyond_range()


def coded_frames() -> Iterator[Case]:
    """Frames of different codings have the same mean (FORMAT.md 6.8, 6.9)."""
    raw = frame(CODED_SCHEMA, [content._replace(coding=o.RAW) for content in CODED.contents], seed=5)
    frames, weights = [CODED, raw], [3, 4]
    partial = o.partial_sum([o.with_codings(one)[0] for one in frames], weights)
    yield valid(
        "coded",
        "A-03 A-04 6.8 6.9",
        "a frame of version 1.1 and one of 1.0",
        op="mean",
        schema=schema_json(CODED_SCHEMA),
        frames=[o.encode(one).hex() for one in frames],
        weights=weights,
        base_model=u64(0),
        round=0,
        partial=o.partial_to_bytes(partial).hex(),
        mean=[update.hex() for update in o.mean(partial)],
    )


def refused_merges(scaled: Frame, gaussian: Frame) -> Iterator[Case]:
    """Pairs of partial sums that have no common sum."""
    one = o.sum_frame(EXAMPLE_FRAME, 1)
    for name, number, comment, other in (
        ("merge-scales", "A-02", "another scale", o.sum_frame(scaled, 1)),
        ("merge-distributions", "A-02", "another distribution", o.sum_frame(gaussian, 1)),
        ("merge-rounds", "A-06", "one side demanded a round", o.sum_frame(EXAMPLE_FRAME, 1, 0, 3)),
        ("merge-base-models", "A-06", "one side demanded a base model", o.sum_frame(EXAMPLE_FRAME, 1, 9, 0)),
        ("merge-too-heavy", "A-01", "weights that add up to 2^39", o.sum_frame(EXAMPLE_FRAME, 2**39 - 1)),
    ):
        assert refusal(lambda p=other: o.merge(one, p)) == number, name  # type: ignore[misc]
        parts = [o.partial_to_bytes(part).hex() for part in (one, other)]
        yield invalid(name, number, comment, op="merge", schema=schema_json(EXAMPLE_SCHEMA), parts=parts)


def means_beyond_range() -> Iterator[Case]:
    """Forged partial sums that pass every check of 8.5 and have no mean, [A-07]."""
    for dtype, limb, value in (
        ("bool", 0, 2),
        ("uint8", 0, -1),
        ("int16", 0, 2**15),
        ("uint64", 2, 2**16),
        ("float32", 11, 2**13),
        ("bfloat16", 10, 2**21),
        ("float16", 1, 2**16),
        ("float64", 87, 2**10),
    ):
        schema = (dense("x", dtype, 1),)
        zeros = frame(schema, [Content(bytes(o.DTYPES[schema[0].dtype].size))])
        whole = o.sum_frame(zeros, 1)
        rows = list(whole.tensors[0].rows)
        rows[limb] = (value,)
        forged = whole._replace(tensors=(whole.tensors[0]._replace(rows=tuple(rows)),))
        raw = o.partial_to_bytes(forged)
        assert o.partial_from_bytes(raw, schema) == forged
        assert refusal(lambda p=forged: o.mean(p)) == "A-07", dtype  # type: ignore[misc]
        yield invalid(
            f"beyond-{dtype}",
            "A-07",
            f"a forged sum whose mean is no {dtype}",
            op="partial_mean",
            schema=schema_json(schema),
            partial=raw.hex(),
        )

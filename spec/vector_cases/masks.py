"""Cases of masks (FORMAT.md 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BERNOULLI, BINARY, SIGNED, UNIFORM, Content
from vector_cases.basics import DISTRIBUTIONS, KINDS, Case, f32, f32s, invalid, mask, u32, u64, valid


def masked_fields(kind: int, distribution: int, scale: float, seed: int, stream: int, n: int) -> Case:
    return {
        "kind": KINDS[kind],
        "distribution": DISTRIBUTIONS[distribution],
        "scale": u32(o.f32_bits(scale)),
        "seed": u64(seed),
        "stream": u64(stream),
        "count": n,
    }


def sample_case(
    name: str,
    comment: str,
    kind: int,
    distribution: int,
    scale: float,
    update: Sequence[float],
    r: Sequence[int],
    private: int | None = None,
) -> Case:
    assert len(update) == len(r)
    seed, stream, n = 7, 3, len(update)
    noise = [o.noise(distribution, scale, seed, stream, i) for i in range(n)]
    bits = [o.sample_bit(kind, update[i], noise[i], r[i]) for i in range(n)]
    fields = masked_fields(kind, distribution, scale, seed, stream, n)
    if private is not None:
        fields["private_seed"] = u64(private)
    fields.update(update=f32s(update).hex(), noise=f32s(noise).hex(), r=list(r), mask=o.pack(bits).hex())
    return valid(name, "4.3 M-04", comment, op="sample", **fields)


def hard_samples(kind: int, count: int) -> tuple[list[float], list[int]]:
    """Updates and r whose bit is wrong in exact arithmetic, and so in doubles or with a fused operation."""
    update: list[float] = []
    r: list[int] = []
    for i in range(count):
        noise = o.noise(UNIFORM, 1.0, 7, 3, i)
        for k in range(10000):
            word = o.philox_word(5, i, k)
            u = f32(noise * ((word >> 8) / 2**24 * 2 - 1 if kind == SIGNED else (word >> 8) / 2**24))
            exact = Fraction(u) / Fraction(noise)
            t = exact * 2**24 if kind == BINARY else (exact + 1) * 2**23
            candidates = [c for c in (math.floor(t), math.floor(t) + 1) if 0 <= c < 2**24]
            wrong = [c for c in candidates if (c < t) != bool(o.sample_bit(kind, u, noise, c))]
            if wrong:
                update.append(u)
                r.append(wrong[0])
                break
        else:
            raise AssertionError("no such update")
    return update, r


def bits_cases() -> Iterator[Case]:
    for n in (0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100):
        bits = o.unpack(mask("pack", 104), 104)[:n]
        text = "".join(map(str, bits))
        yield valid(f"pack-{n}", "4.1 M-01", f"{n} elements", op="pack", bits=text, mask=o.pack(bits).hex())
    yield valid(
        "pack-order",
        "4.1",
        "elements 0 and 10 of 11",
        op="pack",
        bits="1" + "0" * 9 + "1",
        mask="0104",
    )
    yield invalid(
        "padding-9", "F-28", "bit 1 of the second byte of 9 elements", op="unpack", count=9, mask="ff03"
    ) | {"spec": ["M-01", "F-28"]}
    yield invalid("padding-1", "F-28", "top bit of the only byte", op="unpack", count=1, mask="81") | {
        "spec": ["M-01", "F-28"]
    }
    for distribution, label in DISTRIBUTIONS.items():
        for kind, kind_label in KINDS.items():
            for n, scale in ((0, 1.0), (1, f32(0.1)), (41, f32(0.003))):
                packed = mask(f"{label}{kind}", n)
                fields = masked_fields(kind, distribution, scale, 2**33 + 1, 9, n)
                update = o.decode_mask(Content(packed, kind, distribution, scale), 2**33 + 1, 9, n)
                comment = (
                    "bit 0 gives +0.0, never -0.0" if kind == BINARY else "bit 0 gives the negated noise"
                )
                yield valid(
                    f"decode-{label}-{kind_label}-{n}",
                    "4.2 M-02",
                    comment,
                    op="decode",
                    **fields,
                    mask=packed.hex(),
                    update=update.hex(),
                )
    edge = (0, 1, 2**23 - 1, 2**23, 2**23 + 1, 2**24 - 1)
    tiny, huge = o.f32_from_bits(1), o.f32_from_bits(0x7F7FFFFF)
    for kind, label in KINDS.items():
        factors = (-2.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
        noise = [o.noise(UNIFORM, 1.0, 7, 3, i) for i in range(len(factors) * len(edge))]
        update = [f32(value * factors[i // len(edge)]) for i, value in enumerate(noise)]
        r = list(edge) * len(factors)
        yield sample_case(
            f"sample-{label}-grid",
            "u below, inside, at and above the noise's reach, times r from 0 to 2^24 - 1",
            kind,
            UNIFORM,
            1.0,
            update,
            r,
        )
        yield sample_case(
            f"sample-{label}-zeros",
            "u = +0.0 and -0.0",
            kind,
            UNIFORM,
            1.0,
            [0.0, -0.0] * 6,
            sorted([*edge, *edge]),
        )
        yield sample_case(
            f"sample-{label}-huge",
            "the quotient overflows to an infinity of either sign",
            kind,
            UNIFORM,
            o.f32_from_bits(25 << 23),
            [huge, -huge] * 6,
            sorted([*edge, *edge]),
        )
        yield sample_case(
            f"sample-{label}-subnormal",
            "subnormal u against usual noise: the quotient is subnormal or 0",
            kind,
            UNIFORM,
            1.0,
            [tiny, -tiny, 2.0**-127, -(2.0**-127), 2.0**-130] * 2,
            [0] * 5 + [1] * 5,
        )
        update = [
            tiny * k for k in (0, 1, -1, 2**20, -(2**20), 2**22, -(2**22), 2**23, -(2**23)) for _ in edge
        ]
        r = list(edge) * 9
        yield sample_case(
            f"sample-{label}-least",
            "subnormal u against the least noise",
            kind,
            BERNOULLI,
            2.0**-126,
            update,
            r,
        )
        yield sample_case(
            f"sample-{label}-largest",
            "usual u against the largest noise: the quotient is subnormal",
            kind,
            BERNOULLI,
            huge,
            [1.0, -1.0, 2.0**-10, 2.0**-20, 3.0, tiny],
            [0] * 6,
        )
        update, r = hard_samples(kind, 40)
        yield sample_case(
            f"sample-{label}-rounding",
            "each step's rounding to f32 decides the bit: exact or double arithmetic gives every bit wrong",
            kind,
            UNIFORM,
            1.0,
            update,
            r,
        )
        for distribution, name in DISTRIBUTIONS.items():
            private, n = 2**50 + 12345, 43
            update = [f32((o.philox_word(99, kind, i) / 2**31 - 1) * 0.02) for i in range(n)]
            r = [o.philox_word(private, 3, i) >> 8 for i in range(n)]
            yield sample_case(
                f"sample-{label}-{name}-private",
                "r(i) = word(private_seed, stream, i) >> 8",
                kind,
                distribution,
                f32(0.01),
                update,
                r,
                private=private,
            )

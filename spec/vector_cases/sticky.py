"""Means that a small rest of the exact sum decides (FORMAT.md 8.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from fedmrn_codec.conformance import oracle as o
from vector_cases.basics import DTYPES, Average, dense, frame, ints

FLOATS = {  # the digits after the leading one, and the exponent of a value far below it
    "float32": (23, -140),
    "float64": (52, -1060),
    "float16": (10, -24),
    "bfloat16": (7, -130),
}


def _frames(name: str, columns: Sequence[Sequence[Fraction | int]]) -> list[o.Frame]:
    """A frame for each row of the values, which are exact in the dtype."""
    kind = o.DTYPES[DTYPES[name]]
    tensor = dense("x", name, len(columns))
    out = []
    for seed, row in enumerate(zip(*columns, strict=True)):
        words = [o.round_float(Fraction(x), kind) if kind.fraction else int(x) for x in row]
        if kind.fraction:
            assert [o.exact_value(word, kind) for word in words] == [Fraction(x) for x in row]
        payload = ints(name, words)
        out.append(frame((tensor,), [o.Content(payload)], seed=seed))
    return out


def sticky_averages() -> Iterator[Average]:
    for name, (digits, least) in FLOATS.items():
        tiny, half = Fraction(2) ** least, Fraction(1, 2 ** (digits + 1))
        odd = 1 + 2 * half  # the value above 1, whose last digit is odd
        four = [
            (4, 4 * half, tiny, 0),
            (-4, -4 * half, -tiny, 0),
            (4 * odd, 4 * half, -tiny, 0),
            (0, tiny, 4 * half, 4),
            (4, 4 * half, 0, 0),
        ]
        comment = f"{name}: the middle of two values and a rest far below decide; the last has no rest"
        yield Average(f"{name}-sticky", comment, _frames(name, four), [1, 1, 1, 1])
        three = [(3, 3 * half, tiny), (-3, -3 * half, -tiny), (3, 3 * half, 0)]
        comment = f"{name}: the same with a weight of 3, which leaves a remainder"
        yield Average(f"{name}-sticky-thirds", comment, _frames(name, three), [1, 1, 1])
        near = [(odd, 1), (1, odd), (-odd, -1), (-1, -odd)]
        comment = f"{name}: a remainder of 1 from the half of a weight of 2^39 - 1"
        yield Average(f"{name}-sticky-weight", comment, _frames(name, near), [2**38 - 1, 2**38])
    for name, values in (
        (
            "int64",
            [(2**62 + 1, 2**62), (2**62, 2**62 + 1), (-(2**62) - 1, -(2**62)), (-(2**62), -(2**62) - 1)],
        ),
        ("uint64", [(2**64 - 1, 2**64 - 2), (2**64 - 2, 2**64 - 1)]),
        ("int8", [(3, 2), (2, 3), (-3, -2), (-2, -3)]),
        ("bool", [(1, 0), (0, 1)]),
    ):
        comment = f"{name}: a remainder of 1 from the half of a weight of 2^39 - 1"
        yield Average(f"{name}-sticky-weight", comment, _frames(name, values), [2**38 - 1, 2**38])

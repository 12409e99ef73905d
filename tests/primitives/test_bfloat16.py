"""bfloat16 in NumPy: every value, and rounding that is exact from float32 and from float64.

The reference is the oracle's rounding of fractions, which uses integers only.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmrn_codec.conformance import oracle
from fedmrn_codec.primitives.dtypes import DTYPES, is_finite, round_to_bfloat16, widen_bfloat16

BFLOAT16 = oracle.DTYPES[DTYPES["bfloat16"].code]
ALL = np.arange(2**16, dtype=np.uint16)
FINITE = ALL[(ALL & 0x7F80) != 0x7F80]
POSITIVE = FINITE[FINITE < 0x8000]
INFINITY = 0x7F80


def reference(value):
    """The bits of a float rounded once."""
    if math.isinf(value) or value == 0:
        return (INFINITY if value else 0) | 0x8000 * (math.copysign(1, value) < 0)
    return oracle.round_float(Fraction(value), BFLOAT16)


def test_the_dtype_is_bfloat16():
    assert BFLOAT16.name == "bfloat16"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_value_is_widened_exactly_and_rounded_to_itself(dtype):
    wide = widen_bfloat16(ALL)
    assert wide.dtype == np.float32
    assert (wide.view(np.uint32) == ALL.astype(np.uint32) << 16).all()
    nan = np.isnan(wide)
    with np.errstate(invalid="ignore"):  # the conversion of a signalling NaN
        back = round_to_bfloat16(wide.astype(dtype))
    assert nan.sum() == 2 * 127
    assert back[~nan].tobytes() == ALL[~nan].tobytes()
    assert np.isnan(widen_bfloat16(back[nan])).all()
    assert ((back[nan] ^ ALL[nan]) & 0x8000 == 0).all()


def test_a_nan_whose_payload_is_in_the_lower_bits_stays_a_nan():
    bits = np.array([0x7F800001, 0xFF80FFFF, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)
    assert np.isnan(widen_bfloat16(round_to_bfloat16(bits.view(np.float32)))).all()
    bits = np.array([0x7FF0000000000001, 0xFFF00000FFFFFFFF, 0x7FFFFFFFFFFFFFFF], np.uint64)
    assert np.isnan(widen_bfloat16(round_to_bfloat16(bits.view(np.float64)))).all()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_go_to_even_and_the_nearest_number_wins(dtype, sign):
    """Between all neighbours, subnormals included, and at the border of overflow, which 0x7F7F is."""
    upper = np.append(widen_bfloat16(POSITIVE[1:]).astype(np.float64), 2.0**128)
    middle = (widen_bfloat16(POSITIVE).astype(np.float64) + upper) / 2
    middle = (sign * middle).astype(dtype)
    assert (
        middle.astype(np.float64) * 2 == sign * (widen_bfloat16(POSITIVE).astype(np.float64) + upper)
    ).all()
    minus = 0x8000 * (sign < 0)
    even = POSITIVE + (POSITIVE & 1)
    assert (round_to_bfloat16(middle) == even | minus).all()
    assert (round_to_bfloat16(np.nextafter(middle, dtype(0))) == POSITIVE | minus).all()
    assert (round_to_bfloat16(np.nextafter(middle, dtype(sign * np.inf))) == (POSITIVE + 1) | minus).all()
    assert even[-1] == INFINITY


@given(st.floats(width=32, allow_nan=False) | st.floats(2.0**-149, 2.0**-120, width=32))
def test_float32_is_rounded_once(value):
    assert round_to_bfloat16(np.array([value], np.float32)).tolist() == [reference(value)]


def near(bits, half, step):
    """A finite bfloat16, or the middle between it and the next one, moved by `step` float64 neighbours."""
    value = float(widen_bfloat16(np.array(bits, np.uint16)))
    return value * (1 + half * 2.0**-8) * (1 + step * 2.0**-52)


CLOSE = st.builds(near, st.sampled_from(FINITE.tolist()), st.booleans(), st.integers(-4, 4))


@given(st.floats(allow_nan=False) | st.floats(2.0**-140, 2.0**-120) | CLOSE)
def test_float64_is_rounded_once(value):
    assert round_to_bfloat16(np.array([value])).tolist() == [reference(value)]


@pytest.mark.parametrize(("odd", "below", "even"), [(1, 0x3F80, 0x3F80), (3, 0x3F81, 0x3F82)])
def test_float64_values_that_float32_would_round_to_a_tie(odd, below, even):
    middle, little = 1 + odd * 2.0**-8, 2.0**-40
    got = round_to_bfloat16(np.array([middle - little, middle, middle + little]))
    assert got.tolist() == [below, even, below + 1]


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1e300, 0x7F80),
        (-1e300, 0xFF80),
        (2.0**128 - 2.0**119, 0x7F80),
        (math.nextafter(2.0**128 - 2.0**119, 0), 0x7F7F),
        (1e-300, 0x0000),
        (-1e-300, 0x8000),
        (2.0**-134, 0x0000),
        (math.nextafter(2.0**-134, 1), 0x0001),
        (5e-324, 0x0000),
        (-0.0, 0x8000),
    ],
)
def test_float64_beyond_the_range(value, bits):
    assert round_to_bfloat16(np.array([value])).tolist() == [bits]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_are_kept(shape, dtype):
    out = round_to_bfloat16(np.ones(shape, dtype))
    assert (out.shape, out.dtype) == (shape, np.uint16)
    assert (out == 0x3F80).all()


def test_finite():
    dtype = DTYPES["bfloat16"]
    assert is_finite(FINITE, dtype)
    assert not any(is_finite(np.append(FINITE, np.uint16(bits)), dtype) for bits in (0x7F80, 0xFF80, 0x7FC0))

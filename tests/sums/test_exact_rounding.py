"""Means of exact sums where rounding is hard: close to the middle of two floats, and next to a power of 2."""

import numpy as np
import pytest

from fedmrn_codec.primitives.dtypes import DTYPES
from fedmrn_codec.sums.exact import LIMB, ExactSum, nearest


def mean_of(*exponents, sign=1):
    """The mean of one float32 element whose sum is the sum of these powers of 2, or minus that."""
    total = ExactSum(DTYPES["float32"], 1)
    for exponent in exponents:
        limb, digit = divmod(exponent - DTYPES["float32"].exponent, LIMB)
        total.row(limb)[0] += sign * 2**digit
    return float(total.mean(1)[0])


@pytest.mark.parametrize("low", [(), (-60,), (-60, -100), (-60, -100, -110), (-60, -75, -100, -140)])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_float64_cannot_hold_decides_between_two_floats(low, sign):
    """1 + 2^-24 is the middle of two floats: alone it goes to the even one, anything more goes up."""
    want = 1 + 2**-23 if low else 1.0
    assert mean_of(0, -24, *low, sign=sign) == sign * want


def test_a_quotient_just_above_a_power_of_2_keeps_to_the_precision():
    assert nearest(89, 10, 3) == (4, 1)  # 8.9: with 3 bits, 8 and 10 are the nearest
    assert nearest(-89, 10, 3) == (-4, 1)
    assert nearest(91, 10, 3) == (5, 1)
    assert nearest(80, 10, 3) == (4, 1)


def test_a_mean_of_zero_has_no_sign():
    total = ExactSum(DTYPES["float64"], 2)
    total.add(np.array([-1.0, 0.0]), 1)
    total.add(np.array([1.0, -0.0]), 1)
    assert total.mean(2).tobytes() == bytes(16)

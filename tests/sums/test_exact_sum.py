"""Exact sums of dense elements, against fractions (spec 8.3, 8.4)."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmrn_codec.primitives.dtypes import DTYPES, widen_bfloat16
from fedmrn_codec.sums import exact
from fedmrn_codec.sums.exact import ExactSum, decompose, nearest

FLOATS = [d for d in DTYPES.values() if d.is_float]
WEIGHTS = st.integers(1, 2**35)


def as_fractions(array, dtype):
    wide = widen_bfloat16(array) if dtype.name == "bfloat16" else array
    return [Fraction(v) for v in (wide.astype(np.float64) if dtype.is_float else wide).tolist()]


def finite(rng, dtype, shape):
    raw = rng.integers(0, 256, (*shape, dtype.numpy.itemsize), np.uint8)
    if dtype.name == "bool":
        raw &= 1
    if dtype.is_float:
        raw[..., -1] &= 0xBF
    return raw.view(dtype.numpy).reshape(shape)


def rounded(value, dtype):
    """The number of `dtype` nearest to a fraction, ties to even, by search over integers only."""
    if not dtype.is_float:
        return round(value)  # Fraction rounds ties to even
    quantum = Fraction(2) ** dtype.exponent
    while abs(value) >= quantum * 2**dtype.precision:
        quantum *= 2
    return float(round(value / quantum) * quantum)


@given(st.sampled_from(sorted(DTYPES)), st.lists(WEIGHTS, min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_mean_is_the_exact_one_rounded_once(name, weights, seed):
    dtype, rng = DTYPES[name], np.random.default_rng(seed)
    frames = finite(rng, dtype, (len(weights), 7))
    frames[:, 0] = 0
    frames[:, 1] = frames[0, 1]  # all equal
    total = ExactSum(dtype, 7)
    for frame, weight in zip(frames, weights, strict=True):
        total.add(frame, weight)
    got = total.mean(sum(weights))
    exact = [as_fractions(f, dtype) for f in frames]
    for i in range(7):
        value = sum((w * x[i] for w, x in zip(weights, exact, strict=True)), Fraction(0)) / sum(weights)
        assert as_fractions(got[i : i + 1], dtype)[0] == Fraction(rounded(value, dtype)), (i, value)
    assert got[:1].tobytes() == bytes(dtype.numpy.itemsize)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=lambda d: d.name)
def test_order_and_grouping_change_no_bit(dtype):
    rng = np.random.default_rng(3)
    frames, weights = finite(rng, dtype, (4, 50)), [1, 7, 600, 2**37]
    results, rows = set(), set()
    for order in itertools.permutations(range(4)):
        for split in range(5):
            left, right = ExactSum(dtype, 50), ExactSum(dtype, 50)
            for place, i in enumerate(order):
                (left if place < split else right).add(frames[i], weights[i])
            left.merge(right)
            results.add(left.mean(sum(weights)).tobytes())
            rows.add(str([(k, v.tobytes()) for k, v in left.canonical_rows()]))
    assert len(results) == len(rows) == 1


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_ties_go_to_even_and_subnormals_are_kept(dtype):
    one, ulp = 2 ** (dtype.precision - 1), 1
    for a, b in ((one, one + ulp), (one + ulp, one + 2 * ulp), (0, 1), (1, 2), (-1, 0), (-3, -2)):
        scale = 2.0**dtype.exponent
        pair = np.array([a * scale, b * scale])
        if dtype.name == "bfloat16":
            pair = (pair.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        pair = pair.astype(dtype.numpy)
        total = ExactSum(dtype, 1)
        total.add(pair[:1], 5)
        total.add(pair[1:], 5)
        mean = Fraction(a + b, 2) * Fraction(2) ** dtype.exponent
        assert as_fractions(total.mean(10), dtype)[0] == Fraction(rounded(mean, dtype))


def test_a_negative_mean_that_rounds_to_zero_is_plus_zero():
    for name in ("float32", "float64", "float16", "bfloat16"):
        dtype = DTYPES[name]
        least = np.array([1 | 1 << (8 * dtype.numpy.itemsize - 1)], f"<u{dtype.numpy.itemsize}").view(
            dtype.numpy
        )
        total = ExactSum(dtype, 1)
        total.add(least, 1)
        total.add(np.zeros(1, dtype.numpy), 2)
        assert total.mean(3).tobytes() == bytes(dtype.numpy.itemsize)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=lambda d: d.name)
def test_limbs_never_overflow(dtype):
    """The largest magnitudes at the largest total weight stay within the bound of [P-15] and of the dtype."""
    weight = 2**39 - 1
    if dtype.is_float:
        kind = np.uint16 if dtype.name == "bfloat16" else dtype.numpy
        top = {"bfloat16": 0x7F7F}.get(dtype.name) or np.finfo(dtype.numpy).max
        values = np.array([top], kind)
    elif dtype.name == "bool":
        values = np.array([True])
    else:
        values = np.array([np.iinfo(dtype.numpy).min or np.iinfo(dtype.numpy).max], dtype.numpy)
    total = ExactSum(dtype, 1)
    total.add(values, weight)
    assert total.mean(weight).tobytes() == values.astype(dtype.numpy).tobytes()
    rows = total.canonical_rows()
    assert rows[-1][0] == dtype.limbs - 1
    assert all(abs(int(row[0])) <= weight * (2**24 - 1) for _, row in rows)


@given(st.integers(-(2**200), 2**200), st.integers(1, 2**39), st.sampled_from([8, 11, 24, 53, None]))
def test_nearest(numerator, denominator, precision):
    q, e = nearest(numerator, denominator, precision)
    assert precision is None or abs(q) <= 2**precision
    assert e >= 0
    error = abs(Fraction(q) * 2**e - Fraction(numerator, denominator))
    assert error <= Fraction(2**e, 2)
    assert e == 0 or abs(q) >= 2 ** (precision - 1)
    if error == Fraction(2**e, 2):
        assert q % 2 == 0


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=lambda d: d.name)
def test_decompose_loses_nothing(dtype):
    values = finite(np.random.default_rng(0), dtype, (500,))
    negative, magnitude, position = decompose(values, dtype)
    for i, want in enumerate(as_fractions(values, dtype)):
        got = Fraction(int(magnitude[i])) * Fraction(2) ** (int(position[i]) + dtype.exponent)
        assert (-got if negative[i] else got) == want


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
@given(seed=st.integers(0, 2**32 - 1), weights=st.lists(st.integers(1, 2**24), min_size=1, max_size=16))
def test_doubles_and_integers_give_the_same_rows(name, seed, weights):
    """For any bits, with the largest values, subnormals and zeros, in narrow and wide ranges."""
    dtype, rng = DTYPES[name], np.random.default_rng(seed)
    frames = finite(rng, dtype, (len(weights), 40))
    top = {"bfloat16": 0x7F7F}.get(name) or np.finfo(dtype.numpy).max
    frames[0, :3] = top, 0, np.array([1], f"u{dtype.numpy.itemsize}").view(dtype.numpy)[0]
    frames[:, 3] = frames[0, 3]
    if name != "bfloat16":
        frames[:, 20:] = rng.normal(size=(len(weights), 20)) * 0.01
    rows = []
    for most in (0, 2**29):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exact, "MOST_IN_DOUBLES", most)
            total = ExactSum(dtype, 40)
            for frame, weight in zip(frames, weights, strict=True):
                total.add(frame, weight)
            rows.append([(k, row.tobytes()) for k, row in total.canonical_rows()])
    assert rows[0] == rows[1]


def test_the_largest_digits_and_weights_stay_exact_in_doubles():
    dtype = DTYPES["float32"]
    values = np.array([float(2**24 - 1)], np.float32)
    for weights in ([2**29], [2**25] * 16, [2**29 - 15, *[1] * 15]):
        total = ExactSum(dtype, 1)
        for weight in weights:
            total.add(values, weight)
        got = sum(int(row[0]) << (24 * limb) for limb, row in total.rows.items())
        assert got == sum(weights) * (2**24 - 1) << 149


def test_sums_do_not_depend_on_the_block_size(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 1000)).astype(np.float32)
    rows = set()
    for block in (exact.BLOCK, 7, 64, 999, 1000):
        monkeypatch.setattr(exact, "BLOCK", block)
        total = ExactSum(DTYPES["float32"], 1000)
        for weight, array in enumerate(values, 1):
            total.add(array, weight)
        rows.add(str([(k, v.tobytes()) for k, v in total.canonical_rows()]))
    assert len(rows) == 1

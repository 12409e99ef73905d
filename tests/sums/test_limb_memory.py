"""What dense elements of many exponents cost: memory and work in proportion to the bytes that were sent."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec.primitives.dtypes import DTYPES
from fedmrn_codec.sums import limb as limbs
from fedmrn_codec.sums.exact import ExactSum
from fedmrn_codec.sums.limb import LimbSums

FLOAT64 = DTYPES["float64"]
SIZE = 2**17
BYTES = 8 * SIZE


def mixed(seed, size=SIZE):
    """Float64 of every exponent, signs and digits at random, and some zeros."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 2**52, size, np.uint64) | (rng.integers(0, 2, size, np.uint64) << np.uint64(63))
    values = (digits | (rng.integers(0, 2046, size, np.uint64) << np.uint64(52))).view(np.float64)
    values[:: max(size // 50, 2)] = 0
    return values


def peak(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _units(x):
    (bits,) = struct.unpack("<Q", struct.pack("<d", abs(x)))
    field, fraction = bits >> 52, bits & (2**52 - 1)
    magnitude = fraction if field == 0 else (fraction | 2**52) << (field - 1)
    return -magnitude if x < 0 else magnitude


def reference(arrays, weights):
    """The limbs of spec 8.4, from the text: digit by digit, without carries."""
    rows = {}
    for array, weight in zip(arrays, weights, strict=True):
        for i, x in enumerate(array.tolist()):
            units, limb = _units(x), 0
            sign, units = (-1 if units < 0 else 1), abs(units)
            while units:
                row = rows.setdefault(limb, [0] * len(array))
                row[i] += sign * weight * (units % 2**24)
                units, limb = units >> 24, limb + 1
    return [(limb, row) for limb, row in sorted(rows.items()) if any(row)]


def test_a_tensor_of_all_exponents_costs_a_few_times_its_bytes():
    total, values = ExactSum(FLOAT64, SIZE), mixed(0)
    assert peak(lambda: total.add(values, 600)) < 14 * BYTES  # 88 limbs of all elements would be 88 times
    assert len(total.limbs) > 80
    assert peak(lambda: total.mean(600)) < 10 * BYTES


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_frames_cost_a_few_times_the_bytes_of_all_of_them(frames):
    schema = fm.Schema([fm.Tensor("x", (SIZE,), dtype="float64")])
    sent = [
        fm.encode({"x": mixed(n)}, schema, seed=n, noise=fm.Uniform(1), mask="binary") for n in range(frames)
    ]
    server = fm.Aggregator(schema)
    assert peak(lambda: [server.add(frame, 600) for frame in sent]) < (5 + 9 * frames) * BYTES


def test_ordinary_elements_cost_as_much_as_before():
    values = np.random.default_rng(0).normal(0, 1e-3, SIZE)
    total = ExactSum(FLOAT64, SIZE)
    tracemalloc.start()
    for _ in range(4):
        total.add(values, 600)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 5.1 * BYTES
    assert sum(sums._all is not None for sums in total.limbs.values()) >= 3


@pytest.mark.parametrize("size", [1, 2, 7, 300])
@pytest.mark.parametrize("most", [1, 16])
def test_the_limbs_are_those_of_the_text(size, most, monkeypatch):
    monkeypatch.setattr(limbs, "MOST_PARTS", most)
    arrays, weights = [mixed(n, size) for n in range(12)], [1, 3, 600, 2**30, 5, 7, 11, 13, 2**35, 17, 19, 23]
    together = ExactSum(FLOAT64, size)
    for at, (array, weight) in enumerate(zip(arrays, weights, strict=True), 1):
        together.add(array, weight)
        if at in (1, 2, 6, 12):
            rows = [(limb, row.tolist()) for limb, row in together.canonical_rows()]
            assert rows == reference(arrays[:at], weights[:at])
    for split in (0, 1, 6, 11):
        halves = ExactSum(FLOAT64, size), ExactSum(FLOAT64, size)
        for at, (array, weight) in enumerate(zip(arrays, weights, strict=True)):
            halves[at < split].add(array, weight)
        halves[0].merge(halves[1])
        assert [(k, r.tolist()) for k, r in halves[0].canonical_rows()] == reference(arrays, weights)
        assert halves[0].mean(sum(weights)).tobytes() == together.mean(sum(weights)).tobytes()


def test_a_partial_sum_of_all_exponents_is_read_and_written_to_the_byte():
    schema = fm.Schema(
        [
            fm.Tensor("x", (700,), dtype="float64"),
            fm.Tensor("y", (900,), dtype="float64"),
            fm.Tensor("z", (3,)),
        ]
    )
    server, options = fm.Aggregator(schema), {"noise": fm.Uniform(1), "mask": "binary"}
    for n in range(3):
        update = {"x": mixed(n, 700), "y": mixed(n + 9, 900) * 1e-300, "z": np.ones(3, np.float32)}
        server.add(fm.encode(update, schema, seed=n, **options), 600)
    data = server.to_bytes()
    again = fm.Aggregator.from_bytes(data, schema)
    assert again.to_bytes() == data
    rows = reference([mixed(n, 700) for n in range(3)], [600] * 3)
    at = 56
    (count,) = struct.unpack_from("<I", data, at)
    assert count == len(rows)
    for number, (limb, row) in enumerate(rows):
        place = at + 4 + number * (4 + 8 * 700)
        assert struct.unpack_from("<I700q", data, place) == (limb, *row)
    assert {n: a.tobytes() for n, a in again.mean().items()} == {
        n: a.tobytes() for n, a in server.mean().items()
    }


STEPS = st.lists(
    st.tuples(st.integers(0, 19), st.lists(st.integers(-2, 2), min_size=1, max_size=20), st.booleans()),
    max_size=40,
)


@given(STEPS, STEPS, st.lists(st.integers(0, 20), min_size=2, max_size=2).map(sorted))
def test_sums_of_a_limb_are_those_of_an_array(steps, others, ends):
    part = slice(*ends)
    sums, expected = _played(steps)
    more, also = _played(others)
    np.testing.assert_array_equal(more.part(slice(0, 20)), also)
    sums.merge(more)
    expected += also
    np.testing.assert_array_equal(sums.part(part), expected[part])
    np.testing.assert_array_equal(sums.array(), expected)
    sums.array()[3] += 5
    assert sums.part(slice(3, 4)) == expected[3] + 5


def _played(steps):
    sums, expected = LimbSums(20), np.zeros(20, np.int64)
    for begin, values, finish in steps:
        part = np.array(values[: 20 - begin], np.int64)
        if finish:
            sums.finish()
        sums.add(begin, part)
        expected[begin : begin + len(part)] += part
    return sums, expected


@given(STEPS, STEPS)
def test_a_limb_may_be_merged_into_itself_and_goes_on(steps, others):
    sums, expected = _played(steps)
    sums.merge(sums)
    sums.merge(sums, 3)
    expected *= 8
    for begin, values, _ in others:
        part = np.array(values[: 20 - begin], np.int64)
        sums.add(begin, part)
        expected[begin : begin + len(part)] += part
    np.testing.assert_array_equal(sums.part(slice(0, 20)), expected)

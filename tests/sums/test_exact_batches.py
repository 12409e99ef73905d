"""Exact sums add arrays in batches and in blocks of elements: with the same result, and in bounded memory."""

import tracemalloc

import numpy as np
import pytest

from fedmrn_codec.primitives.dtypes import DTYPES
from fedmrn_codec.sums import exact
from fedmrn_codec.sums.exact import BATCH, BATCH_BYTES, ExactSum


def integers(total):
    """The sums as Python integers."""
    rows = total.canonical_rows()
    return [sum(int(row[i]) << (24 * limb) for limb, row in rows) for i in range(total.size)]


@pytest.mark.parametrize("count", [1, 3, 16, 20])
@pytest.mark.parametrize("block", [32, 64, 2**14])
def test_blocks_join(block, count, monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", block)
    rng = np.random.default_rng(0)
    arrays = rng.integers(-(2**62), 2**62, (count, 150))
    weights = rng.integers(1, 2**30, count).tolist()
    total = ExactSum(DTYPES["int64"], 150)
    for array, weight in zip(arrays, weights, strict=True):
        total.add(array, weight)
    want = [sum(int(x) * w for x, w in zip(column, weights, strict=True)) for column in arrays.T]
    assert integers(total) == want


@pytest.mark.parametrize("elements", [3, BATCH_BYTES // 4, BATCH_BYTES // 4 + 1])
def test_arrays_may_change_after_they_were_added(elements):
    total, values = ExactSum(DTYPES["float32"], elements), np.ones(elements, np.float32)
    total.add(values, 5)
    values[:] = 7
    assert total.mean(5).tobytes() == np.ones(elements, np.float32).tobytes()


def test_small_arrays_wait_for_a_full_batch():
    total = ExactSum(DTYPES["float32"], BATCH_BYTES // 4)
    for count in range(1, BATCH):
        total.add(np.ones(total.size, np.float32), 1)
        assert len(total._batch) == count
    total.add(np.ones(total.size, np.float32), 1)
    assert total._batch == []
    large = ExactSum(DTYPES["float32"], BATCH_BYTES // 4 + 1)
    large.add(np.ones(large.size, np.float32), 1)
    assert large._batch == []


def test_a_batch_is_summed_in_little_memory():
    arrays = np.ones((BATCH, 60_000), np.float32)
    total = ExactSum(DTYPES["float32"], 60_000)
    for array in arrays[1:]:
        total.add(array, 1)
    tracemalloc.start()
    total.add(arrays[0], 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_500_000  # a row of sums takes 480,000; the whole batch as doubles would take 7,680,000


def test_only_limbs_with_digits_take_memory():
    for exponent in range(-149, 128):
        total = ExactSum(DTYPES["float32"], 1)
        total.add(np.array([2.0**exponent], np.float32), 1)
        assert list(total.rows) == [limb for limb, _ in total.canonical_rows()] == [(exponent + 149) // 24]

"""Counts of 1 to 24 bits as packed bytes: NumPy and Numba give those of the definition (spec 8.6)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmrn_codec import backends
from fedmrn_codec.backends import numba_counts, numpy_counts
from fedmrn_codec.sums.counts import counts_dtype

PACKERS = [numpy_counts, numba_counts]


def packed(counts, bits):
    """The definition: one long integer, the first count lowest."""
    text = sum(int(c) << (i * bits) for i, c in enumerate(counts))
    return text.to_bytes(-(-len(counts) * bits // 8), "little")


@given(bits=st.integers(1, 24), size=st.integers(0, 200), number=st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_both_are_the_definition(bits, size, number):
    counts = np.random.default_rng(number).integers(0, 2**bits, size).astype(counts_dtype(2**bits - 1))
    want = packed(counts, bits)
    for packer in (*PACKERS, backends.count_packer()):
        assert packer.pack(counts, bits).tobytes() == want
        out = np.full(size, 99, counts.dtype)
        payload = np.frombuffer(b"\0" + want, np.uint8)[1:]  # not aligned, and read-only
        packer.unpack(payload, bits, out)
        assert out.tobytes() == counts.tobytes()


@pytest.mark.parametrize("bits", range(1, 25))
def test_many_counts(bits, monkeypatch):
    """More than a block of NumPy, and than a range of a thread of Numba."""
    size = 600_001
    counts = np.random.default_rng(bits).integers(0, 2**bits, size).astype(counts_dtype(2**bits - 1))
    monkeypatch.setenv("FEDMRN_THREADS", "3")
    want, out = numpy_counts.pack(counts, bits), np.empty_like(counts)
    assert want[65536 // 8 * bits :][: 100 * bits].tobytes() == packed(counts[65536:][:800], bits)
    assert numba_counts.pack(counts, bits).tobytes() == want.tobytes()
    for packer in PACKERS:
        out[:] = 0
        packer.unpack(want, bits, out)
        assert out.tobytes() == counts.tobytes()


def test_the_packer_is_chosen_like_a_coder():
    assert backends.count_packer("numpy") is numpy_counts
    for name in ("numba", "torch", "onnx"):
        assert backends.count_packer(name) is numba_counts

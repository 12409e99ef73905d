"""Coding 5 (spec 6.13, 6.14): the payloads of grids, on NumPy and on Numba."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmrn_codec import backends, errors
from fedmrn_codec.backends.rans_parts import BLOCK
from fedmrn_codec.format import rans14

MOST = 2**24 - 1
CODERS = [
    "numpy",
    pytest.param("numba", marks=pytest.mark.skipif("numba" not in backends.installed(), reason="")),
]
BOUNDARIES = [0, *(s * (2**e + d) for e in range(24) for d in (-1, 0, 1) for s in (1, -1))]


def encode(z, coder="numpy"):
    return rans14.encode(backends.grid_coder(coder), np.asarray(z, np.int32))


def decode(payload, size, coder="numpy"):
    return rans14.decode(backends.grid_coder(coder), np.asarray(payload, np.uint8), size, "'w'", 100)


def laplace(scale, size, seed=0):
    drawn = np.random.default_rng(seed).laplace(0, scale, size)
    return np.clip(np.rint(drawn), -MOST, MOST).astype(np.int32)


def symbol_of(z):
    """From the text of spec 6.14."""
    m = abs(z)
    if m >= 32:
        e = m.bit_length() - 1
        m = 32 + 4 * (e - 5) + ((m >> (e - 2)) % 4)
    return 2 * m - (z > 0)


@pytest.mark.parametrize("coder", CODERS)
def test_symbols_are_those_of_the_text(coder):
    z = np.array([*BOUNDARIES, MOST, -MOST, 1000, -1000], np.int32)
    counts = backends.grid_coder(coder).count(z)
    expected = np.bincount([symbol_of(int(each)) for each in z], minlength=215)
    assert counts.tolist() == expected.tolist()
    assert symbol_of(-1000) == 102


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("scale", [0.0, 0.05, 0.3, 1.0, 20.0, 3e4, 3e6])
@pytest.mark.parametrize("size", [100, BLOCK, BLOCK + 1])
def test_what_is_encoded_is_decoded(coder, scale, size):
    z = laplace(scale, size)
    payload = encode(z, coder)
    if scale == 3e6 and size == 100:
        assert payload is None  # each of a hundred integers costs more than 32 bits, its frequency included
        return
    assert np.array_equal(payload, encode(z))
    assert np.array_equal(decode(payload, size, coder), z)


@given(st.lists(st.sampled_from([*BOUNDARIES, MOST, -MOST]), min_size=2, max_size=60))
def test_any_integers_survive(z):
    z = np.array(z, np.int32)
    payload = encode(z)
    if payload is None:
        return
    assert rans14.shortest(len(z)) <= len(payload) < z.nbytes
    for coder in CODERS:
        assert np.array_equal(decode(payload, len(z), coder), z)


@pytest.mark.parametrize("scale", [0.15, 0.2, 0.5, 1.0, 3.0, 10.0, 100.0])
@pytest.mark.parametrize("draw", ["laplace", "normal", "standard_t"])
def test_the_distance_to_the_entropy(scale, draw):
    rng = np.random.default_rng(5)
    drawn = rng.standard_t(3, BLOCK) if draw == "standard_t" else getattr(rng, draw)(0, 1, BLOCK)
    z = np.rint(scale * drawn).astype(np.int32)
    _, counts = np.unique(z, return_counts=True)
    entropy = float((counts * np.log2(len(z) / counts)).sum())
    if entropy > 0.2 * len(z):
        assert 8 * len(encode(z)) < 1.015 * entropy


def test_the_largest_frequency_stays_positive():
    for symbols in (1, 2, 50, 107, 108, 150, 214, 215):
        for rare in (0, symbols // 3, symbols // 2, symbols - 1):
            counts = np.zeros(215, np.int64)
            counts[:symbols] = 10**6
            counts[:rare] = 1
            frequencies = rans14.frequencies(counts).astype(np.int64)
            assert frequencies.sum() == 2**14
            assert (frequencies[:symbols] > 0).all()


def unless_refused(payload, size, coder):
    with suppress(errors.CodingError):
        return decode(payload, size, coder)


@pytest.mark.parametrize("coder", CODERS)
def test_every_changed_byte_is_found_or_gives_other_integers(coder):
    z = np.concatenate([laplace(0.4, 400), [77, -900, 2**20, MOST]]).astype(np.int32)
    payload = encode(z)
    for at in range(len(payload)):
        for mask in (1, 0x80, 0xFF):
            damaged = payload.copy()
            damaged[at] ^= mask
            other = unless_refused(damaged, len(z), coder)
            if other is not None:  # the plain bits of a large integer
                assert np.flatnonzero(other != z).size
                assert np.array_equal(encode(other), damaged)


@pytest.mark.parametrize("coder", CODERS)
def test_random_payloads_are_refused(coder):
    rng = np.random.default_rng(3)
    for size in (5, 300, BLOCK + 5):
        for _ in range(50):
            length = int(rng.integers(rans14.shortest(size), 4 * min(size, 600)))
            payload = rng.integers(0, 256, length).astype(np.uint8)
            payload[0] %= 20
            with pytest.raises(errors.CodingError):
                decode(payload, size, coder)

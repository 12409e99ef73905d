"""Fields, vectors and their pads, against plain integers; with NumPy and with Numba."""

import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_secagg import fields
from fedmrn_secagg.layout import Layout
from fedmrn_secagg.terms import Terms
from fedmrn_secagg.vector import Vector

BITS = [1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 17, 23, 24]


def numpy_only(monkeypatch):
    monkeypatch.setattr(fields, "_installed", lambda: False)


def numba_always(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(fields, "_installed", lambda: True)
    monkeypatch.setattr(fields, "LEAST_COMPILED", 0)


WITH = pytest.mark.parametrize("backend", [numpy_only, numba_always])


def numbers(words, bits):
    """The whole fields of a string of words."""
    string = int.from_bytes(words.astype("<u8").tobytes(), "little")
    return [string >> bits * e & (2**bits - 1) for e in range(64 * len(words) // bits)]


@WITH
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("negative", [False, True])
def test_fields_are_added_and_subtracted_modulo_their_size(monkeypatch, backend, bits, negative):
    backend(monkeypatch)
    rng = np.random.default_rng(bits)
    words = 3 * bits + 1
    extreme = np.array([0, 2**64 - 1, 2**63, 1], np.uint64)
    for kind in range(4):
        one, other = rng.integers(0, 2**64, (2, words), np.uint64)
        if kind:  # carries everywhere, or nowhere
            one, other = (
                np.full(words, extreme[kind], np.uint64),
                np.full(words, extreme[kind - 1], np.uint64),
            )
        before = numbers(one, bits), numbers(other, bits)
        kept = other.copy()
        fields.combine(one, other, bits, negative)
        sign = -1 if negative else 1
        expected = [(a + sign * b) % 2**bits for a, b in zip(*before, strict=True)]
        assert numbers(one, bits) == expected
        assert other.tobytes() == kept.tobytes()


@pytest.mark.parametrize("bits", BITS)
def test_no_field_goes_beyond_a_chunk(bits):
    words = fields.chunk_words(bits)
    assert words % bits == 0
    assert words * 8 % 64 == 0
    top = fields.top_bits(bits)
    assert len(top) == words
    places = np.flatnonzero(np.unpackbits(top.astype("<u8").view(np.uint8), bitorder="little"))
    assert np.array_equal(places, np.arange(bits - 1, 64 * words, bits))


@given(st.binary(max_size=40), st.integers(1, 24), st.data())
def test_bits_become_fields_and_fields_numbers(packed, bits, data):
    weight = data.draw(st.integers(1, 2**bits - 1))
    spread = fields.spread(np.frombuffer(packed, np.uint8), bits, weight)
    assert len(spread) == bits * len(packed)
    string = int.from_bytes(packed, "little")
    expected = [weight * (string >> e & 1) for e in range(8 * len(packed))]
    assert fields.values(spread, bits).tolist() == expected
    whole = int.from_bytes(spread.tobytes(), "little")
    assert [whole >> bits * e & (2**bits - 1) for e in range(8 * len(packed))] == expected


@pytest.mark.parametrize("bits", [2, 7, 24])
def test_values_of_all_fields(bits):
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, 5 * bits, np.uint8)
    whole = int.from_bytes(packed.tobytes(), "little")
    assert fields.values(packed, bits).tolist() == [whole >> bits * e & (2**bits - 1) for e in range(40)]


def layout_of(elements, clients):
    schema = fm.Schema(
        [
            fm.Tensor("m", (elements,), masked=True),
            fm.Tensor("f", (9001,)),
            fm.Tensor("i", (9,), dtype="int8"),
        ]
    )
    return Layout(Terms(fm.Request(1, fm.Bernoulli(1.0), "signed", 0, 0, schema), 2), clients)


@WITH
@pytest.mark.parametrize("clients", [2, 3, 100])
def test_a_pad_is_one_keystream_for_each_section_also_over_many_chunks(monkeypatch, backend, clients):
    backend(monkeypatch)
    layout = layout_of(1_200_001 // clients.bit_length(), clients)
    key = bytes(range(32))
    vector = Vector(layout)
    assert len(vector.fields) > 2 * fields.chunk_words(layout.bits)
    vector.pad(key)
    expected = b""
    for section, size in enumerate(layout.sizes, 1):
        nonce = struct.pack("<IIQ", 0, section, 0)
        expected += Cipher(ChaCha20(key, nonce), None).encryptor().update(bytes(size))
    assert vector.to_bytes() == expected
    again = Vector.from_bytes(memoryview(expected), layout)
    vector.add(again)
    vector.pad(key, negative=True)
    vector.pad(key, negative=True)
    assert not any(vector.to_bytes())


def test_a_vector_shows_only_its_size():
    vector = Vector(layout_of(8, 2))
    vector.pad(bytes(32))
    assert repr(vector) == f"Vector of {2 + 4 * 9002 + 8 * 9} bytes"


def test_sums_of_weights_fit_in_their_fields():
    for clients in (2, 3, 4, 7, 8, 100, 2**20):
        layout = layout_of(8, clients)
        assert 2**layout.bits > layout.frames >= 2 ** (layout.bits - 1)

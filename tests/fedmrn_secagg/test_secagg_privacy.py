"""What messages show: masked vectors look random whatever the update is, and too few shares show nothing."""

import hashlib
import itertools
from functools import partial

import numpy as np
import pytest
from Crypto.Protocol import SecretSharing
from secagg_cases import REQUEST, Cohort, frames_of

import fedmrn_codec as fm
from fedmrn_secagg import fields, randomness, sharing
from fedmrn_secagg.layout import Layout
from fedmrn_secagg.vector import Vector

SIZE = 40_000
SCHEMA = fm.Schema([fm.Tensor("m", (SIZE,), masked=True)])
WIDE = fm.Request(3, fm.Bernoulli(1.0), "signed", 0, 0, SCHEMA)
ZEROS, ONES = (
    fm.encode_bits({"m": np.full(SIZE, bit)}, SCHEMA, seed=3, noise=fm.Bernoulli(1.0), mask="signed")
    for bit in (False, True)
)
SIGMAS = 6.5
"""A random number is as far from its mean once in 10^10 times."""


def drawn(number, size):
    """Bytes that are the same each time."""
    return hashlib.shake_256(number.to_bytes(4, "little")).digest(size)


def masked_fields(frame, clients=5):
    """The fields of a client's masked vector, in a round of its own."""
    c = Cohort(WIDE, dict.fromkeys(range(1, clients + 1), frame), threshold=3)
    boxes = c.play(until=2)
    layout = Layout(c.server._terms, clients)
    vector = Vector.from_bytes(memoryview(c.answers("masked", [1], boxes)[1])[48:-4], layout)
    return fields.values(vector.fields.view(np.uint8)[: layout.sizes[0]], layout.bits), layout.bits


def deviation(values, bits):
    """How many standard deviations the counts of the values are from those of uniform ones (chi-square)."""
    counts = np.bincount(values, minlength=2**bits)
    expected = len(values) / 2**bits
    chi = float(((counts - expected) ** 2).sum() / expected)
    return abs(chi - (2**bits - 1)) / np.sqrt(2 * (2**bits - 1))


def correlation(a, b):
    """The correlation of two samples, in standard deviations of that of independent ones."""
    a, b = a - a.mean(), b - b.mean()
    return abs(float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))) * np.sqrt(len(a))


def test_masked_vectors_are_uniform_whatever_the_update_is():
    for frame in (ZEROS, ONES):
        values, bits = masked_fields(frame)
        assert deviation(values, bits) < SIGMAS
        assert correlation(values[1:].astype(float), values[:-1].astype(float)) < SIGMAS


def test_masked_vectors_of_two_updates_cannot_be_told_apart():
    (zeros, bits), (ones, _) = masked_fields(ZEROS), masked_fields(ONES)
    assert abs(zeros.mean() - ones.mean()) < SIGMAS * 2**bits * np.sqrt(2 / 12 / SIZE)
    assert correlation(zeros.astype(float), ones.astype(float)) < SIGMAS
    assert deviation((ones - zeros) % 2**bits, bits) < SIGMAS


def test_a_masked_vector_is_not_correlated_with_its_update():
    bits = np.random.default_rng(0).integers(0, 2, SIZE).astype(bool)
    frame = fm.encode_bits({"m": bits}, SCHEMA, seed=3, noise=fm.Bernoulli(1.0), mask="signed")
    values, width = masked_fields(frame)
    assert correlation(values.astype(float), bits.astype(float)) < SIGMAS
    for one in range(width):
        assert correlation((values >> one & 1).astype(float), bits.astype(float)) < SIGMAS


def test_these_statistics_find_what_is_not_masked():
    bits = np.random.default_rng(0).integers(0, 2, SIZE)
    weak = (bits + np.random.default_rng(1).integers(0, 7, SIZE)) % 8
    assert deviation(bits, 3) > SIGMAS
    assert deviation(weak, 3) > SIGMAS
    assert correlation(weak.astype(float), bits.astype(float)) > SIGMAS


def test_with_the_same_keys_the_difference_of_two_vectors_is_that_of_the_updates(monkeypatch):
    """Which is why a client answers once, and draws its secrets anew in each round."""
    vectors = []
    for frame in (ZEROS, ONES):
        counted = partial(next, itertools.count())
        monkeypatch.setattr(randomness, "draw", lambda size, counted=counted: drawn(counted(), size))
        monkeypatch.setattr(SecretSharing, "rng", lambda size: bytes(size))
        vectors.append(masked_fields(frame))
    (zeros, bits), (ones, _) = vectors
    assert set((ones - zeros) % 2**bits) == {1}


def test_rounds_draw_their_secrets_anew():
    frames = frames_of(REQUEST, [1, 2])
    sent = [Cohort(REQUEST, frames, threshold=2).answers("keys", [1, 2]) for _ in range(2)]
    publics = [message[at : at + 32] for each in sent for message in each.values() for at in (48, 80)]
    assert len(set(publics)) == 8


def test_shares_below_the_threshold_fit_every_secret():
    """Any two of three values are the shares of some polynomial, for each secret."""
    shares = dict(enumerate(sharing.split(bytes(range(16)), 3, 4), 1))
    found = set()
    for guess in range(50):
        forged = {1: shares[1], 2: shares[2], 3: guess.to_bytes(16, "big")}
        found.add(sharing.combine(forged, 3))
    assert len(found) == 50


def test_shares_of_one_secret_differ_each_time():
    one, other = (sharing.split(bytes(16), 2, 3) for _ in range(2))
    assert not set(one) & set(other)


@pytest.mark.parametrize("gone", [0, 1])
def test_the_two_secrets_of_a_client_are_asked_for_by_survival(gone):
    """All shares that clients reveal of one client are of one of its secrets."""
    c = Cohort(REQUEST, frames_of(REQUEST, [1, 2, 3, 4]), threshold=3)
    answer = None
    for number, step in enumerate(("keys", "shares", "masked")):
        ids = [i for i in c.clients if not (gone and i == 4 and number == 2)]
        answer = getattr(c.server, step)(c.answers(step, ids, answer))
    held = {i: dict(c.clients[i]._secrets.shares) for i in (1, 2, 3)}
    for i, message in c.answers("reveal", [1, 2, 3], answer).items():
        for position in range(4):
            share = message[48 + 16 * position : 64 + 16 * position]
            assert share == held[i][position][gone if position == 3 else 0]

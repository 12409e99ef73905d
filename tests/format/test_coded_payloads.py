"""Coding 1 (spec 6.8) of one payload: its layout, when it is used, and where each check finds a fault."""

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import backends, errors
from fedmrn_codec.format import rans

NOISE, SEED, STREAM, OFFSET = fm.Uniform(0.01), 7, 3, 1000
TWO_BLOCKS = 2**16 + 1000
FIRST_BLOCK = 16 + 2 * 2
"""Where the first of two blocks begins: after 16 probabilities and two counts of words."""


@pytest.fixture
def coder():
    return backends.coder("numpy")


def mask(size, share, seed=0):
    return np.packbits(np.random.default_rng(seed).random(size) < share, bitorder="little")


def encode(coder, payload, size, noise=NOISE):
    return rans.encode(coder, noise, SEED, STREAM, payload, size)


def decode(coder, data, size, noise=NOISE):
    return rans.decode(coder, noise, SEED, STREAM, data, size, "w", OFFSET)


def parts(coder, payload, size, noise=NOISE):
    """The probabilities, states, counts and words of a payload, whether or not it would be shorter."""
    chosen = rans.probabilities(*coder.count(noise, SEED, STREAM, payload, size))
    return chosen, *coder.encode(noise, SEED, STREAM, payload, size, chosen)


def refused(coder, data, size, noise=NOISE):
    with pytest.raises(errors.CodingError) as caught:
        decode(coder, data, size, noise)
    error = caught.value
    return error.field, error.expected, error.got, error.offset


def test_probabilities_are_the_nearest_256ths_and_never_0_or_1():
    cases = {(0, 0): 128, (0, 9): 1, (9, 9): 255, (1, 1): 255, (1, 2): 128, (1, 3): 85, (2, 3): 171}
    cases |= {(3, 512): 2, (5, 1024): 1, (7, 1024): 2, (1, 300): 1, (299, 300): 255}
    ones, totals = np.array(list(cases)).T
    got = rans.probabilities(ones, totals)
    assert got.dtype == np.uint8
    assert got.tolist() == list(cases.values())


@pytest.mark.parametrize(("size", "length"), [(0, 16), (1, 50), (2**16, 50), (2**16 + 1, 84), (2**18, 152)])
def test_the_shortest_payload_has_no_words(size, length):
    assert rans.shortest(size) == length


def test_a_payload_that_is_not_shorter_is_not_coded(coder):
    size, lengths = 1008, set()
    for seed in range(40):
        payload = mask(size, 0.165, seed)
        _, _, _, words = parts(coder, payload, size)
        length = 50 + 2 * len(words)
        lengths.add(length)
        coded = encode(coder, payload, size)
        assert (coded is None) == (length >= len(payload))
        assert coded is None or len(coded) == length
    assert {len(payload) - 2, len(payload), len(payload) + 2} <= lengths


def test_two_blocks_follow_one_another(coder):
    payload = mask(TWO_BLOCKS, 0.05)
    chosen, states, counts, words = parts(coder, payload, TWO_BLOCKS)
    first, second = np.split(words, counts[:1])
    assert len(second) > 0
    want = chosen.tobytes() + counts.astype("<u2").tobytes()
    want += states[0].astype("<u4").tobytes() + first.astype("<u2").tobytes()
    want += states[1].astype("<u4").tobytes() + second.astype("<u2").tobytes()
    data = encode(coder, payload, TWO_BLOCKS)
    assert data.tobytes() == want
    assert decode(coder, data, TWO_BLOCKS).tobytes() == payload.tobytes()


def test_states_that_code_nothing_are_valid(coder):
    payload = mask(3, 0.5)
    chosen, states, counts, words = parts(coder, payload, 3)
    assert (states == 2**16).sum() >= 5
    data = (
        chosen.tobytes() + counts.astype("<u2").tobytes() + states.astype("<u4").tobytes() + words.tobytes()
    )
    assert decode(coder, np.frombuffer(data, np.uint8), 3).tobytes() == payload.tobytes()


@pytest.mark.parametrize("change", [-2, 2])
def test_c01_another_length(coder, change):
    data = encode(coder, mask(TWO_BLOCKS, 0.05), TWO_BLOCKS)
    other = np.resize(data, len(data) + change)
    expected = f"{len(data)} bytes for the words of its blocks"
    assert refused(coder, other, TWO_BLOCKS) == (
        "coded mask of w",
        expected,
        str(len(other)),
        OFFSET + 16,
    )


@pytest.mark.parametrize("block", [0, 1])
def test_c02_states_below_the_least(coder, block):
    """The first one is reported; lanes 3 and 5 of the block are too small."""
    data = encode(coder, mask(TWO_BLOCKS, 0.05), TWO_BLOCKS).copy()
    words = int(data[16:18].view("<u2")[0])
    begin = FIRST_BLOCK + block * (32 + 2 * words)
    for lane in (3, 5):
        data[begin + 4 * lane : begin + 4 * lane + 4].view("<u4")[:] = 2**16 - lane
    want = ("state of coded mask of w", "at least 65536", "65533", OFFSET + begin + 12)
    assert refused(coder, data, TWO_BLOCKS) == want


def test_c03_a_block_that_does_not_end_with_its_last_word(coder):
    data = encode(coder, mask(TWO_BLOCKS, 0.05), TWO_BLOCKS).copy()
    data[-2:] ^= 0x5A
    expected = "block 1 to end with its last word and the initial states"
    got = "other states or unread words"
    assert refused(coder, data, TWO_BLOCKS) == ("coded mask of w", expected, got, OFFSET)


def test_c04_probabilities_of_buckets_without_elements(coder):
    """All draws of Bernoulli noise lie in one bucket; the first of two wrong probabilities is reported."""
    noise = fm.Bernoulli(0.01)
    data = encode(coder, mask(TWO_BLOCKS, 0.05), TWO_BLOCKS, noise).copy()
    empty = [k for k in range(16) if data[k] == 128][1:3]
    data[empty] = 127
    want = (f"probability {empty[0]} of w", "128, the share of set bits in 256ths", "127", OFFSET + empty[0])
    assert refused(coder, data, TWO_BLOCKS, noise) == want


def test_groups_of_blocks_join(coder, monkeypatch):
    """With groups of one block, later blocks start in the middle of the mask's bytes."""
    size = TWO_BLOCKS + 2**16
    payload = mask(size, 0.05)
    whole = encode(coder, payload, size)
    monkeypatch.setattr(coder, "GROUP", 1)
    assert encode(coder, payload, size).tobytes() == whole.tobytes()
    assert decode(coder, whole, size).tobytes() == payload.tobytes()


def test_a_state_at_the_bound_emits_a_word(coder):
    """Two set bits of probability 1 / 256 bring a lane's state from 2^16 to 2^24, the bound, and back."""
    payload = np.packbits(np.arange(16) % 8 == 7, bitorder="little")
    ones = np.ones(16, np.uint8)
    states, counts, words = coder.encode(NOISE, SEED, STREAM, payload, 16, ones)
    assert states[0, 7] == 2**16
    assert counts.tolist() == [1]
    assert words.tolist() == [0]


def test_a_payload_without_elements(coder):
    assert decode(coder, np.full(16, 128, np.uint8), 0).tolist() == []

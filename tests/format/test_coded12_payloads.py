"""Coding 4 (spec 6.11) of one payload: its layout, when it is used, and where each check finds a fault."""

import struct

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import backends, errors
from fedmrn_codec.backends import numpy_rans12
from fedmrn_codec.conformance import oracle
from fedmrn_codec.format import parsing, rans, rans12
from fedmrn_codec.primitives.codes import Coding

NOISE, ONE_BUCKET, SEED, STREAM, OFFSET = fm.Uniform(0.01), fm.Bernoulli(0.01), 7, 3, 1000
TWO_BLOCKS = 2**16 + 1000
CODERS = ["numpy", "numba"]


@pytest.fixture(params=CODERS)
def coder(request):
    return backends.coder(request.param, Coding.RANS12)


def mask(size, share, seed=0):
    return np.packbits(np.random.default_rng(seed).random(size) < share, bitorder="little")


def encode(coder, payload, size, noise=NOISE):
    return rans12.encode(coder, noise, SEED, STREAM, payload, size)


def decode(coder, data, size, noise=NOISE):
    return rans12.decode(coder, noise, SEED, STREAM, data, size, "w", OFFSET)


def refused(coder, data, size, noise=NOISE):
    with pytest.raises(errors.CodingError) as caught:
        decode(coder, np.frombuffer(bytes(data), np.uint8), size, noise)
    error = caught.value
    return error.field, error.expected, error.got, error.offset


def head(data, noise=NOISE):
    """The indices of a payload, and the number of bytes that they take."""
    return oracle.take_indices(data.tobytes(), noise.code)


def test_frequencies_are_those_of_the_oracle():
    assert rans12.FREQUENCIES.tolist() == [oracle.frequency(k) for k in range(79)]
    assert (np.diff(rans12.FREQUENCIES.astype(int)) > 0).all()
    assert (rans12.FREQUENCIES + rans12.FREQUENCIES[::-1] == 4096).all()


def test_indices_are_the_nearest_and_those_of_empty_buckets_the_ones_before():
    shares = {(0, 0): 39, (0, 9): 0, (9, 9): 78, (1, 2): 39, (0, 0, 2): 39, (3, 8192): 1, (5, 8192): 2}
    shares |= {(2, 8192): 0, (8189, 8192): 78, (8190, 8192): 78, (8188, 8192): 77, (1, 2**48): 0}
    ones, totals = np.array([pair[:2] for pair in shares]).T
    assert rans12.indices(ones, totals, len(shares)) == list(shares.values())
    assert rans12.indices(ones, totals, 1) == [39]


def test_the_index_is_the_nearest_of_all():
    rng = np.random.default_rng(0)
    totals = rng.integers(1, 5000, 500)
    ones = rng.integers(0, totals + 1)
    got = rans12.indices(ones, totals, 500)
    distance = np.abs(4096 * (ones / totals)[:, None] - rans12.FREQUENCIES.astype(int))
    assert (distance[np.arange(500), got] == distance.min(1)).all()


@pytest.mark.parametrize("table", [[39] * 16, [0, 78] * 8, [78] * 15 + [0], [5], [30, 28, 28, 31] * 4])
def test_indices_are_packed_as_by_the_oracle_and_read_again(table):
    data = rans12._pack(table)
    assert data == oracle.put_indices(table)
    padded = np.frombuffer(data + b"\xa5" * 9, np.uint8)
    assert rans12._unpack(padded, len(table), "mask", 0) == (table, len(data))


@pytest.mark.parametrize(("size", "length"), [(1, 5), (2**16, 5), (2**16 + 1, 11), (2**18, 23)])
def test_the_shortest_payload_has_no_words(size, length):
    assert rans12.shortest(size) == length


def test_a_payload_that_is_not_shorter_is_not_coded(coder):
    lengths = set()
    for seed in range(60):
        payload = mask(200, 0.3, seed)
        bits = oracle.unpack(payload.tobytes(), 200)
        want = oracle.rans12_encode(payload.tobytes(), 3, SEED, STREAM, 200)
        lengths.add(len(want) - len(payload))
        coded = encode(coder, payload, 200, ONE_BUCKET)
        assert sum(bits) > 0
        assert (None if coded is None else coded.tobytes()) == (want if len(want) < len(payload) else None)
    assert {-2, 0, 2} <= lengths


def test_two_blocks_follow_one_another(coder):
    payload = mask(TWO_BLOCKS, 0.05)
    data = encode(coder, payload, TWO_BLOCKS)
    _, at = head(data)
    count = int(data[at : at + 2].copy().view("<u2")[0])
    states = [data[at + 2 : at + 6], data[at + 6 + 2 * count : at + 10 + 2 * count]]
    assert all(int(state.copy().view("<u4")[0]) >= 2**16 for state in states)
    assert data.tobytes() == oracle.rans12_encode(payload.tobytes(), NOISE.code, SEED, STREAM, TWO_BLOCKS)
    assert decode(coder, data, TWO_BLOCKS).tobytes() == payload.tobytes()


def test_more_blocks_than_the_encoder_holds_at_a_time(monkeypatch):
    from fedmrn_codec.backends import numba_rans12

    size = TWO_BLOCKS + 2**16
    payload = mask(size, 0.05)
    whole = encode(numba_rans12, payload, size)
    monkeypatch.setattr(numba_rans12, "GROUP", 1)
    assert encode(numba_rans12, payload, size).tobytes() == whole.tobytes()
    assert encode(numpy_rans12, payload, size).tobytes() == whole.tobytes()


def test_division_by_every_frequency_is_exact():
    from fedmrn_codec.backends.numba_rans12 import RECIPROCALS

    f = np.arange(1, 4096, dtype=np.uint64)
    top = f << np.uint64(20)
    below = [top - np.uint64(k) for k in (1, 2, 3)] + [(top // f - np.uint64(1)) * f, f, f - np.uint64(1)]
    rng = np.random.default_rng(0)
    below += [rng.integers(0, top, dtype=np.uint64) for _ in range(50)]
    below += [x // f * f for x in below]
    for x in below:
        assert ((x * RECIPROCALS[f] + np.uint64(2**32)) >> np.uint64(44) == x // f).all()
    largest = (int(top[k] - 1) * int(RECIPROCALS[k + 1]) + 2**32 for k in range(4095))
    assert max(largest) < 2**64


def test_c05_an_index_out_of_range(coder):
    data = encode(coder, mask(1000, 0.05), 1000)
    want = ("probabilities of coded mask of w", "an index of at most 78", "79", OFFSET)
    assert refused(coder, b"\x4f" + data[1:].tobytes(), 1000) == want
    _, at = head(data)
    for table, got in (([78, 79, *[78] * 14], "79"), ([0, -1, *[0] * 14], "-1")):
        wrong = oracle.put_indices(table) + data[at:].tobytes()
        assert refused(coder, wrong, 1000) == (
            "probabilities of coded mask of w",
            "an index of 0 to 78",
            got,
            OFFSET + 1,
        )


def test_c05_indices_that_do_not_end(coder):
    got = ("probabilities of coded mask of w", "the indices of 16 buckets")
    assert refused(coder, b"\x05" + bytes(30), 1000) == (*got, "the end of bucket 0", OFFSET + 1)
    data = encode(coder, mask(1000, 0.05), 1000)
    _, at = head(data)
    assert refused(coder, data[: at + 3], 1000)[:2] == got  # the state would begin within the bits


def test_c05_padding(coder):
    data = encode(coder, mask(1000, 0.05), 1000).copy()
    _, at = head(data)
    assert data[at - 1] < 128
    data[at - 1] |= 128
    want = ("probabilities of coded mask of w", "padding bits of 0", "others", OFFSET + at - 1)
    assert refused(coder, data, 1000) == want


@pytest.mark.parametrize("change", [-1, 1])
def test_c06_half_a_word(coder, change):
    data = encode(coder, mask(1000, 0.05), 1000)
    other = np.resize(data, len(data) + change)
    _, at = head(data)
    left = len(other) - at - 4
    expected = "0 to 65535 whole words in its last block"
    assert refused(coder, other, 1000) == ("coded mask of w", expected, f"{left} bytes", OFFSET + at)


def test_c06_more_words_than_there_are(coder):
    data = encode(coder, mask(TWO_BLOCKS, 0.05), TWO_BLOCKS).copy()
    _, at = head(data)
    data[at : at + 2] = 255
    got = refused(coder, data, TWO_BLOCKS)
    assert got[:2] == ("coded mask of w", "0 to 65535 whole words in its last block")
    assert got[2].startswith("-")


def test_c06_a_last_block_with_too_many_words(coder):
    """More words than a block can have: 2^20 + 1 elements leave room for them in the last of 17 blocks."""
    size = 2**20 + 1
    blank = bytes([0]) + bytes(2 * 16) + struct.pack("<I", 2**16) * 17
    for extra in (2 * 65536, 2 * 65535):
        got = refused(coder, blank + bytes(extra), size, ONE_BUCKET)
        if extra > 2 * 65535:
            assert got[1:3] == ("0 to 65535 whole words in its last block", f"{extra} bytes")
        else:
            assert got[1] == "block 0 to end with its last word and the initial state"


@pytest.mark.parametrize("block", [0, 1])
def test_c07_a_state_below_the_least(coder, block):
    data = encode(coder, mask(TWO_BLOCKS, 0.05), TWO_BLOCKS).copy()
    _, at = head(data)
    words = int(data[at : at + 2].copy().view("<u2")[0])
    begin = at + 2 + block * (4 + 2 * words)
    data[begin : begin + 4] = list((2**16 - 1).to_bytes(4, "little"))
    want = ("state of coded mask of w", "at least 65536", "65535", OFFSET + begin)
    assert refused(coder, data, TWO_BLOCKS) == want


def test_c08_a_block_that_does_not_end_with_its_last_word(coder):
    data = encode(coder, mask(TWO_BLOCKS, 0.05), TWO_BLOCKS).copy()
    data[-2:] ^= 0x5A
    expected = "block 1 to end with its last word and the initial state"
    got = "another state or unread words"
    assert refused(coder, data, TWO_BLOCKS) == ("coded mask of w", expected, got, OFFSET)
    for other in (data[:-2], np.append(data, np.zeros(2, np.uint8))):
        assert refused(coder, other, TWO_BLOCKS)[1] == expected


def test_c09_another_index_than_the_nearest(coder):
    payload = mask(1000, 0.05)
    table, _ = head(encode(coder, payload, 1000))
    for c in (0, 7, 15):
        forged = [*table[:c], table[c] + 1, *table[c + 1 :]]
        data = oracle.rans12_encode(payload.tobytes(), NOISE.code, SEED, STREAM, 1000, forged)
        expected = f"{table[c]}, that of the share of set bits"
        want = (f"probability index {c} of w", expected, str(forged[c]), OFFSET)
        assert refused(coder, data, 1000) == want


def test_a_frame_states_the_lowest_version(monkeypatch):
    schema = fm.Schema([fm.Tensor("w", (1000,), masked=True), fm.Tensor("v", (1000,), masked=True)])
    bits = {name: np.arange(1000) % 25 == 0 for name in "wv"}
    given = {"seed": 1, "noise": fm.Uniform(0.01)}
    for coding, minor in (("raw", 0), ("rans", 1), ("rans12", 2), ({"w": "rans", "v": "rans12"}, 2)):
        frame = fm.encode_bits(bits, schema, **given, coding=coding)
        assert fm.verify(frame, schema).version == (1, minor)
        for name, array in fm.decode_bits(frame, schema).items():
            assert array.tobytes() == bits[name].tobytes()
    monkeypatch.setattr(parsing, "MINOR", 1)  # a reader of version 1.1
    with pytest.raises(errors.VersionError, match=r"^version, byte 4: expected 1\.0 to 1\.1, got 1\.2$"):
        fm.verify(frame, schema)


def test_a_small_sparse_mask_is_shorter_than_in_coding_1():
    payload = mask(4608, 0.05)
    old = rans.encode(backends.coder(), ONE_BUCKET, SEED, STREAM, payload, 4608)
    new = encode(backends.coder(None, Coding.RANS12), payload, 4608, ONE_BUCKET)
    assert len(new) < len(old) - 30

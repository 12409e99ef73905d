"""The packed message and its codings: exact round trips, and a clear error for each damage."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedmrn_codec as fm
from reference_fl import messages, methods
from reference_fl.messages import MessageError, Part
from reference_fl.methods.packing import (
    gaps_width,
    pack_fields,
    pack_gaps,
    pack_trits,
    unpack_fields,
    unpack_gaps,
    unpack_trits,
)
from reference_fl.methods.sparse import ALL, BITMAP, GAPS, pack_sparse, unpack_sparse
from reference_fl.settings import defaults

SCHEMA = fm.Schema(
    [
        fm.Tensor("conv.weight", (5, 3), masked=True),
        fm.Tensor("bn.weight", (4,)),
        fm.Tensor("bn.count", (), dtype="int64"),
        fm.Tensor("linear.weight", (37,), masked=True),
    ]
)
PACKED = ["drive", "eden", "terngrad", "topk", "fedsparsify"]


def part(data, offset=0):
    return Part(memoryview(bytes(data)), offset)


def update(seed=0):
    rng = np.random.default_rng(seed)
    return {
        t.name: np.full((), 7, np.int64)
        if t.dtype == "int64"
        else rng.normal(size=t.shape).astype(np.float32)
        for t in SCHEMA
    }


def task(seed=11, private_seed=12):
    return methods.Task(None, None, 3, 99, seed, private_seed, 13)


def built(name, **options):
    return methods.build(defaults("digits", name, None, options=options))


def message(name, **options):
    return built(name, **options).message(update(), SCHEMA, task())


def with_checksum(data):
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


@pytest.mark.parametrize("name", PACKED)
def test_a_message_decodes_from_its_bytes_alone(name):
    """The decoding object knows neither the update nor the seeds."""
    data = message(name)
    first, sizes = built(name).decode(data, SCHEMA)
    second, _ = built(name).decode(bytearray(data), SCHEMA, round=3, base_model=99, seed=11)
    for tensor in SCHEMA:
        assert first[tensor.name].shape == tensor.shape
        assert first[tensor.name].tobytes() == second[tensor.name].tobytes()
        if not tensor.masked:
            assert first[tensor.name].tobytes() == update()[tensor.name].tobytes()
    assert sizes.frame_bytes == len(data)
    assert sizes.mask_bytes + sizes.dense_bytes + sizes.header_bytes == len(data)
    assert sizes.dense_bytes == 4 * 4 + 8
    assert data == message(name)


def test_sizes_of_the_parts():
    """One bit an element, and 4 bytes for each chunk (15 = 8 + 4 + 2 + 1, 37 = 32 + 4 + 1) or tensor."""
    sizes = {name: built(name).decode(message(name), SCHEMA)[1].mask_bytes for name in PACKED}
    assert sizes["drive"] == sizes["eden"] == (4 * 4 + 2) + (3 * 4 + 5)
    assert sizes["terngrad"] == (4 + 3) + (4 + 8)
    assert sizes["fedsparsify"] < (8 + 4 * 15 + 2) + (8 + 4 * 37 + 5)


@pytest.mark.parametrize("name", PACKED)
def test_any_damaged_byte_is_found(name):
    data, method = message(name), built(name)
    for at in range(len(data)):
        damaged = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        with pytest.raises(fm.FrameError, match=r"^[^:]+, byte \d+: expected .+, got "):
            method.decode(damaged, SCHEMA)
        with pytest.raises(fm.FrameError, match=r"^[^:]+, byte \d+: expected .+, got "):
            method.decode(data[:at], SCHEMA)


@pytest.mark.parametrize("name", PACKED)
def test_hostile_bytes_with_a_right_checksum_never_crash(name):
    """For any bytes, the server returns arrays of finite numbers or refuses the message."""
    data, method = message(name), built(name)
    for at in range(len(data) - 4):
        for value in (0, 0x7F, 0xFF):
            damaged = with_checksum(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                arrays, _ = method.decode(damaged, SCHEMA)
            except fm.FrameError:
                continue
            assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize(
    ("at", "value", "field"),
    [
        (0, b"X", "magic, byte 0: expected b'FLPM', got b'XLPM'"),
        (4, b"\2", "version, byte 4: expected 1, got 2"),
        (5, b"\xff", "method, byte 5: expected 4, got 255"),
        (6, b"\1", "reserved bytes, byte 6: expected 0, got 1"),
        (8, b"\0\0", "schema digest, byte 8: expected '[0-9a-f]{32}', got 0000"),
        (24, b"\3", "part count, byte 24: expected 2, got 3"),
        (28, b"\0", r"message length, byte \d+: expected \d+ bytes of parts, got \d+"),
        (32, b"\0", r"message length, byte \d+: expected \d+ bytes of parts, got \d+"),
    ],
)
def test_each_field_of_the_header_is_checked(at, value, field):
    data = message("topk")
    with pytest.raises(MessageError, match=field):
        built("topk").decode(with_checksum(data[:at] + value + data[at + len(value) :]), SCHEMA)


def test_the_checksum_is_checked():
    data = message("topk")
    with pytest.raises(
        MessageError,
        match=f"checksum, byte {len(data) - 4}: expected 0x[0-9a-f]+, computed from the bytes, got 0x",
    ):
        built("topk").decode(data[:-1] + bytes([data[-1] ^ 1]), SCHEMA)


def test_a_message_of_another_schema_is_refused():
    other = fm.Schema([*SCHEMA.tensors[:-1], fm.Tensor("linear.weight", (36,), masked=True)])
    with pytest.raises(MessageError, match=r"schema digest, byte 8: expected .*, got [0-9a-f]{32}"):
        built("eden").decode(message("eden"), other)


def test_method_ids_are_unique():
    from reference_fl.methods.packed import IDS, PackedMethod

    assert sorted(IDS) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="method id of Second: expected an unused one, got 1"):
        type("Second", (PackedMethod,), {"ID": 1})


@given(st.lists(st.integers(0, 2**9 - 1)), st.integers(9, 12))
def test_fields_round_trip(values, width):
    data = pack_fields(np.array(values, np.int64), width)
    assert len(data) == (len(values) * width + 7) // 8
    assert unpack_fields(part(data), 0, len(values), width, "fields")[0].tolist() == values


@given(st.lists(st.integers(0, 5000)), st.integers(0, 13))
def test_gaps_round_trip(gaps, width):
    data = pack_gaps(np.array(gaps, np.int64), width)
    assert unpack_gaps(part(data), 0, len(gaps), width).tolist() == gaps


def test_gaps_by_hand():
    """Gaps 1 and 6 at width 2: remainders 01, 10 in 4 bits; quotients 0 and 1: bits 1, 0, 1."""
    assert pack_gaps(np.array([1, 6]), 2) == bytes([0b1001, 0b101])
    assert gaps_width(np.array([0, 0, 0])) == 0


def test_gaps_come_close_to_the_entropy():
    kept = np.random.default_rng(0).random(400_000) < 0.025
    p = kept.mean()
    gaps = np.diff(np.flatnonzero(kept), prepend=-1) - 1
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    spent = 8 * len(pack_gaps(gaps, gaps_width(gaps))) / len(kept)
    assert entropy < spent < 1.04 * entropy


@given(st.lists(st.integers(-1, 1)))
def test_trits_round_trip(trits):
    data = pack_trits(np.array(trits, np.int64))
    assert len(data) == -(-len(trits) // 5)
    assert unpack_trits(part(data), 0, len(trits)).tolist() == trits


def test_trits_by_hand():
    """1, -1, 0, 0, 1 are the digits 1, 2, 0, 0, 1 of 1 + 2 * 3 + 81."""
    assert pack_trits(np.array([1, -1, 0, 0, 1])) == bytes([88])


@pytest.mark.parametrize(
    ("data", "count", "words"),
    [
        ([88], 6, "trits, byte 10: expected 2 bytes for 6 elements, got 1 bytes"),
        ([0, 243], 10, "trits, byte 11: expected below 243, got 243"),
        ([9], 2, "padding of trits, byte 10: expected 0 .*, got 9"),
    ],
)
def test_bad_trits_are_refused(data, count, words):
    with pytest.raises(MessageError, match=words):
        unpack_trits(part(data, 10), 0, count)


@given(st.integers(1, 300), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_sparse_vectors_round_trip(size, share, seed):
    rng = np.random.default_rng(seed)
    vector, kept = rng.normal(size=size).astype(np.float32), rng.random(size) < share
    data = pack_sparse(vector, kept)
    values, positions = unpack_sparse(part(data), size)
    assert positions.tolist() == kept.tolist()
    assert values.tobytes() == np.where(kept, vector, np.float32(0)).tobytes()


def test_the_shorter_coding_is_chosen_and_named():
    vector = np.ones(4000, np.float32)
    few, many, whole = (np.arange(4000) % step < keep for step, keep in ((100, 1), (2, 1), (1, 1)))
    many ^= np.random.default_rng(0).random(4000) < 0.5
    codings = [pack_sparse(vector, kept) for kept in (few, many, whole)]
    assert [data[0] for data in codings] == [GAPS, BITMAP, ALL]
    assert len(codings[0]) < 8 + 4 * 40 + 40 * 2
    assert len(codings[1]) == 8 + 4 * many.sum() + 500
    assert len(codings[2]) == 8 + 4 * 4000


def sparse_bytes(coding, width, reserved, count, rest):
    return struct.pack("<BBHI", coding, width, reserved, count) + bytes(rest)


ONE = struct.pack("<f", 1.0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0" * 7, "sparse header, byte 5: expected at least 8 bytes, got 7 bytes"),
        (sparse_bytes(3, 0, 0, 0, b""), r"coding of positions, byte 5: expected 0 .* or 2 \(all\), got 3"),
        (sparse_bytes(GAPS, 25, 0, 0, b""), "width of gaps, byte 6: expected 0 to 24, .*, got 25"),
        (
            sparse_bytes(BITMAP, 1, 0, 0, b"\0\0"),
            "width of gaps, byte 6: expected 0 to 24, 0 without gaps, got 1",
        ),
        (sparse_bytes(BITMAP, 0, 1, 0, b"\0\0"), "reserved bytes, byte 7: expected 0, got 1"),
        (
            sparse_bytes(BITMAP, 0, 0, 10, b""),
            "count of values, byte 9: expected at most the tensor's 9 elements, got 10",
        ),
        (sparse_bytes(ALL, 0, 0, 8, ONE * 8), "count of values, byte 9: expected .* 9 elements, got 8"),
        (
            sparse_bytes(ALL, 0, 0, 9, ONE * 8),
            "values, byte 13: expected 36 bytes for 9 values, got 32 bytes left",
        ),
        (
            sparse_bytes(ALL, 0, 0, 9, ONE * 9 + b"\0"),
            "length of the part, byte 49: expected 44 bytes of fields, got 45",
        ),
        (
            sparse_bytes(BITMAP, 0, 0, 1, b"\0\0\x80\x7f\0\1"),
            "value, byte 13: expected a finite number, got inf",
        ),
        (
            sparse_bytes(BITMAP, 0, 0, 1, ONE + b"\1"),
            "bitmap, byte 17: expected 2 bytes for 9 bits, got 1 bytes left",
        ),
        (sparse_bytes(BITMAP, 0, 0, 1, ONE + b"\3\0"), "bitmap, byte 17: expected 1 values, got 2 bits set"),
        (sparse_bytes(BITMAP, 0, 0, 1, ONE + b"\1\2"), "padding of bitmap, byte 18: expected 0 .*, got 0x02"),
        (
            sparse_bytes(GAPS, 8, 0, 1, ONE),
            "gap remainders, byte 17: expected 1 bytes for 8 bits, got 0 bytes left",
        ),
        (sparse_bytes(GAPS, 0, 0, 1, ONE), "gap quotients, byte 17: expected 1 positions, got 0"),
        (sparse_bytes(GAPS, 0, 0, 1, ONE + b"\3"), "gap quotients, byte 17: expected 1 positions, got 2"),
        (sparse_bytes(GAPS, 0, 0, 1, ONE + b"\1\0"), "gap quotients, byte 18: expected 1 bytes, got 2 bytes"),
        (sparse_bytes(GAPS, 0, 0, 1, ONE + b"\0\2"), "last position, byte 17: expected below 9, .*, got 9"),
    ],
)
def test_bad_sparse_vectors_are_refused(data, words):
    with pytest.raises(MessageError, match=words):
        unpack_sparse(part(data, 5), 9)


@pytest.mark.parametrize("name", ["drive", "eden", "terngrad"])
@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_bad_scales_are_refused(name, scale):
    data = struct.pack("<f", scale) + bytes(1)
    with pytest.raises(
        MessageError, match=f"scale, byte 5: expected a finite value that is not negative, got {scale}"
    ):
        built(name).unpack(part(data, 5), 1, 0, 0)


@pytest.mark.parametrize("name", ["drive", "eden"])
def test_scales_that_overflow_are_refused(name):
    """Each scale is finite, but their sum is not."""
    method = built(name)
    largest = float(np.finfo(np.float32).max)
    data = struct.pack("<4f", *[largest] * 4) + bytes(2)
    other = struct.pack("<3f", *[0.0] * 3) + bytes(5)
    dense = messages.dense_schema(SCHEMA)
    frame = fm.encode({t.name: update()[t.name] for t in dense}, dense, seed=1, noise={}, mask={})
    with pytest.raises(
        MessageError, match=r"values of 'conv.weight', byte 40: expected finite values, got an overflow"
    ):
        method.decode(messages.build(method.ID, SCHEMA, [data, other], frame), SCHEMA)

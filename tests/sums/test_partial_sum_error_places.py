"""Where each check of a partial sum finds its fault: the field and the byte of the error (spec 8.5)."""

import zlib

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import errors

SCHEMA = fm.Schema([fm.Tensor("w", (3,), masked=True), fm.Tensor("n", (2,), dtype="uint8")])
UPDATE = {"w": np.full(3, 0.004, np.float32), "n": np.array([1, 2], np.uint8)}
TABLE, SUMS, ROWS, ROW, END = 56, 64, 88, 92, 112
"""Where the parts begin: the masked tensor, its sums, the dense tensor, its only row; the checksum."""


def saved(weight=10):
    server = fm.Aggregator(SCHEMA, backend="numpy")
    server.add(fm.encode(UPDATE, SCHEMA, seed=1, noise=fm.Uniform(0.01), private_seed=2), weight)
    return server.to_bytes()


def changed(data, at, new):
    """The partial sum with other bytes at a place, and the right checksum."""
    body = data[:-4]
    body = body[:at] + bytes(new) + body[at + len(new) :]
    return body + zlib.crc32(body).to_bytes(4, "little")


def place(data):
    """The class, field and byte of the error that `from_bytes` raises."""
    with pytest.raises(errors.FrameError) as caught:
        fm.Aggregator.from_bytes(data, SCHEMA, backend="numpy")
    return type(caught.value), caught.value.field, caught.value.offset


def test_the_places_are_those_of_the_partial_sum():
    data = saved()
    assert len(data) == END + 4
    assert fm.Aggregator.from_bytes(data, SCHEMA).to_bytes() == data
    assert data[ROWS : ROW + 4] == b"\x01\0\0\0" + bytes(4)
    assert np.frombuffer(data[ROW + 4 : END], "<i8").tolist() == [10, 20]


@pytest.mark.parametrize(
    ("at", "new", "error", "field", "offset"),
    [
        (0, b"FMRN", errors.MagicError, "magic", 0),
        (4, [2], errors.VersionError, "version", 4),
        (5, [9], errors.VersionError, "version", 4),
        (7, [1], errors.ReservedError, "flags", 6),
        (8, bytes(8), errors.WeightError, "weight", 8),
        (8, (2**39).to_bytes(8, "little"), errors.WeightError, "weight", 8),
        (48, bytes(8), errors.FramesError, "frames", 48),
        (48, [11], errors.FramesError, "frames", 48),
        (32, bytes(16), errors.SchemaMismatchError, "schema digest", 32),
        (28, [3], errors.TensorCountError, "tensor count", 28),
        (TABLE, [9], errors.UnknownDistributionError, "distribution of 'w'", TABLE),
        (TABLE + 3, [1], errors.ReservedError, "reserved bytes of 'w'", TABLE + 1),
        (TABLE + 4, bytes(4), errors.FrameScaleError, "scale of 'w'", TABLE + 4),
        (ROW, [1], errors.RowsError, "row of 'n'", ROW),
        (ROWS, [2], errors.TruncatedError, "row of 'n'", END),
        (ROWS, [0], errors.TrailingError, "partial sum", ROW),
        (SUMS, (10 * 2**24).to_bytes(8, "little"), errors.SumsError, "sums of 'w'", None),
        (SUMS, (-10 * 2**24).to_bytes(8, "little", signed=True), errors.SumsError, "sums of 'w'", None),
        (ROW + 4, (10 * 2**24).to_bytes(8, "little"), errors.SumsError, "sums of 'n'", None),
        (ROW + 4, bytes(16), errors.SumsError, "rows of 'n'", None),
    ],
)
def test_changed_bytes(at, new, error, field, offset):
    assert place(changed(saved(), at, new)) == (error, field, offset)


def test_the_largest_values_are_valid():
    largest = (10 * (2**24 - 1)).to_bytes(8, "little")
    for at, new in ((SUMS, largest), (ROW + 4, largest), (48, [10])):
        data = changed(saved(), at, new)
        assert fm.Aggregator.from_bytes(data, SCHEMA).to_bytes() == data
    whole = saved(2**39 - 1)
    assert fm.Aggregator.from_bytes(whole, SCHEMA).to_bytes() == whole


@pytest.mark.parametrize(
    ("length", "field", "offset"),
    [
        (59, "partial sum", 0),
        (60, "noise of 'w'", TABLE),
        (TABLE + 11, "noise of 'w'", TABLE),
        (SUMS + 4, "sums of 'w'", SUMS),
        (ROWS + 3, "sums of 'w'", SUMS),
        (ROWS + 7, "rows of 'n'", ROWS),
        (ROW + 7, "row of 'n'", ROW),
        (END + 3, "row 0 of 'n'", ROW + 4),
    ],
)
def test_partial_sums_that_end_too_early(length, field, offset):
    assert place(saved()[:length]) == (errors.TruncatedError, field, offset)


def test_more_bytes_and_a_wrong_checksum():
    data = saved()
    assert place(data + b"more") == (errors.TrailingError, "partial sum", END)
    assert place(data[:-1] + bytes([data[-1] ^ 1])) == (errors.ChecksumError, "checksum", END)


def test_rows_start_at_limb_0():
    with pytest.raises(errors.RowsError) as caught:
        fm.Aggregator.from_bytes(changed(saved(), ROW, [1]), SCHEMA)
    assert (caught.value.expected, caught.value.got) == ("0 to 0, ascending", "1")

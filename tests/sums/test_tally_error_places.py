"""Where each check of a tally finds its fault: the field and the byte of the error (spec 8.6)."""

import struct
import zlib

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import errors

SCHEMA = fm.Schema([fm.Tensor("w", (3,), masked=True), fm.Tensor("n", (2,), dtype="uint8")])
ENTRY, COUNTS, ROWS, ROW, END = 60, 76, 78, 82, 102
"""Where the parts begin: the masked tensor, its counts, the dense tensor, its only row; the checksum."""
FRAMES, WEIGHT = 5, 10


def saved():
    """A tally of five frames: counts 0, 3 and 5 of three bits, with seven bits of padding."""
    tally = fm.Tally.from_counts(
        SCHEMA,
        {"w": np.array([0, 3, 5])},
        FRAMES,
        seed=1,
        noise=fm.Uniform(0.01),
        weight=WEIGHT,
        dense={"n": np.array([1, 2])},
        backend="numpy",
    )
    return tally.to_bytes()


def changed(data, at, new):
    """The tally with other bytes at a place, and the right checksum."""
    body = data[:-4]
    body = body[:at] + bytes(new) + body[at + len(new) :]
    return body + zlib.crc32(body).to_bytes(4, "little")


def place(data, seed=None):
    """The class, field and byte of the error that `from_bytes` raises."""
    with pytest.raises(errors.FrameError) as caught:
        fm.Tally.from_bytes(data, SCHEMA, seed=seed, backend="numpy")
    return type(caught.value), caught.value.field, caught.value.offset


def test_the_places_are_those_of_the_tally():
    data = saved()
    assert len(data) == END + 4
    assert fm.Tally.from_bytes(data, SCHEMA).to_bytes() == data
    assert data[COUNTS:ROWS] == bytes([3 << 3 | (5 << 6) % 256, 5 >> 2])
    assert data[ROWS : ROW + 4] == b"\x01\0\0\0" + bytes(4)
    assert np.frombuffer(data[ROW + 4 : END], "<i8").tolist() == [1, 2]


LIMB = FRAMES * (2**24 - 1)


@pytest.mark.parametrize(
    ("at", "new", "error", "field", "offset"),
    [
        (0, b"FMRS", errors.MagicError, "magic", 0),
        (4, [2], errors.VersionError, "version", 4),
        (5, [1], errors.VersionError, "version", 4),
        (7, [1], errors.ReservedError, "flags", 6),
        (56, bytes(4), errors.FramesError, "frames", 56),
        (56, (2**24).to_bytes(4, "little"), errors.FramesError, "frames", 56),
        (48, bytes(8), errors.WeightError, "weight", 48),
        (48, ((2**39 - 1) // 5 + 1).to_bytes(8, "little"), errors.WeightError, "weight", 48),
        (32, bytes(16), errors.SchemaMismatchError, "schema digest", 32),
        (28, [3], errors.TensorCountError, "tensor count", 28),
        (ENTRY, [3], errors.UnknownKindError, "kind of 'w'", ENTRY),
        (ENTRY + 1, [9], errors.UnknownDistributionError, "distribution of 'w'", ENTRY + 1),
        (ENTRY + 2, [4], errors.UnknownCodingError, "coding of 'w'", ENTRY + 2),
        (ENTRY + 3, [1], errors.ReservedError, "reserved byte of 'w'", ENTRY + 3),
        (ENTRY + 4, bytes(4), errors.FrameScaleError, "scale of 'w'", ENTRY + 4),
        (ENTRY + 8, [3], errors.PayloadLengthError, "payload length of 'w'", ENTRY + 8),
        (ENTRY + 2, [5], errors.PayloadLengthError, "payload length of 'w'", ENTRY + 8),
        (ROW, [1], errors.RowsError, "row of 'n'", ROW),
        (ROWS, [2], errors.TruncatedError, "row of 'n'", END),
        (ROWS, [0], errors.TrailingError, "tally", ROW),
        (COUNTS + 1, [3], errors.PaddingError, "padding of 'w'", COUNTS + 1),
        (COUNTS, [6, 0], errors.SumsError, "count 0 of 'w'", COUNTS),
        (COUNTS, [0x80, 1], errors.SumsError, "count 2 of 'w'", COUNTS),
        (ROW + 4, (LIMB + 1).to_bytes(8, "little"), errors.SumsError, "sums of 'n'", None),
        (ROW + 4, (-LIMB - 1).to_bytes(8, "little", signed=True), errors.SumsError, "sums of 'n'", None),
        (ROW + 4, bytes(16), errors.SumsError, "rows of 'n'", None),
    ],
)
def test_changed_bytes(at, new, error, field, offset):
    assert place(changed(saved(), at, new)) == (error, field, offset)


def test_the_seed_is_compared():
    assert place(saved(), 2) == (errors.SeedError, "seed", 8)
    assert fm.Tally.from_bytes(saved(), SCHEMA, seed=1).seed == 1


def test_the_largest_values_are_valid():
    largest = struct.pack("<qq", LIMB, -LIMB)
    for at, new in (
        (ROW + 4, largest),
        (48, ((2**39 - 1) // 5).to_bytes(8, "little")),
        (COUNTS, [0b01101101, 1]),
    ):
        data = changed(saved(), at, new)
        assert fm.Tally.from_bytes(data, SCHEMA).to_bytes() == data


@pytest.mark.parametrize(
    ("length", "field", "offset"),
    [
        (63, "tally", 0),
        (64, "entry of 'w'", ENTRY),
        (COUNTS + 3, "entry of 'w'", ENTRY),
        (COUNTS + 5, "payload of 'w'", COUNTS),
        (ROWS + 7, "rows of 'n'", ROWS),
        (ROW + 7, "row of 'n'", ROW),
        (END + 3, "row 0 of 'n'", ROW + 4),
    ],
)
def test_tallies_that_end_too_early(length, field, offset):
    assert place(saved()[:length]) == (errors.TruncatedError, field, offset)


def test_more_bytes_and_a_wrong_checksum():
    data = saved()
    assert place(data + b"more") == (errors.TrailingError, "tally", END)
    assert place(data[:-1] + bytes([data[-1] ^ 1])) == (errors.ChecksumError, "checksum", END)


def test_memory_is_bounded_by_the_schema():
    """Numbers of the bytes alone make nothing large: rows announced, a length, frames."""
    data = saved()
    for at, new in ((ROWS, b"\xff" * 4), (ENTRY + 8, b"\xff" * 8), (56, b"\xff\xff\xff\0")):
        with pytest.raises(errors.FrameError):
            fm.Tally.from_bytes(changed(data, at, new), SCHEMA)

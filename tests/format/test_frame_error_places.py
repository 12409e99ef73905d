"""Where each check of a frame finds its fault: the field and the byte of the error (spec 7)."""

import zlib

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import errors

SCHEMA = fm.Schema(
    [fm.Tensor("w", (4, 9), masked=True), fm.Tensor("n", (2,), dtype="bool"), fm.Tensor("b", (3,))]
)
UPDATE = {"w": np.full((4, 9), 0.004, np.float32), "n": np.array([True, False]), "b": np.ones(3, np.float32)}
HEADER = 48
PAYLOADS = {"w": 88, "n": 93, "b": 95}
END = 107
"""Places of the frame without its schema; the checksum follows at END."""

EMBEDDED = HEADER + 4 + len(SCHEMA.data)
"""Where the table begins if the schema is embedded."""


def encode(**options):
    return fm.encode(UPDATE, SCHEMA, seed=1, noise=fm.Uniform(0.01), private_seed=2, **options)


def changed(frame, at, new):
    """The frame with other bytes at a place, and the right checksum."""
    body = frame[:-4]
    body = body[:at] + bytes(new) + body[at + len(new) :]
    return body + zlib.crc32(body).to_bytes(4, "little")


def place(frame, schema=SCHEMA, **options):
    """The class, field and byte of the error that `decode` raises."""
    with pytest.raises(errors.FrameError) as caught:
        fm.decode(frame, schema, **options)
    return type(caught.value), caught.value.field, caught.value.offset


def test_the_places_are_those_of_the_frame():
    frame = encode()
    info = fm.inspect(frame, SCHEMA)
    assert [entry.offset for entry in info.tensors] == list(PAYLOADS.values())
    assert len(frame) == END + 4
    assert (info.embedded, fm.inspect(encode(embed_schema=True)).embedded) == (False, True)


# (place, bytes to put there, class, field, byte of the error: that place unless stated)
CASES = [
    (0, b"fmrn", errors.MagicError, "magic", 0),
    (4, [2], errors.VersionError, "version", 4),
    (5, [9], errors.VersionError, "version", 4),
    (5, [1], errors.MinorError, "minor version", 5),
    (7, [1], errors.ReservedError, "flags", 6),
    (28, [4, 0, 0, 0], errors.TensorCountError, "tensor count", 28),
    (28, b"\xff\xff\xff\xff", errors.LimitError, "tensor count", 28),
    (32, b"digest", errors.SchemaMismatchError, "schema digest", 32),
    (48, [3], errors.UnknownKindError, "kind of 'w'", 48),
    (48, [0, 7], errors.KindMismatchError, "kind of 'w'", 48),
    (64, [1, 1], errors.KindMismatchError, "kind of 'n'", 64),
    (49, [9], errors.UnknownDistributionError, "distribution of 'w'", 49),
    (50, [1], errors.UnknownCodingError, "coding of 'w'", 50),
    (51, [1], errors.ReservedError, "reserved byte of 'w'", 51),
    (52, [4], errors.PayloadLengthError, "payload length of 'w'", 52),
    (52, [6], errors.PayloadLengthError, "payload length of 'w'", 52),
    (60, [0, 0, 0, 0], errors.FrameScaleError, "scale of 'w'", 60),
    (65, [99], errors.UnknownDtypeError, "dtype of 'n'", 65),
    (65, [7], errors.DtypeMismatchError, "dtype of 'n'", 65),
    (79, [1], errors.ReservedError, "reserved byte of 'b'", 79),
    (92, [0xF0], errors.PaddingError, "padding of 'w'", 92),
    (93, [1, 2], errors.BoolError, "bool of 'n'", 94),
    (99, [0, 0, 0x80, 0x7F], errors.NonFiniteError, "payload of 'b'", 95),
]


@pytest.mark.parametrize(("at", "new", "error", "field", "offset"), CASES)
def test_changed_bytes(at, new, error, field, offset):
    assert place(changed(encode(), at, new)) == (error, field, offset)


@pytest.mark.parametrize(("at", "new", "error", "field", "offset"), CASES[8:])
def test_changed_bytes_after_an_embedded_schema(at, new, error, field, offset):
    more = EMBEDDED - HEADER
    frame = changed(encode(embed_schema=True), at + more, new)
    assert place(frame, None) == place(frame) == (error, field, offset + more)


@pytest.mark.parametrize(("at", "kind", "role"), [(48, 0, "masked"), (64, 1, "dense")])
def test_a_kind_that_does_not_fit_names_the_role_in_the_schema(at, kind, role):
    with pytest.raises(errors.KindMismatchError) as caught:
        fm.decode(changed(encode(), at, [kind, 1]), SCHEMA)
    assert caught.value.expected == f"a {role} kind, as in the schema"
    assert caught.value.got == str(kind)


@pytest.mark.parametrize(("at", "expected"), [(52, "5 for 36 elements"), (80, "12 for 3 elements")])
def test_a_payload_length_that_does_not_fit_names_the_only_one_that_does(at, expected):
    with pytest.raises(errors.PayloadLengthError) as caught:
        fm.decode(changed(encode(), at, [7]), SCHEMA)
    assert (caught.value.expected, caught.value.got) == (expected, "7")


def test_a_payload_length_of_coding_1_may_be_any_of_a_range():
    schema = fm.Schema([fm.Tensor("w", (800,), masked=True)])
    bits = {"w": np.zeros(800, np.bool_)}
    frame = fm.encode_bits(bits, schema, seed=1, noise=fm.Uniform(0.01), coding="rans", backend="numpy")
    with pytest.raises(errors.PayloadLengthError) as caught:
        fm.decode(changed(frame, 52, [100]), schema)
    assert (caught.value.expected, caught.value.got) == ("50 to 99 for 800 elements", "100")


def test_a_wrong_checksum_and_a_missing_schema():
    frame = encode()
    assert place(frame[:-1] + bytes([frame[-1] ^ 1])) == (errors.ChecksumError, "checksum", END)
    assert place(frame, None) == (errors.NoSchemaError, "schema", 6)


def test_cut_and_longer_frames():
    frame = encode()
    assert place(frame[:51]) == (errors.TruncatedError, "frame", 0)
    assert place(frame[:52])[:2] == (errors.TruncatedError, "entry of 'w'")
    for cut in (1, 5, 19):
        assert place(frame[:-cut]) == (errors.TruncatedError, "frame", len(frame) - cut)
    assert place(frame + b"more") == (errors.TrailingError, "frame", END)


@pytest.mark.parametrize(
    ("body", "field", "offset"), [(48, "w", 48), (63, "w", 48), (64, "n", 64), (75, "n", 64)]
)
def test_tables_that_end_too_early(body, field, offset):
    assert place(changed(encode()[: body + 4], 0, b"")) == (
        errors.TruncatedError,
        f"entry of '{field}'",
        offset,
    )


@pytest.mark.parametrize("left", range(4))
def test_a_schema_length_that_is_cut(left):
    frame = changed(encode(embed_schema=True)[: HEADER + left + 4], 0, b"")
    assert place(frame, None) == (errors.TruncatedError, "schema length", HEADER)


def test_an_embedded_schema_that_is_cut_or_too_long_or_another():
    frame = encode(embed_schema=True)
    cut = changed(frame[:EMBEDDED], 0, b"")
    assert place(cut, None) == (errors.TruncatedError, "schema", HEADER + 4)
    small = fm.Limits(max_schema_bytes=len(SCHEMA.data) - 1)
    assert place(frame, None, limits=small) == (errors.LimitError, "schema length", HEADER)
    exact = fm.Limits(3, len(SCHEMA.data), SCHEMA.tensors[0].size + 5)
    assert fm.decode(frame, limits=exact).keys() == UPDATE.keys()
    other = changed(frame, 32, bytes(16))
    assert place(other, None) == (errors.SchemaDigestError, "digest of the embedded schema", 32)
    assert place(frame, None, limits=fm.Limits(max_tensors=2)) == (errors.LimitError, "tensor count", 28)


def test_a_frame_at_the_least_length():
    empty = fm.Schema([])
    frame = fm.encode({}, empty, seed=1, noise={})
    assert len(frame) == 52
    assert fm.decode(frame, empty) == {}


@pytest.mark.parametrize(
    ("expected", "error", "field", "offset"),
    [
        ({"round": 6}, errors.RoundError, "round", 24),
        ({"base_model": 6}, errors.BaseModelError, "base_model", 16),
        ({"seed": 6}, errors.SeedError, "seed", 8),
    ],
)
def test_expected_values_that_a_frame_does_not_have(expected, error, field, offset):
    """Of the bytes, and of a frame that has been checked without any expected value."""
    frame = encode(round=5, base_model=5)
    assert place(frame, **expected) == (error, field, offset)
    assert place(fm.verify(frame, SCHEMA), **expected) == (error, field, offset)


def test_a_checked_frame_of_another_schema():
    other = fm.Schema([*SCHEMA.tensors[:2], fm.Tensor("c", (3,))])
    checked = fm.verify(encode(), SCHEMA)
    assert place(checked, other) == (errors.SchemaMismatchError, "schema digest", 32)

"""Damaged and hostile frames are refused with a FrameError, before memory is allocated for their claims."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from face_cases import example_update, schemas
from hypothesis import given, settings
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import errors


def test_every_flipped_bit_is_found():
    schema = fm.Schema([fm.Tensor("w", (13,), masked=True), fm.Tensor("b", (2,))])
    update = {"w": np.linspace(-1, 1, 13, dtype=np.float32), "b": np.ones(2, np.float32)}
    for embed in (False, True):
        frame = fm.encode(update, schema, seed=7, noise=fm.Uniform(1.0), embed_schema=embed)
        for bit in range(8 * len(frame)):
            bad = bytearray(frame)
            bad[bit // 8] ^= 1 << bit % 8
            for known in (schema, None) if embed else (schema,):
                with pytest.raises(fm.FrameError):
                    fm.decode(bad, known)


@given(schemas(), st.data())
@settings(max_examples=50)
def test_cut_and_appended_bytes_are_found(schema, data):
    update = example_update(np.random.default_rng(0), schema)
    frame = fm.encode(update, schema, seed=7, noise=fm.Uniform(1.0), embed_schema=data.draw(st.booleans()))
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(errors.TruncatedError):
        fm.decode(frame[:cut], schema)
    with pytest.raises(errors.TrailingError):
        fm.decode(frame + data.draw(st.binary(min_size=1, max_size=9)), schema)


@given(st.binary(max_size=300))
def test_any_bytes_raise_only_frame_errors(data):
    for frame in (data, b"FMRN\x01\x00" + data, b"FMRN\x01\x00\x01\x00" + data):
        with pytest.raises(fm.FrameError):
            fm.decode(frame)


def test_claims_cost_no_memory():
    """A frame of 200 bytes that claims 2^40 elements is refused before anything is allocated."""
    schema = fm.Schema([fm.Tensor("w", (2**20, 2**20), masked=True)])
    entry = struct.pack("<BBBBQf", 1, 1, 0, 0, 2**37, 0.01)
    header = struct.pack("<4sBBHQQII16s", b"FMRN", 1, 0, 1, 7, 0, 0, 1, schema.digest)
    body = header + struct.pack("<I", len(schema.data)) + schema.data + entry
    body += bytes(196 - len(body))
    frame = body + struct.pack("<I", zlib.crc32(body))
    assert len(frame) == 200
    tracemalloc.start()
    for known, limits in ((None, fm.Limits()), (schema, fm.Limits()), (None, fm.Limits(max_elements=2**50))):
        with pytest.raises((errors.LimitError, errors.TruncatedError)):
            fm.decode(frame, known, limits=limits)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()

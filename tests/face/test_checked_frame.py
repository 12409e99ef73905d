"""Checked frames: accepted wherever bytes are, with the same results, and nothing is done twice."""

import dataclasses
import re
import zlib
from collections import Counter

import numpy as np
import pytest
from face_cases import BACKENDS

import fedmrn_codec as fm
from fedmrn_codec import errors
from fedmrn_codec.format import checked as checked_module
from fedmrn_codec.format import rans
from fedmrn_codec.format.parsing import Expected

SCHEMA = fm.Schema(
    [
        fm.Tensor("sparse", (40, 50), masked=True),
        fm.Tensor("bias", (9,)),
        fm.Tensor("dense", (30, 7), masked=True),
        fm.Tensor("half", (3,), dtype="bfloat16"),
        fm.Tensor("flag", (2,), dtype="bool"),
        fm.Tensor("other sparse", (3000,), masked=True),
    ]
)
NOISE = fm.Gaussian(0.01)
REQUEST = fm.Request(7, NOISE, "binary", 3, 11, SCHEMA, "rans", "float16")


def make_frame(schema=SCHEMA, seed=7, round=3, base_model=11, noise=NOISE):
    rng = np.random.default_rng(seed)
    shares = {"sparse": 0.05, "dense": 0.5, "other sparse": 0.02}
    bits = {t.name: rng.random(t.shape) < shares[t.name] for t in schema if t.masked}
    dense = {
        "bias": rng.normal(size=9).astype(np.float32),
        "half": np.array([0x3F80, 0xBF81, 0x0001], np.uint16),
        "flag": np.array([True, False]),
    }
    settings = {"seed": seed, "noise": noise, "round": round, "base_model": base_model}
    return fm.encode_bits(bits, schema, dense=dense, **settings, coding="rans", dense_coding="float16")


FRAME = make_frame()


def as_bytes(arrays):
    return [(name, array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()]


@pytest.fixture
def calls(monkeypatch):
    """How often a frame was parsed, its checksum computed and a mask entropy-decoded."""
    count = Counter()

    def counted(module, name):
        function = getattr(module, name)

        def call(*arguments, **options):
            count[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    counted(checked_module, "parse")
    counted(checked_module, "check_checksum")
    counted(rans, "decode")
    return count


ONCE = {"parse": 1, "check_checksum": 1, "decode": 2}


def test_it_shows_what_inspect_shows():
    checked = fm.verify(FRAME, SCHEMA)
    assert isinstance(checked, fm.CheckedFrame)
    info = fm.inspect(FRAME, SCHEMA)
    names = ("version", "seed", "base_model", "round", "digest", "schema", "embedded", "tensors")
    for name in (*names, "frame_bytes", "mask_bytes", "dense_bytes", "header_bytes"):
        assert getattr(checked, name) == getattr(info, name)
    assert [entry.coding for entry in checked.tensors] == ["rans", "float16", "raw", "raw", "raw", "rans"]
    assert bytes(checked.view) == FRAME


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_results_are_those_of_the_bytes(wrap, backend, calls):
    checked = fm.verify(wrap(FRAME), SCHEMA, backend=backend)
    assert calls == ONCE
    decoded = [as_bytes(fm.decode(checked, schema, backend=backend)) for schema in (SCHEMA, None)]
    some = as_bytes(fm.decode(checked, names=["half", "sparse"], backend=backend))
    bits = as_bytes(fm.decode_bits(checked, backend=backend))
    server, many = (fm.Aggregator(SCHEMA, backend=backend) for _ in range(2))
    assert server.add(checked, 600) is checked
    many.add_many([checked, checked], [599, 1])
    assert fm.verify(checked, SCHEMA) is checked
    base = {"bias": np.zeros(9, np.float32), "half": np.zeros(3, np.uint16)}
    assert REQUEST.check(checked, base) is checked
    assert calls == ONCE

    assert decoded == [as_bytes(fm.decode(FRAME, SCHEMA))] * 2
    assert some == as_bytes(fm.decode(FRAME, SCHEMA, names=["half", "sparse"]))
    assert bits == as_bytes(fm.decode_bits(FRAME, SCHEMA))
    reference = fm.Aggregator(SCHEMA)
    reference.add(FRAME, 600)
    assert server.to_bytes() == reference.to_bytes()
    assert as_bytes(server.mean()) == as_bytes(many.mean()) == as_bytes(reference.mean())


def test_check_then_add_decodes_once(calls):
    server = REQUEST.aggregator()
    checked = REQUEST.check(FRAME)
    assert isinstance(checked, fm.CheckedFrame)
    server.add(checked, 5, seed=7)
    assert calls == ONCE


def test_the_frame_that_add_returns_is_checked(calls):
    checked = fm.Aggregator(SCHEMA).add(FRAME, 5)
    assert as_bytes(fm.decode(checked)) == as_bytes(fm.decode(checked, SCHEMA))
    assert calls == ONCE


def test_decode_checks_and_decodes_only_the_payloads_it_needs(calls):
    checked = fm.CheckedFrame.open(FRAME, Expected(SCHEMA))
    assert calls == {"parse": 1, "check_checksum": 1}
    fm.decode(checked, names=["bias", "dense"])
    assert calls["decode"] == 0
    fm.decode(checked, names=["sparse"])
    assert calls["decode"] == 1
    fm.decode_bits(checked)
    assert calls == ONCE


def test_decoded_arrays_are_independent_of_the_frame():
    checked = fm.verify(FRAME, SCHEMA)
    first = fm.decode(checked)
    for array in (*first.values(), *fm.decode_bits(checked).values()):
        array[...] = 1
    assert as_bytes(fm.decode(checked)) == as_bytes(fm.decode(FRAME, SCHEMA))


def refused_by(checked, error, message, schema=SCHEMA, **expected):
    """Every function that takes expected values refuses the frame with this error."""
    for function in (fm.verify, fm.decode, fm.decode_bits):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            function(checked, schema, **expected)


OTHER = fm.Schema([*SCHEMA.tensors[:-1], fm.Tensor("other sparse", (3001,), masked=True)])


def test_expected_values_are_compared_again(calls):
    checked = fm.verify(FRAME, SCHEMA, round=3, base_model=11, seed=7)
    difference = f"tensor 5 is {SCHEMA.tensors[5]}, the caller's is {OTHER.tensors[5]}"
    digests = f"expected {OTHER.digest.hex()}, the caller's, got {SCHEMA.digest.hex()} ({difference})"
    refused_by(checked, errors.SchemaMismatchError, f"schema digest, byte 32: {digests}", schema=OTHER)
    refused_by(checked, errors.RoundError, "round, byte 24: expected 4, got 3", round=4)
    refused_by(checked, errors.BaseModelError, "base_model, byte 16: expected 12, got 11", base_model=12)
    refused_by(checked, errors.SeedError, "seed, byte 8: expected 8, got 7", seed=8)
    assert calls == ONCE


@pytest.mark.parametrize(
    ("settings", "seed", "error", "message"),
    [
        ({"schema": OTHER}, None, errors.SchemaMismatchError, "schema digest, byte 32: expected "),
        ({"round": 4}, None, errors.RoundError, "round, byte 24: expected 4, got 3"),
        ({"base_model": 12}, None, errors.BaseModelError, "base_model, byte 16: expected 12, got 11"),
        ({}, 8, errors.SeedError, "seed, byte 8: expected 8, got 7"),
        (
            {"noise": fm.Gaussian(0.02)},
            None,
            errors.NoiseError,
            f"noise of 'sparse': expected {fm.Gaussian(0.02)}, got {NOISE}",
        ),
    ],
)
def test_aggregators_compare_expected_values_again(settings, seed, error, message):
    checked = fm.verify(FRAME, SCHEMA)
    settings = {"schema": SCHEMA} | settings
    server = fm.Aggregator(**settings)
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        server.add(checked, 1, seed=seed)
    with pytest.raises(error, match=f"^frame 0, {re.escape(message)}"):
        server.add_many([checked], [1], seeds=[seed])
    assert (server.frames, server.weight) == (0, 0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"seed": 8}, errors.SeedError, "seed, byte 8: expected 8, got 7"),
        ({"round": 4}, errors.RoundError, "round, byte 24: expected 4, got 3"),
        ({"round": 0}, errors.RoundError, "round, byte 24: expected 0, got 3"),
        ({"base_model": 12}, errors.BaseModelError, "base_model, byte 16: expected 12, got 11"),
        ({"schema": OTHER}, errors.SchemaMismatchError, "schema digest, byte 32: expected "),
        ({"mask": "signed"}, errors.ReplyError, "tensor 'sparse': expected signed mask of "),
    ],
)
def test_requests_compare_expected_values_again(change, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        dataclasses.replace(REQUEST, **change).check(fm.verify(FRAME, SCHEMA))


def test_an_embedded_schema_is_compared_with_the_callers():
    small = fm.Schema([fm.Tensor("b", (2,))])
    checked = fm.verify(
        fm.encode({"b": np.ones(2, "f4")}, small, seed=1, noise={}, mask={}, embed_schema=True)
    )
    assert checked.schema == small
    assert fm.decode(checked, small)["b"].tobytes() == np.ones(2, "f4").tobytes()
    with pytest.raises(
        errors.SchemaMismatchError, match=r"\(tensor 0 is 'b' float32\[2\], the caller's is 'sparse' "
    ):
        fm.decode(checked, SCHEMA)


def test_bad_payloads_of_a_frame_that_was_only_parsed_are_found():
    """`CheckedFrame.open` checks no payload; every function that uses one does."""
    entry = fm.inspect(FRAME, SCHEMA).tensors[4]
    body = bytearray(FRAME[:-4])
    body[entry.offset] = 2
    checked = fm.CheckedFrame.open(bytes(body) + zlib.crc32(body).to_bytes(4, "little"), Expected(SCHEMA))
    server = fm.Aggregator(SCHEMA)
    server.add(FRAME, 5)
    before = server.to_bytes()
    message = f"^bool of 'flag', byte {entry.offset}: expected 0 or 1, got 2$"
    for call in (fm.verify, fm.decode, lambda frame: server.add(frame, 1)) * 2:
        with pytest.raises(errors.BoolError, match=message):
            call(checked)
    assert server.to_bytes() == before
    assert "flag" not in fm.decode(checked, names=["bias"])


def test_frames_are_not_mixed_up():
    """Many checked frames at once, each with its own payloads."""
    frames = [make_frame(seed=seed) for seed in range(1, 6)]
    checked = [fm.verify(frame, SCHEMA, round=3, base_model=11) for frame in frames]
    one, other = (fm.Aggregator(SCHEMA) for _ in range(2))
    one.add_many(frames, range(1, 6), seeds=range(1, 6))
    other.add_many(checked[:2], [1, 2])
    other.add_many([checked[2], frames[3], checked[4]], [3, 4, 5], seeds=[3, 4, 5])
    assert one.to_bytes() == other.to_bytes()

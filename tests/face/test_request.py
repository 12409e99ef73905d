"""Requests: as dictionaries and JSON, encoding with them, and the check of frames against them."""

import dataclasses
import json
import re

import numpy as np
import pytest

import fedmrn_codec as fm

SCHEMA = fm.Schema(
    [
        fm.Tensor("conv.weight", (8, 9), masked=True),
        fm.Tensor("bias", (8,)),
        fm.Tensor("count", (), dtype="int64"),
    ]
)
UPDATE = {
    "conv.weight": np.full((8, 9), 0.002, np.float32),
    "bias": np.full(8, 0.5, np.float32),
    "count": np.array(3, np.int64),
}
REQUEST = fm.Request(2**64 - 1, fm.Uniform(0.01), "signed", 7, 2**63 + 1, SCHEMA)


REPLY = f"tensor 'conv.weight': expected signed mask of {fm.Uniform(0.01)}"


def changed(**fields):
    return dataclasses.replace(REQUEST, **fields)


# Plain types and JSON


@pytest.mark.parametrize(
    "noise", [fm.Uniform(0.01), fm.Gaussian(1e-30), fm.Bernoulli(3e38), fm.Uniform(1 / 3)]
)
def test_plain_and_json_come_back_equal(noise):
    request = changed(noise=noise)
    assert fm.Request.from_dict(request.to_dict()) == request
    assert fm.Request.from_dict(json.loads(json.dumps(request.to_json()))) == request


def test_codings_are_kept_and_are_raw_if_absent():
    request = changed(coding="rans", dense_coding="float16")
    assert fm.Request.from_dict(json.loads(json.dumps(request.to_json()))) == request
    entries = {name: value for name, value in request.to_dict().items() if "coding" not in name}
    assert fm.Request.from_dict(entries) == REQUEST


def test_plain_is_flat():
    assert {type(value) for value in REQUEST.to_dict().values()} == {int, str, bytes}
    assert REQUEST.to_dict()["noise"] == "uniform:0.01"


def test_json_numbers_fit_every_reader():
    def numbers(value):
        if isinstance(value, dict | list):
            return [
                n for each in (value.values() if isinstance(value, dict) else value) for n in numbers(each)
            ]
        return [value] if isinstance(value, int) else []

    assert REQUEST.to_json()["seed"] == "18446744073709551615"
    assert max(numbers(REQUEST.to_json())) < 2**53


def test_a_subclass_reads_its_own_kind():
    class Own(fm.Request):
        pass

    assert type(Own.from_dict(REQUEST.to_dict())) is Own


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"seed": None}, "request entry 'seed': expected int or str, got NoneType"),
        ({"seed": 1.0}, "request entry 'seed': expected int or str, got float"),
        ({"seed": "-1"}, "request entry 'seed': expected at most 20 decimal digits, got '-1'"),
        ({"seed": "9" * 5000}, f"request entry 'seed': expected at most 20 decimal digits, got '{'9' * 40}'"),
        ({"seed": 2**64}, "seed: expected 0 to 2^64 - 1, got 18446744073709551616"),
        ({"base_model": "x"}, "request entry 'base_model': expected at most 20 decimal digits, got 'x'"),
        ({"round": "7"}, "request entry 'round': expected int, got str"),
        ({"round": 2**32}, "round: expected 0 to 2^32 - 1, got 4294967296"),
        (
            {"noise": "uniform"},
            "noise: expected NAME:SCALE, NAME of uniform, gaussian, bernoulli, got 'uniform'",
        ),
        ({"noise": 0.01}, "request entry 'noise': expected str or list, got float"),
        ({"mask": "both"}, "mask: expected one of binary, signed, got 'both'"),
        ({"coding": 1}, "request entry 'coding': expected str, got int"),
        ({"coding": "float16"}, "coding: expected one of raw, rans, rans12, got 'float16'"),
        ({"dense_coding": "rans"}, "dense_coding: expected one of raw, float16, bfloat16, got 'rans'"),
        ({"schema": "text"}, "request entry 'schema': expected bytes or list, got str"),
        ({"schema": [1]}, "schema: expected a list of {name, shape, masked, dtype}, got TypeError: "),
        ({"schema": b""}, "schema tensor count, byte 0: expected 4 bytes, got 0 bytes left"),
    ],
)
def test_damaged_entries_are_refused(entries, message):
    with pytest.raises(fm.CodecError) as caught:
        fm.Request.from_dict(REQUEST.to_dict() | entries)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, "seed: expected 0 to 2^64 - 1, got -1"),
        ({"noise": 0.01}, "noise: expected Uniform, Gaussian or Bernoulli, got 0.01"),
        ({"mask": "both"}, "mask: expected one of binary, signed, got 'both'"),
        ({"mask": ["binary"]}, "mask: expected one of binary, signed, got ['binary']"),
        ({"round": 1.5}, "round: expected an integer, got 1.5"),
        ({"schema": [SCHEMA]}, "schema: expected a Schema, got list"),
        ({"coding": {"b": "rans"}}, "coding: expected one of raw, rans, rans12, got {'b': 'rans'}"),
    ],
)
def test_bad_requests_are_refused(fields, message):
    with pytest.raises(fm.ArgumentError, match=f"^{re.escape(message)}$"):
        changed(**fields)


# Frames


def test_encode_gives_the_frame_of_the_same_arguments():
    frame = REQUEST.encode(UPDATE, private_seed=5)
    options = {"mask": "signed", "round": 7, "base_model": 2**63 + 1, "private_seed": 5}
    assert frame == fm.encode(UPDATE, SCHEMA, seed=2**64 - 1, noise=fm.Uniform(0.01), **options)
    assert REQUEST.check(frame).seed == 2**64 - 1


@pytest.mark.parametrize("name", ["seed", "noise", "mask", "round", "base_model"])
def test_encode_options_cannot_replace_other_settings(name):
    with pytest.raises(TypeError, match="multiple values"):
        REQUEST.encode(UPDATE, **{name: getattr(REQUEST, name)})


def test_encode_options_may_replace_codings_and_check_accepts_any():
    schema = fm.Schema([fm.Tensor("w", (64, 64), masked=True), fm.Tensor("b", (8,))])
    update = {"w": np.zeros((64, 64), np.float32), "b": np.full(8, 0.5, np.float32)}
    request = changed(schema=schema, mask="binary", coding="rans", dense_coding="float16")
    for options, codings in [
        ({}, ["rans", "float16"]),
        ({"coding": "raw"}, ["raw", "float16"]),
        ({"dense_coding": "bfloat16"}, ["rans", "bfloat16"]),
    ]:
        info = request.check(request.encode(update, **options))
        assert [entry.coding for entry in info.tensors] == codings


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"seed": 1}, "seed", f"seed, byte 8: expected {2**64 - 1}, got 1"),
        ({"round": 6}, "round", "round, byte 24: expected 7, got 6"),
        ({"round": 0}, "round", "round, byte 24: expected 7, got 0"),
        ({"base_model": 0}, "base_model", f"base_model, byte 16: expected {2**63 + 1}, got 0"),
        ({"noise": fm.Uniform(0.02)}, "reply", f"{REPLY}, got signed mask of {fm.Uniform(0.02)}"),
        ({"noise": fm.Gaussian(0.01)}, "reply", f"{REPLY}, got signed mask of {fm.Gaussian(0.01)}"),
        ({"mask": "binary"}, "reply", f"{REPLY}, got binary mask of {fm.Uniform(0.01)}"),
    ],
)
def test_frames_of_other_settings_are_refused(fields, code, message):
    with pytest.raises(fm.RefusedError) as caught:
        REQUEST.check(changed(**fields).encode(UPDATE))
    assert caught.value.code == code
    assert str(caught.value) == message


def test_a_frame_of_another_schema_is_refused():
    schema = fm.Schema(reversed(SCHEMA.tensors))
    with pytest.raises(fm.FrameError) as caught:
        REQUEST.check(changed(schema=schema).encode(UPDATE))
    assert caught.value.code == "schema_mismatch"


def test_damage_in_the_last_byte_is_found():
    frame = bytearray(REQUEST.encode(UPDATE))
    frame[-1] ^= 1
    with pytest.raises(fm.FrameError) as caught:
        REQUEST.check(frame)
    assert caught.value.code == "checksum"


def test_the_model_must_stay_finite():
    largest = np.finfo(np.float32).max
    frame = REQUEST.encode(UPDATE | {"bias": np.full(8, largest, np.float32)})
    REQUEST.check(frame)
    REQUEST.check(frame, UPDATE | {"bias": np.zeros(8, np.float32)})
    message = r"^tensor 'bias': expected a finite sum with the base model, got a NaN or an infinity$"
    with pytest.raises(fm.ReplyError, match=message):
        REQUEST.check(frame, UPDATE | {"bias": np.full(8, largest, np.float32)})


def test_the_model_must_stay_finite_in_bfloat16():
    schema = fm.Schema([fm.Tensor("half", (2,), dtype="bfloat16")])
    request = fm.Request(1, fm.Uniform(0.01), "binary", 1, 2, schema)
    frame = request.encode({"half": np.array([0x3F80, 0x7F7F], np.uint16)})  # 1 and the largest
    for base in ([0x7F7F, 0x3F80], [0x0000, 0xFF7F]):
        assert isinstance(request.check(frame, {"half": np.array(base, np.uint16)}), fm.CheckedFrame)
    message = r"^tensor 'half': expected a finite sum with the base model, got a NaN or an infinity$"
    with pytest.raises(fm.ReplyError, match=message):
        request.check(frame, {"half": np.array([0, 0x7F7F], np.uint16)})


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (None, "expected names of the model's arrays, got 'bias'"),
        (np.zeros(1, np.float32), "expected float32[1], as in the model, got 'bias' float32[8]"),
        (np.zeros(8), "expected float64[8], as in the model, got 'bias' float32[8]"),
    ],
)
def test_another_model_is_refused(bias, message):
    base = {name: array for name, array in (UPDATE | {"bias": bias}).items() if array is not None}
    with pytest.raises(fm.SchemaError, match=f"^schema: {re.escape(message)}$"):
        REQUEST.check(REQUEST.encode(UPDATE), base)


def test_its_aggregator_accepts_frames_of_the_round_and_no_others():
    server = REQUEST.aggregator()
    server.add(changed(seed=1).encode(UPDATE), 10, seed=1)
    server.add(changed(seed=2).encode(UPDATE), 30, seed=2)
    for fields, message in (
        ({"round": 6}, "round, byte 24: expected 7, got 6"),
        ({"base_model": 1}, f"base_model, byte 16: expected {2**63 + 1}, got 1"),
        (
            {"noise": fm.Uniform(1)},
            f"noise of 'conv.weight': expected {fm.Uniform(0.01)}, got {fm.Uniform(1)}",
        ),
    ):
        with pytest.raises(fm.FrameError, match=f"^{re.escape(message)}$"):
            server.add(changed(**fields).encode(UPDATE), 10)
    assert server.mean()["bias"].tobytes() == UPDATE["bias"].tobytes()


# A noise for each tensor

TWO = fm.Schema([fm.Tensor("v", (3, 4), masked=True), fm.Tensor("w", (2, 4), masked=True)])
NOISES = {"w": fm.Bernoulli(0.5), "v": fm.Uniform(1 / 3)}


def of_two(noise=NOISES):
    return fm.Request(5, noise, "binary", 1, 2, TWO)


def test_a_noise_for_each_tensor_survives_json_in_the_order_of_the_schema():
    request = of_two()
    assert list(request.noise) == ["v", "w"]
    assert request.to_dict()["noise"] == ["uniform:0.33333334", "bernoulli:0.5"]
    assert fm.Request.from_dict(request.to_dict()) == request
    assert fm.Request.from_dict(json.loads(json.dumps(request.to_json()))) == request


def test_a_frame_is_checked_against_the_noise_of_each_tensor():
    request = of_two()
    frame = request.encode({"v": np.ones((3, 4), np.float32), "w": np.ones((2, 4), np.float32)})
    checked = request.check(frame)
    assert [entry.noise for entry in checked.tensors] == [NOISES["v"], NOISES["w"]]
    aggregator = request.aggregator()
    aggregator.add(checked, 1)
    other = of_two({**NOISES, "w": fm.Bernoulli(0.25)})
    with pytest.raises(
        fm.ReplyError, match=r"tensor 'w': expected binary mask of Bernoulli.*0\.25.*got.*0\.5"
    ):
        other.check(frame)
    with pytest.raises(fm.FrameError, match="noise of 'w'"):
        other.aggregator().add(frame, 1)


@pytest.mark.parametrize("noise", [{"v": fm.Uniform(1.0)}, {**NOISES, "x": fm.Uniform(1.0)}])
def test_the_names_must_be_those_of_the_masked_tensors(noise):
    with pytest.raises(fm.ArgumentError, match="noise: expected one for each masked tensor"):
        of_two(noise)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["uniform:1"], "request entry 'noise': expected 2 texts, got a list of 1"),
        (["uniform:1", 3], "request entry 'noise': expected 2 texts, got a list of 2"),
        (["uniform:1", "cauchy:2"], "noise: expected NAME:SCALE"),
        ({"v": "uniform:1"}, "request entry 'noise': expected str or list, got dict"),
    ],
)
def test_bad_lists_of_noise_are_refused(entry, message):
    with pytest.raises(fm.CodecError, match=message):
        fm.Request.from_dict({**of_two().to_dict(), "noise": entry})

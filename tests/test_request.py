"""Requests: their travels, the frames that answer them, and those that do not."""

import dataclasses
import hashlib
import json

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
    "count": np.array(3),
}
REQUEST = fm.Request(2**64 - 1, fm.Uniform(0.01), "signed", 7, 2**63 + 1, SCHEMA)


def changed(**fields):
    return dataclasses.replace(REQUEST, **fields)


# Travels.


@pytest.mark.parametrize(
    "noise", [fm.Uniform(0.01), fm.Gaussian(1e-30), fm.Bernoulli(3e38), fm.Uniform(1 / 3)]
)
def test_plain_and_json_come_back_equal(noise):
    request = changed(noise=noise)
    assert fm.Request.from_dict(request.to_dict()) == request
    assert fm.Request.from_dict(json.loads(json.dumps(request.to_json()))) == request


def test_codings_travel_and_are_raw_where_they_are_not_named():
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
        ({"seed": None}, "entry 'seed': found NoneType, required: int or str"),
        ({"seed": 1.0}, "entry 'seed': found float"),
        ({"seed": "-1"}, "entry 'seed': found '-1', required: at most 20 decimal digits"),
        ({"seed": "9" * 5000}, "entry 'seed': found '999"),
        ({"seed": 2**64}, "seed: found 18446744073709551616, required: 0 to 2^64 - 1"),
        ({"base_model": "x"}, "entry 'base_model': found 'x'"),
        ({"round": "7"}, "entry 'round': found str, required: int"),
        ({"round": 2**32}, "round: found 4294967296"),
        ({"noise": "uniform"}, "noise: found 'uniform', required: NAME:SCALE"),
        ({"noise": 0.01}, "entry 'noise': found float"),
        ({"mask": "both"}, "mask: found 'both', required: one of binary, signed"),
        ({"coding": 1}, "entry 'coding': found int, required: str"),
        ({"coding": "float16"}, "coding: found 'float16', required: one of raw, rans"),
        ({"dense_coding": "rans"}, "dense_coding: found 'rans', required: one of raw, float16, bfloat16"),
        ({"schema": "text"}, "entry 'schema': found str, required: bytes or list"),
        ({"schema": [1]}, "schema: found TypeError"),
        ({"schema": b""}, "schema tensor count: found 0 bytes left"),
    ],
)
def test_damaged_entries_are_refused(entries, message):
    with pytest.raises(fm.CodecError) as caught:
        fm.Request.from_dict(REQUEST.to_dict() | entries)
    assert (
        str(caught.value)
        .replace(" at byte 0", "")
        .startswith(("request " * message.startswith("entry")) + message)
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": -1},
        {"noise": 0.01},
        {"mask": "both"},
        {"mask": ["binary"]},
        {"round": 1.5},
        {"schema": [SCHEMA]},
        {"coding": {"conv.weight": "rans"}},
    ],
)
def test_bad_requests_are_not_made(fields):
    with pytest.raises(fm.ArgumentError, match=f"^{next(iter(fields))}: found"):
        changed(**fields)


# Replies.


def test_its_frame_is_the_one_that_encode_makes():
    frame = REQUEST.encode(UPDATE, private_seed=5)
    options = {"mask": "signed", "round": 7, "base_model": 2**63 + 1, "private_seed": 5}
    assert frame == fm.encode(UPDATE, SCHEMA, seed=2**64 - 1, noise=fm.Uniform(0.01), **options)
    assert REQUEST.check(frame).seed == 2**64 - 1


@pytest.mark.parametrize("name", ["seed", "noise", "mask", "round", "base_model"])
def test_nothing_else_that_is_asked_for_gives_way(name):
    with pytest.raises(TypeError, match="multiple values"):
        REQUEST.encode(UPDATE, **{name: getattr(REQUEST, name)})


def test_codings_are_asked_for_and_not_insisted_on():
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
    ("fields", "code"),
    [
        ({"seed": 1}, "seed"),
        ({"round": 6}, "round"),
        ({"round": 0}, "round"),
        ({"base_model": 0}, "base_model"),
        ({"noise": fm.Uniform(0.02)}, "reply"),
        ({"noise": fm.Gaussian(0.01)}, "reply"),
        ({"mask": "binary"}, "reply"),
    ],
)
def test_frames_that_were_not_asked_for_are_refused(fields, code):
    with pytest.raises(fm.RefusedError) as caught:
        REQUEST.check(changed(**fields).encode(UPDATE))
    assert caught.value.code == code


def test_a_frame_of_another_schema_is_refused():
    schema = fm.Schema(reversed(SCHEMA.tensors))
    with pytest.raises(fm.FrameError) as caught:
        REQUEST.check(changed(schema=schema).encode(UPDATE))
    assert caught.value.code == "schema_mismatch"


def test_damage_is_found_in_the_last_byte_too():
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
    with pytest.raises(fm.ReplyError, match="'bias': found an update beyond its dtype"):
        REQUEST.check(frame, UPDATE | {"bias": np.full(8, largest, np.float32)})


@pytest.mark.parametrize("bias", [None, np.zeros(1, np.float32), np.zeros(8)])
def test_another_model_is_refused(bias):
    base = {name: array for name, array in (UPDATE | {"bias": bias}).items() if array is not None}
    with pytest.raises(fm.SchemaError, match="'bias'"):
        REQUEST.check(REQUEST.encode(UPDATE), base)


def test_its_aggregator_takes_the_rounds_frames_and_no_others():
    server = REQUEST.aggregator()
    server.add(changed(seed=1).encode(UPDATE), 10, seed=1)
    server.add(changed(seed=2).encode(UPDATE), 30, seed=2)
    for fields in ({"round": 6}, {"base_model": 1}, {"noise": fm.Uniform(1)}):
        with pytest.raises(fm.FrameError):
            server.add(changed(**fields).encode(UPDATE), 10)
    assert server.mean()["bias"].tobytes() == UPDATE["bias"].tobytes()


# Seeds.


def test_seeds_are_unpredictable_and_differ():
    seeds = {fm.choose_seed(None, 1, "a") for _ in range(100)}
    assert len(seeds) == 100
    assert max(seeds) > 2**60


def test_a_taken_seed_is_drawn_again(monkeypatch):
    numbers = iter([5, 6, 7])
    monkeypatch.setattr("fedmrn_codec.face.seeds.secrets.randbelow", lambda _: next(numbers))
    assert fm.choose_seed(None, 1, "a", {5, 6}) == 7


def test_derived_seeds():
    """The stated rule, worked out by hand."""
    digest = hashlib.sha256(b"fedmrn 5 3 site-1").digest()
    assert fm.choose_seed(5, 3, "site-1") == int.from_bytes(digest[:8], "little")
    with pytest.raises(fm.ArgumentError, match="round: found none"):
        fm.choose_seed(5, 0, "site-1")


def test_seeds_of_the_callers_choice():
    assert fm.choose_seed(lambda round, client: 100 * round + client, 2, 3) == 203
    with pytest.raises(fm.ArgumentError, match="seed: found 203, which another client of this round has"):
        fm.choose_seed(lambda round, client: 100 * round + client, 2, 3, {203})
    for bad in (-1, 2**64, 1.0, None):
        with pytest.raises(fm.ArgumentError, match=r"^seed: found"):
            fm.choose_seed(lambda *_, bad=bad: bad, 1, "a")

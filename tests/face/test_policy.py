"""Policies: each check with a frame that fails it alone, what is counted, TOML, and the cost of a refusal."""

import dataclasses
import json
import pickle
import re
import threading
import tracemalloc
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from face_cases import schemas
from hypothesis import given
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import errors
from fedmrn_codec.backends import automatic
from fedmrn_codec.face import terms as terms_module
from fedmrn_codec.format import checked as checked_module

SCHEMA = fm.Schema(
    [
        fm.Tensor("w", (64, 64), masked=True),
        fm.Tensor("b", (8,)),
        fm.Tensor("half", (2,), dtype="bfloat16"),
        fm.Tensor("n", (), dtype="int64"),
        fm.Tensor("flag", (3,), dtype="bool"),
    ]
)
NOISE = fm.Uniform(0.01)
DENSE = {
    "b": np.linspace(-0.5, 0.25, 8, dtype=np.float32),
    "half": np.array([0x3F80, 0xBF00], np.uint16),  # 1, -0.5
    "n": np.array(-3, np.int64),
    "flag": np.array([True, False, True]),
}
UPDATE = {"w": np.full((64, 64), 0.005, np.float32), **DENSE}
POLICY = fm.Policy(
    schema=SCHEMA, noise=NOISE, round=7, base_model=2**63 + 1, seeds={"ann": 5, "bob": 6}, max_weight=600
)
LENGTH = 48 + 16 + 512 + 12 + 32 + 12 + 4 + 12 + 8 + 12 + 3 + 4


def changed(**fields):
    return dataclasses.replace(POLICY, **fields)


def make(update=UPDATE, **options):
    settings = {"seed": 5, "noise": NOISE, "mask": "binary", "round": 7, "base_model": 2**63 + 1}
    return fm.encode(update, SCHEMA, **settings | options, private_seed=1)


def sparse(**options):
    """A frame whose mask has few set bits, so that an entropy coding is shorter."""
    settings = {"seed": 5, "noise": NOISE, "round": 7, "base_model": 2**63 + 1, "dense": DENSE}
    return fm.encode_bits({"w": np.arange(4096).reshape(64, 64) % 97 == 0}, SCHEMA, **settings | options)


def grid(step=2.0**-7, w=0, update=DENSE):
    given = update | {"w": np.full((64, 64), w, np.float32)}
    steps = {"w": step, "b": step, "half": step}
    return fm.encode_grid(given, SCHEMA, step=steps, seed=5, round=7, base_model=2**63 + 1, coding="raw")


FRAME = make()


def check(policy, frame, client="ann", weight=600, base=None):
    return policy.check(frame, client=client, weight=weight, base=base)


def refused(policy, frame, code, message, **options):
    """The frame is refused with this code and message, given as bytes or as a checked frame."""
    forms = [frame, fm.verify(frame, SCHEMA)] if code != "schema_mismatch" else [frame]
    for form in forms:
        with pytest.raises(fm.RefusedError) as caught:
            check(policy, form, **options)
        assert caught.value.code == code
        assert re.match(message, str(caught.value)), str(caught.value)


# What is accepted


def test_a_frame_is_parsed_once_and_can_be_added_and_decoded(monkeypatch):
    parsed = []
    parse = checked_module.parse
    monkeypatch.setattr(checked_module, "parse", lambda *a: parsed.append(1) or parse(*a))
    checked = check(POLICY, FRAME)
    assert isinstance(checked, fm.CheckedFrame)
    server = POLICY.aggregator()
    server.add(checked, 600)
    arrays = fm.decode(checked)
    assert check(POLICY, checked) is checked
    assert len(parsed) == 1
    assert arrays["b"].tobytes() == UPDATE["b"].tobytes()
    assert server.mean()["w"].tobytes() == fm.decode(FRAME, SCHEMA)["w"].tobytes()


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_any_buffer_is_checked(wrap):
    assert check(POLICY, wrap(FRAME)).seed == 5


def test_no_bytes_at_all_are_a_mistake_of_the_caller():
    with pytest.raises(fm.ArgumentError, match="frame: expected contiguous bytes, got str"):
        check(POLICY, "text")


def test_the_aggregator_states_noise_round_and_base_model():
    server = POLICY.aggregator(backend="numpy")
    for option in ({"noise": fm.Uniform(0.02)}, {"round": 8}, {"base_model": 1}):
        with pytest.raises(fm.FrameError):
            server.add(make(**option), 1)
    server.add(FRAME, 1)


def test_a_request_is_one_clients_part():
    request = POLICY.request("bob")
    assert request == fm.Request(6, NOISE, "binary", 7, 2**63 + 1, SCHEMA)
    check(POLICY, request.encode(UPDATE), client="bob")
    more = changed(codings=["raw", fm.Coding.RANS12, "float16"])
    request = more.request("bob", coding="rans12", dense_coding=fm.Coding.FLOAT16)
    assert (request.coding, request.dense_coding) == ("rans12", "float16")
    check(more, request.encode(UPDATE), client="bob")


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({}, {"coding": "rans"}, "coding: expected one of raw, got 'rans'"),
        ({}, {"dense_coding": "float16"}, "dense_coding: expected one of raw, got 'float16'"),
        ({"seeds": None}, {}, "seeds: expected a policy that states it, to make a request, got None"),
        (
            {"kinds": ["grid"], "step": 1},
            {},
            "noise: expected a policy that states it, to make a request, got None",
        ),
    ],
)
def test_a_request_needs_what_it_states(fields, options, message):
    with pytest.raises(fm.ArgumentError, match=f"^{re.escape(message)}$"):
        changed(**fields).request("bob", **options)


# Each check. The frame is valid, so that nothing but the one check can refuse it.


@pytest.mark.parametrize(
    ("fields", "frame", "code", "message"),
    [
        (
            {"max_bytes": LENGTH - 1},
            FRAME,
            "frame_length",
            f"frame: expected at most {LENGTH - 1} bytes, got",
        ),
        ({}, make(embed_schema=True), "frame_length", f"frame: expected at most {LENGTH} bytes, got"),
        (
            {"max_bytes": 10**4},
            make(embed_schema=True),
            "embedded_schema",
            r"flags, byte 6: expected bit 0 to be 0: no schema in the frame, got 1$",
        ),
        ({}, make(seed=6), "seed", "seed, byte 8: expected 5, got 6$"),
        ({}, make(round=0), "round", "round, byte 24: expected 7, got 0$"),
        ({}, make(base_model=0), "base_model", f"base_model, byte 16: expected {2**63 + 1}, got 0$"),
        ({"round": 0}, FRAME, "round", "round, byte 24: expected 0, got 7$"),
        ({"base_model": 0}, FRAME, "base_model", "base_model, byte 16: expected 0, got "),
        (
            {"schema": fm.Schema([*SCHEMA.tensors[:-1], fm.Tensor("other", (3,), dtype="bool")])},
            FRAME,
            "schema_mismatch",
            "schema digest, byte 32: expected ",
        ),
        (
            {},
            make(mask="signed"),
            "reply",
            "tensor 'w': expected binary mask of Uniform.*, got signed mask of",
        ),
        ({}, make(noise=fm.Uniform(0.02)), "reply", r"tensor 'w': expected .*=0\.0099.*, got .*=0\.0199"),
        (
            {},
            make(noise=fm.Gaussian(0.01)),
            "reply",
            "tensor 'w': expected binary mask of Uniform.*, got .*Gau",
        ),
        ({"noise": {"w": fm.Bernoulli(1)}}, FRAME, "reply", "tensor 'w': expected binary mask of Bernoulli"),
        ({}, sparse(coding="rans"), "reply_coding", "coding of 'w': expected one of raw, got rans$"),
        (
            {"codings": ["raw", "rans"]},
            sparse(coding="rans12"),
            "reply_coding",
            "coding of 'w': expected one of rans, raw, got rans12$",
        ),
        (
            {},
            make(dense_coding="float16"),
            "reply_coding",
            "coding of 'b': expected one of raw, got float16$",
        ),
        ({"max_bytes": 10**5}, grid(), "reply", "tensor 'w': expected binary mask of .*, got a grid$"),
        (
            {"max_bytes": 10**5, "kinds": ["mask", "grid"]},
            grid(),
            "reply",
            "tensor 'w': expected binary mask of .*, got a grid$",
        ),
        (
            {"kinds": ["grid"], "noise": None, "step": 2.0**-7},
            FRAME,
            "reply",
            "tensor 'w': expected a grid, got binary mask of",
        ),
        (
            {"kinds": ["grid"], "step": 0.5},
            grid(),
            "reply",
            r"step of 'w': expected 0\.5, got 0\.0078125$",
        ),
        (
            {"max_value": 0.99},
            FRAME,
            "value_bound",
            r"tensor 'half': expected magnitudes of at most 0\.99, got 1\.0$",
        ),
        (
            {"max_value": {"b": 0.49}},
            FRAME,
            "value_bound",
            r"tensor 'b': expected .* at most 0\.49, got 0\.5$",
        ),
        ({"max_value": {"n": 2}}, FRAME, "value_bound", "tensor 'n': expected .* at most 2, got 3$"),
        (
            {"kinds": ["grid"], "max_value": 2, "step": 2.0**-7},
            grid(w=-3),
            "value_bound",
            r"tensor 'w': expected magnitudes of at most 2, got 3\.0$",
        ),
        ({"max_norm": 1.1}, FRAME, "norm_bound", r"norm of the update: expected at most 1\.1, got "),
    ],
)
def test_each_check(fields, frame, code, message):
    refused(changed(**fields), frame, code, message)


def test_dense_tensors_are_sent_on_a_grid_only_if_that_is_allowed():
    schema = fm.Schema([fm.Tensor("b", (2,))])
    frame = fm.encode_grid({"b": np.ones(2, "f4")}, schema, step=0.5, coding="raw")
    settings = {"schema": schema, "noise": None, "round": 0, "base_model": 0, "seeds": None, "max_weight": 1}
    with pytest.raises(fm.ReplyError, match=r"^tensor 'b': expected elements, got a grid$"):
        fm.Policy(**settings, max_bytes=1000).check(frame, client=1, weight=1)
    fm.Policy(**settings, kinds=["grid"]).check(frame, client=1, weight=1)
    fm.Policy(**settings, kinds=["grid"], step=2).check(frame, client=1, weight=1)  # of masked tensors only
    elements = fm.encode({"b": np.ones(2, "f4")}, schema, seed=0, noise={}, mask={})
    fm.Policy(**settings, kinds=["grid"]).check(elements, client=1, weight=1)
    fm.Request(0, NOISE, "binary", 0, 0, schema).check(frame)  # a request does not state it


@pytest.mark.parametrize(
    ("fields", "frame"),
    [
        ({"max_bytes": LENGTH}, FRAME),
        ({"embedded": True}, make(embed_schema=True)),
        ({"mask": fm.MaskKind.SIGNED}, make(mask="signed")),
        ({"noise": {"w": NOISE}}, FRAME),
        ({"codings": ["raw", "rans"]}, sparse(coding="rans")),
        ({"codings": ["raw", "float16"]}, make(dense_coding="float16")),
        ({"kinds": ["mask", "grid"]}, FRAME),
        ({"kinds": ["grid"], "step": 2.0**-7}, grid()),
        ({"max_value": 1}, FRAME),
        ({"max_value": {"n": 3, "w": 1e-9, "flag": 1}}, FRAME),  # the noise bounds masks
        ({"kinds": ["grid"], "max_value": 3.0, "step": 2.0**-7}, grid(w=-3)),
        ({"max_norm": 1.5}, FRAME),
        ({"seeds": None}, make(seed=2**64 - 1)),
        ({"seeds": lambda round, client: 5 if (round, client) == (7, "ann") else 0}, FRAME),
        ({"seeds": 99}, make(seed=fm.choose_seed(99, 7, "ann"))),
    ],
)
def test_what_fits_is_accepted(fields, frame):
    assert check(changed(**fields), frame).round == 7


def test_the_default_length_is_that_of_raw_payloads():
    assert POLICY.frame_bytes == LENGTH == len(FRAME)
    embedding = changed(embedded=True)
    assert embedding.frame_bytes == len(make(embed_schema=True)) == LENGTH + 4 + len(SCHEMA.data)
    assert changed(kinds=["grid"], step=1).frame_bytes == len(grid())
    steps, half = 4 + 4, 4  # of two dense floats; an integer has 4 bytes, an element of `half` 2
    assert changed(kinds=["mask", "grid"]).frame_bytes == LENGTH + steps + half
    assert changed(max_bytes=9).frame_bytes == 9
    assert dataclasses.replace(embedding, embedded=False).frame_bytes == LENGTH


@given(schemas())
def test_no_honest_frame_is_longer(schema):
    update = {t.name: np.zeros(t.shape, t.type.numpy) for t in schema}
    policy = fm.Policy(schema=schema, noise=NOISE, round=1, base_model=0, seeds={"a": 3}, max_weight=1)
    frame = policy.request("a").encode(update)
    assert len(frame) == policy.frame_bytes
    policy.check(frame, client="a", weight=1)


@pytest.mark.parametrize(
    "weight", [0, -1, 601, 10**5000, 1.0, "600", None, True, [10**5000]], ids=lambda w: type(w).__name__
)
def test_weights(weight):
    message = "^weight: expected an integer from 1 to 600, got "
    with pytest.raises(errors.FrameWeightError, match=message) as caught:
        check(POLICY, FRAME, weight=weight)
    assert caught.value.code == "frame_weight"
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("weight", [1, 600, np.int64(600)])
def test_weights_in_range(weight):
    check(POLICY, FRAME, weight=weight)


@pytest.mark.parametrize("client", ["eve", None, 5, "x" * 10**5])
def test_clients_without_a_seed_are_refused(client):
    with pytest.raises(
        errors.UnknownClientError, match=r"^client: expected one that has a seed, got "
    ) as caught:
        check(POLICY, FRAME, client=client)
    assert caught.value.code == "unknown_client"
    assert len(str(caught.value)) < 600


def test_the_seed_is_that_of_the_client():
    with pytest.raises(errors.SeedError):
        check(POLICY, FRAME, client="bob")
    with pytest.raises(errors.SeedError):
        check(changed(seeds=99), FRAME)
    with pytest.raises(errors.SeedError):
        check(changed(seeds=lambda round, client: 4), FRAME)


def test_the_model_must_stay_finite():
    largest = np.finfo(np.float32).max
    frame = make(UPDATE | {"b": np.full(8, largest, np.float32)})
    base = {"b": np.zeros(8, np.float32), "half": np.zeros(2, np.uint16)}
    check(POLICY, frame, base=base)
    base["b"][3] = largest
    message = r"^tensor 'b': expected a finite sum with the base model, got a NaN or an infinity$"
    with pytest.raises(fm.ReplyError, match=message):
        check(POLICY, frame, base=base)


def test_the_norm_counts_masks_and_floats_and_survives_large_values():
    arrays = fm.decode(FRAME, SCHEMA)
    floats = [arrays["w"].astype(np.float64), DENSE["b"], np.array([1, -0.5])]
    norm = float(np.sqrt(sum(np.square(each, dtype=np.float64).sum() for each in floats)))
    assert norm > np.sqrt(float(np.square(DENSE["b"]).sum()) + 1.25) * 1.01  # the mask counts
    check(changed(max_norm=norm * (1 + 1e-9)), FRAME)
    with pytest.raises(errors.NormBoundError):
        check(changed(max_norm=norm * (1 - 1e-9)), FRAME)
    schema = fm.Schema([fm.Tensor("d", (2,), dtype="float64")])
    at_the_bound = fm.encode({"d": np.array([3.0, -4.0])}, schema, seed=0, noise={}, mask={})
    stated = {"schema": schema, "noise": None, "round": 0, "base_model": 0, "seeds": None, "max_weight": 1}
    fm.Policy(**stated, max_norm=5.0).check(at_the_bound, client=1, weight=1)
    schema = fm.Schema([fm.Tensor("d", (2,), dtype="float64")])
    policy = fm.Policy(
        schema=schema, noise=None, round=0, base_model=0, seeds=None, max_weight=1, max_norm=1e308
    )
    frame = fm.encode({"d": np.full(2, 1e300)}, schema, seed=1, noise=NOISE)
    with pytest.raises(errors.NormBoundError, match=r"got inf$"):
        policy.check(frame, client=1, weight=1)


def test_bounds_of_a_tensor_without_elements():
    schema = fm.Schema([fm.Tensor("d", (0, 2), dtype="float64")])
    policy = fm.Policy(
        schema=schema, noise=None, round=0, base_model=0, seeds=None, max_weight=1, max_value=1, max_norm=1
    )
    policy.check(fm.encode({"d": np.zeros((0, 2))}, schema, seed=1, noise=NOISE), client=1, weight=1)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "uint64"])
def test_magnitudes_are_exact_in_every_dtype(dtype):
    schema = fm.Schema([fm.Tensor("d", (3,), dtype=dtype)])
    extreme = {"float64": -1e300, "float16": -7.5, "int8": -128, "uint64": 2**64 - 1}[dtype]
    array = np.array([0, extreme, 1], schema.tensors[0].type.numpy)
    settings = {"schema": schema, "noise": None, "round": 0, "base_model": 0, "seeds": None, "max_weight": 1}
    frame = fm.encode({"d": array}, schema, seed=1, noise=NOISE)
    bound = abs(extreme)
    fm.Policy(**settings, max_value={"d": bound}).check(frame, client=1, weight=1)
    less = np.nextafter(bound, 0).item() if isinstance(extreme, float) else bound - 1
    with pytest.raises(errors.ValueBoundError, match=re.escape(f"got {bound}")):
        fm.Policy(**settings, max_value={"d": less}).check(frame, client=1, weight=1)


# The order: cheap checks first


def patched(frame, offset, value):
    """The frame with other bytes at an offset, and with the checksum that belongs to them."""
    body = bytearray(frame[:-4])
    body[offset : offset + len(value)] = value
    return bytes(body) + zlib.crc32(body).to_bytes(4, "little")


def test_cheap_checks_come_first(monkeypatch):
    """A frame that fails many checks is refused for the first, and no later work is done."""
    done = []
    for module, name in (
        (checked_module, "parse"),
        (checked_module, "check_checksum"),
        (terms_module, "decode_tensor"),
    ):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, real=real, name=name, **o: done.append(name) or real(*a, **o)
        )
    bad_flag = fm.inspect(FRAME, SCHEMA).tensors[4].offset
    all_bad = bytearray(patched(make(seed=6, mask="signed"), bad_flag, b"\x02"))
    all_bad[-1] ^= 1  # checksum
    strict = changed(max_norm=1e-9, max_value=1e-9)
    steps = [
        ({"max_bytes": 9}, {"client": "eve", "weight": 0}, "frame_length", []),
        ({}, {"client": "eve", "weight": 0}, "frame_weight", []),
        ({}, {"client": "eve"}, "unknown_client", []),
        ({}, {}, "seed", ["parse"]),
        ({}, {"client": "bob"}, "reply", ["parse"]),
        ({"mask": "signed"}, {"client": "bob"}, "checksum", ["parse", "check_checksum"]),
    ]
    for fields, options, code, work in steps:
        done.clear()
        with pytest.raises(fm.FrameError) as caught:
            check(dataclasses.replace(strict, **fields), all_bad, **options)
        assert (caught.value.code, done) == (code, work)
    all_bad[-1] ^= 1
    signed = dataclasses.replace(strict, mask="signed")
    with pytest.raises(errors.BoolError):
        check(signed, all_bad, client="bob")
    done.clear()
    with pytest.raises(errors.ValueBoundError):
        check(strict, FRAME)
    assert "decode_tensor" not in done
    with pytest.raises(errors.NormBoundError):
        check(dataclasses.replace(strict, max_value=None), FRAME, base={})
    assert done.count("decode_tensor") == 1 + 2  # the float tensors


def test_damage_is_found_in_every_part():
    for offset in (0, 5, 6, 9, 17, 25, 29, 33, 49, 51, 61, 70, 600, len(FRAME) - 1):
        bad = bytearray(FRAME)
        bad[offset] ^= 0x10
        with pytest.raises(fm.FrameError):
            check(POLICY, bad)


VECTORS = json.loads((Path(__file__).parents[2] / "spec" / "vectors" / "invalid.json").read_text())["cases"]


def number(value):
    return int(value, 0) if isinstance(value, str) else value


def peak(call):
    """The most memory that a call held, in bytes; a refusal is expected, or nothing."""
    tracemalloc.start()
    try:
        call()
    except fm.FrameError:
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most


def lenient(schema, **fields):
    """A policy that states nothing but the schema, and the noise of its masks."""
    stated = {"noise": NOISE, "round": 0, "base_model": 0, "seeds": None, "max_weight": 1, "max_bytes": 10**6}
    allowed = {"kinds": ["mask", "grid"], "codings": fm.Coding.labels()}
    return fm.Policy(schema=schema, **stated | allowed | fields)


def needed(schema, frame, **fields):
    """The peak of the check of an honest frame."""
    policy = lenient(schema, **fields)
    policy.check(frame, client=1, weight=1)  # fills the caches
    return peak(lambda: policy.check(frame, client=1, weight=1))


@cache
def of_length(length):
    """What an honest frame of at least this length needs."""
    schema = fm.Schema([fm.Tensor("w", (length,), dtype="uint8")])
    return needed(schema, fm.encode({"w": np.zeros(length, np.uint8)}, schema, seed=1, noise=NOISE))


@cache
def of_elements(count):
    """The most that honest frames of one tensor of this size need, in any coding."""
    schema = fm.Schema([fm.Tensor("w", (count,), masked=True)])
    bits, settings = {"w": np.zeros(count, bool)}, {"seed": 1, "noise": NOISE}
    frames = [fm.encode_bits(bits, schema, **settings, coding=coding) for coding in ("raw", "rans", "rans12")]
    grid = fm.encode_grid({"w": np.zeros(count, "f4")}, schema, step=1.0, coding="rans14")
    return max(needed(schema, grid, kinds=["grid"], step=1.0), *(needed(schema, frame) for frame in frames))


@pytest.fixture
def compiled(monkeypatch):
    """Numba from the first call on: its import and its compilation are no costs of a frame."""
    pytest.importorskip("numba")
    choose = lambda self, function, elements: automatic._module(self._compiled)  # noqa: E731
    monkeypatch.setattr(automatic.Automatic, "choose", choose)


SMALL = 2**14
"""Bytes that any refusal may take beside: an error, its text and its traceback."""


def policy_for(case, embedded):
    """A policy that demands what the frame of a case states, and whether the check of the case is reached.

    It is not reached if a frame has masks and grids of masked tensors, of which a policy allows one.
    """
    schema = fm.Schema(
        fm.Tensor(t["name"], tuple(map(number, t["shape"])), t["role"] == "masked", t["dtype"])
        for t in case["schema"]
    )
    frame, options = bytes.fromhex(case["frame"]), case["options"]
    own = {"round": frame[24:28], "base_model": frame[16:24]}
    fields = {name: int.from_bytes(raw, "little") for name, raw in own.items()}
    fields |= {name: number(options[name]) for name in own if name in options}
    if "seed" in options:
        fields["seeds"] = {1: number(options["seed"])}
    try:
        entries = fm.inspect(frame, schema).tensors
    except fm.FrameError:
        return lenient(schema, embedded=embedded, **fields), True
    masks = [entry.kind for entry in entries if entry.noise]
    masked = {t.name: entry for t, entry in zip(schema, entries, strict=True) if t.masked}
    if masked and not masks:
        step = {name: entry.step for name, entry in masked.items()}
        return lenient(schema, embedded=embedded, kinds=["grid"], step=step, **fields), True
    noise = {name: entry.noise or NOISE for name, entry in masked.items()}
    policy = lenient(schema, embedded=embedded, noise=noise, mask=(masks or ["binary"])[0], **fields)
    return policy, len(masks) == len(masked)


@pytest.mark.parametrize("embedded", [False, True])
def test_a_refused_frame_needs_no_more_memory_than_an_honest_one(embedded, compiled):
    codes = Counter()
    for case in VECTORS:
        if case["schema"] is None:
            continue
        frame, (policy, reached) = bytes.fromhex(case["frame"]), policy_for(case, embedded)
        with pytest.raises(fm.FrameError) as caught:
            policy.check(frame, client=1, weight=1)
        codes[caught.value.code in (case["code"], "embedded_schema")] += reached
        most = peak(lambda policy=policy, frame=frame: policy.check(frame, client=1, weight=1))
        elements = max((t.size for t in policy.schema if t.size < 2**17), default=0)
        honest = max(of_length(len(frame)), of_elements(elements))
        assert most <= 2 * honest + SMALL, case["id"]
    assert codes[True] > 9 * codes[False]  # nearly every case fails the check that it is made for


def test_hostile_frames_of_a_large_schema_need_no_more_memory_than_an_honest_one(compiled):
    count = 2**20
    schema = fm.Schema([fm.Tensor("w", (count,), masked=True), fm.Tensor("b", (4,))])
    policy = fm.Policy(
        schema=schema,
        noise=NOISE,
        round=1,
        base_model=0,
        seeds={"a": 3},
        max_weight=1,
        codings=["raw", "rans", "rans12"],
        max_value=1,
    )
    bits = {"w": np.arange(count) % 50 == 0}
    settings = {"seed": 3, "noise": NOISE, "round": 1}
    for coding in ("raw", "rans", "rans12"):
        frame = fm.encode_bits(bits, schema, dense={"b": np.zeros(4, "f4")}, coding=coding, **settings)
        policy.check(frame, client="a", weight=1)
        honest = peak(lambda frame=frame: policy.check(frame, client="a", weight=1))
        end = len(frame) - 4 - 16
        hostile = [
            frame[: len(frame) // 2],
            frame + bytes(5),
            b"FMRN" + bytes(len(frame) - 4),
            frame[:52] + b"\xff" * 8 + frame[60:],  # the length of the first payload
            frame[:-1] + bytes([frame[-1] ^ 1]),
            *([] if coding == "raw" else [patched(frame, end - 2, b"\xff\xff")]),
            patched(frame, end, np.float32(np.nan).tobytes()),
            patched(frame, end, np.float32(2).tobytes()),
            patched(frame, 6, b"\x01"),  # says that it carries a schema
        ]
        for bad in hostile:
            with pytest.raises(fm.FrameError):
                policy.check(bad, client="a", weight=1)
            assert peak(lambda bad=bad: policy.check(bad, client="a", weight=1)) <= 2 * honest + SMALL


def test_a_frame_that_is_too_long_costs_nothing():
    data = bytes(10**7)
    assert peak(lambda: check(POLICY, data)) < SMALL
    view = memoryview(data)
    assert peak(lambda: check(POLICY, view)) < SMALL


def test_an_embedded_schema_of_another_size_is_not_parsed():
    """Tensors as Python objects need much more memory than the bytes of a schema that names thousands."""
    schema = fm.Schema([fm.Tensor("x" * 60_000, (2,))])
    many = fm.Schema(fm.Tensor(f"{i:x}", (), dtype="bool") for i in range(5000))
    assert len(many.data) < len(schema.data)
    policy = fm.Policy(
        schema=schema, noise=None, round=0, base_model=0, seeds=None, max_weight=1, embedded=True
    )
    update = {t.name: np.zeros((), bool) for t in many}
    frame = fm.encode(update, many, seed=1, noise={}, mask={}, embed_schema=True)
    forged = patched(frame, 28, (1).to_bytes(4, "little"))  # it says that it has one tensor
    for bad in (frame, forged):
        with pytest.raises(errors.LimitError):
            dataclasses.replace(policy, max_bytes=10**6).check(bad, client=1, weight=1)
    longer = fm.Schema([fm.Tensor("x" * 60_001, (2,))])
    frame = fm.encode({"x" * 60_001: np.zeros(2, "f4")}, longer, seed=1, noise={}, mask={}, embed_schema=True)
    with pytest.raises(errors.LimitError, match="schema length"):
        dataclasses.replace(policy, max_bytes=10**6).check(frame, client=1, weight=1)
    strict = dataclasses.replace(policy, limits=fm.Limits(max_schema_bytes=9))
    frame = fm.encode({"x" * 60_000: np.zeros(2, "f4")}, schema, seed=1, noise={}, mask={}, embed_schema=True)
    policy.check(frame, client=1, weight=1)
    with pytest.raises(errors.LimitError, match="schema length"):
        strict.check(frame, client=1, weight=1)


def test_the_limits_hold():
    with pytest.raises(errors.LimitError):
        check(changed(limits=fm.Limits(max_tensors=4)), FRAME)
    assert changed(limits=fm.Limits(max_tensors=4)).request("ann").limits == fm.Limits(max_tensors=4)


# Intake


def test_each_client_and_each_seed_once():
    intake = fm.Intake(POLICY)
    assert intake.accept("ann", FRAME, 600).seed == 5
    with pytest.raises(
        errors.RepeatedError, match=r"^client: expected one .* before in this round, got ann$"
    ):
        intake.accept("ann", FRAME, 600)
    intake.accept("bob", make(seed=6), 1)
    assert intake.accepted == ["ann", "bob"]
    assert intake.refused == {"repeated": 1}


@pytest.mark.parametrize("seeds", [None, lambda round, client: 5])
def test_a_seed_is_accepted_once_whoever_sends_it(seeds):
    intake = fm.Intake(changed(seeds=seeds))
    intake.accept("ann", FRAME, 1)
    with pytest.raises(errors.RepeatedError, match=r"^seed: expected one .* before in this round, got 5$"):
        intake.accept("bob", FRAME, 1)
    assert intake.accepted == ["ann"]
    with pytest.raises(errors.RepeatedError, match=r"^seed"):  # not "client": bob was not accepted
        intake.accept("bob", FRAME, 1)


def test_an_interrupt_after_a_frame_was_accepted_does_not_free_its_client():
    class Interrupting(list):
        def append(self, client):
            super().append(client)
            raise KeyboardInterrupt

    intake = fm.Intake(POLICY)
    intake.accepted = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        intake.accept("ann", FRAME, 1)
    assert intake.accepted == ["ann"]
    with pytest.raises(errors.RepeatedError, match=r"^client: "):
        intake.accept("ann", FRAME, 1)


def test_seeds_of_frames_without_masks_are_not_compared():
    intake = fm.Intake(changed(kinds=["grid"], seeds=None, step=2.0**-7))
    intake.accept("ann", grid(), 1)
    intake.accept("bob", grid(), 1)
    assert intake.accepted == ["ann", "bob"]


def test_refusals_are_counted_by_code_and_change_nothing():
    intake = fm.Intake(POLICY)
    bad = bytearray(FRAME)
    bad[-1] ^= 1
    refusals = [
        ("ann", bad, 600, "checksum"),
        ("ann", bad, 600, "checksum"),
        ("ann", FRAME, 601, "frame_weight"),
        ("eve", FRAME, 600, "unknown_client"),
        ("bob", FRAME, 600, "seed"),
        ("ann", FRAME[:40], 600, "truncated"),
    ]
    for client, frame, weight, code in refusals:
        with pytest.raises(fm.FrameError) as caught:
            intake.accept(client, frame, weight)
        assert caught.value.code == code
    assert intake.refused == {
        "checksum": 2,
        "frame_weight": 1,
        "unknown_client": 1,
        "seed": 1,
        "truncated": 1,
    }
    assert intake.accepted == []
    intake.accept("ann", FRAME, 600)


def test_mistakes_of_the_server_are_not_counted():
    intake = fm.Intake(POLICY)
    with pytest.raises(fm.SchemaError):
        intake.accept("ann", FRAME, 1, base={})
    with pytest.raises(fm.ArgumentError):
        intake.accept("ann", "text", 1)
    assert not intake.refused
    intake.accept("ann", FRAME, 1, base={"b": np.zeros(8, np.float32), "half": np.zeros(2, np.uint16)})
    with pytest.raises(fm.ArgumentError, match=r"^policy: expected a Policy, got dict$"):
        fm.Intake({})


def test_of_many_frames_at_once_one_is_accepted():
    intake, barrier, outcomes = fm.Intake(POLICY), threading.Barrier(8), []

    def send():
        barrier.wait()
        try:
            outcomes.append(intake.accept("ann", FRAME, 1))
        except errors.RepeatedError:
            outcomes.append(None)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(outcome is not None for outcome in outcomes) == 1
    assert intake.refused == {"repeated": 7}


def test_a_client_is_taken_while_its_frame_is_checked():
    """A second frame of the same client that arrives meanwhile is refused at once."""
    inner = []

    class Base(dict):
        def __contains__(self, name):
            with pytest.raises(errors.RepeatedError):
                intake.accept("ann", FRAME, 1)
            inner.append(name)
            return super().__contains__(name)

    intake = fm.Intake(POLICY)
    intake.accept("ann", FRAME, 1, base=Base(b=np.zeros(8, np.float32), half=np.zeros(2, np.uint16)))
    assert inner
    assert intake.accepted == ["ann"]


# The policy itself


def test_it_is_immutable():
    seeds, noise, bounds = {"ann": 5}, {"w": NOISE}, {"b": 1}
    policy = changed(seeds=seeds, noise=noise, max_value=bounds, kinds=["mask"], codings={"raw"})
    seeds["eve"], noise["w"], bounds["b"] = 9, fm.Uniform(1), 1e-9
    assert policy == changed(seeds={"ann": 5}, noise={"w": NOISE}, max_value={"b": 1})
    check(policy, FRAME)
    for name in ("round", "seeds", "max_weight"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(policy, name, 1)
    assert pickle.loads(pickle.dumps(policy)) == policy


@pytest.mark.parametrize("name", ["schema", "noise", "round", "base_model", "seeds", "max_weight"])
def test_what_a_server_must_state(name):
    given = {field.name: getattr(POLICY, field.name) for field in dataclasses.fields(POLICY)}
    del given[name]
    with pytest.raises(TypeError, match=name):
        fm.Policy(**given)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema": []}, "schema: expected a Schema, got list"),
        ({"noise": 0.01}, "noise: expected Uniform, Gaussian or Bernoulli, got 0.01"),
        ({"noise": None}, "noise: expected Uniform, Gaussian or Bernoulli, got None"),
        (
            {"noise": {"v": NOISE}},
            "noise: expected one for each masked tensor, got ['v', 'w'] missing or unknown",
        ),
        ({"mask": "both"}, "mask: expected one of binary, signed, got 'both'"),
        ({"round": 2**32}, "round: expected 0 to 2^32 - 1, got 4294967296"),
        ({"base_model": -1}, "base_model: expected 0 to 2^64 - 1, got -1"),
        ({"seeds": "ann"}, "seeds: expected a mapping, an integer or a callable, got 'ann'"),
        ({"seeds": True}, "seeds: expected a mapping, an integer or a callable, got True"),
        ({"seeds": {"ann": 2**64}}, "seed of 'ann': expected 0 to 2^64 - 1, got 18446744073709551616"),
        (
            {"seeds": {"ann": 1, "bob": 1}},
            "seeds: expected a different one for each client, got one of several",
        ),
        ({"seeds": 5, "round": 0}, "round: expected at least 1, since the seeds are derived from it, got 0"),
        ({"max_weight": 0}, "max_weight: expected an integer from 1 to 549755813887, got 0"),
        ({"max_weight": 2**39}, "max_weight: expected an integer from 1 to 549755813887, got 549755813888"),
        ({"max_weight": 1.5}, "max_weight: expected an integer from 1 to 549755813887, got 1.5"),
        ({"kinds": "mask"}, "kinds: expected a collection of mask, grid, got 'mask'"),
        ({"kinds": []}, "kinds: expected a collection of mask, grid, got []"),
        ({"kinds": ["mask", "dense"]}, "kinds: expected a collection of mask, grid, got ['mask', 'dense']"),
        ({"kinds": ["grid"]}, "step: expected that of masked tensors on a grid, got None"),
        ({"kinds": 3}, "kinds: expected a collection of mask, grid, got 3"),
        (
            {"codings": ["zip"]},
            "codings: expected a collection of raw, rans, float16, bfloat16, rans12, rans14, got",
        ),
        ({"step": 0.3}, "step: expected a power of two from 2^-126 to 2^104, got 0.3"),
        ({"step": {"b": 1}}, "step: expected one for each masked tensor, got ['b', 'w'] missing or unknown"),
        ({"step": {"w": 3}}, "step: expected a power of two from 2^-126 to 2^104, got 3"),
        ({"step": -1}, "step: expected a positive finite number, got -1"),
        ({"embedded": 1}, "embedded: expected a bool, got 1"),
        ({"max_bytes": 0}, "max_bytes: expected an integer from 1 to 18446744073709551615, got 0"),
        ({"max_value": 0}, "max_value: expected a positive finite number, got 0"),
        ({"max_value": {"x": 1}}, "max_value: expected names of the schema, got ['x']"),
        ({"max_value": {"b": "1"}}, "max_value of 'b': expected a positive finite number, got 1"),
        ({"max_norm": float("nan")}, "max_norm: expected a positive finite number, got nan"),
        ({"max_norm": float("inf")}, "max_norm: expected a positive finite number, got inf"),
        ({"max_norm": True}, "max_norm: expected a positive finite number, got True"),
        ({"max_norm": 0.0}, "max_norm: expected a positive finite number, got 0.0"),
        ({"limits": 3}, "limits: expected a Limits, got int"),
    ],
)
def test_bad_policies_are_refused(fields, message):
    with pytest.raises(fm.ArgumentError, match=f"^{re.escape(message)}"):
        changed(**fields)


# TOML

FULL = changed(
    seeds={"ann": 2**64 - 1, 'b "q" \\ é \x7f': 6},
    noise={"w": fm.Gaussian(1 / 3)},
    mask="signed",
    kinds=["mask", "grid"],
    codings=["raw", "rans12"],
    step={"w": 2.0**-20},
    embedded=True,
    max_bytes=12345,
    max_value={"b": 0.5, "n": 40},
    max_norm=np.float64(12.5),
    limits=fm.Limits(max_tensors=9),
)


@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        FULL,
        changed(seeds=None),
        changed(seeds=-3),
        changed(kinds=["grid"], max_value=2.5, step=np.float32(0.5)),
    ],
)
def test_toml_comes_back_equal(policy, tmp_path):
    text = policy.to_toml()
    assert fm.Policy.from_toml(text) == policy
    (tmp_path / "policy.toml").write_text(text, encoding="utf-8")
    assert fm.Policy.from_toml(tmp_path / "policy.toml") == policy
    assert fm.Policy.from_toml(str(tmp_path / "policy.toml")) == policy


@given(schemas(), st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(0, 2**64 - 1)))
def test_toml_of_any_names(schema, seeds):
    seeds = {client: seed for seed, client in {seed: client for client, seed in seeds.items()}.items()}
    noise = {t.name: NOISE for t in schema if t.masked}
    policy = fm.Policy(schema=schema, noise=noise, round=1, base_model=2, seeds=seeds, max_weight=3)
    assert fm.Policy.from_toml(policy.to_toml()) == policy


MINIMAL = """
round = 7
base_model = 0x10
seeds = "any"
max_weight = 600
noise = "uniform:0.01"

[[schema]]
name = "w"
shape = [64, 64]
masked = true
"""


def test_a_policy_of_hand_has_the_strict_defaults():
    schema = fm.Schema([fm.Tensor("w", (64, 64), masked=True)])
    own = fm.Policy(schema=schema, noise=NOISE, round=7, base_model=16, seeds=None, max_weight=600)
    assert fm.Policy.from_toml(MINIMAL) == own


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("round", "rounds", "keys of the policy: expected some of schema, noise, mask, round, "),
        (
            "round = 7",
            "",
            "policy: expected the keys schema, round, base_model, seeds, max_weight, got nothing for 'round'",
        ),
        (
            'seeds = "any"',
            "",
            "policy: expected the keys schema, round, base_model, seeds, max_weight, got nothing for ",
        ),
        ('seeds = "any"', 'seeds = "all"', "seeds: expected an integer, or one as text, got all"),
        ('seeds = "any"', "seeds = {a = 1.5}", "seed of 'a': expected an integer, or one as text, got 1.5"),
        ("0x10", "true", "base_model: expected an integer, or one as text, got True"),
        ("0x10", "[]", "base_model: expected an integer, or one as text, got []"),
        ("0x10", f'"{"9" * 5000}"', "base_model: expected an integer, or one as text, got 999"),
        ("600", "600.0", "max_weight: expected an integer from 1 to "),
        ('"uniform:0.01"', "0.01", "noise: expected str, got float"),
        ('"uniform:0.01"', '"uniform"', "noise: expected NAME:SCALE"),
        ('"uniform:0.01"', "{w = 1}", "noise: expected str, got int"),
        ('noise = "uniform:0.01"', "", "noise: expected Uniform, Gaussian or Bernoulli, got None"),
        ("round", 'schema = "w"\nround', "policy: expected TOML, got TOMLDecodeError: "),
        ("round = 7", "round = ", "policy: expected TOML, got TOMLDecodeError: "),
        ("masked", "mask", "schema: expected a list of {name, shape, masked, dtype}, got TypeError: "),
        ("\nround", "\nlimits = 3\nround", "limits: expected dict, got int"),
        ("\nround", "\nlimits = {max = 3}\nround", "keys of the limits: expected some of max_tensors, "),
        ("\nround", '\nlimits = {max_tensors = "3"}\nround', "max_tensors: expected an integer of 0 or more"),
        ("\nround", "\nembedded = 1\nround", "embedded: expected a bool, got 1"),
        ("\nround", '\nkinds = "mask"\nround', "kinds: expected a collection of mask, grid, got 'mask'"),
        ("\nround", "\nkinds = [[1]]\nround", "kinds: expected a collection of mask, grid, got [[1]]"),
        ("\nround", f"\nkinds = {'[' * 5000}\nround", "policy: expected TOML, got "),
    ],
)
def test_bad_toml_is_refused(old, new, message):
    with pytest.raises(fm.ArgumentError, match=f"^{re.escape(message)}"):
        fm.Policy.from_toml(MINIMAL.replace(old, new, 1))


def test_toml_that_is_no_text_or_no_file(tmp_path):
    (tmp_path / "policy.toml").write_bytes(b"\xff\n")
    with pytest.raises(fm.ArgumentError, match=r"^policy: expected TOML, got UnicodeDecodeError: "):
        fm.Policy.from_toml(tmp_path / "policy.toml")
    with pytest.raises(FileNotFoundError):
        fm.Policy.from_toml("missing.toml")


@pytest.mark.parametrize("seeds", [lambda round, client: 1, {5: 1}], ids=["callable", "number"])
def test_seeds_that_toml_cannot_hold(seeds):
    with pytest.raises(
        fm.ArgumentError, match=r"^seeds: expected an integer, or a mapping of text to integers, got"
    ):
        changed(seeds=seeds).to_toml()

"""The server's model on its way to the clients: fm.Downlink and fm.Replica."""

import hashlib
import io
import json
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import errors


def model(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(0, 0.05, (40, 30)).astype("f4"),
        "bias": np.zeros(7, "f4"),
        "half": rng.normal(0, 1, 5).astype("f2"),
        "wide": rng.normal(0, 1, (2, 3)),
        "count": np.array(3),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), "f4"),
    }


SCHEMA = fm.schema_of(model(), masked=["w", "none"])


def changed(held, rng, size=0.003):
    out = {}
    for name, array in held.items():
        if array.dtype.kind == "f":
            out[name] = (array + rng.normal(0, size, array.shape)).astype(array.dtype)
        else:
            out[name] = ~array if array.dtype == bool else np.asarray(array - 1)
    return out


def same(one, other):
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_clients_that_come_and_go_hold_the_servers_model():
    rng, server = np.random.default_rng(1), model()
    down = fm.Downlink(SCHEMA, server, keep=6)
    replicas = [fm.Replica(SCHEMA) for _ in range(6)]
    plain = [None] * 6
    for number in range(50):
        for i, replica in enumerate(replicas):
            if rng.random() < (0.1 if i == 5 else 0.4):
                held, base = replica.model_id, None if not replica.model_id else plain[i]
                frame = down.frame(held)
                assert replica.apply(frame, down.model_id) is replica.model
                if fm.inspect(frame).base_model == 0:
                    base = {name: np.zeros_like(array) for name, array in down.model.items()}
                plain[i] = fm.apply(base, fm.decode(frame, SCHEMA), SCHEMA)  # plain additions, in floats
                assert same(plain[i], down.model)
                assert same(replica.model, down.model)
        server = changed(server, rng)
        down.advance(server)
        if number % 10 == 5:
            down = fm.Downlink.from_bytes(down.to_bytes(), SCHEMA)
            replicas[0].apply(replicas[0].to_bytes()) if replicas[0].model_id else None
    assert len(down.versions) == 6


def test_a_restored_downlink_sends_the_same_bytes():
    rng, server = np.random.default_rng(2), model()
    down = fm.Downlink(SCHEMA, server)
    for _ in range(5):
        server = changed(server, rng)
        down.advance(server)
    again = fm.Downlink.from_bytes(down.to_bytes(), SCHEMA)
    server = changed(server, rng)
    for each in (down, again):
        each.advance(server)
    assert again.versions == down.versions
    for have in (None, 0, 1, down.model_id, *down.versions):
        assert again.frame(have) == down.frame(have)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1e-3, 0.1]), st.sampled_from([None, 2.0**-6]))
def test_the_rounding_error_does_not_build_up(seed, size, step):
    schema = fm.Schema([fm.Tensor("w", (50,), masked=True)])
    rng = np.random.default_rng(seed)
    server = rng.normal(0, 0.05, 50).astype("f4")
    down = fm.Downlink(schema, {"w": server}, step=step, keep=1, backend="numpy")
    for _ in range(200):
        server = server + rng.normal(0, size, 50).astype("f4")
        down.advance({"w": server})
        assert np.abs(down.model["w"] - server).max() <= down.steps["w"] / 2


def test_steps_follow_what_rounds_change():
    schema = fm.Schema([fm.Tensor("w", (10_000,), masked=True)])
    rng = np.random.default_rng(3)
    server = rng.normal(0, 0.05, 10_000).astype("f4")
    down = fm.Downlink(schema, {"w": server})
    assert down.steps["w"] == 2**-8
    up = (0.0005, 2**-9), (0.0005, 2**-9), (0.0009, 2**-9), (0.0011, 2**-8)  # 0.00098 asks for twice the step
    down_again = (0.00075, 2**-8), (0.0006, 2**-9)  # 0.00069 asks for a step below by half a doubling
    small = (*up, *down_again, (0.00012, 2**-11), (0.00018, 2**-11), (0.0012, 2**-8))
    for size, expected in (*small, (0.05, 2**-6), (0.0, 2**-6)):
        server = server + rng.normal(0, size, 10_000).astype("f4")
        down.advance({"w": server})
        assert down.steps["w"] == expected


def test_a_step_is_at_most_the_power_of_two_nearest_to_a_quarter_of_the_weights():
    schema = fm.Schema([fm.Tensor("w", (10_000,), masked=True)])
    rng = np.random.default_rng(5)
    for size, expected in ((0.1, 2**-5), (0.08, 2**-6)):
        down = fm.Downlink(schema, {"w": rng.normal(0, size, 10_000).astype("f4")})
        down.advance({"w": rng.normal(0, size, 10_000).astype("f4")})  # another model of this size
        assert down.steps["w"] == expected


def test_vectors_have_the_smallest_step_that_has_held_them():
    schema = fm.Schema([fm.Tensor("variance", (300,)), fm.Tensor("w", (20, 30))])
    rng = np.random.default_rng(4)
    variance = np.geomspace(1e-4, 1, 300).astype("f4")
    down = fm.Downlink(schema, {"variance": variance, "w": rng.normal(0, 1, (20, 30)).astype("f4")})
    clients = [fm.Replica(schema) for _ in range(2)]
    for client in clients:
        client.apply(down.frame())
    for factor, exponent in ((1, -22), (0.3, -22), (0.001, -22), (1.5, -22)):
        down.advance({"variance": variance * np.float32(factor), "w": down.model["w"]})
        assert down.steps["variance"] == 2.0**exponent
        error = np.abs(down.model["variance"] - variance * np.float32(factor)).max()
        assert error <= 2.0 ** (exponent - 1)
        clients[0].apply(down.frame(clients[0].model_id), down.model_id)
    assert fm.inspect(down.frame(clients[1].model_id)).base_model == clients[1].model_id
    clients[1].apply(down.frame(clients[1].model_id), down.model_id)
    down.advance({"variance": variance * np.float32(100), "w": down.model["w"]})
    assert down.steps["variance"] == 2.0**-16
    for client in clients:  # grown beyond what a difference can express: the whole model
        client.apply(down.frame(client.model_id), down.model_id)
    assert down.steps["w"] == 2**-3


def test_dense_vectors_keep_all_the_bits_that_a_grid_has():
    """What a client sends of running statistics depends little on what it received: no step may follow it."""
    schema = fm.Schema([fm.Tensor("w", (50,), masked=True), fm.Tensor("var", (50,))])
    rng = np.random.default_rng(6)
    server = {"w": rng.normal(0, 0.05, 50).astype("f4"), "var": np.ones(50, "f4")}
    down, ever = fm.Downlink(schema, server), 0.0
    for number in range(8):
        held, before = down.model, down.model_id
        ever = max(ever, float(np.abs(server["var"]).max()))
        assert np.abs(held["var"] - server["var"]).max() <= ever * 2.0**-23
        trained = rng.uniform(0.01, 0.05, 50).astype("f4")
        server = {
            "w": server["w"] + rng.normal(0, 0.01, 50).astype("f4"),
            "var": server["var"] + (trained - held["var"]),
        }
        down.advance(server)
        assert np.abs(server["var"] - trained).max() < 1e-6, number
        assert fm.inspect(down.frame(before)).base_model == before  # the step did not fall


def test_a_round_that_changes_nothing_keeps_the_version():
    down = fm.Downlink(SCHEMA, model())
    before, frame = down.model_id, down.frame()
    assert down.advance(model()) == before
    assert down.versions == []
    assert down.frame() == frame


def test_the_frame_for_the_present_version_is_all_zeros():
    down = fm.Downlink(SCHEMA, model())
    arrays = fm.decode(down.frame(down.model_id), SCHEMA, base_model=down.model_id)
    assert not any(array.any() for array in arrays.values())


def test_a_model_that_returns_to_a_former_version():
    down = fm.Downlink(SCHEMA, model(), step=2.0**-9)
    ids = [down.model_id]
    for seed in (1, 2, 0, 3):
        ids.append(down.advance(model(seed)))
    assert ids[3] == ids[0]
    assert down.versions == ids[1:4]
    for seed in range(3):
        replica = fm.Replica(SCHEMA)
        replica.apply(fm.Downlink(SCHEMA, model(seed), step=2.0**-9).frame())
        assert replica.model_id == ids[seed]
        frame = down.frame(replica.model_id)
        assert fm.inspect(frame).base_model == replica.model_id
        replica.apply(frame, down.model_id)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("w", np.nan, errors.UpdateNonFiniteError),
        ("bias", np.inf, errors.UpdateNonFiniteError),
        ("w", 3e5, errors.UpdateGridError),
        ("half", 6e4, errors.UpdateGridError),
    ],
)
def test_a_model_that_does_not_fit_changes_nothing(name, value, error):
    down = fm.Downlink(
        SCHEMA, model(), step=dict.fromkeys(("w", "bias", "half", "wide", "none"), 2.0 ** (-9))
    )
    down.advance(model(1))
    before = down.to_bytes()
    bad = model(2)
    bad[name].reshape(-1)[2] = value
    with pytest.raises(error, match=name):
        down.advance(bad)
    for wrong in ({}, model() | {"w": np.zeros(3, "f4")}, model() | {"half": np.zeros(5, "f4")}):
        with pytest.raises(errors.SchemaError):
            down.advance(wrong)
    assert down.to_bytes() == before


def test_large_values_raise_the_step_rather_than_fail():
    down = fm.Downlink(SCHEMA, model())
    grown = {n: (a * 1e4 if a.dtype in ("f4", "f8") else a).astype(a.dtype) for n, a in model(1).items()}
    grown["half"] = np.full(5, 6e4, "f2")
    replica = fm.Replica(SCHEMA)
    replica.apply(down.frame())
    down.advance(grown)
    replica.apply(down.frame(replica.model_id), down.model_id)
    assert same(replica.model, down.model)


def test_a_replica_refuses_what_is_not_for_it_and_stays_as_it_is():
    rng, server = np.random.default_rng(4), model()
    down = fm.Downlink(SCHEMA, server)
    replica = fm.Replica(SCHEMA)
    with pytest.raises(fm.ArgumentError, match="a frame of the whole model"):
        _ = replica.model
    replica.apply(down.frame(), down.model_id)
    first = replica.model_id
    down.advance(changed(server, rng))
    second = down.model_id
    down.advance(changed(server, rng))
    with pytest.raises(errors.BaseModelError, match="base_model"):
        replica.apply(down.frame(second))
    with pytest.raises(errors.BaseModelError, match="id of the new model"):
        replica.apply(down.frame(first), second)
    damaged = bytearray(down.frame(first))
    damaged[-10] ^= 1
    with pytest.raises(errors.FrameError):
        replica.apply(damaged)
    mask = fm.encode(fm.difference(server, server, SCHEMA), SCHEMA, seed=1, noise=fm.Uniform(1))
    with pytest.raises(errors.KindMismatchError):
        replica.apply(mask)
    assert replica.model_id == first
    replica.apply(down.frame(first), down.model_id)


def test_a_replica_of_a_model_whose_masked_tensors_are_float16():
    half = {"w": np.random.default_rng(5).normal(0, 1, (20, 20)).astype("f2")}
    schema = fm.schema_of(half)
    down = fm.Downlink(schema, half)
    replica = fm.Replica(schema, half)
    assert replica.apply(down.frame(), down.model_id)["w"].dtype == np.float16
    down.advance({"w": half["w"] * np.float16(0.5)})
    replica.apply(down.frame(replica.model_id), down.model_id)
    assert np.abs(replica.model["w"] - half["w"] * 0.5).max() <= down.steps["w"] / 2


def test_the_model_id_is_that_of_the_text():
    arrays = {"é": np.array([[1.5, -2]], "f4"), "n": np.array(7, ">i8"), "b": np.array([0x3F80], "u2")}
    schema = fm.Schema(
        [fm.Tensor("é", (1, 2)), fm.Tensor("n", (), dtype="int64"), fm.Tensor("b", (1,), dtype="bfloat16")]
    )
    data = struct.pack("<H", 2) + "é".encode() + bytes([1, 2]) + struct.pack("<QQff", 1, 2, 1.5, -2)
    data += struct.pack("<H", 1) + b"n" + bytes([8, 0]) + struct.pack("<q", 7)
    data += struct.pack("<H", 1) + b"b" + bytes([4, 1]) + struct.pack("<QH", 1, 0x3F80)
    assert fm.model_id(arrays, schema) == int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
    assert fm.model_id(arrays) != fm.model_id(arrays, schema)


@pytest.mark.parametrize("data", [b"", b"PK", fm.Downlink(SCHEMA, model()).frame()])
def test_bytes_that_are_no_state(data):
    with pytest.raises(fm.ArgumentError, match="downlink state"):
        fm.Downlink.from_bytes(data, SCHEMA)


def test_steps_of_bfloat16_are_those_of_its_values():
    """They follow the elements, not the integers that hold the bits of bfloat16."""
    schema = fm.Schema([fm.Tensor("b", (50, 4), dtype="bfloat16"), fm.Tensor("v", (50,), dtype="bfloat16")])
    rng = np.random.default_rng(1)

    def bits(values):
        return (values.astype("f4").view("u4") >> 16).astype("u2")

    def values(bits):
        return (bits.astype("u4") << 16).view("f4")

    server = {"b": bits(rng.normal(0, 0.1, (50, 4))), "v": bits(rng.normal(0, 0.1, 50))}
    down = fm.Downlink(schema, server, backend="numpy")
    for _ in range(4):
        server = {name: bits(values(array) + 0.01) for name, array in server.items()}
        down.advance(server)
        for name, array in server.items():
            assert down.steps[name] <= 2.0**-5
            assert np.abs(values(down.model[name]) - values(array)).max() <= down.steps[name] / 2


FLOATS = [tensor.name for tensor in SCHEMA if tensor.type.is_float]


def state_with(**changes):
    """The bytes of a downlink whose JSON has been changed."""
    with np.load(io.BytesIO(fm.Downlink(SCHEMA, model()).to_bytes())) as file:
        arrays = {name: file[name] for name in file.files}
    about = json.loads(arrays["about"].tobytes()) | changes
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2}, {"dtypes": {}}, {"dtypes": 7}, {"dtypes": dict.fromkeys(FLOATS, "int8")},
        {"dtypes": dict.fromkeys(FLOATS, "float64")}, {"keep": -1}, {"keep": None}, {"fixed": {}},
        {"fixed": dict.fromkeys(FLOATS, 900)}, {"errors": {}}, {"errors": None},
        {"errors": dict.fromkeys(FLOATS, -1.0)}, {"errors": dict.fromkeys(FLOATS, 10**400)},
        {"history": {"a": 1}}, {"history": [1]}, {"history": None},
    ],
)  # fmt: skip
def test_a_changed_state_is_refused(changes):
    assert fm.Downlink.from_bytes(state_with(), SCHEMA)
    with pytest.raises(fm.ArgumentError, match="downlink state"):
        fm.Downlink.from_bytes(state_with(**changes), SCHEMA)


def test_a_state_takes_no_more_memory_than_it_has_bytes():
    data = fm.Downlink(SCHEMA, model()).to_bytes()
    with np.load(io.BytesIO(data)) as file:
        arrays = {name: file[name] for name in file.files}
    compressed = io.BytesIO()
    np.savez_compressed(compressed, **arrays)
    with pytest.raises(fm.ArgumentError, match="'about' is compressed"):
        fm.Downlink.from_bytes(compressed.getvalue(), SCHEMA)
    for header, reason in (
        ({"descr": "|u1", "fortran_order": False, "shape": (2**46,)}, "bytes, and says uint8"),
        ({"descr": "<f8", "fortran_order": False, "shape": (1,)}, "bytes, and says float64"),
    ):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as file:
                    if name == "frame0":
                        np.lib.format.write_array_header_1_0(file, header)
                        file.write(array.tobytes())
                    else:
                        np.lib.format.write_array(file, array)
        with pytest.raises(fm.ArgumentError, match=reason):
            fm.Downlink.from_bytes(out.getvalue(), SCHEMA)


def test_a_damaged_archive_is_refused():
    data = fm.Downlink(SCHEMA, model()).to_bytes()
    for at in (0, len(data) // 2):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        with pytest.raises(fm.CodecError):
            fm.Downlink.from_bytes(bytes(damaged), SCHEMA)
    for end in range(0, len(data), 7):
        with pytest.raises(fm.ArgumentError):
            fm.Downlink.from_bytes(data[:end], SCHEMA)

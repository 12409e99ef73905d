"""A client in C and one in JavaScript add frames to a model (spec 1.6) and compute its id (spec 1.7)."""

import hashlib
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import backends

DECODERS = Path(__file__).resolve().parents[2] / "spec" / "decoders"
DTYPES = {
    "float32": 1,
    "float64": 2,
    "float16": 3,
    "bfloat16": 4,
    "int8": 5,
    "int16": 6,
    "int32": 7,
    "int64": 8,
    "uint8": 9,
    "uint16": 10,
    "uint32": 11,
    "uint64": 12,
    "bool": 13,
}
COUNT = 4000


TOOLS = {
    "js": ("node",),
    "c": ("make", "cc"),
    "c-s390x": ("make", "s390x-linux-gnu-gcc", "qemu-s390x"),  # big-endian
}


@pytest.fixture(scope="module", params=TOOLS)
def follow(request, tmp_path_factory):
    """The command of a client."""
    for tool in TOOLS[request.param]:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    if request.param == "js":
        return ["node", DECODERS / "js" / "follow.mjs"]
    program = "follow-sanitized" if request.param == "c" else "follow-s390x"
    runner = [] if request.param == "c" else ["qemu-s390x", "-L", "/usr/s390x-linux-gnu"]
    folder = tmp_path_factory.mktemp("c") / "c"
    shutil.copytree(DECODERS / "c", folder, ignore=shutil.ignore_patterns("follow", "follow-*"))
    subprocess.run(["make", "-C", folder, program], capture_output=True, timeout=120, check=True)
    return [*runner, folder / program]


def run(follow, folder, schema, model, *frames):
    """The ids that were printed, and the model after the frames; the model is a list of arrays."""
    (folder / "schema").write_bytes(schema)
    (folder / "model").write_bytes(b"".join(array.tobytes() for array in model))
    paths = []
    for k, frame in enumerate(frames):
        paths.append(folder / f"frame{k}")
        paths[-1].write_bytes(frame)
    done = subprocess.run(
        [*follow, folder / "schema", folder / "model", *paths],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        return done.stderr
    return [int(line, 16) for line in done.stdout.split()], (folder / "model").read_bytes()


def schema_of(tensors):
    """The bytes of a schema (spec 5.1, 5.2) of tuples of name, role, dtype, shape."""
    parts = [
        struct.pack("<H", len(name.encode()))
        + name.encode()
        + struct.pack(f"<BBB{len(shape)}Q", role, DTYPES[dtype], len(shape), *shape)
        for name, role, dtype, shape in tensors
    ]
    return struct.pack("<I", len(tensors)) + b"".join(parts)


def id_of(tensors, model):
    """The id of spec 1.7, from its text."""
    sha = hashlib.sha256()
    for (name, _, dtype, shape), array in zip(tensors, model, strict=True):
        utf8 = name.encode()
        sha.update(struct.pack("<H", len(utf8)) + utf8 + bytes([DTYPES[dtype], len(shape)]))
        sha.update(b"".join(struct.pack("<Q", d) for d in shape) + array.tobytes())
    return struct.unpack("<Q", sha.digest()[:8])[0] or 1


def grid_frame(schema, base_model, *grids):
    """A frame of raw grids (spec 6.1 to 6.5, 6.12): dtype, step, integers of each tensor."""
    frame = struct.pack("<4sBBHQQII", b"FMRN", 1, 3, 0, 0, base_model, 0, len(grids))
    frame += hashlib.sha256(schema).digest()[:16]
    for dtype, step, z in grids:
        frame += struct.pack("<BBBBQf", 3, DTYPES[dtype], 0, 0, 4 * len(z), step)
    frame += b"".join(np.asarray(z, "<i4").tobytes() for _, _, z in grids)
    return frame + struct.pack("<I", zlib.crc32(frame))


def numbers(dtype, values):
    """Float values as an array of a dtype; bfloat16 as uint16, of which the lower half of the f32 is lost."""
    if dtype == "bfloat16":
        return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.asarray(values).astype(dtype)


def base_and_update(dtype, rng):
    """Elements of one dtype: some of any bits, some near each other, and both zeros."""
    if dtype == "bool":
        return rng.integers(0, 2, (2, COUNT)).astype(bool)
    kind = np.dtype("uint16" if dtype == "bfloat16" else dtype)
    base, update = np.frombuffer(rng.bytes(2 * COUNT * kind.itemsize), kind).reshape(2, COUNT).copy()
    if "float" not in dtype:
        return base, update
    base[::3], update[::3] = numbers(dtype, rng.normal(size=(2, len(base[::3]))))
    base[:4], update[:4] = numbers(dtype, [[0, -0.0, 0, -0.0], [0, -0.0, -0.0, 0]])
    for array in (base, update):
        exponent = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0xFF << 23, "float64": 0x7FF << 52}[
            dtype
        ]
        bits = array.view(f"u{kind.itemsize}")
        bits[(bits & exponent) == exponent] = 1  # the least positive number in place of infinities and NaNs
    base[4:5], update[4:5] = numbers(dtype, [[-np.inf], [30000]])
    return base, update


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_new_value_of_every_dtype(follow, tmp_path, dtype):
    base, update = base_and_update(dtype, np.random.default_rng(DTYPES[dtype]))
    tensors = [("weight", 0, dtype, (COUNT // 2, 2))]
    shape = tensors[0][3]
    schema = fm.Schema.from_bytes(schema_of(tensors))
    held, more = {"weight": base.reshape(shape)}, {"weight": update.reshape(shape)}
    frame = fm.encode(more, schema, seed=0, noise=fm.Uniform(1), base_model=id_of(tensors, [base]))
    with np.errstate(over="ignore"):
        right = fm.apply(held, more, schema)["weight"]
    assert run(follow, tmp_path, schema_of(tensors), [base], frame) == (
        [id_of(tensors, [right])],
        right.tobytes(),
    )


def test_a_model_follows_a_server(follow, tmp_path):
    tensors = [
        ("gewöhnlich", 1, "float32", (3, 2)),
        ("scale", 0, "float64", ()),
        ("none", 0, "float16", (0, 5)),
        ("half", 0, "float16", (2,)),
        ("brain", 0, "bfloat16", (2,)),
    ]
    names = [dtype for _, _, dtype, _ in tensors]
    rng = np.random.default_rng(1)
    steps = [2.0**-9, 2.0**-126, 2.0**5, 2.0**-24, 2.0**120]
    most = [2**24 - 1, 2**24 - 1, 2**11 - 1, 2**11 - 1, 2**8 - 1]
    schema, old = schema_of(tensors), [np.zeros(0, np.int64)] * 5
    model, base_model = [numbers(dtype, np.full(shape, 3.0)) for _, _, dtype, shape in tensors], 0
    frames, ids = [], []
    for version in range(3):
        new = [
            rng.integers(-top, top + 1, shape)
            for (*_, shape), top in zip(tensors, [m // 2 for m in most], strict=True)
        ]
        change = [b - a for a, b in zip(old, new, strict=True)] if version else new
        grids = [(d, s, z.reshape(-1)) for d, s, z in zip(names, steps, change, strict=True)]
        frames.append(grid_frame(schema, base_model, *grids))
        model_now = [numbers(d, z * np.float64(s)) for d, s, z in zip(names, steps, new, strict=True)]
        old, base_model = new, id_of(tensors, model_now)
        ids.append(base_model)
    whole = b"".join(array.tobytes() for array in model_now)
    assert run(follow, tmp_path, schema, model, *frames) == (ids, whole)
    assert "base_model" in run(follow, tmp_path, schema, model, *frames[1:])
    assert (tmp_path / "model").read_bytes() == b"".join(array.tobytes() for array in model)


def test_frames_of_a_downlink(follow, tmp_path):
    tensors = [
        ("weight", 1, "float32", (700, 100)),  # two blocks
        ("half", 0, "float16", (50,)),
        ("brain", 0, "bfloat16", (50,)),
        ("double", 0, "float64", (7, 3)),
        ("batches", 0, "int64", ()),
        ("on", 0, "bool", (9,)),
    ]
    schema, rng = schema_of(tensors), np.random.default_rng(2)
    names = [name for name, *_ in tensors]
    server = {
        name: rng.integers(0, 2, shape).astype(dtype)
        if dtype in ("int64", "bool")
        else numbers(dtype, rng.normal(0, 0.1, shape))
        for name, _, dtype, shape in tensors
    }
    down = fm.Downlink(fm.Schema.from_bytes(schema), server)
    frames, ids = [down.frame()], [down.model_id]
    for _ in range(3):
        for name in ("weight", "half", "double"):
            server[name] = (server[name] + rng.normal(0, 0.01, server[name].shape)).astype(server[name].dtype)
        server["batches"], server["on"] = server["batches"] + 1, ~server["on"]
        before = down.model_id
        down.advance(server)
        frames.append(down.frame(before))
        ids.append(down.model_id)
    held = [down.model[name] for name in names]
    assert id_of(tensors, held) == ids[-1]
    zeros = [np.zeros_like(array) for array in held]
    assert run(follow, tmp_path, schema, zeros, *frames) == (ids, b"".join(array.tobytes() for array in held))


ROUNDS = 50
TAKES_PART = {
    "always": range(ROUNDS + 1),
    "joins late": range(10, ROUNDS + 1),
    "leaves and comes back": [*range(20), *range(45, ROUNDS + 1)],
    "seldom": [3, 17, 18, 50],
    "away for too long": [0, 1, 2, 49, 50],  # its version is no longer kept: it gets the whole model
}
"""The clients of a federation, and the versions that they download."""


@pytest.fixture(scope="module")
def federation():
    """Fifty rounds: schema, frames and ids for each client, and the last model."""
    tensors = [("weight", 1, "float32", (90, 70)), ("bias", 0, "float32", (70,)), ("seen", 0, "int64", ())]
    schema, rng = fm.Schema.from_bytes(schema_of(tensors)), np.random.default_rng(4)
    server = {
        "weight": rng.normal(0, 0.1, (90, 70)).astype(np.float32),
        "bias": np.zeros(70, np.float32),
        "seen": np.int64(0),
    }
    down = fm.Downlink(schema, server, keep=40)
    got = {name: ([], []) for name in TAKES_PART}
    held = dict.fromkeys(TAKES_PART)
    for number in range(ROUNDS + 1):
        for name in TAKES_PART:
            if number in TAKES_PART[name]:
                frames, ids = got[name]
                frames.append(down.frame(held[name]))
                ids.append(down.model_id)
                held[name] = down.model_id
        noise = fm.Bernoulli(0.02 / (1 + number / 10))
        total = fm.Aggregator(schema, noise=noise)
        for seed in range(3):  # clients send masks
            update = {
                "weight": rng.normal(0, noise.scale / 2, (90, 70)).astype(np.float32),
                "bias": rng.normal(0, 0.01, 70).astype(np.float32),
                "seen": np.int64(8),
            }
            total.add(fm.encode(update, schema, seed=seed, noise=noise, mask="signed"), 1 + seed)
        server = fm.apply(server, total.mean(), schema)
        if number < ROUNDS:
            down.advance(server)
    return schema_of(tensors), got, dict(down.model), down.model_id


@pytest.mark.parametrize("client", TAKES_PART)
def test_fifty_rounds_with_clients_that_join_leave_and_come_back(follow, tmp_path, federation, client):
    schema, got, model, model_id = federation
    frames, ids = got[client]
    zeros = [np.zeros_like(array) for array in model.values()]
    whole = b"".join(array.tobytes() for array in model.values())
    assert run(follow, tmp_path, schema, zeros, *frames) == (ids, whole)
    assert ids[-1] == model_id


@pytest.mark.parametrize("backend", ["numpy", "numba", "onnx", "torch"])
def test_fifty_rounds_on_every_backend(federation, backend):
    if backend not in backends.installed():
        pytest.skip(f"{backend} is not installed")
    schema, got, model, model_id = federation
    for frames, ids in got.values():
        replica = fm.Replica(fm.Schema.from_bytes(schema), backend=backend)
        for frame, expected in zip(frames, ids, strict=True):
            replica.apply(frame, expected)
        assert replica.model_id == model_id
        assert [array.tobytes() for array in replica.model.values()] == [a.tobytes() for a in model.values()]


def test_the_id_of_models_of_any_length(follow, tmp_path):
    for length in range(40, 110, 3):  # the padding of SHA-256 changes at 55 and 56 bytes modulo 64
        tensors = [("t", 0, "uint8", (length,))]
        schema = schema_of(tensors)
        array = np.arange(length, dtype=np.uint8)
        frame = fm.encode({"t": array}, fm.Schema.from_bytes(schema), seed=0, noise=fm.Uniform(1))
        zeros = np.zeros(length, np.uint8)
        assert run(follow, tmp_path, schema, [zeros], frame) == ([id_of(tensors, [array])], array.tobytes())

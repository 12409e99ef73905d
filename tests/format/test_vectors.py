"""Every backend against every vector in spec/vectors; the files are read, never written."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.primitives import grid, mask
from fedmrn_codec.primitives.codes import MaskKind
from fedmrn_codec.primitives.noise import BY_NAME, bernoulli_draws, gaussian_draws, uniform_draws
from fedmrn_codec.primitives.philox import philox_blocks

FOLDER = Path(__file__).resolve().parents[2] / "spec" / "vectors"
BACKENDS = ["numpy", "numba", "torch", "onnx"]
DRAWS = {"uniform": uniform_draws, "gaussian": gaussian_draws, "bernoulli": bernoulli_draws}


def cases(name, *operations):
    """The cases of a file with one of these operations; a missing file is an error."""
    found = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    chosen = [c for c in found if not operations or c["op"] in operations]
    assert chosen
    return [pytest.param(c, id=c["id"]) for c in chosen]


def number(value):
    return int(value, 0) if isinstance(value, str) else value


def float32(bits):
    return float(np.uint32(int(bits, 16)).view(np.float32))


def noise_of(case):
    return BY_NAME[case["distribution"]](float32(case["scale"]))


def schema_of(case):
    return fm.Schema(
        fm.Tensor(t["name"], tuple(map(number, t["shape"])), t["role"] == "masked", t["dtype"])
        for t in case["schema"]
    )


def arrays_exist(schema):
    """Skip what NumPy cannot hold on a 32-bit system, not even without elements."""
    if any(size > sys.maxsize for tensor in schema for size in tensor.shape):
        pytest.skip("a dimension is larger than an address of this system")


def expected_of(case):
    return {key: number(v) for key, v in case["options"].items() if key in ("round", "base_model", "seed")}


def limits_of(case):
    return fm.Limits(**{key: number(v) for key, v in case["options"].items() if key.startswith("max_")})


@pytest.mark.parametrize("case", cases("philox", "block"))
def test_block(case):
    c0, c1, c2, c3 = map(number, case["counter"])
    k0, k1 = map(number, case["key"])
    got = philox_blocks(k0 | k1 << 32, c2 | c3 << 32, c0 | c1 << 32, 1)
    assert got.reshape(-1).tolist() == [number(w) for w in case["output"]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", cases("philox", "words"))
def test_words(case, backend):
    place = {key: number(case[key]) for key in ("seed", "stream", "start", "count")}
    got = fm.philox_words(**place, backend=backend)
    assert got.tolist() == [number(w) for w in case["words"]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", cases("noise", "noise"))
def test_noise(case, backend):
    place = {key: number(case[key]) for key in ("seed", "stream", "start", "count")}
    assert fm.noise(noise_of(case), **place, backend=backend).tobytes().hex() == case["noise"]


@pytest.mark.parametrize("case", cases("noise", "draw"))
def test_draws(case):
    words = np.array([number(w) for w in case["words"]], np.uint32)
    draws = DRAWS[case["distribution"]](words)
    assert draws.tolist() == case["draws"]


@pytest.mark.parametrize("case", cases("bits", "pack", "unpack"))
def test_packing(case):
    payload = np.frombuffer(bytes.fromhex(case["mask"]), np.uint8)
    if case["result"] == "invalid":
        assert not mask.padding_is_zero(payload, case["count"])
        return
    bits = np.array([b == "1" for b in case["bits"]], bool)
    assert mask.pack(bits).tobytes() == payload.tobytes()
    assert mask.unpack(payload, len(bits)).tolist() == bits.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", cases("bits", "decode"))
def test_decode_bits(case, backend):
    payload = np.frombuffer(bytes.fromhex(case["mask"]), np.uint8)
    out = np.full(number(case["count"]), 9, np.float32)
    place = number(case["seed"]), number(case["stream"])
    backends.get(backend).decode(noise_of(case), MaskKind.of(case["kind"], "kind"), *place, payload, out)
    assert out.tobytes().hex() == case["update"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", cases("bits", "sample"))
def test_sample_bits(case, backend):
    update = np.frombuffer(bytes.fromhex(case["update"]), "<f4")
    draws = np.array(case["r"], np.uint32) if "r" in case else number(case["private_seed"])
    place = number(case["seed"]), number(case["stream"])
    got = backends.get(backend).sample(
        noise_of(case), MaskKind.of(case["kind"], "kind"), *place, update, draws
    )
    assert got.tobytes().hex() == case["mask"]


@pytest.mark.parametrize("case", cases("schema"))
def test_schema(case):
    schema = schema_of(case)
    assert schema.data.hex() == case["bytes"]
    assert schema.digest.hex() == case["digest"]
    assert fm.Schema.from_bytes(schema.data, fm.Limits(max_elements=2**62)) == schema


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", cases("frames"))
def test_frames(case, backend):
    frame = bytes.fromhex(case["frame"])
    schema = schema_of(case)
    arrays_exist(schema)
    known = schema if case["caller_has_schema"] else None
    arrays = fm.decode(frame, known, **expected_of(case), limits=limits_of(case), backend=backend)
    assert [a.tobytes().hex() for a in arrays.values()] == case["decoded"]
    info = fm.verify(frame, known, limits=limits_of(case), backend=backend)
    assert (info.seed, info.base_model, info.round) == tuple(
        number(case[key]) for key in ("seed", "base_model", "round")
    )


def frame_of_grids(case, schema, parts, backend):
    """The frame of a case with grids; the library writes none with masks or coded elements beside them."""
    steps = {
        name: float(float32(line["scale"])) for name, (_, line, _) in parts.items() if line["kind"] == "grid"
    }
    others = [(t, line) for name, (t, line, _) in parts.items() if name not in steps]
    if any(t.masked or "coding" in line for t, line in others):
        pytest.skip("masks or coded elements beside grids")
    update = {}
    for name, (t, _, raw) in parts.items():
        if name in steps:
            flat = grid.values(np.frombuffer(raw, "<i4"), steps[name], t.type)
        else:
            flat = np.frombuffer(raw, t.type.numpy)
        update[name] = flat.reshape(t.shape)
    return fm.encode_grid(
        update,
        schema,
        step=steps,
        seed=number(case["seed"]),
        round=number(case["round"]),
        base_model=number(case["base_model"]),
        embed_schema=case["embed_schema"],
        coding={name: parts[name][1].get("coding", "raw") for name in steps},
        backend=backend,
    )


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("case", cases("frames"))
def test_frames_are_what_the_encoder_writes(case, backend):
    schema = schema_of(case)
    arrays_exist(schema)
    parts = {
        t.name: (t, line, bytes.fromhex(line["payload"]))
        for t, line in zip(schema, case["tensors"], strict=True)
    }
    masked = {name: part for name, part in parts.items() if part[0].masked}
    if any(line["kind"] == "grid" for _, line, _ in parts.values()):
        assert frame_of_grids(case, schema, parts, backend).hex() == case["frame"]
        return
    frame = fm.encode_bits(
        {
            name: mask.unpack(np.frombuffer(raw, np.uint8), t.size).reshape(t.shape)
            for name, (t, _, raw) in masked.items()
        },
        schema,
        seed=number(case["seed"]),
        noise={name: noise_of(line) for name, (_, line, _) in masked.items()},
        mask={name: line["kind"] for name, (_, line, _) in masked.items()},
        dense={
            name: np.frombuffer(raw, t.type.numpy).reshape(t.shape)
            for name, (t, _, raw) in parts.items()
            if not t.masked
        },
        round=number(case["round"]),
        base_model=number(case["base_model"]),
        embed_schema=case["embed_schema"],
        coding={name: line.get("coding", "raw") for name, (_, line, _) in masked.items()},
        dense_coding={
            name: line["coding"] for name, (t, line, _) in parts.items() if not t.masked and "coding" in line
        },
        backend=backend,
    )
    assert frame.hex() == case["frame"]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("case", cases("invalid"))
def test_invalid(case, backend):
    known = None if case["schema"] is None else schema_of(case)
    options = {**expected_of(case), "limits": limits_of(case), "backend": backend}
    with pytest.raises(fm.FrameError) as caught:
        fm.verify(bytes.fromhex(case["frame"]), known, **options)
    assert caught.value.code == case["code"]
    with pytest.raises(type(caught.value)):
        fm.decode(bytes.fromhex(case["frame"]), known, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", cases("aggregate", "mean"))
def test_aggregate(case, backend):
    schema = schema_of(case)
    expected = {key: number(case.get(key, 0)) for key in ("round", "base_model")}
    agg = fm.Aggregator(schema, **expected, backend=backend)
    frames = [bytes.fromhex(f) for f in case["frames"]]
    weights = [number(w) for w in case["weights"]]
    *good, last = zip(frames, weights, strict=True)
    for frame, weight in good:
        agg.add(frame, weight)
    if case["result"] == "invalid":
        with pytest.raises(fm.CodecError) as caught:
            agg.add(*last)
        assert caught.value.code == case["code"]
        return
    agg.add(*last)
    assert agg.to_bytes().hex() == case["partial"]
    assert [a.tobytes().hex() for a in agg.mean().values()] == case["mean"]
    again = fm.Aggregator.from_bytes(bytes.fromhex(case["partial"]), schema, backend=backend)
    assert again.to_bytes().hex() == case["partial"]


@pytest.mark.parametrize("case", cases("aggregate", "merge"))
def test_merge(case):
    schema = schema_of(case)
    parts = [fm.Aggregator.from_bytes(bytes.fromhex(p), schema) for p in case["parts"]]
    for part in parts[1:-1]:
        parts[0].merge(part)
    if case["result"] == "invalid":
        with pytest.raises(fm.CodecError) as caught:
            parts[0].merge(parts[-1])
        assert caught.value.code == case["code"]
        return
    parts[0].merge(parts[-1])
    assert parts[0].to_bytes().hex() == case["merged"]
    assert [a.tobytes().hex() for a in parts[0].mean().values()] == case["mean"]


@pytest.mark.parametrize("case", cases("aggregate", "partial_mean"))
def test_forged_sums_have_no_mean(case):
    agg = fm.Aggregator.from_bytes(bytes.fromhex(case["partial"]), schema_of(case))
    with pytest.raises(fm.FrameError) as caught:
        agg.mean()
    assert caught.value.code == case["code"]


@pytest.mark.parametrize("case", cases("partials_invalid"))
def test_invalid_partials(case):
    with pytest.raises(fm.FrameError) as caught:
        fm.Aggregator.from_bytes(bytes.fromhex(case["partial"]), schema_of(case))
    assert caught.value.code == case["code"]


def stated(case):
    return {key: number(case.get(key, 0)) for key in ("round", "base_model")}


def sums_of(aggregator):
    means = [a.tobytes().hex() for a in aggregator.mean().values()]
    return {"partial": aggregator.to_bytes().hex(), "mean": means}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", cases("tallies", "tally"))
def test_tally(case, backend):
    schema, coding = schema_of(case), case.get("coding") or "raw"

    def tally():
        out = fm.Tally(schema, weight=case["weight"], **stated(case), backend=backend)
        for frame in case["frames"]:
            out.add(bytes.fromhex(frame))
        return out

    if case["result"] == "invalid":
        with pytest.raises(fm.CodecError) as caught:
            tally()
        assert caught.value.code == case["code"]
        return
    made = tally()
    assert made.to_bytes(coding).hex() == case["tally"]
    again = fm.Tally.from_bytes(bytes.fromhex(case["tally"]), schema, backend=backend)
    assert again.to_bytes(coding).hex() == case["tally"]
    for each in (made, bytes.fromhex(case["tally"])):
        aggregator = fm.Aggregator(schema, **stated(case), backend=backend)
        aggregator.add_tally(each)
        assert sums_of(aggregator) == {key: case[key] for key in ("partial", "mean")}


@pytest.mark.parametrize("case", cases("tallies", "merge_tallies"))
def test_merge_of_tallies(case):
    schema = schema_of(case)

    def merged():
        first, *others = [fm.Tally.from_bytes(bytes.fromhex(t), schema) for t in case["tallies"]]
        for other in others:
            first.merge(other)
        return first

    if case["result"] == "invalid":
        with pytest.raises(fm.CodecError) as caught:
            merged()
        assert caught.value.code == case["code"]
        return
    assert merged().to_bytes(case["coding"] or "raw").hex() == case["tally"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", cases("tallies", "add_tallies"))
def test_sums_of_tallies(case, backend):
    aggregator = fm.Aggregator(schema_of(case), **stated(case), backend=backend)
    seed = number(case["seed"]) if "seed" in case else None
    tallies = map(bytes.fromhex, case["tallies"])
    if case["result"] == "invalid":
        with pytest.raises(fm.CodecError) as caught:
            all(aggregator.add_tally(tally, seed=seed) for tally in tallies)
        assert caught.value.code == case["code"]
        return
    for tally in tallies:
        aggregator.add_tally(tally, seed=seed)
    assert sums_of(aggregator) == {key: case[key] for key in ("partial", "mean")}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("case", cases("tallies_invalid"))
def test_invalid_tallies(case, backend):
    seed = number(case["seed"]) if "seed" in case else None
    with pytest.raises(fm.FrameError) as caught:
        fm.Tally.from_bytes(bytes.fromhex(case["tally"]), schema_of(case), seed=seed, backend=backend)
    assert caught.value.code == case["code"]

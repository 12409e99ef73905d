"""encode and decode: every dtype, both formats, schemas, and models instead of updates."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

import fedmrn_codec as fm
from fedmrn_codec.cli import tensors
from fedmrn_codec.cli.dense import Dense
from fedmrn_codec.cli.tensors import Format, TensorFile

ENCODE = ("encode", "--seed", "7", "--noise", "uniform:0.01")
MASKED = {"conv.weight", "größe/0", "empty"}


def assert_same(found: TensorFile, wanted: TensorFile, names: set[str] | None = None) -> None:
    for name in wanted.tensors.keys() if names is None else names:
        dtype, array = found.tensors[name]
        assert (dtype, array.shape) == (wanted.tensors[name].dtype, wanted.tensors[name].array.shape), name
        assert array.tobytes() == wanted.tensors[name].array.tobytes(), name


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_files_round_trip(folder, model, suffix):
    tensors.save(f"x.{suffix}", model)
    found = tensors.load(f"x.{suffix}")
    if suffix == "npz":  # which has no bfloat16: the bits come back as uint16
        assert found.tensors.pop("bf").array.tobytes() == model.tensors["bf"].array.tobytes()
    else:
        assert found.metadata == {"format": "pt"}
    assert_same(found, model, set(found.tensors))
    assert set(found.tensors) | {"bf"} == set(model.tensors)
    once = Path(f"x.{suffix}").read_bytes()
    tensors.save(f"x.{suffix}", model)
    assert Path(f"x.{suffix}").read_bytes() == once


def test_safetensors_files_are_those_of_the_library(folder, model):
    pytest.importorskip("safetensors", "0.6", reason="uint64 in safetensors.torch")
    data = Path("update.safetensors").read_bytes()
    theirs = safetensors.torch.load(data)
    assert theirs["bf"].dtype == torch.bfloat16
    assert theirs["count"].item() == 2**40 + 3
    plain = {name: held.array for name, held in model.tensors.items() if held.dtype != "bfloat16"}
    tensors.save("plain.safetensors", TensorFile({n: model.tensors[n] for n in plain}, Format.SAFETENSORS))
    for name, array in safetensors.numpy.load_file("plain.safetensors").items():
        assert array.tobytes() == plain[name].tobytes()
    safetensors.torch.save_file(theirs, "theirs.safetensors")
    assert_same(tensors.load("theirs.safetensors"), model)


def test_npz_files_are_those_of_numpy(folder, model):
    tensors.save("x.npz", model)
    with np.load("x.npz") as theirs:
        assert set(theirs) == set(model.tensors)
        for name in theirs:
            assert theirs[name].tobytes() == model.tensors[name].array.tobytes()
    odd = {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">f4")}
    np.savez_compressed("odd.npz", **odd)
    found = tensors.load("odd.npz").tensors
    assert np.array_equal(found["f"].array, odd["f"])
    assert found["big"].array.dtype == np.float32
    assert np.array_equal(found["big"].array, odd["big"])


def test_npz_of_ml_dtypes_holds_bfloat16(folder):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    np.savez("x.npz", w=np.array([1, 2], ml_dtypes.bfloat16))
    dtype, array = tensors.load("x.npz").tensors["w"]
    assert dtype == "bfloat16"
    assert array.tolist() == [0x3F80, 0x4000]


@pytest.mark.parametrize("mask", ["binary", "signed"])
@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_a_derived_schema_makes_a_frame_that_decodes_by_itself(folder, model, invoke, mask, suffix):
    invoke(0, *ENCODE, "update.safetensors", "-o", "x.fmrn", "--mask", mask, "--private-seed", 1007)
    info = fm.inspect(Path("x.fmrn").read_bytes())
    assert info.embedded
    assert [t.name for t in info.schema] == sorted(model.tensors)
    assert {t.name for t in info.schema if t.masked} == MASKED
    if mask == "binary":
        assert Path("x.fmrn").read_bytes() == Path("a.fmrn").read_bytes()
    invoke(0, "decode", "x.fmrn", "-o", f"out.{suffix}")
    found = tensors.load(f"out.{suffix}")
    for name, array in fm.decode(Path("x.fmrn").read_bytes()).items():
        assert found.tensors[name].array.tobytes() == array.tobytes(), name
    assert_same(found, model, set(model.tensors) - MASKED - ({"bf"} if suffix == "npz" else set()))


def test_one_schema_for_both_sides(folder, model, invoke):
    invoke(0, "schema", "update.safetensors", "-o", "schema.json")
    invoke(0, *ENCODE, "update.safetensors", "--schema", "schema.json", "-o", "x.fmrn")
    assert not fm.inspect(Path("x.fmrn").read_bytes()).embedded
    refused = invoke(1, "decode", "x.fmrn", "-o", "out.npz")
    assert "no_schema" in refused.stderr
    for schema in ("schema.json", "a.fmrn", "update.safetensors"):
        invoke(0, "decode", "x.fmrn", "-o", "out.safetensors", "--schema", schema)
        assert_same(tensors.load("out.safetensors"), model, set(model.tensors) - MASKED)
    invoke(0, *ENCODE, "update.safetensors", "--schema", "a.fmrn", "--embed-schema", "-o", "y.fmrn")
    assert fm.inspect(Path("y.fmrn").read_bytes()).embedded
    invoke(0, *ENCODE, "update.safetensors", "--no-embed-schema", "-o", "z.fmrn")
    assert not fm.inspect(Path("z.fmrn").read_bytes()).embedded


def test_npz_bits_fit_a_bfloat16_schema(folder, model, invoke):
    tensors.save("update.npz", model)
    invoke(0, *ENCODE, "update.npz", "--schema", "a.fmrn", "-o", "x.fmrn")
    invoke(0, "decode", "x.fmrn", "--schema", "a.fmrn", "-o", "out.safetensors")
    assert_same(tensors.load("out.safetensors"), model, {"bf"})


def test_globs_choose_what_is_masked(folder, invoke):
    invoke(0, *ENCODE, "update.safetensors", "--masked", "bias", "--masked", "conv.*", "-o", "x.fmrn")
    info = fm.inspect(Path("x.fmrn").read_bytes())
    assert {t.name for t in info.schema if t.masked} == {"bias", "conv.weight"}
    assert (
        "--masked: expected a pattern that matches a tensor, got 'nope*'"
        in invoke(2, *ENCODE, "update.safetensors", "--masked", "nope*").stderr
    )
    assert "float32" in invoke(2, *ENCODE, "update.safetensors", "--masked", "half").stderr
    both = ("--masked", "bias", "--schema", "a.fmrn")
    assert (
        "--masked: expected none, since the schema says what is masked, got ["
        in invoke(2, *ENCODE, "update.safetensors", *both).stderr
    )


def test_header_fields_and_expectations(folder, invoke):
    big = 2**64 - 1
    encoded = invoke(
        0, *ENCODE, "update.safetensors", "-o", "x.fmrn", "--round", 3, "--base-model", hex(big), "--json"
    )
    facts = json.loads(encoded.stdout)
    assert (facts["seed"], facts["round"], facts["base_model"]) == (7, 3, big)
    assert facts["frame_bytes"] == Path("x.fmrn").stat().st_size
    good = ("--round", 3, "--base-model", big, "--seed", 7)
    invoke(0, "decode", "x.fmrn", "-o", "x.npz", *good)
    for option, code in (("--round", "round"), ("--base-model", "base_model"), ("--seed", "seed")):
        found = invoke(1, "decode", "x.fmrn", "-o", "y.npz", option, 5, "--json")
        assert json.loads(found.stderr)["error"]["code"] == code
    assert not Path("y.npz").exists()


def test_names(folder, model, invoke):
    invoke(0, "decode", "a.fmrn", "-o", "x.safetensors", "--names", "bias, count", "--names", "bf")
    found = tensors.load("x.safetensors")
    assert set(found.tensors) == {"bias", "count", "bf"}
    assert_same(found, model, set(found.tensors))
    assert "nope" in invoke(2, "decode", "a.fmrn", "-o", "x.safetensors", "--names", "nope").stderr


def test_private_seed_repeats_and_its_default_does_not(folder, invoke):
    def frame(*more: object) -> bytes:
        invoke(0, *ENCODE, "update.safetensors", "-o", "x.fmrn", *more)
        return Path("x.fmrn").read_bytes()

    assert frame("--private-seed", 1) == frame("--private-seed", 1)
    assert frame() != frame()
    expected = "private_seed: expected a value other than the public seed, got 7"
    assert expected in invoke(2, *ENCODE, "update.safetensors", "--private-seed", "7").stderr


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_backend_does_not_change_a_byte(folder, invoke, backend):
    same = ("--private-seed", 1007, "--backend", backend)
    invoke(0, *ENCODE, "update.safetensors", "-o", "x.fmrn", *same)
    assert Path("x.fmrn").read_bytes() == Path("a.fmrn").read_bytes()
    invoke(0, "decode", "a.fmrn", "-o", "x.npz", "--backend", backend)
    invoke(0, "decode", "a.fmrn", "-o", "y.npz")
    assert Path("x.npz").read_bytes() == Path("y.npz").read_bytes()


# --- models instead of updates -----------------------------------------------------------------------


def pair(dtype: str, base: list, trained: list) -> tuple[TensorFile, TensorFile]:
    held = np.uint16 if dtype == "bfloat16" else np.dtype(dtype)
    return tuple(
        TensorFile({"x": Dense(dtype, np.array(values, held))}, Format.SAFETENSORS)
        for values in (base, trained)
    )


EXACT = {
    "float32": ([1.0, -2.0], [1.5, -2.25]),
    "float64": ([1.0, -2.0], [1.5, -2.25]),
    "float16": ([1.0, -2.0], [1.5, -2.25]),
    "bfloat16": ([0x3F80, 0xC000], [0x3FC0, 0xC010]),  # the same four numbers
    "int8": ([5, -128], [7, -1]),
    "int64": ([2**62, -5], [2**62 + 3, -(2**62)]),
    "uint8": ([1, 250], [4, 255]),
    "uint64": ([0, 2**63], [1, 2**64 - 1]),
    "bool": ([False, True, False], [True, True, False]),
}


@pytest.mark.parametrize("dtype", EXACT)
def test_base_is_subtracted_and_added(folder, invoke, dtype):
    base, trained = pair(dtype, *EXACT[dtype])
    tensors.save("base.safetensors", base)
    tensors.save("trained.safetensors", trained)
    invoke(0, *ENCODE, "trained.safetensors", "--base", "base.safetensors", "-o", "x.fmrn")
    invoke(0, "decode", "x.fmrn", "--base", "base.safetensors", "-o", "new.safetensors")
    assert_same(tensors.load("new.safetensors"), trained)


@pytest.mark.parametrize(
    ("dtype", "base", "trained"),
    [
        ("uint8", [3], [2]),
        ("uint64", [1], [0]),
        ("int8", [-100], [100]),
        ("int64", [-(2**63)], [2**63 - 1]),
        ("bool", [True], [False]),
    ],
)
def test_integers_wrap_and_bools_are_exclusive_or(folder, invoke, dtype, base, trained):
    before, after = pair(dtype, base, trained)
    tensors.save("base.safetensors", before)
    tensors.save("trained.safetensors", after)
    invoke(0, *ENCODE, "trained.safetensors", "--base", "base.safetensors", "-o", "x.fmrn")
    invoke(0, "decode", "x.fmrn", "--base", "base.safetensors", "-o", "new.safetensors")
    assert_same(tensors.load("new.safetensors"), after)


def test_a_float_difference_out_of_range_is_refused(folder, invoke):
    for name, content in zip(("base", "trained"), pair("float16", [-6e4], [6e4]), strict=True):
        tensors.save(f"{name}.safetensors", content)
    invoke(2, *ENCODE, "trained.safetensors", "--base", "base.safetensors", "-o", "x.fmrn")
    assert not Path("x.fmrn").exists()


@pytest.mark.parametrize(
    ("dtype", "base", "update"),
    [("float16", [6e4], [6e4]), ("float32", [3e38], [3e38]), ("float64", [1.5e308], [1.5e308])],
)
def test_a_float_sum_out_of_range_is_refused(folder, invoke, dtype, base, update):
    for name, content in zip(("base", "update"), pair(dtype, base, update), strict=True):
        tensors.save(f"{name}.safetensors", content)
    invoke(0, *ENCODE, "update.safetensors", "-o", "x.fmrn")
    found = invoke(2, "decode", "x.fmrn", "--base", "base.safetensors", "-o", "new.safetensors")
    assert "out of range" in found.stderr
    assert not Path("new.safetensors").exists()


def test_decode_keeps_the_rest_of_the_base(folder, model, invoke):
    extra = TensorFile(
        model.tensors
        | {"frozen": Dense("float32", np.ones(3, np.float32)), "flag": Dense("bool", np.zeros(3, bool))},
        Format.SAFETENSORS,
        {"format": "pt"},
    )
    tensors.save("base.safetensors", extra)
    invoke(0, "decode", "a.fmrn", "--base", "base.safetensors", "-o", "base.safetensors")  # in place
    found = tensors.load("base.safetensors")
    assert found.metadata == {"format": "pt"}
    assert_same(found, extra, {"frozen"})
    update = fm.decode(Path("a.fmrn").read_bytes())
    wanted = model.tensors["conv.weight"].array + update["conv.weight"]
    assert found.tensors["conv.weight"].array.tobytes() == wanted.tobytes()
    assert found.tensors["count"].array == 2 * model.tensors["count"].array
    invoke(0, "decode", "a.fmrn", "--base", "base.safetensors", "-o", "x.npz", "--names", "bias")
    assert list(tensors.load("x.npz").tensors) == ["bias"]


def test_bfloat16_is_rounded_as_torch_does(folder, invoke):
    generator = torch.Generator().manual_seed(1)
    base, trained = (torch.randn(4000, generator=generator).bfloat16() for _ in range(2))
    safetensors.torch.save_file({"x": base}, "base.safetensors")
    safetensors.torch.save_file({"x": trained}, "trained.safetensors")
    invoke(0, *ENCODE, "trained.safetensors", "--base", "base.safetensors", "-o", "x.fmrn")
    invoke(0, "decode", "x.fmrn", "-o", "update.safetensors")
    update = safetensors.torch.load_file("update.safetensors")["x"]
    assert torch.equal(update.view(torch.int16), (trained - base).view(torch.int16))
    invoke(0, "decode", "x.fmrn", "--base", "base.safetensors", "-o", "new.safetensors")
    new = safetensors.torch.load_file("new.safetensors")["x"]
    assert torch.equal(new.view(torch.int16), (base + update).view(torch.int16))


def test_what_does_not_fit_the_schema(folder, model, invoke):
    def variant(**changed: Dense | None) -> None:
        held = {n: d for n, d in (model.tensors | changed).items() if d is not None}
        tensors.save("x.safetensors", TensorFile(held, Format.SAFETENSORS))

    encode = (*ENCODE, "x.safetensors", "--schema", "a.fmrn", "-o", "x.fmrn")
    variant(bias=None)
    assert "nothing for 'bias'" in invoke(2, *encode).stderr
    variant(more=Dense("int8", np.zeros(1, np.int8)))
    assert "['more']" in invoke(2, *encode).stderr
    variant(bias=Dense("float32", np.zeros(6, np.float32)))
    assert "shape of 'bias'" in invoke(2, *encode).stderr
    variant(bf=Dense("uint16", np.zeros(4, np.uint16)))
    assert "dtype of 'bf'" in invoke(2, *encode).stderr
    variant(bias=Dense("float32", np.full(5, np.nan, np.float32)))
    found = invoke(2, *encode, "--json")
    assert json.loads(found.stderr)["error"]["code"] == "argument_non_finite"
    assert found.stdout == ""
    assert not Path("x.fmrn").exists()


def test_codings(folder, invoke):
    rng = np.random.default_rng(0)
    update = {"w": np.zeros((50, 40), np.float32), "b": rng.normal(size=9).astype(np.float32)}
    np.savez("u.npz", **update)
    encode = (*ENCODE, "u.npz", "--private-seed", "3")
    invoke(0, *encode, "-o", "raw.fmrn")
    invoke(0, *encode, "--coding", "rans", "--dense-coding", "bfloat16", "-o", "short.fmrn")
    (facts,) = json.loads(invoke(0, "inspect", "short.fmrn", "--json").stdout)["files"]
    assert {t["name"]: t["coding"] for t in facts["tensors"]} == {"w": "rans", "b": "bfloat16"}
    assert "rans" in invoke(0, "inspect", "short.fmrn").stdout
    arrays = {name: fm.decode(Path(f"{name}.fmrn").read_bytes()) for name in ("raw", "short")}
    assert arrays["raw"]["w"].tobytes() == arrays["short"]["w"].tobytes()
    assert 0 < np.abs(arrays["raw"]["b"] - arrays["short"]["b"]).max() < 0.01
    assert "float8" in invoke(2, *encode, "--dense-coding", "float8").stderr

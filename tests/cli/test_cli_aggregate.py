"""aggregate: weights, partial sums, pins, and what happens to a bad file among good ones."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.cli import tensors

WEIGHTS = {"a": 600, "b": 500, "c": 1}


def mean_of(weights: dict[str, int]) -> dict[str, np.ndarray]:
    frames = {name: Path(f"{name}.fmrn").read_bytes() for name in weights}
    schema = fm.inspect(next(iter(frames.values()))).schema
    aggregator = fm.Aggregator(schema, backend="numpy")
    for name, weight in weights.items():
        aggregator.add(frames[name], weight=weight)
    return aggregator.mean()


def assert_mean(path: str, weights: dict[str, int]) -> None:
    found = tensors.load(path).tensors
    for name, array in mean_of(weights).items():
        assert found[name].array.tobytes() == array.tobytes(), name
    assert found["bf"].dtype == ("uint16" if path.endswith("npz") else "bfloat16")


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_mean_in_any_order(folder, invoke, suffix):
    for order in itertools.permutations(WEIGHTS):
        files = [f"{name}.fmrn" for name in order]
        weights = ",".join(str(WEIGHTS[name]) for name in order)
        invoke(0, "aggregate", *files, "--weights", weights, "-o", f"{order[0]}.{suffix}")
        assert_mean(f"{order[0]}.{suffix}", WEIGHTS)
    assert len({Path(f"{name}.{suffix}").read_bytes() for name in WEIGHTS}) == 1


def test_mean_without_weights_says_so(folder, invoke):
    found = invoke(0, "aggregate", "a.fmrn", "b.fmrn", "-o", "x.npz")
    assert "note: no weights are given: every frame has the weight 1" in found.stderr
    assert_mean("x.npz", {"a": 1, "b": 1})


@pytest.mark.parametrize(
    "text",
    [
        '{"a.fmrn": 600, "b.fmrn": 500, "d.fmrn": 3}',
        "frame,weight\na.fmrn,600\nb.fmrn,500\n",
        "\ufeffa.fmrn, 600\r\n\r\nb.fmrn, 500",
    ],
)
def test_weights_file(folder, invoke, text):
    Path("weights").write_text(text)
    a = Path("a.fmrn").resolve()  # found by its file name
    invoke(0, "aggregate", a, "b.fmrn", "--weights-file", "weights", "-o", "x.npz")
    assert_mean("x.npz", {"a": 600, "b": 500})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 2),
        ('{"a.fmrn": 1}', 2),
        ('{"a.fmrn": 1, "b.fmrn": 0}', 2),
        ('{"a.fmrn": 1, "b.fmrn": 1.5}', 3),
        ('{"a.fmrn": 1, "b.fmrn": true}', 3),
        ('{"a.fmrn": 1, "a.fmrn": 2, "b.fmrn": 2}', 3),
        ('{"a.fmrn": ', 3),
        ('{"a":' * 100_000, 3),
        ("a.fmrn,1\nb.fmrn,many", 2),
        ("a.fmrn,1\nb.fmrn", 3),
        ("a.fmrn,1\na.fmrn,1\nb.fmrn,1", 3),
        ("\xff\xfe", 3),
    ],
)
def test_bad_weights_files(folder, invoke, text, code):
    Path("weights").write_text(text)
    invoke(code, "aggregate", "a.fmrn", "b.fmrn", "--weights-file", "weights", "-o", "x.npz")
    assert not Path("x.npz").exists()


@pytest.mark.parametrize("weights", ["1", "1,2,3", "1,0", "1,-2", "1,x", "1,2.5", "", f"1,{2**39 - 1}"])
def test_bad_weights(folder, invoke, weights):
    found = invoke(2, "aggregate", "a.fmrn", "b.fmrn", "--weights", weights, "-o", "x.npz", "--json")
    assert json.loads(found.stderr)["error"]["class"] == "argument"
    assert not Path("x.npz").exists()


def test_partial_sums_merge(folder, invoke):
    invoke(0, "aggregate", "a.fmrn", "b.fmrn", "--weights", "600,500", "--partial", "ab.fmrs")
    invoke(0, "aggregate", "c.fmrn", "--weights", "1", "--partial", "c.fmrs")
    same = ("--schema", "a.fmrn")
    for name, inputs in (
        ("x", ("ab.fmrs", "c.fmrn", "--weights", "1")),
        ("y", ("c.fmrn", "ab.fmrs", "--weights", "1", *same)),
        ("z", ("c.fmrs", "ab.fmrs", *same)),
    ):
        found = json.loads(invoke(0, "aggregate", *inputs, "-o", f"{name}.npz", "--json").stdout)
        assert (found["frames"], found["weight"]) == (3, 1101)
        assert_mean(f"{name}.npz", WEIGHTS)
    invoke(0, "aggregate", "ab.fmrs", "c.fmrs", *same, "--partial", "abc.fmrs")
    invoke(0, "aggregate", "abc.fmrs", *same, "-o", "abc.npz")
    assert_mean("abc.npz", WEIGHTS)


def write_tally(name, frames, weight, **more):
    schema = fm.inspect(frames[0]).schema
    tally = fm.Tally(schema, weight=weight, backend="numpy", **more)
    for data in frames:
        tally.add(data)
    Path(name).write_bytes(tally.to_bytes("rans14"))


def test_tallies_are_added_like_their_frames(folder, frame, invoke):
    frames = [frame(7, private_seed=i) for i in range(3)]
    for i, data in enumerate(frames):
        Path(f"{i}.fmrn").write_bytes(data)
    write_tally("t.fmrt", frames, 500)
    inputs = [*(f"{i}.fmrn" for i in range(3)), "a.fmrn"]
    invoke(0, "aggregate", *inputs, "--weights", "500,500,500,600", "--partial", "all.fmrs")
    for number, (files, more) in enumerate(
        (
            (("t.fmrt", "a.fmrn"), ("--weights", "600")),
            (("a.fmrn", "t.fmrt"), ("--weights", "600", "--schema", "a.fmrn", "--round", 0)),
        )
    ):
        invoke(0, "aggregate", *files, *more, "--partial", f"{number}.fmrs")
        assert Path(f"{number}.fmrs").read_bytes() == Path("all.fmrs").read_bytes()
    invoke(0, "aggregate", "a.fmrn", "--weights", "600", "--partial", "a.fmrs")
    found = invoke(0, "aggregate", "t.fmrt", "a.fmrs", "--schema", "a.fmrn", "--partial", "x.fmrs", "--json")
    assert Path("x.fmrs").read_bytes() == Path("all.fmrs").read_bytes()
    assert (json.loads(found.stdout)["frames"], json.loads(found.stdout)["weight"]) == (4, 2100)
    write_tally("other.fmrt", [frame(7, round=5)], 1, round=5)
    stopped = invoke(1, "aggregate", "t.fmrt", "other.fmrt", "--schema", "a.fmrn", "-o", "x.npz")
    assert "as in t.fmrt (--round says which of the two is right)" in stopped.stderr


def test_partial_sums_need_a_schema_and_frames_beside_them_weights(folder, invoke):
    invoke(0, "aggregate", "a.fmrn", "--partial", "a.fmrs")
    assert (
        "--schema: expected a schema, since partial sums and tallies do not embed one, got none"
        in invoke(2, "aggregate", "a.fmrs", "-o", "x.npz").stderr
    )
    assert (
        "--weights: expected one for each frame, as partial sums and tallies have their own, got none"
        in invoke(2, "aggregate", "a.fmrs", "b.fmrn", "-o", "x.npz").stderr
    )


def test_rounds_and_base_models(folder, frame, invoke):
    for name, seed, number in (("a", 7, 3), ("b", 8, 3), ("c", 9, 4)):
        Path(f"{name}.fmrn").write_bytes(frame(seed, round=number, base_model=2**63))
    found = invoke(0, "aggregate", "a.fmrn", "b.fmrn", "c.fmrn", "-o", "x.npz")
    assert "different rounds: 3, 4" in found.stderr
    pinned = ("aggregate", "a.fmrn", "b.fmrn", "c.fmrn", "-o", "y.npz", "--base-model", 2**63, "--round", 3)
    found = invoke(1, *pinned)
    assert "c.fmrn: round" in found.stderr
    assert not Path("y.npz").exists()
    found = json.loads(invoke(0, *pinned, "--skip-bad", "--json").stdout)
    assert [(s["file"], s["code"]) for s in found["skipped"]] == [("c.fmrn", "round")]
    assert (found["round"], found["base_model"], found["frames"]) == (3, 2**63, 2)
    invoke(0, "aggregate", "a.fmrn", "--round", 3, "--partial", "a.fmrs")
    again = ("aggregate", "a.fmrs", "b.fmrn", "--weights", "1")  # takes the sum's round for its own
    assert json.loads(invoke(0, *again, "-o", "z.npz", "--json").stdout)["round"] == 3
    assert (
        "c.fmrn: round" in invoke(1, "aggregate", "a.fmrs", "c.fmrn", "--weights", "1", "-o", "z.npz").stderr
    )
    assert "a.fmrs: merge" in invoke(1, *again, "--round", 4, "-o", "z.npz").stderr


def test_noise_can_be_pinned(folder, frame, invoke):
    Path("loud.fmrn").write_bytes(frame(10, noise=fm.Uniform(100)))
    invoke(0, "aggregate", "a.fmrn", "b.fmrn", "-o", "x.npz", "--noise", "uniform:0.01")
    assert "loud.fmrn: noise" in invoke(1, "aggregate", "a.fmrn", "loud.fmrn", "-o", "y.npz").stderr
    pinned = ("aggregate", "loud.fmrn", "a.fmrn", "b.fmrn", "-o", "y.npz", "--noise", "uniform:0.01")
    assert "loud.fmrn: noise" in invoke(1, *pinned).stderr
    assert not Path("y.npz").exists()
    invoke(0, *pinned, "--skip-bad")
    assert_mean("y.npz", {"a": 1, "b": 1})


@pytest.mark.parametrize("skip", [(), ("--skip-bad",)], ids=["all", "skip bad"])
@pytest.mark.parametrize("place", range(3))
def test_no_file_decides_for_the_others(folder, frame, invoke, skip, place):
    files = ["a.fmrn", "b.fmrn"]
    files.insert(place, "hostile.fmrn")
    Path("x.npz").write_bytes(b"as it was")
    Path("hostile.fmrn").write_bytes(frame(10, noise=fm.Uniform(100)))
    found = json.loads(invoke(1, "aggregate", *files, *skip, "-o", "x.npz", "--json").stderr)["error"]
    named = {found["file"], found["expected"].split("as in ")[1].split(" (--noise")[0]}
    assert "hostile.fmrn" in named
    assert len(named) == 2
    one = fm.Schema([fm.Tensor("conv.weight", (32, 1, 3, 3), masked=True)])
    zeros = {"conv.weight": np.zeros((32, 1, 3, 3), np.float32)}
    Path("hostile.fmrn").write_bytes(
        fm.encode(zeros, one, seed=3, noise=fm.Uniform(0.01), mask="binary", embed_schema=True)
    )
    found = json.loads(invoke(1, "aggregate", *files, *skip, "-o", "x.npz", "--json").stderr)["error"]
    named = {found["file"], found["expected"].split("as in ")[1].split(" (--schema")[0]}
    assert "hostile.fmrn" in named
    assert len(named) == 2
    assert Path("x.npz").read_bytes() == b"as it was"
    stated = ("--noise", "uniform:0.01", "--schema", "a.fmrn")
    invoke(0 if skip else 1, "aggregate", *files, *skip, *stated, "-o", "x.npz")
    if skip:
        assert_mean("x.npz", {"a": 1, "b": 1})


def test_no_partial_sum_decides_for_the_others(folder, frame, invoke):
    for name, seed, number in (("a", 7, 3), ("b", 8, 3), ("c", 9, 4)):
        Path(f"{name}.fmrn").write_bytes(frame(seed, round=number))
        invoke(0, "aggregate", f"{name}.fmrn", "--round", number, "--partial", f"{name}.fmrs")
    sums = ("c.fmrs", "a.fmrs", "b.fmrs", "--schema", "a.fmrn", "--skip-bad", "-o", "x.npz", "--json")
    found = json.loads(invoke(1, "aggregate", *sums).stderr)["error"]
    assert (found["file"], found["field"]) == ("a.fmrs", "merge")
    assert "as in c.fmrs (--round says which of the two is right)" in found["expected"]
    mixed = ("c.fmrs", "a.fmrn", "b.fmrn", "--weights", "1,1", "--skip-bad", "-o", "x.npz", "--json")
    found = json.loads(invoke(1, "aggregate", *mixed).stderr)["error"]
    assert (found["file"], found["field"]) == ("a.fmrn", "round")
    assert not Path("x.npz").exists()
    found = json.loads(invoke(0, "aggregate", *mixed, "--round", 3, "--base-model", 0).stdout)
    assert [each["file"] for each in found["skipped"]] == ["c.fmrs"]
    assert_mean("x.npz", {"a": 1, "b": 1})


def test_a_bad_frame_stops_everything_or_is_left_out(folder, invoke):
    Path("bad.fmrn").write_bytes(Path("c.fmrn").read_bytes()[:-1])
    for order in itertools.permutations(["a.fmrn", "bad.fmrn", "b.fmrn"]):
        weights = ",".join({"a.fmrn": "600", "b.fmrn": "500", "bad.fmrn": "7"}[name] for name in order)
        Path("x.npz").write_bytes(b"as it was")
        found = invoke(1, "aggregate", *order, "--weights", weights, "-o", "x.npz")
        assert "bad.fmrn" in found.stderr
        assert Path("x.npz").read_bytes() == b"as it was"
        found = invoke(0, "aggregate", *order, "--weights", weights, "-o", "x.npz", "--skip-bad")
        assert "left out: bad.fmrn" in found.stderr
        assert_mean("x.npz", {"a": 600, "b": 500})
    none = invoke(1, "aggregate", "bad.fmrn", "bad.fmrn", "-o", "y.npz", "--skip-bad")
    assert "bad.fmrn" in none.stderr
    none = invoke(1, "aggregate", "bad.fmrn", "-o", "y.npz", "--skip-bad", "--schema", "a.fmrn")
    assert "frames: expected at least 1 that is not refused, got 0" in none.stderr
    assert not Path("y.npz").exists()


def test_a_bad_partial_sum_is_left_out_whole(folder, invoke):
    invoke(0, "aggregate", "a.fmrn", "--weights", "600", "--partial", "a.fmrs")
    data = bytearray(Path("a.fmrs").read_bytes())
    data[-1] ^= 1
    Path("bad.fmrs").write_bytes(data)
    rest = ("b.fmrn", "--weights", "500", "-o", "x.npz", "--skip-bad")
    found = json.loads(invoke(0, "aggregate", "bad.fmrs", "a.fmrs", *rest, "--json").stdout)
    assert [s["code"] for s in found["skipped"]] == ["checksum"]
    assert_mean("x.npz", {"a": 600, "b": 500})


def test_a_missing_file_is_never_skipped(folder, invoke):
    invoke(3, "aggregate", "a.fmrn", "nope.fmrn", "-o", "x.npz", "--skip-bad")


def test_one_seed_twice_is_noted(folder, invoke):
    found = json.loads(invoke(0, "aggregate", "a.fmrn", "a.fmrn", "-o", "x.npz", "--json").stdout)
    assert any("seed 7" in note for note in found["notes"])


def test_base_gives_the_new_model(folder, invoke):
    invoke(0, "decode", "b.fmrn", "-o", "base.safetensors")
    mean, base = mean_of({"a": 1, "c": 1}), tensors.load("base.safetensors").tensors
    inputs = ("a.fmrn", "c.fmrn", "--weights", "1,1", "--base", "base.safetensors", "-o", "x.safetensors")
    invoke(0, "aggregate", *inputs)
    (flag,) = (tensors.load(name).tensors["flag"].array for name in ("x.safetensors",))
    assert flag.tobytes() == np.logical_xor(base["flag"].array, mean["flag"]).tobytes()
    Path("masked.json").write_text(
        json.dumps([{"name": "conv.weight", "shape": [32, 1, 3, 3], "masked": True}])
    )
    for seed, name in ((1, "a"), (2, "c")):
        arrays = {"conv.weight": base["conv.weight"].array}
        schema = fm.Schema([fm.Tensor("conv.weight", (32, 1, 3, 3), masked=True)])
        Path(f"{name}.fmrn").write_bytes(fm.encode(arrays, schema, seed=seed, noise=fm.Uniform(0.01)))
    invoke(0, "aggregate", *inputs, "--schema", "masked.json")
    mean, found = None, tensors.load("x.safetensors").tensors
    aggregator = fm.Aggregator(schema, backend="numpy")
    for name in ("a", "c"):
        aggregator.add(Path(f"{name}.fmrn").read_bytes(), 1)
    mean = aggregator.mean()["conv.weight"]
    assert found["conv.weight"].array.tobytes() == (base["conv.weight"].array + mean).tobytes()
    assert found["flag"].array.tobytes() == base["flag"].array.tobytes()


@pytest.mark.parametrize(
    "options",
    [
        ("-o", "x.npz", "--partial", "x.fmrs"),
        ("--base", "a.npz", "--partial", "x.fmrs"),
        ("-o", "x.npz", "--weights", "1", "--weights-file", "w"),
    ],
)
def test_options_that_exclude_each_other(folder, invoke, options):
    assert "expected at most one of them, got both" in invoke(2, "aggregate", "a.fmrn", *options).stderr

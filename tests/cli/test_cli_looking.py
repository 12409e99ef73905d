"""inspect, verify, schema and noise: the verbs that only look."""

import json
from pathlib import Path

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.cli import tensors


def test_inspect_one(folder, invoke):
    text = invoke(0, "inspect", "a.fmrn").stdout
    for word in ("conv.weight", "größe/0", "32x1x3x3", "uniform:0.01", "bfloat16", "scalar", "not given"):
        assert word in text, word


def test_inspect_json(folder, frame, model, invoke):
    Path("big.fmrn").write_bytes(frame(2**64 - 1, round=5, base_model=2**63 + 1, private_seed=1))
    (facts,) = json.loads(invoke(0, "inspect", "big.fmrn", "--json").stdout)["files"]
    assert (facts["seed"], facts["round"], facts["base_model"]) == (2**64 - 1, 5, 2**63 + 1)
    info = fm.inspect(Path("big.fmrn").read_bytes())
    parts = (facts["mask_bytes"], facts["dense_bytes"], facts["header_bytes"])
    assert parts == (info.mask_bytes, info.dense_bytes, info.header_bytes)
    assert sum(parts) == facts["frame_bytes"]
    assert facts["masked_elements"] == 300
    assert facts["bits_per_masked"] == 8 * (info.mask_bytes + info.header_bytes) / 300
    assert facts["ratio"] == (1200 + info.dense_bytes) / info.frame_bytes
    assert [t["name"] for t in facts["tensors"]] == sorted(model.tensors)


def test_inspect_a_frame_of_grids(folder, invoke):
    model = {"w": np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30), "n": np.array([3])}
    schema = fm.schema_of(model)
    Path("grid.fmrn").write_bytes(fm.Downlink(schema, model).frame(0))
    Path("schema.json").write_text(json.dumps(schema.to_json()))
    (facts,) = json.loads(invoke(0, "inspect", "grid.fmrn", "--json", "--schema", "schema.json").stdout)[
        "files"
    ]
    assert facts["grid_bytes"] > 0
    assert (facts["masked_elements"], facts["mask_bytes"], facts["bits_per_masked"]) == (0, 0, None)
    parts = [facts[f"{each}_bytes"] for each in ("mask", "grid", "dense", "header")]
    assert sum(parts) == facts["frame_bytes"]
    assert "no tensor sent as a mask" in invoke(0, "inspect", "grid.fmrn", "--schema", "schema.json").stdout


def test_inspect_without_schema_and_with(folder, frame, invoke):
    Path("x.fmrn").write_bytes(frame(7, embed_schema=False))
    (facts,) = json.loads(invoke(0, "inspect", "x.fmrn", "--json").stdout)["files"]
    assert facts["bits_per_masked"] is facts["tensors"][0]["name"] is None
    assert "unknown without a schema" in invoke(0, "inspect", "x.fmrn").stdout
    (facts,) = json.loads(invoke(0, "inspect", "x.fmrn", "--json", "--schema", "a.fmrn").stdout)["files"]
    assert facts["tensors"][0]["name"] == "bf"


def test_inspect_many_goes_on_after_a_bad_one(folder, invoke):
    found = invoke(1, "inspect", "a.fmrn", "update.safetensors", "nope", "b.fmrn")
    assert "a.fmrn" in found.stdout
    assert "b.fmrn" in found.stdout
    assert "[magic]" in found.stderr
    assert "nope: No such file" in found.stderr
    assert invoke(3, "inspect", "a.fmrn", "nope", "--json").exit_code == 3
    both = json.loads(invoke(1, "inspect", "a.fmrn", "update.safetensors", "--json").stdout)
    assert [f["file"] for f in both["files"]] == ["a.fmrn"]
    assert [e["code"] for e in both["errors"]] == ["magic"]


def test_inspect_shows_no_control_characters(folder, invoke):
    schema = fm.Schema([fm.Tensor("\x1b[2Jevil[bold]\u202e", (2, 2), masked=True)])
    bits = {schema.tensors[0].name: np.ones((2, 2), bool)}
    frame = fm.encode_bits(bits, schema, seed=1, noise=fm.Uniform(1), embed_schema=True)
    Path("x.fmrn").write_bytes(frame)
    text = invoke(0, "inspect", "x.fmrn").stdout
    assert "\\x1b[2Jevil[bold]\\u202e" in text
    assert "\x1b" not in text


def test_verify(folder, invoke):
    good = invoke(0, "verify", "a.fmrn", "b.fmrn")
    assert good.stdout.splitlines() == ["ok       a.fmrn", "ok       b.fmrn"]
    bad = bytearray(Path("a.fmrn").read_bytes())
    bad[-1] ^= 1
    Path("bad.fmrn").write_bytes(bad)
    found = invoke(1, "verify", "bad.fmrn", "nope", "a.fmrn")
    assert [line.split()[0] for line in found.stdout.splitlines()] == ["refused", "error", "ok"]
    found = json.loads(invoke(1, "verify", "bad.fmrn", "nope", "a.fmrn", "--json").stdout)
    assert not found["ok"]
    assert [f["ok"] for f in found["files"]] == [False, False, True]
    error = found["files"][0]["error"]
    assert (error["code"], error["class"], error["offset"]) == ("checksum", "malformed", len(bad) - 4)
    assert json.loads(invoke(3, "verify", "nope", "--json").stdout)["files"][0]["error"]["class"] == "file"


@pytest.mark.parametrize(("option", "good"), [("--round", 3), ("--base-model", 4), ("--seed", 7)])
def test_verify_expectations(folder, frame, invoke, option, good):
    Path("x.fmrn").write_bytes(frame(7, round=3, base_model=4))
    invoke(0, "verify", "x.fmrn", option, good)
    invoke(1, "verify", "x.fmrn", option, good + 1)


def test_verify_partial_sums(folder, frame, model, invoke):
    for name, more in (("x", {"round": 3, "base_model": 4}), ("y", {})):
        Path(f"{name}.fmrn").write_bytes(frame(7, **more))
    pins = ("--round", 3, "--base-model", 4)
    invoke(0, "aggregate", "x.fmrn", "--weights", 600, "--partial", "x.fmrs", *pins)
    invoke(0, "verify", "x.fmrs", "--schema", "a.fmrn", *pins)
    invoke(1, "verify", "x.fmrs", "--schema", "a.fmrn", "--round", 4)
    invoke(1, "verify", "x.fmrs", "--schema", "a.fmrn", "--base-model", 3)
    assert "no_schema" in invoke(1, "verify", "x.fmrs").stdout
    assert "600" in invoke(0, "inspect", "x.fmrs").stdout
    (facts,) = json.loads(invoke(0, "inspect", "x.fmrs", "--schema", "a.fmrn", "--json").stdout)["files"]
    assert (facts["kind"], facts["frames"], facts["weight"]) == ("partial_sum", 1, 600)
    data = bytearray(Path("x.fmrs").read_bytes())
    data[70] ^= 1
    Path("bad.fmrs").write_bytes(data)
    invoke(1, "verify", "bad.fmrs", "--schema", "a.fmrn")
    Path("short.fmrs").write_bytes(data[:20])
    assert (
        "partial sum, byte 0: expected at least 56 bytes, got 20 bytes"
        in invoke(1, "inspect", "short.fmrs").stderr
    )


def test_tallies_are_verified_and_shown(folder, frame, invoke):
    frames = [frame(7, private_seed=i, round=3) for i in range(3)]
    tally = fm.Tally(fm.inspect(frames[0]).schema, weight=5, round=3)
    for data in frames:
        tally.add(data)
    data = tally.to_bytes()
    Path("t.fmrt").write_bytes(data)
    same = ("--schema", "a.fmrn")
    (result,) = json.loads(invoke(0, "verify", "t.fmrt", *same, "--round", 3, "--seed", 7, "--json").stdout)[
        "files"
    ]
    assert (result["ok"], result["kind"]) == (True, "tally")
    for wrong in (("--round", 4), ("--seed", 8), ("--base-model", 2)):
        invoke(1, "verify", "t.fmrt", *same, *wrong)
    assert "no_schema" in invoke(1, "verify", "t.fmrt").stdout
    Path("bad.fmrt").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "checksum" in invoke(1, "verify", "bad.fmrt", *same).stdout
    (facts,) = json.loads(invoke(0, "inspect", "t.fmrt", *same, "--json").stdout)["files"]
    assert [facts[key] for key in ("kind", "seed", "frames", "weight", "round")] == ["tally", 7, 3, 5, 3]
    assert "tally" in invoke(0, "inspect", "t.fmrt", "a.fmrn").stdout
    Path("short.fmrt").write_bytes(data[:20])
    assert (
        "tally, byte 0: expected at least 60 bytes, got 20 bytes" in invoke(1, "inspect", "short.fmrt").stderr
    )
    shown = invoke(0, "inspect", "--annotate", "t.fmrt", *same).stdout
    assert shown.startswith(f"# fedmrn annotated view 1: tally, {len(data)} bytes")
    assert "frames                          3" in shown
    found = invoke(1, "inspect", "--annotate", "--as", "tally", "bad.fmrt", *same).stdout
    assert "[T-18] checksum" in found


def test_verify_all_backends(folder, invoke, monkeypatch):
    found = json.loads(invoke(0, "verify", "a.fmrn", "--all-backends", "--json").stdout)
    assert {"numpy", "numba"} <= set(found["files"][0]["backends"])
    assert "agree" in invoke(0, "verify", "a.fmrn", "--all-backends").stdout

    from fedmrn_codec.backends import numpy as plain

    right = plain.decode

    def wrong(noise, kind, seed, stream, payload, out) -> None:
        right(noise, kind, seed, stream, payload, out)
        out[:1] = -0.0

    monkeypatch.setattr(plain, "decode", wrong)
    found = json.loads(invoke(1, "verify", "a.fmrn", "--all-backends", "--json").stdout)
    assert found["files"][0]["error"]["code"] == "backends_differ"
    assert "different bytes" in invoke(1, "verify", "a.fmrn", "--all-backends").stdout


def test_schema(folder, model, invoke):
    printed = invoke(0, "schema", "update.safetensors")
    schema = fm.Schema.from_json(json.loads(printed.stdout))
    assert schema == fm.inspect(Path("a.fmrn").read_bytes()).schema
    assert schema.digest.hex() in printed.stderr
    tensors.save("update.npz", model)  # another order, and no bfloat16
    other = fm.Schema.from_json(json.loads(invoke(0, "schema", "update.npz").stdout))
    assert [t.name for t in other] == [t.name for t in schema]
    assert invoke(0, "schema", "a.fmrn", "--json").stdout == printed.stdout
    Path("schema.txt").write_text(printed.stdout)
    assert invoke(0, "schema", "schema.txt").stdout == printed.stdout
    assert invoke(0, "schema", "-", input=Path("update.safetensors").read_bytes()).stdout == printed.stdout
    written = invoke(0, "schema", "update.safetensors", "-o", "s.json", "--json")
    assert json.loads(written.stdout)["schema_digest"] == schema.digest.hex()
    assert Path("s.json").read_text() == printed.stdout


def test_schema_problems(folder, frame, invoke):
    Path("x.fmrn").write_bytes(frame(7, embed_schema=False))
    assert (
        "schema, byte 6: expected a frame that embeds its schema, got none embedded"
        in invoke(1, "schema", "x.fmrn").stderr
    )
    masked = "--masked: expected none, since the schema says what is masked, got ['bias']"
    assert masked in invoke(2, "schema", "a.fmrn", "--masked", "bias").stderr
    for text, code in (
        ("[", 3),
        ("{}", 2),
        ("[" * 100_000, 3),
        ('[{"name": "a"}]', 2),
        ('[{"name": "a", "shape": [2], "dtype": "float32", "masked": true, "x": 1}]', 2),
        ('[{"name": "a", "shape": [-2]}]', 2),
        ('[{"name": "a", "shape": [1e3]}]', 2),
        ('[{"name": "a", "shape": [2]}, {"name": "a", "shape": [2]}]', 2),
        ("\x00\x01", 3),
    ):
        Path("s.json").write_text(text)
        invoke(code, "decode", "x.fmrn", "--schema", "s.json", "-o", "out.npz")


@pytest.mark.parametrize("noise", ["uniform:0.01", "gaussian:0.005", "bernoulli:0.01"])
def test_noise(folder, invoke, noise):
    place = ("--seed", 7, "--stream", 3, "--start", 2**40 - 2, "--count", 5)
    kind, scale = noise.split(":")
    classes = {"uniform": fm.Uniform, "gaussian": fm.Gaussian, "bernoulli": fm.Bernoulli}
    expected = fm.noise(classes[kind](float(scale)), seed=7, stream=3, start=2**40 - 2, count=5)
    bits = [f"{word:08x}" for word in expected.view(np.uint32).tolist()]
    rows = [line.split("\t") for line in invoke(0, "noise", "--noise", noise, *place).stdout.splitlines()]
    assert [int(row[0]) for row in rows] == list(range(2**40 - 2, 2**40 + 3))
    assert [np.float32(row[1]) for row in rows] == expected.tolist()
    assert [row[2] for row in rows] == bits
    found = json.loads(invoke(0, "noise", "--noise", noise, *place, "--json").stdout)
    assert found["noise"] == noise
    assert found["bits"] == bits
    assert found["values"] == expected.tolist()
    invoke(0, "noise", "--noise", noise, *place, "-o", "x.bin")
    assert Path("x.bin").read_bytes() == expected.astype("<f4").tobytes()
    assert (
        invoke(0, "noise", "--noise", noise, *place, "-o", "-").stdout_bytes
        == expected.astype("<f4").tobytes()
    )
    for suffix in ("npz", "safetensors"):
        invoke(0, "noise", "--noise", noise, *place, "-o", f"x.{suffix}")
        assert tensors.load(f"x.{suffix}").tensors["noise"].array.tobytes() == expected.tobytes()


def test_noise_at_the_ends(folder, invoke):
    noise = ("noise", "--noise", "uniform:1", "--seed", 2**64 - 1, "--stream", 2**64 - 1)
    assert invoke(0, *noise, "--count", 0).stdout == ""
    assert json.loads(invoke(0, *noise, "--count", 0, "--json").stdout)["values"] == []
    last = invoke(0, *noise, "--start", 2**64 - 1, "--count", 1)
    assert last.stdout.startswith(f"{2**64 - 1}\t")
    invoke(2, *noise, "--start", 2**64 - 1, "--count", 2)
    invoke(2, *noise, "--count", 2**40, "--json")
    invoke(2, *noise, "--count", -1)


def test_inspect_annotated(folder, frame, invoke):
    text = invoke(0, "inspect", "--annotate", "a.fmrn").stdout
    assert "größe/0" in text
    assert text.splitlines()[-1] == f"# end: {Path('a.fmrn').stat().st_size} bytes"
    Path("view.txt").write_text(text, encoding="utf-8")
    invoke(0, "inspect", "--from-annotated", "view.txt", "-o", "again.fmrn")
    assert Path("again.fmrn").read_bytes() == Path("a.fmrn").read_bytes()


def test_inspect_annotated_of_damaged_files(folder, invoke):
    data = Path("a.fmrn").read_bytes()
    for bad, check in ((data[:-1], "[F-25]"), (data[:4] + b"\7" + data[5:], "[F-03]"), (data[:9], "[F-01]")):
        Path("bad.fmrn").write_bytes(bad)
        found = invoke(1, "inspect", "--annotate", "bad.fmrn")
        assert f"{check} " in found.stdout
        Path("view.txt").write_text(found.stdout, encoding="utf-8")
        invoke(0, "inspect", "--from-annotated", "view.txt", "-o", "again.fmrn")
        assert Path("again.fmrn").read_bytes() == bad


def test_inspect_annotated_without_schema_and_with(folder, frame, invoke):
    Path("x.fmrn").write_bytes(frame(7, embed_schema=False))
    assert "# The schema is not known" in invoke(0, "inspect", "--annotate", "x.fmrn").stdout
    assert "'bf'" in invoke(0, "inspect", "--annotate", "x.fmrn", "--schema", "a.fmrn").stdout


def test_inspect_annotated_of_sums_and_schemas(folder, invoke):
    invoke(0, "aggregate", "a.fmrn", "b.fmrn", "--weights", "3,4", "--partial", "sum.fmrs")
    assert "limbs of 'bias'" in invoke(0, "inspect", "--annotate", "sum.fmrs", "--schema", "a.fmrn").stdout
    assert "# The schema is not known" in invoke(0, "inspect", "--annotate", "sum.fmrs").stdout
    schema = fm.inspect(Path("a.fmrn").read_bytes()).schema.data
    Path("schema").write_bytes(schema)
    assert "role of 'bias'" in invoke(0, "inspect", "--annotate", "schema").stdout
    Path("schema").write_bytes(schema[:-1])
    assert "[S-01]" in invoke(1, "inspect", "--annotate", "schema", "--as", "schema").stdout
    assert "[F-02]" in invoke(1, "inspect", "--annotate", "schema").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--annotate", "--from-annotated", "a.fmrn"),
        ("--annotate", "a.fmrn", "b.fmrn"),
        ("--annotate", "--json", "a.fmrn"),
        ("--as", "schema", "a.fmrn"),
        ("-o", "out", "a.fmrn"),
        ("--from-annotated", "a.fmrn", "-o", "out"),
    ],
)
def test_inspect_annotated_wrong_usage(folder, invoke, arguments):
    assert "expected" in invoke(2, "inspect", *arguments).stderr
    assert not Path("out").exists()

"""Mask counts: correct for the sent frames, also after the process is killed."""

import json
import math

import numpy as np
import pytest

import fedmrn_codec as fm
from reference_fl import data, loop, mask_counts, methods
from reference_fl.record import METRICS, STATE, Record
from reference_fl.settings import defaults

TINY = {"clients": 6, "clients_per_round": 2, "epochs": 1, "rounds": 3, "threads": 1}
SCHEMA = fm.Schema(
    [fm.Tensor("w", (3, 7), masked=True), fm.Tensor("b", (2,)), fm.Tensor("v", (8,), masked=True)]
)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def run(settings, digits, folder):
    list(loop.run(settings, digits, folder))
    return (folder / "layers.jsonl").read_bytes()


def frame(w, v, **options):
    bits = {"w": np.array(w, bool).reshape(3, 7), "v": np.array(v, bool)}
    dense = {"b": np.ones(2, np.float32)}
    return fm.encode_bits(
        bits, SCHEMA, seed=1, noise=fm.Uniform(1.0), mask="signed", dense=dense, round=0, **options
    )


@pytest.mark.parametrize("options", [{}, {"embed_schema": True}])
def test_ones_are_counted_over_frames(options):
    counts = mask_counts.MaskCounts()
    counts.add(fm.verify(frame([1] * 21, [1] * 8, **options), SCHEMA))
    counts.add(fm.verify(frame([0] * 20 + [1], [0, 1] * 4, **options), SCHEMA))
    assert counts.line(4) == {
        "round": 4,
        "tensors": {
            "w": {"elements": 21, "ones": 22, "frames": 2, "scale": 1.0},
            "v": {"elements": 8, "ones": 12, "frames": 2, "scale": 1.0},
        },
    }


def test_messages_without_masks_give_no_line():
    counts = mask_counts.MaskCounts()
    plain = fm.Schema([fm.Tensor("b", (2,))])
    plain_frame = fm.encode({"b": np.zeros(2, np.float32)}, plain, seed=1, noise={}, mask={})
    counts.add(fm.verify(plain_frame, plain))
    assert counts.line(1) is None


def test_only_masks_are_counted(digits, tmp_path):
    """Signs are sent as masks over random signs, and are as random; packed messages are not counted."""
    tiny = {**TINY, "rounds": 1}
    for name in methods.METHODS:
        list(loop.run(defaults("digits", name, None, **tiny), digits, tmp_path / name))
    counted = {path.parent.name for path in tmp_path.glob("*/layers.jsonl")}
    assert counted == {"fedmrn", "postmask", "fedpm"}


def test_the_counts_of_a_run_are_those_of_its_frames(digits, tmp_path, monkeypatch):
    sent = []
    original = methods.METHODS["fedmrn"].client

    def client(self, model, task):
        sent.append((task.round, original(self, model, task)))
        return sent[-1][1]

    monkeypatch.setattr(methods.METHODS["fedmrn"], "client", client)
    run(defaults("digits", "fedmrn", "binary", **TINY), digits, tmp_path)
    lines = mask_counts.read(tmp_path / "layers.jsonl")
    assert [line["round"] for line in lines] == [1, 2, 3]
    for line in lines:
        kept = dict.fromkeys(line["tensors"], 0)
        for number, message in sent:
            if number == line["round"]:
                arrays = fm.decode(message, _schema(digits))
                for name in kept:
                    kept[name] += int(
                        np.count_nonzero(arrays[name])
                    )  # noise is never 0, so each set bit gives a nonzero value
        assert {name: t["ones"] for name, t in line["tensors"].items()} == kept
        assert {t["frames"] for t in line["tensors"].values()} == {2}


def _schema(digits):
    from reference_fl import models

    settings = defaults("digits", "fedmrn", "binary")
    return methods.build(settings).schema(models.build(settings.model, digits.in_shape, 10, 0))


def test_a_method_without_masks_leaves_no_file(digits, tmp_path):
    list(loop.run(defaults("digits", "fedavg", None, **{**TINY, "rounds": 1}), digits, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS, STATE, "traffic.jsonl"]


@pytest.mark.parametrize("extra", ["whole", "half"])
def test_a_resumed_run_has_the_lines_of_an_unbroken_one(extra, digits, tmp_path):
    settings = defaults("digits", "fedmrn", "signed", **TINY)
    want = run(settings, digits, tmp_path / "unbroken")
    folder = tmp_path / "killed"
    run(defaults("digits", "fedmrn", "signed", **{**TINY, "rounds": 2}), digits, folder)
    with (folder / "layers.jsonl").open("ab") as file:  # killed after or within the first write of round 3
        file.write(want.splitlines(keepends=True)[0].replace(b'"round": 1', b'"round": 3'))
        if extra == "half":
            file.seek(-20, 2)
            file.truncate()
    assert run(settings, digits, folder) == want


def test_counts_of_another_run_are_dropped(digits, tmp_path):
    settings = defaults("digits", "fedmrn", "signed", **TINY)
    line = {"round": 1, "tensors": {"w": {"elements": 8, "ones": 1, "frames": 1}}}
    (tmp_path / "layers.jsonl").write_text(json.dumps(line) + "\n")
    with Record.open(tmp_path, settings):
        assert not (tmp_path / "layers.jsonl").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no counts\n", "line 1: expected mask counts, got JSONDecodeError"),
        (
            '{"round": 1, "tensors": {"w": {"elements": 8, "ones": 1}}}\n',
            "line 1: expected mask counts, got KeyError: 'frames'",
        ),
        (
            '{"round": 1, "tensors": {"w": {"elements": 8, "ones": 17, "frames": 2}}}\n',
            "ones of w: expected 0 to 8 x 2, got 17",
        ),
        ("[]\n", "line 1: expected mask counts, got TypeError"),
    ],
)
def test_files_of_something_else_are_refused(text, message, tmp_path):
    (tmp_path / "layers.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        mask_counts.read(tmp_path / "layers.jsonl")


def test_density_and_entropy():
    counts = {"elements": 8, "ones": 4, "frames": 2}
    assert mask_counts.density(counts) == 0.25
    assert mask_counts.entropy(0.25) == pytest.approx(0.811278, abs=1e-6)
    assert (mask_counts.entropy(0.0), mask_counts.entropy(0.5), mask_counts.entropy(1.0)) == (0, 1, 0)
    assert math.isnan(mask_counts.entropy(mask_counts.density({"elements": 0, "ones": 0, "frames": 2})))


def test_runs_that_are_older_than_options_continue(digits, tmp_path):
    settings = defaults("digits", "fedavg", None, **{**TINY, "rounds": 1})
    list(loop.run(settings, digits, tmp_path))
    first, rest = (tmp_path / METRICS).read_text().split("\n", 1)
    header = json.loads(first)
    del header["settings"]["options"]
    (tmp_path / METRICS).write_text(json.dumps(header) + "\n" + rest)
    assert len(Record.open(tmp_path, settings).rounds) == 1

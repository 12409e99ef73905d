"""The loop: real frames, resumed runs, records and reports."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fedmrn_codec as fm
from reference_fl import data, loop, methods, models, record, report, server
from reference_fl.record import METRICS, ROUND_KEYS, STATE, Record, read
from reference_fl.seeds import derive
from reference_fl.settings import defaults, split

TINY = {"clients": 6, "clients_per_round": 2, "epochs": 1, "rounds": 3, "threads": 1}
KINDS = [("fedavg", None), ("fedmrn", "binary"), ("fedmrn", "signed")]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def without_seconds(lines):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def run(settings, digits, folder, **kwargs):
    return without_seconds(loop.run(settings, digits, folder, **kwargs))


@pytest.mark.parametrize(("method", "mask"), KINDS)
def test_a_run_learns_and_keeps_its_lines(method, mask, digits, tmp_path):
    settings = defaults("digits", method, mask, **TINY)
    lines = run(settings, digits, tmp_path, verify=True)
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] < lines[0]["loss"] or lines[-1]["accuracy"] > lines[0]["accuracy"]
    (header, kept), = read(tmp_path / METRICS)  # fmt: skip
    assert without_seconds(kept) == lines
    assert header["settings"] == settings.as_json()
    assert tuple(kept[0]) == ROUND_KEYS
    raw = (tmp_path / METRICS).read_text().splitlines()
    assert [tuple(json.loads(line)) for line in raw[1:]] == [ROUND_KEYS] * 3


def test_bytes_are_those_of_the_messages(digits, tmp_path, monkeypatch):
    settings = defaults("digits", "fedmrn", "binary", **TINY)
    sent = []
    original = methods.METHODS["fedmrn"].client

    def client(self, model, task):
        sent.append(original(self, model, task))
        return sent[-1]

    monkeypatch.setattr(methods.METHODS["fedmrn"], "client", client)
    lines = run(settings, digits, tmp_path)
    total = sum(report.uplink(line) for line in lines)
    assert total == sum(map(len, sent))
    schema = methods.build(settings).schema(models.build("cnn2", digits.in_shape, 10, 0))
    for frame in sent:
        info = fm.verify(frame, schema)
        masked = sum(t.size for t in schema if t.masked)
        assert 0 < info.mask_bytes < sum((t.size + 7) // 8 for t in schema if t.masked)
        assert masked > 20_000
    assert sum(fm.inspect(f).mask_bytes for f in sent) == sum(line["uplink_mask_bytes"] for line in lines)
    assert len({fm.inspect(f).seed for f in sent}) == len(sent)


@pytest.mark.parametrize(("method", "mask"), KINDS)
def test_a_resumed_run_equals_an_unbroken_one(method, mask, digits, tmp_path):
    settings = defaults("digits", method, mask, **TINY)
    want = run(settings, digits, tmp_path / "whole")
    steps = loop.run(settings, digits, tmp_path / "parts")
    next(steps)
    steps.close()
    shorter = defaults("digits", method, mask, **{**TINY, "rounds": 2})
    assert run(shorter, digits, tmp_path / "parts") == want[:2]
    assert run(settings, digits, tmp_path / "parts") == want
    assert (tmp_path / "parts" / STATE).read_bytes() == (tmp_path / "whole" / STATE).read_bytes()


def test_a_line_without_its_state_is_done_again(digits, tmp_path):
    """A process killed between line and state of a round leaves one line too many, or half a line."""
    settings = defaults("digits", "fedmrn", "signed", **TINY)
    want = run(settings, digits, tmp_path / "whole")
    folder = tmp_path / "killed"
    run(defaults("digits", "fedmrn", "signed", **{**TINY, "rounds": 2}), digits, folder)
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps({**want[2], "seconds": 0.0, "accuracy": 0.0}) + '\n{"dataset": "dig')
    assert run(settings, digits, folder) == want


def test_a_killed_process_resumes(digits, tmp_path):
    settings = defaults("digits", "fedmrn", "binary", **TINY)
    want = run(settings, digits, tmp_path / "whole")
    script = (
        "import sys; from pathlib import Path; from reference_fl import data, loop;"
        "from reference_fl.settings import Settings; import json;"
        "s = Settings(**json.loads(sys.argv[1]));"
        "list(loop.run(s, data.load('digits'), Path(sys.argv[2])))"
    )
    folder = tmp_path / "killed"
    arguments = [sys.executable, "-c", script, json.dumps(settings.as_json()), str(folder)]
    process = subprocess.Popen(arguments)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if (folder / METRICS).exists() and len((folder / METRICS).read_text().splitlines()) >= 2:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait()
    assert run(settings, digits, folder) == want


def test_other_settings_are_refused(digits, tmp_path):
    run(defaults("digits", "fedavg", None, **{**TINY, "rounds": 1}), digits, tmp_path)
    with pytest.raises(ValueError, match=r"settings of the run in .*metrics.jsonl: seed expected 1, got 0"):
        Record.open(tmp_path, defaults("digits", "fedavg", None, **TINY, seed=1))
    (tmp_path / METRICS).write_text("no metrics\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1: expected metrics, got JSONDecodeError"):
        Record.open(tmp_path, defaults("digits", "fedavg", None, **TINY))


def test_the_record_has_all_options_and_a_run_goes_on_with_the_same(digits, tmp_path, monkeypatch):
    settings = defaults("digits", "fedmrn", "binary", **{**TINY, "rounds": 1})
    run(settings, digits, tmp_path)
    ((header, _),) = read(tmp_path / METRICS)
    assert header["options"] == methods.build(settings).options
    assert header["options"]["coding"] == "rans12"
    monkeypatch.setitem(methods.METHODS["fedmrn"].OPTIONS, "coding", "raw")  # as in another version
    longer = defaults("digits", "fedmrn", "binary", **TINY)
    with pytest.raises(ValueError, match=r"metrics.jsonl: coding expected 'raw', got 'rans12'"):
        loop.run(longer, digits, tmp_path).__next__()
    named = defaults("digits", "fedmrn", "binary", **TINY, options={"coding": "raw"})
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        loop.run(named, digits, tmp_path).__next__()


def test_the_record_names_the_commits_that_resumed_it(digits, tmp_path, monkeypatch):
    one = defaults("digits", "fedavg", None, **{**TINY, "rounds": 1})
    monkeypatch.setattr(record, "commit", lambda _: "a" * 40)
    run(one, digits, tmp_path)
    run(replace(one, rounds=2), digits, tmp_path)
    ((header, _),) = read(tmp_path / METRICS)
    assert header["commit"] == "a" * 40
    assert "resumed" not in header
    monkeypatch.setattr(record, "commit", lambda _: "b" * 40)
    run(replace(one, rounds=3), digits, tmp_path)
    run(replace(one, rounds=3), digits, tmp_path)  # nothing is left to do
    ((header, _),) = read(tmp_path / METRICS)
    assert header["commit"] == "a" * 40
    assert [(each["after"], each["commit"]) for each in header["resumed"]] == [(2, "b" * 40)]


def test_global_random_state_is_not_touched(digits, tmp_path):
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    run(defaults("digits", "fedmrn", "binary", **{**TINY, "rounds": 1}), digits, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tobytes() == numpy_before  # noqa: NPY002


def test_a_backend_that_differs_is_found(digits, monkeypatch):
    schema = fm.Schema([fm.Tensor("w", (9,), masked=True)])
    frame = fm.encode({"w": np.zeros(9, np.float32)}, schema, seed=1, noise=fm.Uniform(1.0), mask="signed")
    server.compare_backends(frame, schema)
    real = fm.decode
    monkeypatch.setattr(
        fm, "decode", lambda *a, backend: {k: v + (backend == "numpy") for k, v in real(*a).items()}
    )
    with pytest.raises(RuntimeError, match="'w' decoded by numpy: expected the bytes of numba, got others"):
        server.compare_backends(frame, schema)


@pytest.mark.parametrize("partition", ["iid", "dirichlet:0.3", "labels:3"])
def test_partitions_by_name(partition, digits):
    settings = defaults("digits", "fedavg", None, partition=partition)
    parts = split(settings, digits)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(digits.train_y)))


@pytest.mark.parametrize("partition", ["", "iid:3", "dirichlet", "labels:x", "labels:", "other:3"])
def test_unknown_partitions_are_refused(partition, digits):
    with pytest.raises(
        ValueError, match=f"partition: expected iid, dirichlet:ALPHA, labels:K or natural, got '{partition}'"
    ):
        split(defaults("digits", "fedavg", None, partition=partition), digits)


def test_unknown_settings_and_methods_are_refused():
    with pytest.raises(ValueError, match="mask: expected none for the method fedavg, got 'binary'"):
        defaults("digits", "fedavg", "binary")
    with pytest.raises(ValueError, match=r"settings: expected only batch_size, .*, got colour"):
        defaults("digits", "fedavg", None, colour="red")
    with pytest.raises(fm.ArgumentError, match=r"noise: expected NAME:SCALE, .*, got 'cauchy:1'"):
        defaults("digits", "fedmrn", "binary", noise="cauchy:1")
    with pytest.raises(ValueError, match="method: expected an unused name, got 'fedavg'"):
        methods.register("fedavg")(methods.METHODS["fedavg"])


def test_seeds_differ_by_purpose_round_and_client():
    seeds = [
        derive(0, what, r, c) for what in ("noise", "private", "order") for r in range(9) for c in range(9)
    ]
    assert len(set(seeds)) == len(seeds)
    assert derive(1, "noise", 2, 3) == derive(1, "noise", 2, 3) < 2**63


def test_the_protocol_s_defaults():
    settings = defaults("fashion-mnist", "fedmrn", None)
    assert (settings.clients, settings.clients_per_round, settings.epochs, settings.batch_size) == (
        100,
        10,
        10,
        64,
    )
    assert (settings.model, settings.learning_rate, settings.noise) == ("cnn4", 0.06, "adaptive")
    assert defaults("fashion-mnist", "postmask", "signed").noise == "uniform:0.005"
    assert defaults("fashion-mnist", "fedavg", None).learning_rate == 0.03


def test_uplink_of_cnn4_keeps_its_bounds():
    """At most 1.003 bits a masked parameter, headers included; the whole frame under 56,900 bytes."""
    settings = defaults("fashion-mnist", "fedmrn", "binary")
    model = models.build("cnn4", (1, 28, 28), 10, 0)
    schema = methods.build(settings).schema(model)
    zeros = {t.name: np.zeros(t.shape, t.type.numpy) for t in schema}
    frame = fm.encode(zeros, schema, seed=1, noise=fm.Uniform(0.01))
    info = fm.inspect(frame, schema)
    masked = sum(t.size for t in schema if t.masked)
    dense_entries = 12 * sum(not t.masked for t in schema)
    assert masked == 389_920
    assert 8 * (info.mask_bytes + info.header_bytes - dense_entries) / masked <= 1.003
    assert info.frame_bytes < 56_900


def test_coded_masks_train_the_same_model(digits, tmp_path):
    kept, size = {}, {}
    for coding in ("raw", "rans"):
        settings = defaults("digits", "fedmrn", "binary", **TINY, options={"coding": coding})
        lines = list(run(settings, digits, tmp_path / coding))
        kept[coding] = (tmp_path / coding / "state.safetensors").read_bytes()
        size[coding] = sum(line["uplink_mask_bytes"] for line in lines)
    assert kept["raw"] == kept["rans"]
    assert size["rans"] < size["raw"]


def test_report_from_the_lines_alone(digits, tmp_path):
    for method, mask in KINDS[:2]:
        settings = defaults("digits", method, mask, **{**TINY, "rounds": 1})
        run(settings, digits, tmp_path / settings.label)
    rows = report.table(report.load([tmp_path]))
    assert [row["method"] for row in rows] == ["fedavg", "fedmrn binary"]
    assert rows[0]["ratio"] == 1
    assert rows[1]["ratio"] > 15
    text = report.markdown(report.HEADS, map(report.cells, rows))
    assert len(text.splitlines()) == 4
    picture = tmp_path / "figure.png"
    report.figure(report.load([tmp_path]), picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert report.load([Path(tmp_path / "fedavg")])[0].label == "fedavg"

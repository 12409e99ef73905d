"""`fedmrn train` as a program."""

import json
import subprocess
import sys
from pathlib import Path

from reference_fl import presets
from reference_fl.record import METRICS, ROUND_KEYS, read

FEDMRN = Path(sys.executable).with_name("fedmrn")
TINY = ["--rounds", "1", "--clients", "6", "--clients-per-round", "2", "--epochs", "1", "--threads", "1"]


def fedmrn(*arguments):
    return subprocess.run([FEDMRN, "train", *map(str, arguments)], capture_output=True, text=True)


def test_lines_for_machines_and_a_resumed_run(tmp_path):
    done = fedmrn(*TINY, "--json", "--verify", "--mask", "signed", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, done.stdout.splitlines())
    assert tuple(line) == ROUND_KEYS
    again = fedmrn(*TINY, "--json", "--mask", "signed", "--rounds", 2, "--out", tmp_path)
    assert [json.loads(text)["round"] for text in again.stdout.splitlines()] == [1, 2]
    assert again.stdout.splitlines()[0] == done.stdout.splitlines()[0]


def test_the_demo_leaves_lines_a_table_and_a_figure(tmp_path):
    done = fedmrn("--demo", *TINY, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    runs = read(tmp_path / METRICS)
    assert [(r["settings"]["method"], r["settings"]["mask"]) for r, _ in runs] == [
        ("fedavg", None),
        ("fedmrn", "binary"),
        ("fedmrn", "signed"),
    ]
    assert all(len(rounds) == 1 for _, rounds in runs)
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    for word in ("fedavg", "fedmrn binary", "fedmrn signed", "ratio"):
        assert word in done.stdout


def test_the_command_line_overrides_presets_and_options(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'dataset = "digits"\nrounds = 9\nclients = 6\nclients_per_round = 2\nepochs = 1\nbatch_size = 32\n'
        "[methods.topk]\nlearning_rate = 0.5\n"
    )
    options = ["--option", "fraction=0.25", "--option", "error_feedback=true"]
    given = ["--preset", tmp_path / "mine.toml", "--method", "topk", "--rounds", 1, "--threads", 1]
    done = fedmrn(*given, *options, "--json", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    ((header, rounds),) = read(tmp_path / "run" / METRICS)
    settings = header["settings"]
    assert (settings["learning_rate"], settings["batch_size"], len(rounds)) == (0.5, 32, 1)
    assert settings["options"] == {"fraction": 0.25, "error_feedback": True}


def test_presets_are_listed():
    done = fedmrn("--list-presets")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == presets.names()
    assert "Dirichlet label skew, alpha 0.2" in done.stdout


def test_errors_have_codes_and_no_traceback(tmp_path):
    cases = [
        (2, ["--dataset", "letters"], "data set: expected one of"),
        (2, ["--method", "telepathy"], "method: expected one of"),
        (2, ["--mask", "ternary"], "mask: expected binary or signed, got 'ternary'"),
        (
            2,
            ["--method", "fedavg", "--mask", "binary"],
            "mask: expected none for the method fedavg, got 'binary'",
        ),
        (2, ["--partition", "odd"], "partition: expected iid, dirichlet:ALPHA, labels:K or natural"),
        (2, ["--noise", "uniform:-1"], "noise scale: expected"),
        (
            2,
            ["--learning-rate-schedule", "linear"],
            "learning rate schedule: expected constant, inverse:GAMMA",
        ),
        (2, ["--clients-per-round", "100"], "clients per round: expected 1 to 6 (all), got 100"),
        (2, ["--preset", "mnist"], "preset: expected one of cifar10-dirichlet"),
        (3, ["--dataset", "fashion-mnist", "--data-root", tmp_path], "train-images-idx3-ubyte"),
    ]
    for code, arguments, word in cases:
        done = fedmrn(*TINY, *arguments, "--out", tmp_path / "run")
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), (arguments, done.stderr)
        assert word in done.stderr
        assert done.stdout == ""

"""Rounds for TensorBoard: what is written, none of them twice, and the error without the package."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import ClassVar

import pytest
from made_runs import ACCURACIES, BINARY, as_lines, counts, write

from reference_fl import events
from reference_fl.record import METRICS, read

FEDMRN = Path(sys.executable).with_name("fedmrn")
TINY = ["--rounds", "1", "--clients", "6", "--clients-per-round", "2", "--epochs", "1", "--threads", "1"]


class Writer:
    """Stands for torch's SummaryWriter, and keeps what it is given."""

    made: ClassVar[list] = []

    def __init__(self, folder, purge_step=None):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        Writer.made.append(self)

    def add_scalar(self, tag, value, step):
        self.scalars.append((tag, value, step))

    def flush(self):
        self.flushed = len(self.scalars)

    def close(self):
        self.closed = True


@pytest.fixture
def made(monkeypatch):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    import torch.utils

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(torch.utils, "tensorboard", module, raising=False)
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def test_what_is_written(made, tmp_path):
    run = write(tmp_path / "run", **BINARY)
    lines = [{**counts(i, w=250), "round": i} for i in range(1, 5)]
    lines[3]["tensors"]["w"]["scale"] = 0.25
    (run / "layers.jsonl").write_text(as_lines(*lines))
    events.catch_up(run, tmp_path / "board")
    (writer,) = made
    assert (writer.folder, writer.purge_step, writer.closed) == (str(tmp_path / "board"), None, True)
    assert writer.flushed == len(writer.scalars)
    by_tag = {}
    for tag, value, step in writer.scalars:
        by_tag.setdefault(tag, {})[step] = value
    assert by_tag["accuracy"] == dict(enumerate(ACCURACIES, 1))
    assert by_tag["loss"][1] == 0.5
    assert by_tag["bytes/up"] == dict.fromkeys(range(1, 5), 15_000.0)
    assert by_tag["bytes/down"] == dict.fromkeys(range(1, 5), 410_000.0)
    assert by_tag["density/w"] == dict.fromkeys(range(1, 5), 0.5)
    assert by_tag["scale/w"] == {4: 0.25}
    assert set(by_tag) == {"accuracy", "loss", "seconds", "bytes/up", "bytes/down", "density/w", "scale/w"}


def test_no_round_is_written_twice(made, tmp_path):
    run, board = write(tmp_path / "run"), tmp_path / "board"
    ((_, lines),) = read(run / METRICS)
    with events.Log(run, board) as log:
        log.add(lines[0])
        log.add(lines[1])
        log.add(lines[1])
    with events.Log(run, board) as log:
        for line in lines:
            log.add(line)
    events.catch_up(run, board)
    steps = [step for writer in made for tag, _, step in writer.scalars if tag == "accuracy"]
    assert steps == [1, 2, 3, 4]
    assert [writer.purge_step for writer in made] == [None, 3, 5]


def test_a_log_of_another_run_is_refused(made, tmp_path):
    run, board = write(tmp_path / "run"), tmp_path / "board"
    events.catch_up(run, board)
    with pytest.raises(ValueError, match=r"expected a log of at most 2 rounds, as many as .*, got one of 4"):
        events.Log(write(tmp_path / "shorter", [0.1, 0.2]), board)
    (board / events.LOGGED).write_text("four")
    with pytest.raises(ValueError, match="expected the number of a round, got 'four'"):
        events.Log(run, board)


def test_without_the_package_an_error_names_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ValueError, match=r"expected the package tensorboard, got none .*pip install tensorboard"
    ):
        events.require()
    with pytest.raises(ValueError, match="tensorboard"):
        events.Log(write(tmp_path / "run"), tmp_path / "board")


@pytest.mark.parametrize(
    "arguments", [["train", *TINY], ["sweep", "--methods", "fedavg", *TINY]], ids=["train", "sweep"]
)
def test_the_verbs_say_so_before_they_train(arguments, tmp_path):
    hidden = tmp_path / "hidden"
    (hidden / "tensorboard").mkdir(parents=True)
    (hidden / "tensorboard" / "__init__.py").write_text(
        "raise ModuleNotFoundError('No module named tensorboard')"
    )

    path = f"{hidden}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = [FEDMRN, *arguments, "--out", tmp_path / "out", "--tensorboard", tmp_path / "board"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 2, done.stderr
    assert "pip install tensorboard" in " ".join(done.stderr.replace("\u2502", " ").split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "board").exists()
    assert not list(tmp_path.glob("out/**/metrics.jsonl"))


def read_back(folder):
    """The steps and values of each tag, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_a_run_that_was_resumed_and_a_sweep(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    train = [FEDMRN, "train", *TINY, "--json", "--out", tmp_path / "run", "--tensorboard", tmp_path / "board"]
    for rounds in ("1", "2"):
        done = subprocess.run([*train, "--rounds", rounds], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    found = read_back(tmp_path / "board")
    assert [step for step, _ in found["accuracy"]] == [1, 2]
    assert [value for _, value in found["accuracy"]] == pytest.approx([line["accuracy"] for line in lines])
    assert [value for _, value in found["bytes/down"]] == [line["downlink_bytes"] for line in lines]
    assert any(tag.startswith("density/") for tag in found)
    assert any(tag.startswith("scale/") for tag in found)
    sweep = [FEDMRN, "sweep", "--methods", "fedavg", *TINY, "--out", tmp_path / "sweep"]
    board = tmp_path / "boards"
    for more in ([], ["--tensorboard", board]):
        done = subprocess.run([*sweep, *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (folder,) = {file.parent for file in board.rglob("events.*")}
    assert [step for step, _ in read_back(folder)["accuracy"]] == [1]

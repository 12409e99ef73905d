"""Sweeps that are killed at random and resumed, have failing runs, or are ended by a signal."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fedmrn_codec.backends.threads import processors
from reference_fl import data, loop, report, sweep, sweep_runs
from reference_fl.record import METRICS, read
from reference_fl.sweep import LOG, Sweep, begun_with
from reference_fl.worker import locked

FEDMRN = Path(sys.executable).with_name("fedmrn")
TINY = {"rounds": 4, "clients": 6, "clients_per_round": 2, "epochs": 1}
METHODS = ["fedavg", "topk+error_feedback=true"]  # without and with states of the clients


def arguments(out):
    tiny = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    return [FEDMRN, "sweep", "--methods", ",".join(METHODS), "--jobs=2", "--threads=1", *tiny, "--out", out]


def without_seconds(path):
    """The runs of a metrics file: their settings, and their rounds without the seconds."""
    return [
        (
            header["settings"],
            [{key: value for key, value in line.items() if key != "seconds"} for line in rounds],
        )
        for header, rounds in read(path)
    ]


def begin(out, *more, **kwargs):
    """A sweep in a process group of its own."""
    return subprocess.Popen([*arguments(out), *more], start_new_session=True, **kwargs)


def finished_rounds(out):
    return sum(max(0, path.read_bytes().count(b"\n") - 1) for path in out.glob(f"*/{METRICS}"))


def wait_until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The same runs, one after the other in this process."""
    out, digits = tmp_path_factory.mktemp("unbroken"), data.load("digits")
    runs = Sweep(sweep_runs.runs(["digits"], METHODS, [0], TINY), out, None, threads=1, jobs=1)
    for run in runs.runs:
        list(loop.run(run.settings, digits, out / run.name))
    return runs.merge()


def test_a_sweep_that_is_killed_three_times_ends_like_an_unbroken_one(unbroken, tmp_path):
    luck = random.Random()  # kills at a different moment each time
    for number in range(3):
        process = begin(tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        rounds, delay = 2 * number + luck.randint(0, 2), luck.uniform(0, 0.1)
        wait_until(lambda least=rounds: finished_rounds(tmp_path) >= least, process)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run([*arguments(tmp_path), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert without_seconds(tmp_path / METRICS) == without_seconds(unbroken)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows == report.table(report.load([unbroken]))
    assert [(row["method"], row["rounds"]) for row in rows] == [("fedavg", 4), ("topk", 4)]


def test_a_run_that_fails_stops_no_other_and_what_is_done_is_skipped(unbroken, tmp_path):
    planned = sweep_runs.runs(["digits"], METHODS, [0], TINY)
    foreign, other = (tmp_path / run.name for run in planned)
    foreign.mkdir()
    (header, _), *_ = read(unbroken)
    header["settings"]["epochs"] = 77
    (foreign / METRICS).write_text(json.dumps(header) + "\n")
    seen = []

    def report_round(name, line):
        seen.append((name, line["round"]))

    runs = Sweep(planned, tmp_path, None, threads=1, jobs=2)
    failed = runs.execute(report_round)
    assert list(failed) == [foreign.name]
    assert "epochs expected 1, got 77" in failed[foreign.name]
    assert str(foreign / LOG) in failed[foreign.name]
    assert seen == [(other.name, number) for number in range(1, 5)]
    assert without_seconds(runs.merge()) == without_seconds(unbroken)[1:]
    assert [run.name for run in runs.left()] == [foreign.name]


def test_a_failed_run_is_reported_at_the_end(tmp_path, unbroken):
    """No training is needed: one run is done, and the folder of the other cannot be made."""
    fine, broken = sweep_runs.runs(["digits"], METHODS, [0], TINY)
    (tmp_path / fine.name).mkdir()
    done = unbroken.parent / fine.name
    for file in done.iterdir():
        (tmp_path / fine.name / file.name).write_bytes(file.read_bytes())
    (tmp_path / broken.name).write_text("a file in the way")
    got = subprocess.run(arguments(tmp_path), capture_output=True, text=True)
    assert got.returncode == 4
    assert "Traceback" not in got.stderr
    assert f"failed: {broken.name}: " in got.stderr.splitlines()[-1]
    assert "2 runs, 1 of them done" in got.stderr
    assert "fedavg" in got.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_sweep_and_its_runs(tmp_path, number):
    process = begin(tmp_path, "--rounds=1000", "--methods=fedavg", stderr=subprocess.PIPE, text=True)
    wait_until(lambda: finished_rounds(tmp_path) >= 1, process)
    if number == signal.SIGINT:  # Ctrl-C: the terminal signals the whole process group
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert "run the same command to continue" in messages
    assert "Traceback" not in messages
    for path in tmp_path.glob(f"*/{METRICS}"):
        with locked(path.parent, patience=0.0):  # no process holds the lock any more
            pass
    before = finished_rounds(tmp_path)
    time.sleep(0.3)
    assert finished_rounds(tmp_path) == before


def test_a_worker_exits_with_its_parent(tmp_path):
    (run,) = sweep_runs.runs(["digits"], ["fedavg"], [0], {**TINY, "rounds": 10_000})
    job = {"settings": run.settings.as_json(), "folder": str(tmp_path / "run"), "data_root": None}
    command = [sys.executable, "-m", "reference_fl.worker", json.dumps(job)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdout.readline()
    worker.stdin.close()
    assert worker.wait(300) == 128 + signal.SIGTERM
    worker.stdout.close()


def test_a_folder_has_one_process_at_a_time(tmp_path):
    with locked(tmp_path):
        with (
            pytest.raises(RuntimeError, match=r"lock of .*: expected a free one, got one of another process"),
            locked(tmp_path, 0.1),
        ):
            pass
        begun = threading.Event()

        def wait_for_it():
            with locked(tmp_path):
                begun.set()

        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not begun.wait(0.2)
    waiting.join(10)
    assert begun.is_set()


def test_a_run_continues_with_its_number_of_threads(unbroken, tmp_path):
    planned = sweep_runs.runs(["digits"], METHODS, [0], TINY)
    assert begun_with(unbroken.parent / planned[0].name) == 1
    assert begun_with(tmp_path) is None
    share = max(1, processors() // 2)
    assert {r.settings.threads for r in Sweep(planned, tmp_path, None, None, jobs=2).runs} == {share}
    assert {r.settings.threads for r in Sweep(planned, unbroken.parent, None, None, jobs=1).runs} == {1}
    assert {r.settings.threads for r in Sweep(planned, tmp_path, None, 3, jobs=1).runs} == {3}


def test_no_more_threads_than_processors(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "processors", lambda: 4)
    planned = sweep_runs.runs(["digits"], METHODS, [0, 1, 2], TINY)
    at_once, most, lock = 0, 0, threading.Lock()

    def run(self, run, report):
        nonlocal at_once, most
        with lock:
            at_once, most = at_once + run.settings.threads, max(most, at_once + run.settings.threads)
        time.sleep(0.05)
        with lock:
            at_once -= run.settings.threads

    monkeypatch.setattr(Sweep, "_run", run)
    for threads, jobs in ((None, 1), (None, 3), (None, 9), (1, 9), (2, 9), (3, 2), (4, 2)):
        most = 0
        assert Sweep(planned, tmp_path, None, threads, jobs).execute(lambda *_: None) == {}
        assert 1 <= most <= 4, (threads, jobs, most)
    with pytest.raises(ValueError, match="threads of a run: expected at most 4, the processors, got 5"):
        Sweep(planned, tmp_path, None, 5, 1).execute(lambda *_: None)


def test_the_codec_of_a_run_has_no_more_threads_than_the_run():
    assert "FEDMRN_THREADS" in sweep.THREADS


def test_a_wrong_command_line_starts_no_run(tmp_path):
    cases = [
        (2, [], "sweep: expected --preset or --methods, got neither"),
        (2, ["--preset", "mnist"], "preset: expected one of cifar10-dirichlet"),
        (3, ["--preset", "svhn-iid", "--data-root", tmp_path], "train_32x32.mat: not found"),
    ]
    for code, more, words in cases:
        done = subprocess.run(
            [FEDMRN, "sweep", "--out", tmp_path / "out", *more], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert words in done.stderr
        assert done.stderr.startswith("Usage: ") == (code == 2)
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.glob(f"out/*/{METRICS}"))

"""`fedmrn train --engine flower` with Flower's actors on Ray, some of which are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ray_cluster import LOOPBACK, all_gone, below, cluster, end

from reference_fl import data, loop
from reference_fl.record import METRICS, STATE, read
from reference_fl.settings import defaults

pytestmark = [pytest.mark.slow, pytest.mark.integration]
SMALL = {"clients": 4, "clients_per_round": 3, "epochs": 1, "rounds": 3}


@pytest.fixture(autouse=True, scope="module")
def installed():
    pytest.importorskip("ray", reason="needs the extra `simulation`")


def local(folder, method, mask=None, options=None, **more):
    """The lines of the same run in this process."""
    settings = defaults("digits", method, mask, options=options or {}, **(SMALL | more))
    return without_seconds(loop.run(settings, data.load("digits"), folder))


def without_seconds(lines):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def start():
    """Start training with Flower's engine in a process; it is killed if it still runs at the end."""
    started = []

    def begin(folder, method, *more, env=None, **changed):
        options = [f"--{key.replace('_', '-')}={value}" for key, value in (SMALL | changed).items()]
        command = [Path(sys.executable).with_name("fedmrn"), "train", "--engine=flower", f"--method={method}"]
        process = psutil.Popen(
            [*command, *options, *more, "--json", f"--out={folder}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | (env or {}),
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        end(process)
        process.communicate()


def finish(process):
    """Wait for the end; return the lines, and check that no process is left."""
    seen, deadline = set(), time.monotonic() + 600
    while process.poll() is None:
        assert time.monotonic() < deadline
        seen.update(below(process))
        time.sleep(0.2)
    out, said = process.communicate()
    assert process.returncode == 0, said
    assert len(seen) > 4  # Ray's own processes and the workers
    assert all_gone(seen)
    return without_seconds(map(json.loads, out.splitlines()))


def state(folder):
    return (folder / STATE).read_bytes()


def engines_of(folder):
    ((header, _),) = read(folder / METRICS)
    return [name.split()[0] for name in header["engines"]]


@pytest.mark.parametrize(
    ("method", "mask", "options", "threads"),
    [
        ("fedavg", None, {}, 2),
        ("fedmrn", "signed", {}, 1),
        ("topk", None, {"error_feedback": True}, 1),
    ],
    ids=str,
)
def test_the_lines_are_those_of_the_local_engine(method, mask, options, threads, start, tmp_path):
    want = local(tmp_path / "local", method, mask, options, threads=threads)
    more = ([f"--mask={mask}"] if mask else []) + [
        f"--option={k}={str(v).lower()}" for k, v in options.items()
    ]
    process = start(tmp_path / "flower", method, *more, threads=threads)
    assert finish(process) == want
    assert state(tmp_path / "flower") == state(tmp_path / "local")
    assert (engines_of(tmp_path / "flower"), engines_of(tmp_path / "local")) == (["flower"], ["local"])


def test_a_cluster_by_its_address(start, tmp_path):
    want = local(tmp_path / "local", "fedavg", threads=1)
    with cluster() as address:
        process = start(tmp_path / "flower", "fedavg", f"--ray-address={address}", threads=1, env=LOOPBACK)
        out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert without_seconds(map(json.loads, out.splitlines())) == want
    assert state(tmp_path / "flower") == state(tmp_path / "local")


def test_a_killed_run_continues(start, tmp_path):
    want = local(tmp_path / "whole", "topk", options={"error_feedback": True}, threads=1)
    process = start(tmp_path / "killed", "topk", "--option=error_feedback=true", threads=1, rounds=100)
    assert process.stdout.readline()  # the first round is done
    seen = set(below(process)) - set(below(process, "Agent"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert all_gone(seen)  # Ray's two agents take a minute
    done = len(read(tmp_path / "killed" / METRICS)[0][1])
    assert 1 <= done < 100
    rounds = max(3, done + 1)
    if rounds > 3:
        want = local(tmp_path / "whole", "topk", options={"error_feedback": True}, threads=1, rounds=rounds)
    again = start(tmp_path / "killed", "topk", "--option=error_feedback=true", threads=1, rounds=rounds)
    assert finish(again) == want
    assert state(tmp_path / "killed") == state(tmp_path / "whole")


TRAINING = "ClientAppActor.run"
"""Part of the name that Ray gives to a worker process while it trains a client."""


def test_a_killed_worker_fails_its_round_and_no_other(start, tmp_path):
    long = {
        "threads": 1,
        "epochs": 40,
    }  # one second for each client, so that a worker seen training is still training when it is killed
    process = start(tmp_path / "run", "fedmrn", **long, rounds=100)
    assert process.stdout.readline()  # the first round is done
    deadline = time.monotonic() + 180
    while not (training := below(process, TRAINING)):
        assert process.poll() is None
        assert time.monotonic() < deadline
    seen = below(process)
    training[0].send_signal(signal.SIGKILL)
    out, said = process.communicate(timeout=180)
    assert process.returncode == 4, said
    assert "fedmrn train: round " in said
    assert "failed: ActorDiedError" in said
    assert "the rounds before are kept, and the same command goes on" in said
    assert all_gone(seen)
    ((_, kept),) = read(tmp_path / "run" / METRICS)
    rounds = len(kept) + 1
    want = local(tmp_path / "whole", "fedmrn", **long, rounds=rounds)
    assert without_seconds(kept) == want[:-1]
    assert without_seconds(map(json.loads, out.splitlines())) == want[1:-1]
    assert local(tmp_path / "run", "fedmrn", **long, rounds=rounds) == want
    assert state(tmp_path / "run") == state(tmp_path / "whole")
    assert engines_of(tmp_path / "run") == ["flower", "local"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_wait_for_the_clients(number, start, tmp_path):
    process = start(tmp_path / "run", "fedavg", threads=1, epochs=100_000)
    deadline = time.monotonic() + 180
    while not below(process, TRAINING):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    seen = below(process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert all_gone(seen)

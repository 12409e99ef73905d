"""aggregate --engine ray: the same bytes, the same problems and the same exit codes as on one machine."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from ray_cluster import LOOPBACK, all_gone, below, cluster, end, free_port

import fedmrn_codec as fm
from fedmrn_codec.cli import distributed
from fedmrn_codec.cluster.ray import AHEAD, RETRIES, Cluster

WEIGHT = 7


class Died(Exception):
    """As Ray's errors."""


class InMemory:
    """Ray's verbs; work is done when it is asked for, through pickle and elsewhere, as in another process."""

    exceptions = SimpleNamespace(RayTaskError=type("RayTaskError", (Died,), {}), RayError=Died)

    def __init__(self):
        self.retries = None
        self.parts = 0
        self.waiting = self.most = 0
        self.dies = False

    def remote(self, *, max_retries):
        self.retries = max_retries
        return lambda call: SimpleNamespace(remote=lambda *given: self._ask(call, pickle.dumps(given)))

    def _ask(self, call, given):
        self.parts += 1
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        return call, given

    def get(self, asked):
        self.waiting -= 1
        if self.dies:
            raise Died
        call, given = asked
        with chdir("/"):
            return pickle.loads(pickle.dumps(call(*pickle.loads(given))))

    def cluster_resources(self):
        return {"CPU": 2.0}


@pytest.fixture
def ray(monkeypatch):
    """Ray in memory; parts of two frames."""
    fake = InMemory()

    @contextmanager
    def connected(address, purpose):
        assert (address, purpose) == (None, "--engine ray")
        yield Cluster(fake)

    monkeypatch.setattr(distributed, "connected", connected)
    monkeypatch.setattr(distributed, "LEAST", 2)
    monkeypatch.setattr(distributed, "MOST", 2)
    monkeypatch.setenv("FEDMRN_THREADS", "1")
    return fake


@pytest.fixture
def files(folder, frame):
    """Twelve frames in the working directory, one weight each."""
    names = [f"{number:02}.fmrn" for number in range(12)]
    for number, name in enumerate(names):
        Path(name).write_bytes(frame(100 + number, ("binary", "signed")[number % 2], round=3))
    return names


def both(invoke, code, *arguments, out="sum.fmrs", to="--partial", input=None):
    """Run with both engines; whatever they leave and say must be the same."""
    results = []
    for engine in ("local", "ray"):
        Path(out).unlink(missing_ok=True)
        given = ["aggregate", *arguments, to, out, "--engine", engine]
        done = invoke(code, *given, input=input)
        data = Path(out).read_bytes() if Path(out).exists() else None
        results.append((done.exit_code, done.stdout, done.stderr, data))
    assert results[0] == results[1]
    return results[0]


def weights(count):
    return ["--weights", ",".join(str(WEIGHT + n) for n in range(count))]


def damage(name):
    data = bytearray(Path(name).read_bytes())
    data[-10] ^= 1
    Path(name).write_bytes(data)


@pytest.mark.parametrize("to", [("--partial", "sum.fmrs"), ("-o", "mean.safetensors"), ("-o", "mean.npz")])
def test_the_same_bytes(to, files, invoke, ray):
    _, _, _, data = both(invoke, 0, *files, *weights(12), to=to[0], out=to[1])
    assert data
    assert (ray.parts, ray.retries) == (6, RETRIES)
    assert ray.most <= AHEAD * 2 + 1


def test_partial_sums_and_a_stream_among_the_frames(files, invoke, ray):
    invoke(0, "aggregate", *files[:3], "--partial", "first.fmrs")
    stream = Path(files[5]).read_bytes()
    mixed = ["first.fmrs", *files[3:5], "-", *files[6:]]
    code, _, _, data = both(invoke, 0, *mixed, *weights(9), input=stream)
    assert code == 0
    schema = fm.inspect(Path(files[0]).read_bytes()).schema
    assert fm.Aggregator.from_bytes(data, schema).frames == 12
    ray.parts = 0
    both(invoke, 0, "first.fmrs", "--schema", files[0])
    assert ray.parts == 0


@pytest.mark.parametrize(
    ("cause", "code", "words"),
    [
        (
            ImportError("No module named 'fedmrn_codec'\nTraceback"),
            3,
            "a worker failed: ImportError: No module",
        ),
        (
            fm.ArgumentError("backend", "an installed package", "numba"),
            2,
            "backend: expected an installed package, got numba",
        ),
    ],
)
def test_what_a_worker_raises_is_no_bug_of_this_program(cause, code, words, files, invoke, ray, monkeypatch):
    error = ray.exceptions.RayTaskError("a long traceback")
    error.cause = cause

    def get(asked):
        raise error

    monkeypatch.setattr(ray, "get", get)
    done = invoke(code, "aggregate", "--engine", "ray", *files, "-o", "mean.npz")
    assert words in done.stderr
    assert "traceback" not in done.stderr.lower()


@pytest.mark.parametrize("bad", range(12))
def test_the_first_bad_frame_is_named(bad, files, invoke, ray):
    for name in {files[bad], files[-1]}:
        damage(name)
    code, _, said, data = both(invoke, 1, *files, "--json")
    assert (code, data) == (1, None)
    assert json.loads(said)["error"]["file"] == files[bad]


def test_bad_frames_are_left_out_if_asked(files, invoke, ray):
    for name in (files[0], files[4], files[5], files[9]):
        damage(name)
    _, said, _, _ = both(invoke, 0, *files, "--skip-bad", "--json")
    assert [each["file"] for each in json.loads(said)["skipped"]] == [files[n] for n in (0, 4, 5, 9)]
    for name in files:
        damage(name)
        damage(name)
        Path(name).write_bytes(b"")
    both(invoke, 1, *files, "--skip-bad", "--schema", "a.fmrn")


@pytest.mark.parametrize("others", [{3}, {4}, {4, 5}, {0}, {4, 5, 11}])
@pytest.mark.parametrize("more", [[], ["--skip-bad"], ["--noise", "uniform:0.01", "--skip-bad"]], ids=str)
def test_the_first_frame_decides_the_noise(others, more, files, frame, invoke, ray):
    for number in others:
        Path(files[number]).write_bytes(frame(200 + number, noise=fm.Uniform(0.02), round=3))
    code, out, said, data = both(invoke, 0 if "--noise" in more else 1, *files, *more, "--json")
    if code:
        assert (out, data) == ("", None)
        first, other = (0, min(others)) if 0 not in others else (0, 1)
        error = json.loads(said)["error"]
        assert error["file"] == files[other]
        assert f"as in {files[first]} (--noise says which of the two is right)" in error["expected"]


def test_notes_are_those_of_all_parts(files, frame, invoke, ray):
    Path(files[7]).write_bytes(Path(files[0]).read_bytes())
    Path(files[9]).write_bytes(frame(300, round=4))
    _, _, said, _ = both(invoke, 0, *files)
    assert "several frames have the seed 100" in said
    assert "different rounds: 3, 4" in said


def test_too_much_weight_is_the_same_problem(files, invoke, ray):
    most = 2**39 - 1
    invoke(0, "aggregate", "a.fmrn", "--weights", most - 5, "--partial", "heavy.fmrs")
    code, _, said, _ = both(invoke, 1, "heavy.fmrs", *files, "--weights", ",".join(["1"] * 12), "--json")
    assert (code, json.loads(said)["error"]["file"]) == (1, files[5])


def test_files_in_other_folders_keep_their_names(files, invoke, ray, monkeypatch):
    Path("below").mkdir()
    monkeypatch.chdir("below")
    damage(f"../{files[3]}")
    _, _, said, _ = both(invoke, 1, *(f"../{name}" for name in files), "--json")
    assert json.loads(said)["error"]["file"] == f"../{files[3]}"


def test_a_file_that_a_worker_cannot_see(files, invoke, ray, monkeypatch):
    real = distributed.sum_part

    def elsewhere(expected, noise, frames, backend):
        return real(expected, noise, [(path, f"/nowhere{place}", w) for path, place, w in frames], backend)

    monkeypatch.setattr(distributed, "sum_part", elsewhere)
    done = invoke(3, "aggregate", *files, "--engine", "ray", "-o", "mean.npz")
    assert f"{files[0]}: No such file or directory (on the worker {socket.gethostname()})" in done.stderr
    assert not Path("mean.npz").exists()


def test_workers_that_keep_dying_are_a_problem_of_the_cluster(files, invoke, ray):
    ray.dies = True
    done = invoke(3, "aggregate", *files, "--engine", "ray", "-o", "mean.npz", "--json")
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "cluster"
    assert "2 frames from 00.fmrn on: Died, after up to 3 retries" in error["message"]


def test_ray_is_asked_for_by_name(folder, invoke, monkeypatch):
    done = invoke(2, "aggregate", "a.fmrn", "--ray-address", "127.0.0.1:1", "-o", "x.npz")
    assert "--engine: expected ray, since --ray-address is given, got local" in done.stderr
    monkeypatch.setitem(sys.modules, "ray", None)
    done = invoke(2, "aggregate", "a.fmrn", "--engine", "ray", "-o", "x.npz")
    expected = "--engine ray: expected the package ray, as installed by fedmrn-codec[ray], got no Ray"
    assert expected in done.stderr
    invoke(0, "aggregate", "a.fmrn", "-o", "x.npz")


def test_no_cluster_at_an_address(folder, invoke):
    pytest.importorskip("ray", reason="needs the extra `ray`")
    address = f"127.0.0.1:{free_port()}"
    given = ["aggregate", "a.fmrn", "--engine=ray", "-o", "x.npz", "--ray-address"]
    assert f"no Ray cluster at {address}: " in invoke(3, *given, address).stderr
    for odd in ("auto", "ray://127.0.0.1:10001", "127.0.0.1", "127.0.0.1:70000", ":1"):
        expected = f"--ray-address: expected HOST:PORT of the cluster's head, got '{odd}'"
        assert expected in invoke(2, *given, odd).stderr
    assert not Path("x.npz").exists()


# --- the real thing -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder with frames that take seconds to sum, and their partial sum."""
    pytest.importorskip("ray", reason="needs the extra `ray`")
    folder = tmp_path_factory.mktemp("large")
    schema = fm.Schema([fm.Tensor("w", (1000, 1000), masked=True), fm.Tensor("b", (1000,))])
    rng = np.random.default_rng(0)
    bits, total = {"w": rng.integers(0, 2, (1000, 1000)).astype(bool)}, fm.Aggregator(schema)
    for number in range(200):
        dense = {"b": rng.normal(size=1000).astype(np.float32)}
        made = {"seed": number, "noise": fm.Gaussian(0.01), "mask": "signed", "dense": dense}
        data = fm.encode_bits(bits, schema, **made, embed_schema=number == 0)
        (folder / f"{number:03}.fmrn").write_bytes(data)
        total.add(data, weight=number + 1)
    (folder / "weights").write_text(json.dumps({f"{number:03}.fmrn": number + 1 for number in range(200)}))
    return folder, total.to_bytes()


@contextmanager
def aggregating(folder, *more, **variables):
    """A process that sums the frames with Ray, ended at the end."""
    names = sorted(path.name for path in folder.glob("*.fmrn"))
    command = [Path(sys.executable).with_name("fedmrn"), "aggregate", *names, "--weights-file", "weights"]
    process = psutil.Popen(
        [*command, "--partial", "sum.fmrs", "--engine", "ray", *more],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        end(process)
        process.communicate()


@pytest.mark.slow
@pytest.mark.integration
def test_a_killed_worker_costs_a_retry_and_not_the_result(large):
    folder, want = large
    deadline, killed, seen = time.monotonic() + 300, 0, set()
    with aggregating(folder, "--backend", "numpy") as process:
        while process.poll() is None and time.monotonic() < deadline:
            seen.update(below(process))
            if killed < 2 and (at_work := below(process, "_in_worker")):
                time.sleep(0.2)  # into the middle of a part
                with suppress(psutil.NoSuchProcess):
                    at_work[0].send_signal(signal.SIGKILL)
                    killed += 1
                time.sleep(0.5)
            time.sleep(0.02)
        out, said = process.communicate()
    assert process.returncode == 0, said
    assert out == ""  # whatever Ray has to say
    assert killed == 2
    assert "wrote sum.fmrs: 200 frames" in said
    assert (folder / "sum.fmrs").read_bytes() == want
    assert all_gone(seen)


@pytest.mark.slow
@pytest.mark.integration
def test_a_cluster_by_its_address(large):
    folder, want = large
    with cluster() as address:
        for _ in range(2):  # the cluster is there before and after
            with aggregating(folder, "--ray-address", address, **LOOPBACK) as process:
                _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
            assert (folder / "sum.fmrs").read_bytes() == want

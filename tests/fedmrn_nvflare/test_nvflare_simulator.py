"""NVFlare's simulator, with real processes: a job with a bad client, and the example."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from federation_parts import KEY, MODEL, WEIGHTS

import fedmrn_codec as fm

HERE = Path(__file__).parent
GUIDE = HERE.parents[1] / "adapters" / "fedmrn_nvflare" / "README.md"
EXAMPLE = HERE.parents[1] / "examples" / "nvflare_digits"
HONEST = ("site-1", "site-2")
SCHEMA = fm.Schema(fm.Tensor(n, a.shape, a.ndim > 1, a.dtype.name) for n, a in MODEL.items())

pytestmark = [pytest.mark.slow, pytest.mark.integration]


def run(*command, cwd):
    """The output of a command; its process group is always killed afterwards."""
    with (cwd / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=cwd, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(600)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        log.seek(0)
        text = log.read()
    assert code == 0, text
    return text


def loaded(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def frame_of(folder, site, number):
    """The frame of a site in a round, as the server received it."""
    data = loaded(folder / f"{site}-{number}.npz")
    assert list(data) == [KEY]
    assert data[KEY].dtype == np.uint8
    return data[KEY].tobytes()


def exact_model(base, frames):
    """The base model plus the exact mean of the honest frames."""
    aggregator = fm.Aggregator(SCHEMA)
    for site, frame in frames.items():
        aggregator.add(frame, WEIGHTS[site])
    return {name: np.asarray(base[name] + update) for name, update in aggregator.mean().items()}


def check_rounds(folder):
    """Yield base, frames and result of each of the three rounds; check that every frame is valid."""
    base, infos = MODEL, []
    for number in range(3):
        frames = {site: frame_of(folder, site, number) for site in HONEST}
        result = loaded(folder / f"model-{number}.npz")
        yield base, frames, result
        infos += [fm.verify(frame, SCHEMA, round=number + 1) for frame in frames.values()]
        base = result
    assert len({info.seed for info in infos}) == 6
    assert len({info.base_model for info in infos}) == 3


def check_refusals(log):
    before = "ContentBlockedException: fedmrn: refused the result of"
    refused = re.findall(before + r" (\S+) .*'Saboteur'\] after it \((\w+),.*; *\n", log)
    assert refused == [("site-3", "magic"), ("site-3", "round"), ("site-3", "seed")], log
    assert log.count("Result error code: TASK_RESULT_FILTER_ERROR") == 3


def test_a_bad_client_changes_no_bit(tmp_path):
    log = run(HERE / "federation_job.py", tmp_path, "FRAME", cwd=tmp_path)
    for base, frames, result in check_rounds(tmp_path):
        expected = exact_model(base, frames)
        assert {n: (a.dtype, a.tobytes()) for n, a in result.items()} == {
            n: (a.dtype, a.tobytes()) for n, a in expected.items()
        }
    check_refusals(log)


def test_nvflares_own_mean_of_full_models(tmp_path):
    log = run(HERE / "federation_job.py", tmp_path, "WEIGHTS", cwd=tmp_path)
    for base, frames, result in check_rounds(tmp_path):
        expected = exact_model(base, frames)
        assert list(result) == list(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(result[name], array, rtol=0, atol=1e-6)
            assert np.abs(result[name] - base[name]).max() > 1e-3
    check_refusals(log)


def test_secure_aggregation_with_a_client_that_drops_out(tmp_path):
    """Site 3 takes part in round 0, hangs in the training of round 1, and so misses the keys of round 2."""
    pytest.importorskip("cryptography")
    pytest.importorskip("Crypto")
    log = run(HERE / "secure_job.py", tmp_path, cwd=tmp_path)
    base = MODEL
    for number, sites in enumerate([(*HONEST, "site-3"), HONEST, HONEST]):
        frames = [(tmp_path / f"{site}-{number + 1}.frame").read_bytes() for site in sites]
        aggregator = fm.Aggregator(SCHEMA)
        for frame in frames:
            aggregator.add(frame, 1)
        expected = {name: np.asarray(base[name] + update) for name, update in aggregator.mean().items()}
        base = loaded(tmp_path / f"model-{number}.npz")
        assert {n: (a.dtype, a.tobytes()) for n, a in base.items()} == {
            n: (a.dtype, a.tobytes()) for n, a in expected.items()
        }
        assert len({fm.inspect(frame).seed for frame in frames}) == 1
    sums = re.findall(r"fedmrn: sum of (\d) of 3 clients, total weight (\d)", log)
    assert sums == [("3", "3"), ("2", "2"), ("2", "2")], log
    (told,) = re.findall(r"^fedmrn: sum of .*$", GUIDE.read_text(), re.M)
    assert told in log
    assert len(re.findall("no accepted answer in `masked` of site-3", log)) == 1
    assert len(re.findall("no accepted answer in `keys` of site-3", log)) == 1


def test_the_example(tmp_path):
    log = run(
        EXAMPLE / "job.py", "--rounds", 3, "--epochs", 3, "--workspace", tmp_path / "runs", cwd=tmp_path
    )
    (accuracy,) = re.findall(r"test accuracy of the global model after 3 rounds: ([\d.]+)", log)
    assert float(accuracy) > 0.8
    up = re.findall(r"fedmrn: frame of site-[12]: (\d+) bytes up", log)
    assert len(up) == 6
    assert max(map(int, up)) < 86672 / 16
    down = re.findall(r"fedmrn: frame to (site-[12]): (\d+) bytes down, (the whole|the changes)", log)
    assert sorted((site, what) for site, _, what in down) == sorted(
        (site, what) for site in HONEST for what in ("the whole", "the changes", "the changes")
    )
    whole = max(int(length) for *_, length, what in down if what == "the whole")
    assert whole < 86672 / 3
    assert all(int(length) < whole for *_, length, what in down if what == "the changes")

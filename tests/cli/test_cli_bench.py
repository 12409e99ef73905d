"""bench: the installed backends side by side."""

import itertools
import json

import pytest

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.cli import throughput
from fedmrn_codec.cli.verbs import bench
from fedmrn_codec.primitives.codes import MaskKind

SHORT = [0, "bench", "--size", "1001", "--rounds", "1"]


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda: ["numba", "numpy"])


def test_a_table_for_people(invoke, two):
    done = invoke(*SHORT)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1,001 elements, uniform:0.01, binary mask, ")
    names = [line.split()[0] for line in lines if " x)" in line]
    assert names == ["numpy", "numba"]
    assert next(line for line in lines if "numpy" in line).count("(1.00 x)") == 3
    assert lines[-1].startswith("Numba's compiled code is cached in ")


def test_a_document_for_machines(invoke, two):
    done = invoke(*SHORT, "--json", "--mask", "signed", "--noise", "gaussian:0.5")
    found = json.loads(done.stdout)
    assert (found["size"], found["noise"], found["mask"], found["rounds"]) == (
        1001,
        "gaussian:0.5",
        "signed",
        1,
    )
    assert [(s["backend"], s["verb"]) for s in found["speeds"]] == [
        (name, verb) for verb in throughput.VERBS for name in ("numpy", "numba")
    ]
    for speed in found["speeds"]:
        assert speed["rate"] > 0
        assert speed["ratio"] == 1 or speed["backend"] == "numba"


def test_every_installed_backend_is_measured(invoke):
    found = json.loads(invoke(*SHORT, "--json").stdout)
    assert {s["backend"] for s in found["speeds"]} == set(backends.installed())


def test_without_numba_nothing_is_said_of_it(invoke, monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda: ["numpy"])
    assert "numba" not in invoke(*SHORT).stdout
    assert json.loads(invoke(*SHORT, "--json").stdout)["compiled_code"] is None


def test_a_place_that_cannot_be_written_is_told(invoke, two, monkeypatch):
    monkeypatch.setattr(bench, "_compiled_code", lambda names: None)
    assert "cached in no folder: none is writable" in invoke(*SHORT).stdout


@pytest.mark.parametrize("size", ["0", str(2**28 + 1)])
def test_sizes_have_bounds(invoke, size):
    assert f"--size: expected 1 to {2**28}, got {size} [" in invoke(2, "bench", "--size", size).stderr


def test_rates_and_ratios_are_medians_of_rounds(monkeypatch):
    """After a first round of 99 s, the calls of NumPy take 2, 4 and 8 s, those of Numba 1, 1 and 8 s."""
    ticks = itertools.cycle([0, 99, 0, 99, 0, 1, 0, 2, 0, 4, 0, 1, 0, 8, 0, 8])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: float(next(ticks)))
    found = throughput.measure(fm.Uniform(0.01), MaskKind.BINARY, 100, 3, ["numpy", "numba"])
    assert [(s.backend, s.verb) for s in found[:2]] == [("numpy", "encode"), ("numba", "encode")]
    assert [(s.rate, s.ratio) for s in found] == [(25, 1), (100, 2)] * 3

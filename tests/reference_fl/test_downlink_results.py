"""What docs/downlink.md says of the runs in reference_fl/results/downlink."""

import re
from pathlib import Path

import numpy as np
import pytest

from reference_fl.report import load
from reference_fl.report.runs import some_rounds
from reference_fl.report.table import both

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "reference_fl" / "results"
FEDAVG = RESULTS / "scales" / "fashion-mnist-iid-fedavg-seed0.jsonl"


def runs(*paths):
    """Their rounds from 10 on."""
    return some_rounds(load(paths), first=10)


def bytes_of(found):
    """Bytes that a client sent and received in a round, as a mean."""
    lines = [line for run in found for line in run.rounds]
    return sum(map(both, lines)) / sum(line["clients"] for line in lines)


def accuracy(found):
    """The mean of the last five rounds, over the seeds."""
    return float(np.mean([[line["accuracy"] for line in run.rounds[-5:]] for run in found]))


def test_both_directions_are_as_small_as_the_page_says():
    fedavg = bytes_of(runs(FEDAVG))
    some = runs(*sorted(RESULTS.glob("downlink/iid-fedmrn-binary-seed?.jsonl")))
    every = runs(*sorted(RESULTS.glob("downlink/full-fedmrn-binary-seed?.jsonl")))
    assert len(some) == len(every) == 3
    text = " ".join((ROOT / "docs" / "downlink.md").read_text().split())
    stated = re.search(r"a (\d+)nd of FedAvg's bytes with full .* a (\d+)nd with ten of a hundred", text)
    assert fedavg / bytes_of(every) >= 40
    assert fedavg / bytes_of(some) >= 20
    assert [round(fedavg / bytes_of(each)) for each in (every, some)] == [int(n) for n in stated.groups()]


@pytest.mark.parametrize("name", ["iid", "full"])
def test_the_rounded_download_costs_no_accuracy_to_speak_of(name):
    raw = [*RESULTS.glob(f"downlink/{name}-fedmrn-binary-raw-seed?.jsonl")]
    if name == "iid":
        raw.append(RESULTS / "rule" / "iid-seed0.jsonl")
    grid = runs(*RESULTS.glob(f"downlink/{name}-fedmrn-binary-seed?.jsonl"))
    assert len(raw) == len(grid) == 3
    assert abs(accuracy(runs(*raw)) - accuracy(grid)) < 0.002


def test_the_accuracy_of_each_seed_of_full_participation():
    pairs = [
        [
            accuracy(runs(RESULTS / "downlink" / f"full-fedmrn-binary{kind}-seed{seed}.jsonl"))
            for kind in ("", "-raw")
        ]
        for seed in range(3)
    ]
    assert all(grid < raw for grid, raw in pairs)  # as the page says

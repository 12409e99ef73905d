"""The Flower example, run as its README says, on the simulation engine and on a deployment."""

import json
import re
import shutil
from pathlib import Path

import pytest
from deployment import Deployment

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower_quickstart"


def run(flower, home):
    """Three rounds of the example; its accuracies, first to last, and its log."""
    app = shutil.copytree(EXAMPLE, home / "app")
    process = flower.start(
        "run",
        "flwr",
        "run",
        str(app),
        "here",
        "--stream",
        "--run-config",
        "num-server-rounds=3 local-epochs=3",
    )
    flower.wait(lambda: process.poll() is not None, 600)
    listing = flower.start("ls", "flwr", "ls", "here", "--format", "json")
    flower.wait(lambda: listing.poll() is not None, 60)
    log = (home / "run.log").read_text()
    (status,) = [each["status"] for each in json.loads((home / "ls.log").read_text())["runs"]]
    assert status == "finished:completed", log
    return [float(found) for found in re.findall(r"MetricRecord: \{'accuracy': ([\d.e-]+)\}", log)], log


def check(accuracies, log):
    assert accuracies[-1] > 0.8
    assert re.findall(r"'fedmrn.clients': (\d)", log)[:3] == ["2"] * 3
    assert re.findall(r"'fedmrn.downlink-whole': (\d)", log)[:3] == ["2", "0", "0"]


@pytest.mark.slow
@pytest.mark.integration
def test_on_the_simulation_engine(tmp_path):
    pytest.importorskip("ray", reason="needs the extra `simulation`")
    with Deployment(tmp_path, "--simulation") as flower:
        accuracies, log = run(flower, tmp_path)
    check(accuracies, log)


@pytest.mark.slow
@pytest.mark.integration
def test_on_a_deployment(tmp_path):
    with Deployment(tmp_path) as flower:
        for number in (0, 1):
            flower.supernode(f"node{number}", f"partition-id={number} num-partitions=2")
        accuracies, log = run(flower, tmp_path)
    check(accuracies, log)

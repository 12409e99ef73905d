"""The example, and the README's claim of what it takes to get there from a plain app."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from flower_cases import frame_of
from flwr.app import ArrayRecord, ConfigRecord, Context, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedmrn_flower import FedMRN, Uniform

ADAPTER = Path(__file__).parents[2] / "adapters" / "fedmrn_flower"
DIFFS = re.findall(r"^```diff\n(.*?)^```", (ADAPTER / "README.md").read_text(), re.M | re.S)


@pytest.fixture
def plain(tmp_path):
    """The example, with the README's first diff taken back."""
    app = shutil.copytree(ADAPTER / "examples" / "quickstart", tmp_path / "app")
    subprocess.run(["git", "apply", "-R", "-"], cwd=app, input=DIFFS[0], text=True, check=True)
    return app


@pytest.fixture
def quickstart(request, monkeypatch):
    """The example's package, or the plain one's, imported for one test."""

    def load(app):
        monkeypatch.syspath_prepend(str(app))
        request.addfinalizer(forget)
        forget()
        return importlib.import_module("quickstart.client_app")

    return load


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "quickstart"]:
        del sys.modules[name]


def one_round(client, lr):
    """A round of one client, in memory: its reply, and the strategy's result."""
    from quickstart import task

    strategy = FedMRN(FedAvg(min_available_nodes=1, min_train_nodes=1), noise=Uniform(0.01))
    start = ArrayRecord(task.build_model("digits").state_dict())
    grid = type("Grid", (), {"get_node_ids": lambda _: [1]})()
    (message,) = strategy.configure_train(1, start, ConfigRecord({"lr": lr}), grid)
    context = Context(
        run_id=1,
        node_id=1,
        node_config={"partition-id": 0, "num-partitions": 8},
        state=RecordDict(),
        run_config={"dataset": "digits", "local-epochs": 1, "batch-size": 32},
    )
    reply = client.app(message, context)
    return reply, strategy.aggregate_train(1, [reply])


def test_at_most_ten_lines_make_a_plain_app_one_with_frames(plain):
    trained, of_others, masked_after = (re.findall(r"^\+(?!\+\+)", diff, re.M) for diff in DIFFS)
    assert len(trained) + 1 <= 10  # and the dependency
    assert len(of_others) + 1 <= 10  # and the learning rate
    assert len(masked_after) <= 4
    source = "".join(path.read_text() for path in plain.glob("quickstart/*.py"))
    assert "fedmrn" not in source
    assert "psm" not in source


def test_the_example_trains_and_sends_a_frame(quickstart):
    client = quickstart(ADAPTER / "examples" / "quickstart")
    reply, (arrays, metrics) = one_round(client, 0.1)
    assert metrics["fedmrn.client-bytes"] == [len(frame_of(reply))] == [4432]
    assert f"{4432:,} bytes" in (ADAPTER / "examples" / "quickstart" / "README.md").read_text()
    assert 0 < metrics["train-loss"] < 3
    assert arrays is not None


def test_the_plain_app_sends_its_model(plain, quickstart):
    reply, (_, metrics) = one_round(quickstart(plain), 0.03)
    assert len(reply.content["arrays"]) > 1
    assert metrics["fedmrn.refused"] == 1

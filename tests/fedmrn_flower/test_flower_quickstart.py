"""The Flower example, and the README's diff between it and a plain app."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from flower_cases import frame_of
from flwr.app import ArrayRecord, ConfigRecord, Context, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedmrn_flower import FedMRN

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flower_quickstart"
README = (ROOT / "adapters" / "fedmrn_flower" / "README.md").read_text()
DIFFS = re.findall(r"^```diff\n(.*?)^```", README, re.M | re.S)


@pytest.fixture
def plain(tmp_path):
    """The example without the changes of the README's first diff."""
    app = shutil.copytree(EXAMPLE, tmp_path / "app")
    subprocess.run(["git", "apply", "-R", "-"], cwd=app, input=DIFFS[0], text=True, check=True)
    return app


@pytest.fixture
def quickstart(request, monkeypatch):
    """Import the package of the example, or of the plain app, for one test."""

    def load(app):
        monkeypatch.syspath_prepend(str(app))
        request.addfinalizer(forget)
        forget()
        return importlib.import_module("quickstart.client_app")

    return load


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "quickstart"]:
        del sys.modules[name]


def one_round(client, lr, downlink="grid"):
    """One round of one client, in memory: its reply, and the result of the strategy."""
    from quickstart import task

    strategy = FedMRN(FedAvg(min_available_nodes=1, min_train_nodes=1), downlink=downlink)
    start = ArrayRecord(task.Net().state_dict())
    grid = type("Grid", (), {"get_node_ids": lambda _: [1]})()
    (message,) = strategy.configure_train(1, start, ConfigRecord({"lr": lr}), grid)
    context = Context(
        run_id=1,
        node_id=1,
        node_config={"partition-id": 0, "num-partitions": 8},
        state=RecordDict(),
        run_config={"local-epochs": 1, "batch-size": 32},
    )
    reply = client.app(message, context)
    return reply, strategy.aggregate_train(1, [reply])


def test_at_most_ten_lines_change_a_plain_app(plain):
    trained, of_others, masked_after = (re.findall(r"^\+(?!\+\+)", diff, re.M) for diff in DIFFS)
    assert len(trained) + 1 <= 10  # plus the dependency
    assert len(of_others) <= 10  # its dependency among them
    assert len(masked_after) <= 4
    source = "".join(path.read_text() for path in plain.glob("quickstart/*.py"))
    assert "fedmrn" not in source
    assert "psm" not in source


def test_the_example_trains_and_sends_a_frame(quickstart):
    client = quickstart(EXAMPLE)
    reply, (arrays, metrics) = one_round(client, 0.03)
    (length,) = metrics["fedmrn.client-bytes"]
    assert length == len(frame_of(reply))
    model = sum(array.numpy().nbytes for array in arrays.values())
    for folder in (EXAMPLE, EXAMPLE.with_name("nvflare_digits")):
        text = " ".join((folder / "README.md").read_text().split())
        stated = re.search(r"about ([\d,]+) bytes per round; its model has ([\d,]+) bytes", text)
        about, whole = (int(number.replace(",", "")) for number in stated.groups())
        assert whole == model
        assert 0.8 * about < length < 1.25 * about  # the bits are random, and so is the length of their code
    assert 0 < metrics["train-loss"] < 3
    assert arrays is not None


def test_the_plain_app_sends_its_model(plain, quickstart):
    reply, (_, metrics) = one_round(quickstart(plain), 0.03, downlink="raw")
    assert len(reply.content["arrays"]) > 1
    assert metrics["fedmrn.refused"] == 1


def flower_bytes(message):
    """What flwr pushes for a message: the message, its records, its arrays, their chunks."""
    return sum(len(each.deflate()) for each in get_all_nested_objects(message).values())


def traffic(client, strategy, rounds=5):
    """Bytes down and up of a client and round, in each round of the app's own settings; the last model."""
    from quickstart import task

    out, states = [], (RecordDict(), RecordDict())
    arrays = ArrayRecord(task.Net().state_dict())
    grid = type("Grid", (), {"get_node_ids": lambda _: [0, 1]})()
    for number in range(1, rounds + 1):
        messages = list(strategy.configure_train(number, arrays, ConfigRecord({"lr": 0.03}), grid))
        down = sum(flower_bytes(message) for message in messages) / 2
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            config = {"partition-id": node, "num-partitions": 2}
            settings = {"local-epochs": 5, "batch-size": 32}
            replies.append(client.app(message, Context(1, node, config, states[node], settings)))
        out.append((down, sum(flower_bytes(reply) for reply in replies) / 2))
        arrays, _ = strategy.aggregate_train(number, replies)
    return np.array(out), arrays


@pytest.mark.slow
def test_the_bytes_of_both_directions(plain, quickstart):
    rows = {"the app without this package": traffic(quickstart(plain), FedAvg(), 1)[0][0]}
    client = quickstart(EXAMPLE)
    torch.manual_seed(0)
    rows['`FedMRN(strategy, downlink="raw")`, first round'] = traffic(
        client, FedMRN(FedAvg(), downlink="raw"), 1
    )[0][0]
    both, arrays = traffic(client, FedMRN(FedAvg()))
    rows["`FedMRN(strategy)`, first round"] = both[0]
    rows["`FedMRN(strategy)`, mean of rounds 2 to 5"] = both[1:].mean(axis=0)
    for name, measured in rows.items():
        print(f"\n| {name} | {measured[0]:,.0f} | {measured[1]:,.0f} |", end="")
    for name, measured in rows.items():
        (line,) = [line for line in README.splitlines() if line.startswith(f"| {name} |")]
        stated = [int(cell.replace(",", "")) for cell in line.split("|")[2:4]]
        np.testing.assert_allclose(measured, stated, rtol=0.25)
    from quickstart import task

    model = task.Net()
    model.load_state_dict(arrays.to_torch_state_dict())
    assert task.test(model) > 0.9

"""A Flower deployment in which a node is killed and restarted, one joins late, and one loses the model."""

import json
from pathlib import Path

import pytest
from deployment import running

APP = Path(__file__).with_name("joining_app")
ROUNDS = range(1, 6)
RAW = 4 * (64 * 100 + 64) + 8
NODES = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}  # that reply; the killed one never does


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The files that the server and the clients wrote in a run of five rounds."""
    with running(tmp_path_factory, APP, "steady", "victim") as run:
        run.wait_for("model2.json")
        run.kill("victim")
        run.flower.join(restarted="victim", late="late")
        (run.out / "joined").touch()
    return run.out


def metrics(out, kind, number):
    return json.loads((out / f"{kind}{number}.json").read_text())


def noted(out, kind, number):
    return [json.loads(path.read_text()) for path in out.glob(f"{kind}{number}-*.json")]


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("number", ROUNDS)
def test_every_live_node_takes_part_in_every_round(out, number):
    found = metrics(out, "train", number)
    assert found["fedmrn.clients"] == NODES[number]
    assert found["fedmrn.refused"] == 0
    assert found["fedmrn.failed"] == (0 if number in (1, 2) else found["fedmrn.failed"])
    assert found["loss"] == 0.5


@pytest.mark.slow
@pytest.mark.integration
def test_new_nodes_and_the_one_that_lost_the_model_get_all_of_it(out):
    whole = [metrics(out, "train", number)["fedmrn.downlink-whole"] for number in ROUNDS]
    assert whole == [2, 0, 2, 1, 0]
    assert [metrics(out, "evaluate", number)["fedmrn.downlink-whole"] for number in ROUNDS] == [0, 0, 0, 1, 0]
    assert (out / "log").read_text().count("had lost the model") == 2


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("number", ROUNDS)
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_all_clients_of_a_round_receive_one_model_once(out, kind, number):
    found = noted(out, kind, number)
    assert len(found) == NODES[number]
    assert len({each["id"] for each in found}) == 1
    assert not any(each["before"] for each in found)
    if kind == "train":
        assert all(each["base_model"] == each["id"] for each in found)


@pytest.mark.slow
@pytest.mark.integration
def test_clients_evaluate_the_servers_model(out):
    for number in ROUNDS:
        server = json.loads((out / f"model{number}.json").read_text())
        assert metrics(out, "evaluate", number)["mean"] == pytest.approx(server, abs=3e-4)


@pytest.mark.slow
@pytest.mark.integration
def test_differences_are_a_fraction_of_the_model(out):
    for number in (2, 5):
        both = [
            metrics(out, kind, number)["fedmrn.downlink-bytes-per-client"] for kind in ("train", "evaluate")
        ]
        assert sum(both) < RAW / 4

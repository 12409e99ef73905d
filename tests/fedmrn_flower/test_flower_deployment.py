"""A Flower deployment with an honest client, one that sends bad frames, and one that is killed."""

import json
from pathlib import Path

import numpy as np
import pytest
from deployment import running

import fedmrn_codec as fm

APP = Path(__file__).with_name("faults_app")
SCHEMA = fm.Schema([fm.Tensor("conv.weight", (40, 3, 3, 3), masked=True), fm.Tensor("conv.bias", (40,))])
HONEST, ATTACKER, VICTIM = 30, 50, 20  # each role has another weight, which identifies it
COUNTED = {
    1: (HONEST, ATTACKER, VICTIM),
    2: (HONEST, VICTIM),  # garbage
    3: (HONEST, VICTIM),  # a replayed frame
    4: (HONEST, VICTIM),  # another seed
    5: (HONEST, ATTACKER),  # the victim is killed
    6: (HONEST, ATTACKER),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The files that the server wrote in a run of six rounds."""
    with running(tmp_path_factory, APP, "honest", "attacker", "victim") as run:
        run.wait_for("victim-trains")
        (run.out / "addresses").write_text("\n".join(run.flower.addresses()))
        run.kill("victim")
    return run.out


def model(out, number):
    return dict(np.load(out / f"model{number}.npz"))


def metrics(out, number):
    return json.loads((out / f"round{number}.json").read_text())


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("number", COUNTED)
def test_the_model_is_the_exact_mean_of_the_accepted_frames(out, number):
    aggregator = fm.Aggregator(SCHEMA, noise=fm.Uniform(0.01), round=number)
    for weight in COUNTED[number]:
        aggregator.add((out / f"round{number}-weight{weight}.fmrn").read_bytes(), weight)
    mean, before, after = aggregator.mean(), model(out, number - 1), model(out, number)
    for name in before:
        assert after[name].tobytes() == (before[name] + mean[name]).tobytes()
        assert after[name].tobytes() != before[name].tobytes()


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(("number", "code"), [(2, "magic"), (3, "round"), (4, "seed")])
def test_the_attacker_is_refused_for_the_right_reason(out, number, code):
    assert (out / f"round{number}-weight{ATTACKER}.fmrn").exists()  # the server received it
    assert metrics(out, number)["fedmrn.refused"] == 1
    assert len(metrics(out, number)["fedmrn.refused-nodes"]) == 1
    assert (out / "log").read_text().count(f"({code}): ") == 1


@pytest.mark.slow
@pytest.mark.integration
def test_every_reply_is_counted(out):
    assert [metrics(out, number)["fedmrn.refused"] for number in COUNTED] == [0, 1, 1, 1, 0, 0]
    assert [metrics(out, number)["fedmrn.failed"] for number in COUNTED] == [0, 0, 0, 0, 1, 0]
    assert [metrics(out, number)["fedmrn.clients"] for number in COUNTED] == [3, 2, 2, 2, 2, 2]
    assert metrics(out, 1)["fedmrn.uplink-bytes"] == 3 * (out / f"round1-weight{HONEST}.fmrn").stat().st_size


@pytest.mark.slow
@pytest.mark.integration
def test_nothing_left_this_machine(out):
    addresses = set((out / "addresses").read_text().split())
    assert "127.0.0.1" in addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

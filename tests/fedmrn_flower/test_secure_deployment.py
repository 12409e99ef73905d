"""A Flower deployment with secure aggregation, in which nodes are killed in two steps of the protocol."""

import json
from pathlib import Path

import numpy as np
import pytest
from deployment import running

import fedmrn_codec as fm

pytest.importorskip("cryptography")
pytest.importorskip("Crypto")

APP = Path(__file__).with_name("secure_app")
ROLES = ("one", "two", "victim1", "victim2")
SUMMED = {
    1: ("one", "two", "victim2"),  # victim1 is killed before its training
    2: ("one", "two", "victim2"),  # victim2 has sent its vector, and does not reveal
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The files that the server and the clients wrote in a run of two rounds."""
    with running(tmp_path_factory, APP, *ROLES) as run:
        for number in SUMMED:
            run.wait_for(f"victim{number}-waits")
            run.kill(f"victim{number}")
    return run.out


def metrics(out, number):
    return json.loads((out / f"round{number}.json").read_text())


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("number", SUMMED)
def test_the_model_is_the_exact_mean_of_the_survivors_frames(out, number):
    frames = [(out / f"round{number}-{role}.fmrn").read_bytes() for role in SUMMED[number]]
    assert len({fm.inspect(frame).seed for frame in frames}) == 1
    before, after = (dict(np.load(out / f"model{each}.npz")) for each in (number - 1, number))
    schema = fm.schema_of(before)
    aggregator = fm.Aggregator(schema, round=number)
    for frame in frames:
        aggregator.add(frame, 1)
    mean = aggregator.mean()
    for name in before:
        assert after[name].tobytes() == np.asarray(before[name] + mean[name]).tobytes(), name
        assert after[name].tobytes() != before[name].tobytes(), name


@pytest.mark.slow
@pytest.mark.integration
def test_the_server_has_masked_vectors_alone(out):
    for number, roles in SUMMED.items():
        assert metrics(out, number)["types"] == ["fedmrn-secagg/1"] * len(roles)
        assert metrics(out, number)["fedmrn.survivors"] == len(roles)
        assert metrics(out, number)["loss"] == 0.5


@pytest.mark.slow
@pytest.mark.integration
def test_dropouts_are_counted_and_no_round_is_lost(out):
    assert [metrics(out, number)["fedmrn.failed"] for number in SUMMED] == [1, 1]
    assert [metrics(out, number)["fedmrn.refused"] for number in SUMMED] == [0, 0]
    assert [metrics(out, number)["fedmrn.lost-rounds"] for number in SUMMED] == [0, 0]
    for number, inside in ((1, False), (2, True)):  # the second victim's vector is in the sum
        (failed,) = metrics(out, number)["fedmrn.failed-nodes"]
        assert failed > 1  # the SuperLink, which reports it, has the id 1
        assert (failed in metrics(out, number)["fedmrn.client-nodes"]) == inside
    assert "failed in `reveal`" in (out / "log").read_text()

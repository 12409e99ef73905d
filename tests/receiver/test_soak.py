"""The soak test with few frames, and that it notices what it is there for."""

import numpy as np
import pytest
import soak
import soak_check
from receiver_cases import make_model, make_policy

import fedmrn_codec as fm


def test_a_thousand_frames_and_a_kill(tmp_path):
    settings = soak.Settings(frames=1000, rounds=3, processes=2, threads=4, kills=1)
    result = soak.soak(tmp_path, settings, seed=7)
    assert result.wrong == []
    assert (result.lost, result.twice, result.untold, result.kills) == (0, 0, 0, ["receiver"])
    assert len(result.found.acknowledged) >= settings.wanted * settings.rounds
    assert sum(result.found.hostile.values()) >= 150
    assert result.frames >= 950
    assert len(soak.row(result, 0.0)) == len(soak.HEAD)
    assert soak.table(settings, [soak.row(result, 0.0)]).count("\n| ") == len(soak.HEAD) + 1


@pytest.fixture
def federation():
    """Two rounds of three clients: the first model, the policy, the frames, and what databases would say."""
    model, frames = make_model(), {}
    policy, weights = make_policy(model), {"a": 1, "b": 2, "c": 3}
    for number in (1, 2):
        _, down = soak_check.serial(model, policy, frames, weights, number - 1)
        for seed, client in enumerate(weights):
            request = fm.Request(seed, policy.noise, "binary", number, down.model_id, policy.schema)
            update = {t.name: np.full(t.shape, 0.003, np.float32) for t in policy.schema}
            frames[number, client] = request.encode(update)
    own, _ = soak_check.serial(model, policy, frames, weights, 2)
    digests = {
        key: (soak_check.hashlib.sha256(frame).digest(), weights[key[1]]) for key, frame in frames.items()
    }
    return model, policy, frames, weights, soak_check.Stored(digests, {1: (3, 6), 2: (3, 6)}, own)


def test_what_is_lost_or_counted_twice_is_noticed(federation):
    _, _, frames, weights, found = federation
    assert soak_check.problems(found, frames, weights, 2) == (0, 0, 0)
    lost = soak_check.Stored(
        {k: v for k, v in found.frames.items() if k != (1, "a")}, found.closed, found.model
    )
    assert soak_check.problems(lost, frames, weights, 2) == (1, 1, 0)
    twice = soak_check.Stored(found.frames, {1: (4, 7), 2: (3, 6)}, found.model)
    assert soak_check.problems(twice, frames, weights, 2) == (0, 1, 0)
    untold = {key: frame for key, frame in frames.items() if key != (2, "b")}
    assert soak_check.problems(found, untold, weights, 2) == (0, 0, 1)
    other = frames | {(1, "a"): frames[1, "b"]}
    assert soak_check.problems(found, other, weights, 2) == (1, 0, 0)


def test_a_model_of_other_frames_is_noticed(federation):
    model, policy, frames, weights, found = federation
    own, _ = soak_check.serial(model, policy, frames, weights, 2)
    assert soak_check.same(found.model, own)
    without = {key: frame for key, frame in frames.items() if key != (1, "a")}
    first, _ = soak_check.serial(model, policy, {k: v for k, v in without.items() if k[0] == 1}, weights, 1)
    whole, _ = soak_check.serial(model, policy, {k: v for k, v in frames.items() if k[0] == 1}, weights, 1)
    assert not soak_check.same(first, whole)

"""FedMRN without a noise: the rule sets it from round to round, and survives a restart of the server."""

import json

import numpy as np
import pytest
from flower_cases import MODEL, honest, messages_of, record, through
from flwr.serverapp.strategy import FedAvg, FedMedian

import fedmrn_codec as fm
from fedmrn_flower import FedMRN, Request

NODES = [11, 22, 33]
FIRST = {"conv.weight": 1.0, "linear.weight": 1.0}


def strategy(base=FedAvg, **options):
    return FedMRN(base(min_available_nodes=1, min_train_nodes=1), seed=5, **options)


def noises(messages):
    """The noise of each masked array, which all requests must share."""
    first, *others = [Request.of(message) for message in messages]
    assert all(other.noise == first.noise for other in others)
    return {name: noise.scale for name, noise in first.noise.items()}


def play(server, rounds, start=1, arrays=None):
    """Rounds in which every node replies; the scales of each, and the last metrics."""
    arrays, scales, metrics = arrays or record(), [], {}
    for number in range(start, start + rounds):
        messages = messages_of(server, NODES, number, arrays)
        scales.append(noises(messages))
        replies = [through(honest, message) for message in messages]
        arrays, metrics = server.aggregate_train(number, replies)
    return scales, dict(metrics), arrays


@pytest.mark.parametrize("base", [FedAvg, FedMedian])
def test_the_noise_starts_with_the_spread_and_falls_towards_the_updates(base):
    server = strategy(base)
    scales, metrics, _ = play(server, 4)
    for name in ("conv.weight", "linear.weight"):
        assert scales[0][name] == pytest.approx(float(np.std(MODEL[name])), rel=1e-6)
        assert scales[3][name] < scales[1][name] < scales[0][name]  # updates of 0.002 set hardly any bit
        assert metrics[f"fedmrn.scale.{name}"] == scales[3][name]
        assert 0 <= metrics[f"fedmrn.density.{name}"] < 0.15  # near 0.05, but of few elements and random bits


def test_the_frames_are_entropy_coded_unless_the_user_says_otherwise():
    (message, *_) = messages_of(strategy(), NODES)
    assert Request.of(message).coding == "rans12"
    (message, *_) = messages_of(strategy(coding="raw"), NODES)
    assert Request.of(message).coding == "raw"
    (message, *_) = messages_of(strategy(noise=fm.Uniform(0.01)), NODES)
    assert Request.of(message).coding == "raw"


def test_a_restarted_server_continues_from_the_file(tmp_path):
    state = tmp_path / "noise.json"
    _, _, arrays = play(strategy(state=state), 2)
    (saved,) = json.loads(state.read_text()).values()
    continued, _, _ = play(strategy(state=state), 1, 3, arrays)
    assert continued[0] == {name: entry["scale"] for name, entry in saved["tensors"].items()}
    assert saved["rounds"] == 2


def test_a_round_without_replies_keeps_the_noise():
    server = strategy()
    first = noises(messages_of(server, NODES, 1))
    server.aggregate_train(1, [])
    assert noises(messages_of(server, NODES, 2)) == first


def test_a_rule_or_a_mapping_may_be_given():
    schema = fm.schema_of(MODEL)
    rule = fm.AdaptiveNoise(schema, MODEL, bits=0.5, distribution="uniform")
    server = strategy(noise=rule)
    play(server, 2)
    assert rule.rounds == 2
    fixed = {"conv.weight": fm.Uniform(0.5), "linear.weight": fm.Bernoulli(0.25)}
    scales, metrics, _ = play(strategy(noise=fixed), 2)
    assert scales == [{"conv.weight": 0.5, "linear.weight": 0.25}] * 2
    assert not any(name.startswith("fedmrn.scale") for name in metrics)


def test_bits_are_passed_on():
    server = strategy(bits=0.9)
    few, many = play(strategy(), 8)[0], play(server, 8)[0]
    assert many[-1]["conv.weight"] < few[-1]["conv.weight"]

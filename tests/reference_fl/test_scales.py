"""The noise scale over the rounds and over the layers."""

import itertools
import math

import pytest
import torch

import fedmrn_codec as fm
from reference_fl import data, methods
from reference_fl.loop import run
from reference_fl.methods import scales
from reference_fl.settings import defaults

TINY = {"clients": 30, "clients_per_round": 3, "epochs": 1, "rounds": 2, "threads": 1}


def factors(schedule, rounds, **options):
    merged = {**scales.OPTIONS, "schedule": schedule, **options}
    return [scales.factor(merged, number) for number in rounds]


def test_the_schedules():
    assert factors("constant", range(1, 200)) == [1.0] * 199
    assert factors("cosine", [1, 6, 11, 50], over=10, final=0.2) == pytest.approx([1, 0.6, 0.2, 0.2])
    assert factors("step", [1, 5, 6, 50], over=10, final=0.2) == pytest.approx([1, 1, 0.2, 0.2])
    falling = factors("cosine", range(1, 102), over=100, final=0.1)
    assert all(a > b for a, b in itertools.pairwise(falling))


def test_layers_of_one_spread_have_the_common_scale():
    weights = {"a": torch.tensor([-1.0, 1.0]), "b": torch.tensor([3.0, 5.0, 3.0, 5.0])}
    assert scales.relative_spreads(weights) == {"a": 1.0, "b": 1.0}
    assert scales.relative_spreads({"a": torch.zeros(3)}) == {"a": 1.0}


def test_a_layer_s_scale_follows_its_spread_within_bounds():
    weights = {"a": torch.tensor([-1.0, 1.0]), "b": torch.tensor([-3.0, 3.0])}
    spreads = scales.relative_spreads(weights)
    assert spreads == {"a": pytest.approx(1 / math.sqrt(5)), "b": pytest.approx(3 / math.sqrt(5))}
    weights["c"] = torch.zeros(2000)
    assert scales.relative_spreads(weights) == {"a": scales.RANGE, "b": scales.RANGE, "c": 1 / scales.RANGE}


def test_the_noise_of_a_round():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
        model[1].weight.copy_(torch.tensor([[-1.0, 1.0]]))
    names, noise = ["0.weight", "1.weight"], fm.Uniform(0.5)
    plain = scales.round_noise(noise, scales.OPTIONS, model, names, 7)
    assert plain is noise
    falling = {**scales.OPTIONS, "schedule": "step", "final": 0.25, "over": 4}
    assert scales.round_noise(noise, falling, None, names, 4) == fm.Uniform(0.125)
    layered = scales.round_noise(noise, {**falling, "per_layer": True}, model, names, 4)
    assert layered == dict.fromkeys(names, fm.Uniform(0.125))
    with pytest.raises(ValueError, match="model for per_layer: expected the broadcast one, got None"):
        scales.round_noise(noise, {**falling, "per_layer": True}, None, names, 4)


def test_frames_carry_the_round_s_noise_and_the_server_requires_it(tmp_path, monkeypatch):
    """The aggregator refuses any other noise, so a run that ends has used the same noise on both sides."""
    sent = []
    add = fm.Aggregator.add
    monkeypatch.setattr(
        fm.Aggregator, "add", lambda self, data, *a, **k: (sent.append(data), add(self, data, *a, **k))[1]
    )
    options = {"schedule": "cosine", "over": 2, "per_layer": True}
    settings = defaults("digits", "fedmrn", "signed", options=options, noise="uniform:0.005", **TINY)
    lines = list(run(settings, data.load("digits"), tmp_path))
    assert len(lines) == 2
    scale = [[t.noise.scale for t in fm.inspect(frame).tensors if t.noise] for frame in (sent[0], sent[-1])]
    assert scale[0] == pytest.approx(
        [0.005] * 3, rel=0.1
    )  # the initial weights of all layers have the same standard deviation
    assert scale[1] == pytest.approx([0.005 * 0.55] * 3, rel=0.3)
    assert len(set(scale[1])) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"schedule": "linear"},
            "option schedule of fedmrn: expected one of constant, cosine, step, rate, got 'linear'",
        ),
        ({"over": 0}, "option over of fedmrn: expected at least 1, got 0"),
        ({"final": 0.0}, "option final of fedmrn: expected above 0 and at most 1, got 0.0"),
        ({"per_layer": True}, "option per_layer of fedmrn: expected False with adaptive noise, got True"),
        (
            {"schedule": "step"},
            "option schedule of fedmrn: expected 'constant' with adaptive noise, got 'step'",
        ),
    ],
)
def test_values_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        methods.build(defaults("digits", "fedmrn", None, options=options))


def test_options_of_the_rule_are_refused_with_a_fixed_noise():
    with pytest.raises(ValueError, match=r"option bits of fedmrn: expected 0\.0 with fixed noise, got 0\.5"):
        methods.build(defaults("digits", "fedmrn", None, options={"bits": 0.5}, noise="uniform:0.01"))

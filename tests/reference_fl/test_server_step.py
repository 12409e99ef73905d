"""The server's learning rate and momentum, which do not apply to running statistics."""

import numpy as np
import pytest
import torch

from reference_fl import data, methods
from reference_fl.loop import run
from reference_fl.methods.server_step import ServerStep
from reference_fl.settings import defaults

TINY = {"clients": 30, "clients_per_round": 3, "epochs": 1, "rounds": 3, "threads": 1}


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bn = torch.nn.BatchNorm1d(2)


MEAN = {"bn.weight": np.float32([1, -2]), "bn.running_var": np.float32([0.5, 0.5])}


def test_momentum_adds_up_and_running_statistics_have_none():
    step = ServerStep({"server_learning_rate": 0.5, "server_momentum": 0.5})
    moved = [step.update(Net(), MEAN) for _ in range(3)]
    assert [m["bn.weight"].tolist() for m in moved] == [[0.5, -1], [0.75, -1.5], [0.875, -1.75]]
    assert all(m["bn.running_var"].tolist() == [0.5, 0.5] for m in moved)
    assert all(m["bn.weight"].dtype == np.float32 for m in moved)
    assert MEAN["bn.weight"].tolist() == [1, -2]


def test_without_options_the_step_is_the_mean():
    step = ServerStep({"server_learning_rate": 1.0, "server_momentum": 0.0})
    assert all(step.update(Net(), MEAN)[name] is array for name, array in MEAN.items())
    assert step.state() == {}


@pytest.mark.parametrize("method", ["fedavg", "fedmrn", "topk"])
def test_a_run_with_momentum_continues_where_it_stopped(method, tmp_path):
    digits = data.load("digits")
    options = {"server_momentum": 0.9} | ({"error_feedback": True} if method == "topk" else {})
    settings = defaults("digits", method, None, options=options, **TINY)
    whole = list(run(settings, digits, tmp_path / "whole"))
    short = defaults("digits", method, None, options=options, **{**TINY, "rounds": 1})
    list(run(short, digits, tmp_path / "parts"))
    parts = list(run(settings, digits, tmp_path / "parts"))
    assert [line["loss"] for line in parts] == [line["loss"] for line in whole]
    plain = defaults("digits", method, None, options={**options, "server_momentum": 0.0}, **TINY)
    without = list(run(plain, digits, tmp_path / "without"))
    assert without[0]["loss"] == whole[0]["loss"]
    assert without[2]["loss"] != whole[2]["loss"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"server_momentum": 1.0}, "option server_momentum of fedavg: expected 0 to below 1, got 1.0"),
        ({"server_learning_rate": 0.0}, "option server_learning_rate of fedavg: expected above 0, got 0.0"),
    ],
)
def test_values_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        methods.build(defaults("digits", "fedavg", None, options=options))


@pytest.mark.parametrize("method", ["fedpm", "fedsparsify"])
def test_methods_that_do_not_add_a_mean_update_have_no_server_step(method):
    with pytest.raises(ValueError, match=f"options of {method}: expected only .*, got server_momentum"):
        methods.build(defaults("digits", method, None, options={"server_momentum": 0.9}))

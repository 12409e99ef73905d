"""The noise scale of a round: how it changes over the rounds, and how it differs between layers.

A fixed scale limits how far a weight can move in a round, and the masks add as much noise in the last round
as in the first. This project, not Li et al., ACM MM 2024, offers two remedies: a scale that falls over the
rounds, and one that follows the standard deviation of each layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

import fedmrn_codec as fm

OPTIONS: dict[str, Any] = {"schedule": "constant", "over": 100, "final": 0.1, "per_layer": False}

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 0.0,
    "cosine": lambda done: (1 - math.cos(math.pi * done)) / 2,
    "step": lambda done: float(done >= 0.5),
}
"""How far the scale has fallen, 0 to 1, as a function of the share of the rounds that are done."""

AS_RATE = "rate"
"""The schedule of a scale that stays proportional to the learning rate; `over` and `final` have no effect."""

RANGE = 8.0
"""The largest factor between the scale of a layer and the common one."""


def factor(options: dict[str, Any], round: int, rate: float = 1.0) -> float:
    """The scale of a round as a multiple of the first round's: 1 in round 1, `final` after `over` rounds.

    `rate` is the learning rate of the round as a multiple of the first round's.
    """
    if options["schedule"] == AS_RATE:
        return rate
    done = min((round - 1) / options["over"], 1.0)
    return 1.0 - (1.0 - float(options["final"])) * SCHEDULES[options["schedule"]](done)


def round_noise(
    noise: fm.Noise,
    options: dict[str, Any],
    model: nn.Module | None,
    masked: Iterable[str],
    round: int,
    rate: float = 1.0,
) -> fm.Noise | dict[str, fm.Noise]:
    """The noise of a round, one for all masked tensors or one for each; server and client compute it alike.

    Parameters
    ----------
    noise : fedmrn_codec.Noise
        The noise of the first round, for a layer whose standard deviation is the common one.
    options : dict
        Values of `OPTIONS`.
    model : torch.nn.Module or None
        The broadcast model; needed only if `per_layer`.
    masked : iterable of str
        Names of the masked parameters.
    round : int
        From 1.
    rate : float
        As in `factor`.

    Raises
    ------
    ValueError
        The model is needed but missing.
    """
    scale = noise.scale * factor(options, round, rate)
    if not options["per_layer"]:
        return noise if scale == noise.scale else type(noise)(scale)
    if model is None:
        raise ValueError("model for per_layer: expected the broadcast one, got None")
    spreads = relative_spreads({name: model.get_parameter(name).detach() for name in masked})
    return {name: type(noise)(scale * spread) for name, spread in spreads.items()}


def relative_spreads(weights: dict[str, torch.Tensor]) -> dict[str, float]:
    """The standard deviation of each layer divided by the common one, limited to 1/RANGE..RANGE.

    The common variance is the mean of the layers' variances, weighted by their numbers of weights.
    """
    variances = {name: float(w.double().var(correction=0)) for name, w in weights.items()}
    count = sum(w.numel() for w in weights.values())
    common = sum(variances[name] * w.numel() for name, w in weights.items()) / max(count, 1)
    if common == 0:
        return dict.fromkeys(weights, 1.0)
    return {name: min(max(math.sqrt(v / common), 1 / RANGE), RANGE) for name, v in variances.items()}

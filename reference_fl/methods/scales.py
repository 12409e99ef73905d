"""The noise of a round: its scale over the rounds, and over the layers.

A fixed scale caps how far a weight moves in a round, and its masks leave the same noise in the last round as
in the first. Two remedies of this project, not of Li et al., ACM MM 2024: a scale that falls over the rounds,
and one that follows each layer's own spread.
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
"""The share of the way to the final scale, by the share of the rounds that are done."""

RANGE = 8.0
"""How far a layer's scale may be from the common one, as a factor."""


def factor(options: dict[str, Any], round: int) -> float:
    """The scale of a round as a multiple of the first round's: 1 in round 1, `final` after `over` rounds."""
    done = min((round - 1) / options["over"], 1.0)
    return 1.0 - (1.0 - float(options["final"])) * SCHEDULES[options["schedule"]](done)


def round_noise(
    noise: fm.Noise, options: dict[str, Any], model: nn.Module | None, masked: Iterable[str], round: int
) -> fm.Noise | dict[str, fm.Noise]:
    """The noise of a round, for all masked tensors or for each; both sides work it out alike.

    Parameters
    ----------
    noise : fedmrn_codec.Noise
        Of the first round, and of a layer of common spread.
    options : dict
        `OPTIONS`, with values.
    model : torch.nn.Module or None
        As broadcast; needed only if `per_layer`.
    masked : iterable of str
        Names of the masked parameters.
    round : int
        From 1.

    Raises
    ------
    ValueError
        No model where one is needed.
    """
    scale = noise.scale * factor(options, round)
    if not options["per_layer"]:
        return noise if scale == noise.scale else type(noise)(scale)
    if model is None:
        raise ValueError("per_layer: found no model, required: the broadcast one")
    spreads = relative_spreads({name: model.get_parameter(name).detach() for name in masked})
    return {name: type(noise)(scale * spread) for name, spread in spreads.items()}


def relative_spreads(weights: dict[str, torch.Tensor]) -> dict[str, float]:
    """Each layer's standard deviation over that of all weights within their layers, at most `RANGE` off 1."""
    variances = {name: float(w.double().var(correction=0)) for name, w in weights.items()}
    count = sum(w.numel() for w in weights.values())
    common = sum(variances[name] * w.numel() for name, w in weights.items()) / max(count, 1)
    if common == 0:
        return dict.fromkeys(weights, 1.0)
    return {name: min(max(math.sqrt(v / common), 1 / RANGE), RANGE) for name, v in variances.items()}

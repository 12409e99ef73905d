"""Smooth problems, for which convergence is proved: logistic regression and a tanh network, penalised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.utils import skip_init

# Sizes of the hidden layers. Without one the objective is strongly convex.
PROBLEMS: dict[str, tuple[int, ...]] = {"logistic": (), "mlp-tanh": (32,)}
PENALTY = {"logistic": 0.5, "mlp-tanh": 0.001}
"""Factor lambda of the penalty, by problem."""


class Smooth(nn.Module):
    """Linear layers without bias, tanh between them, and an L2 penalty: every derivative exists.

    The objective is the cross-entropy plus lambda / 2 times the sum of the squares of all weights. Without a
    hidden layer it is lambda-strongly convex. The penalty is taken in the forward pass, from the weights of
    that pass: while masks are trained these are not the module's own.

    Parameters
    ----------
    in_shape : tuple of int
        Of one sample, which is flattened.
    classes : int
        Number of outputs.
    hidden : sequence of int
        Sizes of the hidden layers.
    factor : float
        Lambda, at least 0.

    Attributes
    ----------
    penalty : torch.Tensor
        Of the last forward pass, float32, a scalar; training adds it to the cross-entropy.
    convex : bool
    """

    def __init__(self, in_shape: Sequence[int], classes: int, hidden: Sequence[int], factor: float) -> None:
        super().__init__()
        sizes = [math.prod(in_shape), *hidden, classes]
        parts: list[nn.Module] = []
        for before, after in pairwise(sizes):
            parts += [skip_init(nn.Linear, before, after, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*parts[:-1])
        self.factor, self.convex = factor, not hidden
        self.penalty = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, float32, shape (batch, classes), of samples of shape (batch, ...)."""
        scores: torch.Tensor = self.layers(x.flatten(1))
        self.penalty = self.factor / 2 * torch.stack([w.square().sum() for w in self._weights()]).sum()
        return scores

    @torch.no_grad()
    def initialise(self, rng: np.random.Generator) -> None:
        """Zeros where the objective is convex; else uniform in +-1/sqrt(fan-in), as PyTorch's own layers."""
        for weight in self._weights():
            bound = 0.0 if self.convex else 1 / math.sqrt(weight.shape[1])
            draw = rng.uniform(-bound, bound, tuple(weight.shape))
            weight.copy_(torch.from_numpy(draw.astype(np.float32)))

    def _weights(self) -> list[torch.Tensor]:
        return [layer.weight for layer in self.layers if isinstance(layer, nn.Linear)]

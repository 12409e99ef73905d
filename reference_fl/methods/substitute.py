"""A model whose weights are computed from other tensors, which are trained, in each forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call


class Substituted(nn.Module):
    """Runs a model with other weights; buffers and all other parameters are those of the model.

    Parameters
    ----------
    model : torch.nn.Module
        Its own weights of the substituted names are neither used nor trained.
    weights : callable
        Returns the weights by name; called once in each forward pass.
    """

    def __init__(self, model: nn.Module, weights: Callable[[], dict[str, torch.Tensor]]) -> None:
        super().__init__()
        self.model, self.weights = model, weights

    def forward(self, *inputs: Any) -> Any:
        """The model's output with these weights."""
        return functional_call(self.model, self.weights(), inputs)

    @property
    def penalty(self) -> torch.Tensor | float:
        """The penalty of the model's last forward pass, if it has one (`smooth.Smooth`)."""
        return getattr(self.model, "penalty", 0.0)


def other_parameters(model: nn.Module, names: set[str]) -> list[nn.Parameter]:
    """The trainable parameters that are not among these."""
    return [p for name, p in model.named_parameters() if name not in names and p.requires_grad]

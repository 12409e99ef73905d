"""The server's step: a learning rate and momentum that the server applies to the mean update.

FedAvgM of Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification" (2019, arXiv 1909.06335): v <- momentum * v + mean, w <- w + rate * v. The step applies to
parameters only; running statistics change by the mean update itself, because momentum could make a variance
negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

OPTIONS = {"server_learning_rate": 1.0, "server_momentum": 0.0}
PREFIX = "server velocity/"


class ServerStep:
    """The step and, if there is momentum, the velocity that it keeps between rounds.

    Parameters
    ----------
    options : mapping
        `server_learning_rate` and `server_momentum`; with their defaults, 1 and 0, the step is the mean.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._rate = np.float32(options["server_learning_rate"])
        self._momentum = np.float32(options["server_momentum"])
        self._velocity: dict[str, np.ndarray] = {}

    def update(self, model: nn.Module, mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The update to add to the model, by name.

        Parameters
        ----------
        model : torch.nn.Module
            Defines which names are parameters.
        mean : mapping of str to ndarray
        """
        out = dict(mean)
        if self._rate == 1 and self._momentum == 0:
            return out
        for name in {name for name, _ in model.named_parameters()} & set(mean):
            velocity = mean[name] + self._momentum * self._velocity.get(name, np.float32(0))
            if self._momentum:
                self._velocity[name] = velocity
            out[name] = self._rate * velocity
        return out

    def state(self) -> dict[str, Tensor]:
        """The velocity, to be saved."""
        return {PREFIX + name: torch.from_numpy(v) for name, v in sorted(self._velocity.items())}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue with a velocity from `state`; other names are ignored."""
        kept = {name: tensor for name, tensor in state.items() if name.startswith(PREFIX)}
        self._velocity = {name.removeprefix(PREFIX): tensor.numpy() for name, tensor in kept.items()}

"""Distance to the optimum and gradient of a smooth problem: `objective.jsonl`, beside the metrics of a run.

A line: `{"round": 3, "objective": 0.91, "gradient": 0.02, "distance": 0.4, "learning_rate": 0.1}`. The
objective is that of `smooth.Smooth` over all training samples; `gradient` is the square of the norm of its
gradient, and `distance` the square of the distance to its minimum, null where the objective is not convex.
They are those of the model after the round, in float64. Only runs with a model of `smooth` have this file.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .data import Dataset
from .settings import Settings
from .smooth import Smooth

SUFFIX = "objective"
PRECISE = 1e-8
"""The largest norm of the gradient at a minimum, which is then exact to this value over lambda."""


class Objective:
    """The objective over all training samples, in float64; of a convex one also its minimum.

    Parameters
    ----------
    model : Smooth
        Defines the problem; its weights do not matter.
    settings : Settings
    data : Dataset
    """

    def __init__(self, model: Smooth, settings: Settings, data: Dataset) -> None:
        self.settings = settings
        self._model = copy.deepcopy(model).double()
        self._x, self._y = data.train_x.double(), data.train_y
        self.minimum = self._minimum() if model.convex else None

    def line(self, number: int, model: torch.nn.Module) -> dict[str, Any]:
        """The line of a round, for the model after it."""
        self._model.load_state_dict(model.state_dict())
        weights = self._weights()
        value, gradient = self.at(weights)
        return {
            "round": number,
            "objective": value,
            "gradient": float(np.sum(gradient**2)),
            "distance": None if self.minimum is None else float(np.sum((weights - self.minimum) ** 2)),
            "learning_rate": self.settings.rate(number),
        }

    def at(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient at these weights, all of the model in one vector."""
        value = self._value(weights)
        gradients = torch.autograd.grad(value, list(self._model.parameters()))
        return value.item(), _flat(gradients)

    def _value(self, weights: np.ndarray) -> torch.Tensor:
        torch.nn.utils.vector_to_parameters(torch.tensor(weights), self._model.parameters())
        return F.cross_entropy(self._model(self._x), self._y) + self._model.penalty

    def _weights(self) -> np.ndarray:
        return _flat([parameter.detach() for parameter in self._model.parameters()])

    def _curvature(self, weights: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The Hessian at these weights, times a direction."""
        parameters = list(self._model.parameters())
        gradients = torch.autograd.grad(self._value(weights), parameters, create_graph=True)
        slope = torch.cat([g.flatten() for g in gradients]) @ torch.from_numpy(direction)
        return _flat(torch.autograd.grad(slope, parameters))

    def _minimum(self) -> np.ndarray:
        """The minimum of a convex objective, by a trust-region Newton method of SciPy."""
        from scipy.optimize import minimize

        start = np.zeros_like(self._weights())
        options = {"gtol": PRECISE / 10, "maxiter": 1000}
        found = minimize(self.at, start, jac=True, hessp=self._curvature, method="trust-ncg", options=options)
        minimum = np.asarray(found.x)
        if (norm := float(np.linalg.norm(self.at(minimum)[1]))) > PRECISE:
            raise RuntimeError(f"gradient at the minimum: expected a norm of at most {PRECISE}, got {norm}")
        return minimum


def _flat(tensors: Any) -> np.ndarray:
    return np.concatenate([tensor.flatten().numpy() for tensor in tensors])

"""SignSGD with a scale per tensor (Bernstein et al., ICML 2018), and z-SignFedAvg (Tang et al., AAAI 2024).

"signSGD: Compressed Optimisation for Non-Convex Problems"; "z-SignFedAvg: A Unified Stochastic Sign-Based
Compression for Federated Learning".

Without noise the client sends the signs of its update, and the mean magnitude of each tensor as its scale.
This scale gives the least squared error that is possible with signs (Karimireddy et al., ICML 2019).

With noise the client sends sign(update + s * z), where z is independent with density proportional to
exp(-|z|^(2p) / 2): Gaussian for p = 1, uniform on (-1, 1) as p goes to infinity. The scale is eta * s, where
eta is the integral of exp(-|z|^(2p) / 2) over the positive numbers: sqrt(pi/2) or 1. The expectation is then
the update itself, to first order in update / s for Gaussian noise, and exactly where |update| <= s for
uniform noise. The paper tunes s for each data set; here s is `sigma` times the root mean square of the
tensor's update, so that it need not be tuned for each layer. The default of 1 is this project's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import nn

from fedmrn_codec import Schema
from fedmrn_codec.errors import UpdateNonFiniteError

from ..settings import Settings
from . import Task, register
from .base import Base, trained_update
from .signs import signs_frame

NOISES = {"gaussian": math.sqrt(math.pi / 2), "uniform": 1.0}
"""eta of each noise."""


@register("signsgd")
class SignSGD(Base):
    """One bit for each parameter, and a float32 for each tensor.

    Options: `noise`, "none", "gaussian" or "uniform"; `sigma`, its scale divided by the root mean square of
    the update, above 0.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {"noise": "none", "sigma": 1.0}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.require("noise", self.options["noise"] in ("none", *NOISES), f"none, {' or '.join(NOISES)}")
        self.require("sigma", 0 < self.options["sigma"] < math.inf, "above 0")

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train with SGD, and send signs and scales of the difference."""
        schema = self.schema(model)
        return self.message(trained_update(model, task, self.settings, schema), schema, task)

    def message(self, update: Mapping[str, np.ndarray], schema: Schema, task: Task) -> bytes:
        """Encode an update as a frame."""
        positive, scales, dense = {}, {}, {}
        for stream, tensor in enumerate(schema):
            array = update[tensor.name]
            if not tensor.masked:
                dense[tensor.name] = array
                continue
            if not np.isfinite(array).all():
                raise UpdateNonFiniteError(f"{tensor.name!r}", "finite values", "a NaN or an infinity")
            positive[tensor.name], scales[tensor.name] = self.signs(array, stream, task)
        return signs_frame(positive, scales, dense, schema, task)

    def signs(self, update: np.ndarray, stream: int, task: Task) -> tuple[np.ndarray, float]:
        """Which signs of one tensor are positive, and their scale."""
        wide = update.astype(np.float64)
        if self.options["noise"] == "none":
            return update >= 0, float(np.abs(wide).mean())
        rng = np.random.default_rng([task.private_seed, stream])
        z = (
            rng.normal(size=update.shape)
            if self.options["noise"] == "gaussian"
            else rng.uniform(-1, 1, update.shape)
        )
        s = self.options["sigma"] * math.sqrt((wide**2).mean())
        return wide + s * z >= 0, NOISES[self.options["noise"]] * s

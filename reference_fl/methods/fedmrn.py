"""FedMRN (Li et al., ACM MM 2024): trains masks over random noise, and sends one bit for each parameter."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

import fedmrn_codec as fm
import fedmrn_torch
from fedmrn_codec.adapter_api import check_settings

from ..settings import Settings, noise_of
from ..train import local_steps
from . import Task, register, run_sgd, scales
from .base import Base


@register("fedmrn")
class FedMRN(Base):
    """Progressive stochastic masking on the client, exact aggregation on the server.

    Options for the paper's ablations: `stochastic`, false for the nearest mask instead of a sampled one;
    `progressive`, false to mask every element from the first step on. With both false, training is ordinary
    and the mask is the nearest one to its result. Options of the frame: `coding`, "rans" or "rans12" to
    entropy-code the masks below one bit an element; `dense_coding`, "float16" or "bfloat16" for BatchNorm in
    16 bits. Options of the noise scale (`scales`), which is constant in the paper: `schedule`, "cosine" or
    "step" for a scale that falls to `final` times its first value in `over` rounds; `per_layer`, for a scale
    that follows the standard deviation of each layer.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {
        "stochastic": True,
        "progressive": True,
        "coding": "raw",
        "dense_coding": "raw",
        **scales.OPTIONS,
    }
    HAS_MASKS = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.noise = noise_of(settings)
        check_settings(self.noise, settings.mask, self.options["coding"], self.options["dense_coding"])
        known = ", ".join(scales.SCHEDULES)
        self.require("schedule", self.options["schedule"] in scales.SCHEDULES, f"one of {known}")
        self.require("over", self.options["over"] >= 1, "at least 1")
        self.require("final", 0 < self.options["final"] <= 1, "above 0 and at most 1")

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train with PSM, and send the masks."""
        s = self.settings
        with fedmrn_torch.PSM(
            model,
            seed=task.seed,
            noise=self.round_noise(model, self.schema(model), task.round),
            mask=s.mask or "binary",
            steps=local_steps(len(task.y), s.batch_size, s.epochs),
            private_seed=task.private_seed,
            stochastic=self.options["stochastic"],
            progressive=self.options["progressive"],
        ) as psm:
            run_sgd(model, task, s, after_step=lambda step: psm.step())
            return psm.finish(
                round=task.round,
                base_model=task.base_model,
                coding=self.options["coding"],
                dense_coding=self.options["dense_coding"],
            )

    def server(
        self, schema: fm.Schema, round: int, base_model: int, model: nn.Module | None = None
    ) -> fm.Aggregator:
        """A collector of the exact weighted mean; frames with another noise are refused."""
        noise = self.round_noise(model, schema, round)
        return fm.Aggregator(schema, noise=noise, round=round, base_model=base_model)

    def round_noise(
        self, model: nn.Module | None, schema: fm.Schema, round: int
    ) -> fm.Noise | dict[str, fm.Noise]:
        """The noise of a round, as the options define it."""
        masked = [tensor.name for tensor in schema if tensor.masked]
        return scales.round_noise(self.noise, self.options, model, masked, round)

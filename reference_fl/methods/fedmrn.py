"""FedMRN (Li et al., ACM MM 2024): trains masks over random noise, and sends one bit for each parameter."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

import fedmrn_codec as fm
import fedmrn_torch
from fedmrn_codec.adapter_api import check_settings, noise_text, parse_noise

from .. import rates
from ..settings import ADAPTIVE, Settings, noise_of
from ..train import local_steps
from . import Task, register, run_sgd, scales
from .base import Base

RULE = "rule"
"""The name of the rule's state among that of the server."""


@register("fedmrn")
class FedMRN(Base):
    """Progressive stochastic masking on the client, exact aggregation on the server.

    Options for the paper's ablations: `stochastic`, false for the nearest mask instead of a sampled one;
    `progressive`, false to mask every element from the first step on. With both false, training is ordinary
    and the mask is the nearest one to its result. Options of the frame: `coding`, "rans" or "rans12" to
    entropy-code the masks below one bit an element; `dense_coding`, "float16" or "bfloat16" for BatchNorm in
    16 bits. Options of a fixed noise (`scales`), whose scale is constant in the paper: `schedule`, "cosine"
    or "step" for a scale that falls to `final` times its first value in `over` rounds, "rate" for one that
    stays proportional to the learning rate; `per_layer`, for a scale that follows the standard deviation of
    each layer. Options of the noise "adaptive": `distribution`, and `bits` of a masked parameter, 0 for the
    rule's own target.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {
        "stochastic": True,
        "progressive": True,
        "coding": "rans12",
        "dense_coding": "raw",
        "distribution": "bernoulli",
        "bits": 0.0,
        **scales.OPTIONS,
    }
    HAS_MASKS = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.noise = None if settings.noise == ADAPTIVE else noise_of(settings)
        self.rule: fm.AdaptiveNoise | None = None
        self._sum: fm.Aggregator | None = None
        codings = self.options["coding"], self.options["dense_coding"]
        check_settings({} if self.noise is None else self.noise, settings.mask, *codings)
        known = (*scales.SCHEDULES, scales.AS_RATE)
        self.require("schedule", self.options["schedule"] in known, f"one of {', '.join(known)}")
        self.require("over", self.options["over"] >= 1, "at least 1")
        self.require("final", 0 < self.options["final"] <= 1, "above 0 and at most 1")
        others = ("schedule", "per_layer") if self.noise is None else ("bits", "distribution")
        kind = "adaptive" if self.noise is None else "fixed"
        for name in others:
            default = self.OPTIONS[name]
            self.require(name, self.options[name] == default, f"{default!r} with {kind} noise")

    def start(self, model: nn.Module) -> None:
        """Broadcast the initial weights unchanged; the rule starts from their spread."""
        if self.noise is None:
            schema = self.schema(model)
            state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
            self.rule = fm.AdaptiveNoise(
                schema,
                state,
                mask=self.settings.mask or "binary",
                distribution=self.options["distribution"],
                bits=self.options["bits"] or None,
            )

    def instructions(self) -> dict[str, str]:
        """The noise of each masked tensor, if the rule sets it."""
        return {} if self.rule is None else {n: noise_text(noise) for n, noise in self.rule.noise.items()}

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train with PSM, and send the masks."""
        s = self.settings
        with fedmrn_torch.PSM(
            model,
            seed=task.seed,
            noise=self.round_noise(model, self.schema(model), task),
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
        noise = self.rule.noise if self.rule else self._fixed(model, schema, round)
        self._sum = fm.Aggregator(schema, noise=noise, round=round, base_model=base_model)
        return self._sum

    def apply_(self, model: nn.Module, mean: dict[str, np.ndarray], round: int) -> None:
        """Add the mean update to the model; the rule sets the noise of the next round."""
        super().apply_(model, mean, round)
        if self.rule and self._sum:
            self.rule.observe(self._sum)

    def state(self) -> dict[str, torch.Tensor]:
        """The state of the server's step and, as the bytes of its JSON, that of the rule."""
        out = super().state()
        if self.rule:
            text = json.dumps(self.rule.to_json()).encode()
            out[RULE] = torch.from_numpy(np.frombuffer(text, np.uint8).copy())
        return out

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue with a saved velocity and rule."""
        if self.rule and RULE in state:
            self.rule = fm.AdaptiveNoise.from_json(json.loads(state[RULE].numpy().tobytes()))
            state = {name: tensor for name, tensor in state.items() if name != RULE}
        super().load_state(state)

    def round_noise(self, model: nn.Module, schema: fm.Schema, task: Task) -> fm.Noise | dict[str, fm.Noise]:
        """The noise of a client's round: that of the server's instructions, or as the options define it."""
        if self.noise is None:
            return {name: parse_noise(text) for name, text in task.instructions.items()}
        return self._fixed(model, schema, task.round)

    def _fixed(
        self, model: nn.Module | None, schema: fm.Schema, round: int
    ) -> fm.Noise | dict[str, fm.Noise]:
        assert self.noise is not None
        masked = [tensor.name for tensor in schema if tensor.masked]
        rate = rates.factor(self.settings.learning_rate_schedule, round)
        return scales.round_noise(self.noise, self.options, model, masked, round, rate)

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
from fedmrn_codec.adapter_api.secagg import weight_of

from .. import rates
from ..secure import Terms
from ..seeds import derive
from ..settings import ADAPTIVE, Settings, noise_of
from ..train import local_steps
from . import Task, register, run_sgd, scales
from .base import Base

RULE = "rule"
"""The name of the rule's state among that of the server."""

SECURE_BITS, MOST_BITS = 18, 24
"""Fraction bits of dense floats with secure aggregation, a range of about 64; and the most."""


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

    Options of the sum: `shared_seed` gives all clients of a round one seed, which suits Bernoulli noise
    (spec 11.4). `largest_weight` is 0 for weights that are the clients' numbers of samples, and 1 for equal
    ones; with a larger bound a client weighs 1 for every `examples` samples, rounded, from 1 to the bound.
    `fraction_bits` rounds dense floats to multiples of 2^-fraction_bits; 0 does not. With secure
    aggregation (the setting `secure`) the seed is always shared, weights are equal unless a bound is given,
    and dense floats have 18 fraction bits; these options without it give the same model, bit for bit.
    `threshold` is the share of a round's clients whose shares restore a secret.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {
        "stochastic": True,
        "progressive": True,
        "coding": "rans12",
        "dense_coding": "raw",
        "distribution": "bernoulli",
        "bits": 0.0,
        "shared_seed": False,
        "largest_weight": 0,
        "examples": 0,
        "fraction_bits": 0,
        "threshold": 0.7,
        **scales.OPTIONS,
    }
    HAS_MASKS = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.noise = None if settings.noise == ADAPTIVE else noise_of(settings)
        self.mask = settings.mask or "binary"
        self.rule: fm.AdaptiveNoise | None = None
        self._sum: fm.Aggregator | None = None
        codings = self.options["coding"], self.options["dense_coding"]
        check_settings({} if self.noise is None else self.noise, self.mask, *codings)
        known = (*scales.SCHEDULES, scales.AS_RATE)
        self.require("schedule", self.options["schedule"] in known, f"one of {', '.join(known)}")
        self.require("over", self.options["over"] >= 1, "at least 1")
        self.require("final", 0 < self.options["final"] <= 1, "above 0 and at most 1")
        others = ("schedule", "per_layer") if self.noise is None else ("bits", "distribution")
        kind = "adaptive" if self.noise is None else "fixed"
        for name in others:
            default = self.OPTIONS[name]
            self.require(name, self.options[name] == default, f"{default!r} with {kind} noise")
        self._check_sums()

    def _check_sums(self) -> None:
        """Refuse options of weights, dense floats and secure aggregation that do not go together."""
        options, secure = self.options, self.settings.secure
        largest, bits = options["largest_weight"], options["fraction_bits"]
        self.require("largest_weight", largest >= 0, "at least 0")
        needed = "at least 1" if largest > 1 else "0"
        fits = options["examples"] >= 1 if largest > 1 else options["examples"] == 0
        self.require("examples", fits, f"{needed} with a largest weight of {largest}")
        self.require("fraction_bits", 0 <= bits <= MOST_BITS, f"0 to {MOST_BITS}")
        raw = not (bits or secure) or options["dense_coding"] == "raw"
        self.require("dense_coding", raw, "'raw' with fraction bits or secure aggregation")
        self.require("threshold", 0.5 < options["threshold"] <= 1, "above 0.5 and at most 1")
        if secure:
            equal = largest <= 1 or self.noise is not None
            # The sum shows the sum of the weights and not that of their squares, which the rule needs.
            self.require("largest_weight", equal, "at most 1 with secure aggregation and adaptive noise")
            # The frame stays on the client, and its bits are counted.
            for name, only in (("coding", "rans12"), ("distribution", "bernoulli"), ("bits", 0.0)):
                self.require(name, options[name] == only, f"{only!r}, the default, with secure aggregation")
        else:
            default = self.OPTIONS["threshold"]
            self.require(
                "threshold", options["threshold"] == default, f"{default} without secure aggregation"
            )

    def start(self, model: nn.Module) -> None:
        """Broadcast the initial weights unchanged; the rule starts from their spread."""
        if self.noise is None:
            schema = self.schema(model)
            state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
            self.rule = fm.AdaptiveNoise(
                schema,
                state,
                mask=self.mask,
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
            mask=self.mask,
            steps=local_steps(len(task.y), s.batch_size, s.epochs),
            private_seed=task.private_seed,
            stochastic=self.options["stochastic"],
            progressive=self.options["progressive"],
        ) as psm:
            run_sgd(model, task, s, after_step=lambda step: psm.step())
            frame = psm.finish(
                round=task.round,
                base_model=task.base_model,
                coding="raw" if s.secure else self.options["coding"],
                dense_coding=self.options["dense_coding"],
            )
        if s.secure or not self.options["fraction_bits"]:
            return frame  # secure aggregation rounds by itself
        return with_rounded_dense(frame, self.schema(model), self._step, self.options["coding"])

    @property
    def _step(self) -> float:
        """Of the grid of dense floats."""
        return float(2.0 ** -(self.options["fraction_bits"] or SECURE_BITS))

    def noise_seed(self, round: int, client: int) -> int:
        """Another one for each round, and for each client unless it is shared."""
        if self.settings.secure or self.options["shared_seed"]:
            return derive(self.settings.seed, "noise", round)
        return super().noise_seed(round, client)

    def weight(self, samples: int) -> int:
        """The number of samples, or the small integer that the options define."""
        largest, unit = self.options["largest_weight"], self.options["examples"]
        if largest > 1:
            return weight_of(samples, unit, largest)
        return 1 if largest or self.settings.secure else samples

    def terms(self) -> Terms | None:
        """Those of the options, with secure aggregation."""
        if not self.settings.secure:
            return None
        return Terms(self.options["threshold"], max(self.options["largest_weight"], 1), self._step)

    def request(self, schema: fm.Schema, round: int, base_model: int, model: nn.Module) -> fm.Request:
        """What all clients of a round are asked for: masks over noise of one seed."""
        noise = self.rule.noise if self.rule else self._fixed(model, schema, round)
        return fm.Request(self.noise_seed(round, 0), noise, self.mask, round, base_model, schema)

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


def with_rounded_dense(frame: bytes, schema: fm.Schema, step: float, coding: str) -> bytes:
    """The same masks, with dense floats rounded to the nearest multiple of a power of two, ties to even."""
    checked = fm.verify(frame, schema)
    entries = {tensor.name: entry for tensor, entry in zip(schema, checked.tensors, strict=True)}
    dense = fm.decode(checked, names=[tensor.name for tensor in schema if not tensor.masked])
    for tensor in schema:
        if tensor.name in dense and tensor.type.is_float:
            array = dense[tensor.name]
            dense[tensor.name] = (np.rint(array.astype(np.float64) / step) * step).astype(array.dtype)
    return fm.encode_bits(
        fm.decode_bits(checked),
        schema,
        seed=checked.seed,
        noise={name: entry.noise for name, entry in entries.items() if entry.noise is not None},
        mask={tensor.name: entries[tensor.name].kind for tensor in schema if tensor.masked},
        dense=dense,
        round=checked.round,
        base_model=checked.base_model,
        coding=coding,
    )

"""Rounds of one method on one task, and the record of each."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .layout import Layout
from .local import Batches, draw_batches, train
from .masks import BUCKETS, Masking, buckets, entropy, unit_noise
from .nets import Buffers
from .rules import Observation, Rule, Start, make_rule
from .tasks import Task

EDEN_ERROR = math.pi / 2 - 1  # squared error over energy of EDEN at one bit (Vargaftik et al., ICML 2022)
KINDS, DISTRIBUTIONS = ("binary", "signed"), ("uniform", "gaussian", "bernoulli")
METHODS = ("fedavg", "eden", *(f"{kind}-{distribution}" for kind in KINDS for distribution in DISTRIBUTIONS))


@dataclass(frozen=True)
class Settings:
    """A method in words: "fedavg", "eden", or "binary-uniform:density=0.1,std=1" with the options of a rule.

    Options beside the rule's: `rate`, a factor on the task's learning rate; `plain`, 1 for masks without
    progress; `shared`, 1 for one seed for all clients of a round; `bad`, a round whose updates are all noise;
    `sampled`, clients a round; `drop`, the probability that a frame is lost.
    """

    method: str
    options: dict[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, known: Collection[str] = METHODS) -> Settings:
        """From the words; a method that is not `known` is refused."""
        method, _, rest = text.partition(":")
        options = {}
        for part in filter(None, rest.split(",")):
            key, _, value = part.partition("=")
            options[key] = float(value)
        if method not in known:
            raise ValueError(f"method: expected one of {', '.join(known)}, got {method!r}")
        return cls(method, options)

    @property
    def own(self) -> dict[str, float]:
        """The options that are not the rule's."""
        keys = ("rate", "plain", "shared", "bad", "sampled", "drop")
        return {k: v for k, v in self.options.items() if k in keys}

    @property
    def rule(self) -> dict[str, float]:
        """The rule's options."""
        return {k: v for k, v in self.options.items() if k not in self.own}


class Server:
    """The state of a run: the model in two vectors, the buffers, the rule."""

    def __init__(self, task: Task, settings: Settings, seed: int) -> None:
        self.task, self.settings, self.own = task, settings, settings.own
        # Clients, batches and lost frames are drawn apart from noise, so that all methods train on the same.
        self.choice = torch.Generator().manual_seed(1_000_003 * (seed + 1))
        self.generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + 1)
        self.losses = torch.Generator().manual_seed(1_000_003 * (seed + 1) + 2)
        self.layout = Layout(task.net.shapes)
        drawn = task.net.init(torch.Generator().manual_seed(seed))
        self.model = self.layout.flatten(task.start or drawn)
        self.buffers = task.net.buffers()
        labels = task.train[1]
        split = task.split((labels if labels.ndim == 1 else labels[:, 0]).numpy(), task.clients, seed)
        self.parts = [torch.from_numpy(np.asarray(part)) for part in split]
        self.rule: Rule | None = None
        if "-" in settings.method:
            self.kind, self.distribution = settings.method.split("-")
            self.rule = make_rule(settings.rule, self._start())

    def _start(self) -> Start:
        parts = self.model[0].split(self.layout.sizes)
        spread = np.array([float(part.double().std(correction=0)) for part in parts])
        return Start([self.layout.shapes[name] for name in self.layout.masked], spread)

    def round(self, number: int) -> dict[str, Any]:
        """One round; what there is to record of it."""
        _, batches, buffers = self._draw()
        if self.rule is None:
            masked, dense = self._train(buffers, batches, None)
            record: dict[str, Any] = {}
            if self.settings.method == "eden":
                masked = self._eden(masked)
        else:
            masked, dense, record = self._masked_round(number, buffers, batches)
        weights = batches.weights.unsqueeze(1)
        self.model = (
            self.model[0] + (masked * weights).sum(0),
            self.model[1] + (dense * weights).sum(0),
        )
        for name, buffer in buffers.items():
            self.buffers[name] = torch.tensordot(batches.weights, buffer, 1)
        return record

    def _draw(self) -> tuple[list[int], Batches, Buffers]:
        """The round's clients, what they train on, and their copies of the buffers."""
        task = self.task
        sampled = int(self.own.get("sampled", task.sampled))
        if drop := self.own.get("drop"):
            sampled = max(1, int((torch.rand(sampled, generator=self.losses) >= drop).sum()))
        chosen = torch.randperm(task.clients, generator=self.choice)[:sampled].tolist()
        batches = draw_batches([self.parts[k] for k in chosen], task.batch, task.epochs, self.choice)
        return chosen, batches, {n: b.expand(sampled, *b.shape).clone() for n, b in self.buffers.items()}

    def _train(self, buffers: Buffers, batches: Batches, effective: Any) -> tuple[Tensor, Tensor]:
        task = self.task
        rate = task.rate * self.own.get("rate", 1.0)
        return train(task.net, self.layout, self.model, buffers, task.train, batches, rate, effective)

    def _eden(self, update: Tensor) -> Tensor:
        """An unbiased estimate of the updates with EDEN's error, as Gaussian noise."""
        size = torch.linalg.vector_norm(update, dim=1, keepdim=True) * math.sqrt(EDEN_ERROR / update.shape[1])
        estimate: Tensor = update + size * torch.randn(update.shape, generator=self.generator)
        return estimate

    def _masked_round(
        self, number: int, buffers: Buffers, batches: Batches
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        assert self.rule is not None
        clients = len(batches.steps)
        drawn = (1 if self.own.get("shared") else clients, len(self.model[0]))
        z = unit_noise(self.distribution, drawn, self.generator).expand(clients, -1)
        scale = self.layout.spread(torch.from_numpy(self.rule.scales).float())
        masking = Masking(z * scale, self.kind, self.generator)
        progress = torch.ones_like if self.own.get("plain") else torch.clone
        update, dense = self._train(buffers, batches, lambda u, tau: masking.effective(u, progress(tau)))
        if number == self.own.get("bad"):
            update = torch.randn(update.shape, generator=self.generator) * 10 * scale
        bits = masking.bits(update)
        masked = masking.noise * (bits if self.kind == "binary" else 2.0 * bits - 1.0)
        seen = self._observe(z, bits, masked, batches)
        record = self._record(seen, update, scale, batches)
        self.rule.observe(seen)
        return masked, dense, record

    def _observe(self, z: Tensor, bits: Tensor, masked: Tensor, batches: Batches) -> Observation:
        assert self.rule is not None
        where = buckets(self.distribution, z)
        tensors = self.layout.spread(torch.arange(len(self.layout.sizes)))
        keys = (where + BUCKETS * tensors).flatten()
        shape = len(self.layout.sizes), BUCKETS
        elements = torch.bincount(keys, minlength=shape[0] * BUCKETS).view(shape)
        set_bits = torch.bincount(keys, bits.flatten().float(), minlength=shape[0] * BUCKETS).view(shape)
        mean = (masked * batches.weights.unsqueeze(1)).sum(0)
        return Observation(
            self.kind,
            self.distribution,
            len(batches.steps),
            float(batches.weights.square().sum()),
            self.rule.scales.copy(),
            elements.double().numpy(),
            set_bits.double().numpy(),
            self.layout.sums(masked.square().mean(0)).numpy(),
            self.layout.sums(mean.square()).numpy(),
        )

    def _record(self, seen: Observation, update: Tensor, scale: Tensor, batches: Batches) -> dict[str, Any]:
        """The bits a parameter and, a tensor at a time, what the rule saw and what it cannot see."""
        used = entropy(torch.from_numpy(seen.set_bits), torch.from_numpy(seen.elements)).sum()
        clients = len(update)
        sizes = torch.tensor(self.layout.sizes).double()
        size = self.layout.sums(update.abs().mean(0)) / sizes
        mean = (update * batches.weights.unsqueeze(1)).sum(0)
        true = self.layout.sums(mean.square())
        now = (self.layout.sums(self.model[0].square()) / sizes).sqrt()
        return {
            "bits": float(used / seen.elements.sum()),
            "scale": _short(seen.scale),
            "density": _short(seen.density),
            "signal": _short(np.sqrt(np.maximum(seen.signal_energy, 0) / seen.sizes)),
            "noise": _short(np.sqrt(seen.square_weights * seen.frame_energy / seen.sizes)),
            "true_signal": _short((true / sizes).sqrt().numpy()),
            "true_size": _short(size.numpy()),
            "weights": _short(now.numpy()),
            "frames": clients,
        }

    @torch.no_grad()
    def test(self) -> tuple[float, float]:
        """Accuracy and loss on the test samples."""
        x, y = self.task.test
        p = self.layout.parameters(self.model[0].unsqueeze(0), self.model[1].unsqueeze(0))
        buffers = {n: b.unsqueeze(0) for n, b in self.buffers.items()}
        scores = self.task.net.forward(p, x.unsqueeze(0), buffers, False)[0].flatten(0, -2)
        labels = y.flatten()
        accuracy = float((scores.argmax(-1) == labels).double().mean())
        return accuracy, float(torch.nn.functional.cross_entropy(scores, labels))


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def run(task: Task, text: str, seed: int, rounds: int | None = None) -> Iterator[dict[str, Any]]:
    """Records of a run, one a round: accuracy, loss, seconds, and of masks what `Server` records."""
    return records(Server(task, Settings.parse(text), seed), rounds)


def records(server: Server, rounds: int | None = None) -> Iterator[dict[str, Any]]:
    """Do the rounds of a server, by default as many as its task has; yield the record of each."""
    for number in range(1, (rounds or server.task.rounds) + 1):
        begin = time.perf_counter()
        record = server.round(number)
        accuracy, loss = server.test()
        yield {
            "round": number,
            "accuracy": round(accuracy, 5),
            "loss": round(loss, 5),
            "seconds": round(time.perf_counter() - begin, 3),
            **record,
        }

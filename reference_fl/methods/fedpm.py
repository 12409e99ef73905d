"""FedPM (Isik et al., "Sparse Random Networks for Communication-Efficient Federated Learning", ICLR 2023).

The weights are random and frozen: plus or minus sqrt(2 / fan_in), the standard deviation of Kaiming's
normal initialisation. The clients train scores: an element is kept with probability sigmoid(score), drawn
anew in every forward pass; the gradient passes straight through the draw. A client sends one sample of its
mask. The server computes the probabilities of the next round from the masks, and broadcasts their scores in
place of the weights. The evaluated model is the network of one sampled mask, not the trained state.

With `aggregate` "bayes", the counts of ones and zeros since the last reset are added to a Beta(1, 1) prior,
whose mode is the new probability; all clients have the same weight. With "mean" it is the mean of the masks,
weighted by samples. The authors' code resets the counts every round (`reset_every` 1); the paper also keeps
them over several rounds. As in that code, a mask element counts as 0.01 or 0.99, so that no score becomes
infinite; initial scores are normal; and Adam trains the scores at a rate of 0.1. BatchNorm, which the paper's
networks do not have, is trained by Adam at its usual rate of 0.001 and sent dense, as in every method here.

The message is a frame of binary masks over Bernoulli noise. The seed of the noise, one for the whole run,
gives the frozen weights: the frame decodes to the sparse network itself.
"""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import fedmrn_codec as fm
import fedmrn_torch
from fedmrn_codec.errors import NoiseError

from .. import rates
from ..messages import dense_schema, verified
from ..seeds import derive
from ..settings import Settings
from . import Summing, Task, register, run_sgd
from .base import Base, changes, copy_state
from .collect import dense_sum
from .substitute import Substituted, other_parameters

EPSILON = 0.01
COUNTS = "ones"


@register("fedpm")
class FedPM(Base):
    """One bit for each parameter; the masked tensors of the model hold scores.

    Options: `aggregate`, "bayes" or "mean"; `reset_every`, rounds between two resets of the counts, at least
    1; `dense_learning_rate`, of BatchNorm. The learning rate of the settings is that of the scores.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {
        "aggregate": "bayes",
        "reset_every": 1,
        "dense_learning_rate": 0.001,
    }
    SERVER_OPTIONS: ClassVar[dict[str, Any]] = {}
    HAS_MASKS = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.require("aggregate", self.options["aggregate"] in ("bayes", "mean"), "bayes or mean")
        self.require("reset_every", self.options["reset_every"] >= 1, "at least 1")
        self.require("dense_learning_rate", self.options["dense_learning_rate"] > 0, "above 0")
        self.seed = derive(settings.seed, "fedpm weights")
        self._kept: dict[str, np.ndarray] = {}  # share of ones over the rounds since the reset, by name
        self._rounds = 0

    def start(self, model: nn.Module) -> None:
        """Replace the weights by normal scores."""
        generator = torch.Generator().manual_seed(derive(self.settings.seed, "fedpm scores"))
        with torch.no_grad():
            for tensor in self.schema(model):
                if tensor.masked:
                    scores = model.get_parameter(tensor.name)
                    scores.copy_(torch.randn(scores.shape, generator=generator))

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train the scores, and send a sample of the mask."""
        schema, before = self.schema(model), copy_state(model)
        generator = torch.Generator().manual_seed(derive(task.private_seed, "fedpm"))
        frozen = self.frozen(schema)
        scores = {name: model.get_parameter(name).detach().clone().requires_grad_() for name in frozen}
        fall = rates.factor(self.settings.learning_rate_schedule, task.round)
        groups = [
            {"params": list(scores.values())},
            {
                "params": other_parameters(model, set(scores)),
                "lr": self.options["dense_learning_rate"] * fall,
            },
        ]
        run_sgd(
            Substituted(model, lambda: {n: w * sample(scores[n], generator) for n, w in frozen.items()}),
            task,
            self.settings,
            optimizer=torch.optim.Adam(groups, lr=self.settings.rate(task.round)),
        )
        with torch.no_grad():
            bits = {name: sample(score, generator).bool().numpy() for name, score in scores.items()}
        return fm.encode_bits(
            bits,
            schema,
            seed=self.seed,
            noise=noises(schema),
            mask="binary",
            dense=changes(model, before, schema, masked=False),
            round=task.round,
            base_model=task.base_model,
        )

    def frozen(self, schema: fm.Schema) -> dict[str, Tensor]:
        """The frozen weights of the masked tensors."""
        noise = noises(schema)
        return {
            tensor.name: torch.from_numpy(
                fm.noise(noise[tensor.name], seed=self.seed, stream=stream, count=tensor.size)
            ).reshape(tensor.shape)
            for stream, tensor in enumerate(schema)
            if tensor.masked
        }

    def server(
        self, schema: fm.Schema, round: int, base_model: int, model: nn.Module | None = None
    ) -> Summing:
        """A collector of the shares of ones, and of the mean of the dense tensors."""
        by_samples = self.options["aggregate"] == "mean"
        return MaskShares(schema, round, base_model, self.seed, by_samples)

    def apply_(self, model: nn.Module, mean: dict[str, np.ndarray], round: int) -> None:
        """Set the scores of the new probabilities, and add the mean change of the dense tensors."""
        masked = [tensor.name for tensor in self.schema(model) if tensor.masked]
        if self.options["aggregate"] == "mean" or (round - 1) % self.options["reset_every"] == 0:
            self._rounds, self._kept = 0, {}
        for name in masked:
            before = self._kept.get(name, np.float32(0))
            self._kept[name] = (before * self._rounds + mean[name]) / np.float32(self._rounds + 1)
        self._rounds += 1
        with torch.no_grad():
            for name in masked:
                theta = EPSILON + (1 - 2 * EPSILON) * torch.from_numpy(self._kept[name])
                model.get_parameter(name).copy_(torch.logit(theta))
        fedmrn_torch.apply_(model, {name: array for name, array in mean.items() if name not in masked})

    def evaluated(self, model: nn.Module, round: int) -> nn.Module:
        """The network of one sampled mask."""
        schema, network = self.schema(model), copy.deepcopy(model)
        generator = torch.Generator().manual_seed(derive(self.settings.seed, "fedpm evaluation", round))
        with torch.no_grad():
            for name, weights in self.frozen(schema).items():
                network.get_parameter(name).copy_(weights * sample(model.get_parameter(name), generator))
        return network

    def state(self) -> dict[str, Tensor]:
        """The counts since the last reset, if they are kept between rounds."""
        if self.options["aggregate"] == "mean" or self.options["reset_every"] == 1:
            return {}
        kept = {f"{COUNTS}/{name}": torch.from_numpy(share) for name, share in self._kept.items()}
        return {**kept, "rounds": torch.tensor(self._rounds)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue with saved counts."""
        self._rounds = int(state.get("rounds", torch.tensor(0)))
        prefix = f"{COUNTS}/"
        self._kept = {k.removeprefix(prefix): t.numpy() for k, t in state.items() if k.startswith(prefix)}


class MaskShares:
    """A collector of FedPM's frames: the share of clients that kept each element.

    Parameters
    ----------
    schema : fedmrn_codec.Schema
    round, base_model : int
        Frames with another value are refused; 0 accepts any value.
    seed : int
        Of the frozen weights; frames with another seed are refused.
    by_samples : bool
        Weight the masks by samples; otherwise equally.
    """

    def __init__(self, schema: fm.Schema, round: int, base_model: int, seed: int, by_samples: bool) -> None:
        self.schema, self.by_samples = schema, by_samples
        self.round, self.base_model, self.seed = round, base_model, seed
        self._noise = noises(schema)
        self._masks = dense_sum(fm.Schema(tensor for tensor in schema if tensor.masked))
        self._dense = dense_sum(dense_schema(schema))

    def add(self, data: bytes, weight: int, *, seed: int | None = None) -> fm.CheckedFrame:
        """Check and add one frame; `seed`, which the server gave this client, is not used."""
        checked = verified(data, self.schema, self.round, self.base_model, self.seed)
        for tensor, entry in zip(self.schema, checked.tensors, strict=True):
            expected = self._noise.get(tensor.name)
            if entry.noise != expected or entry.kind == "signed":
                raise NoiseError(
                    f"mask of {tensor.name!r}", f"binary, {expected}", f"{entry.kind}, {entry.noise}"
                )
        masks = {name: bits.astype(np.float32) for name, bits in fm.decode_bits(checked).items()}
        dense = [tensor.name for tensor in self._dense.schema]
        self._dense.add_arrays(fm.decode(checked, names=dense), weight)  # first: it may refuse the weight
        self._masks.add_arrays(masks, weight if self.by_samples else 1)
        return checked

    def mean(self) -> dict[str, np.ndarray]:
        """The shares of ones of the masked tensors, and the mean change of the dense ones."""
        return {**self._masks.mean(), **self._dense.mean()}


def noises(schema: fm.Schema) -> dict[str, fm.Noise]:
    """The distribution of each masked tensor's frozen weights."""
    return {
        tensor.name: fm.Bernoulli(math.sqrt(2 / max(math.prod(tensor.shape[1:]), 1)))
        for tensor in schema
        if tensor.masked
    }


def sample(scores: Tensor, generator: torch.Generator) -> Tensor:
    """A random mask of 0s and 1s, float32; the gradient passes straight through to the probability."""
    theta = torch.sigmoid(scores)
    bits = (torch.rand(theta.shape, generator=generator) < theta.detach()).to(theta.dtype)
    return bits + (theta - theta.detach())

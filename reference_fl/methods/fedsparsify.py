"""FedSparsify, its local variant (Stripelis et al., 2022, arXiv 2204.12430).

"Federated Progressive Sparsification (Purge, Merge, Tune)+". Each client trains the remaining weights, then
prunes its model to the sparsity of the round, by magnitude over all layers together. It sends the remaining
weights with their positions, as gaps or as a bitmap, whichever is shorter (`sparse.py`). The server takes
the weighted mean and, with `vote`, keeps the positions that at least half of the clients kept. The sparsity
rises as s * (1 - (1 - t / over)^3), the cubic schedule of Zhu and Gupta (2017) that the authors' code uses
(from 0, exponent 3, every round, one threshold for the whole model). In the paper a tenth of the weights is
enough for the full accuracy: `sparsity` is 0.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

import fedmrn_codec as fm
import fedmrn_torch

from ..messages import Part
from ..settings import Settings
from . import Summing, Task, register, run_sgd
from .base import changes, copy_state
from .packed import PackedMethod, PackedSum
from .sparse import pack_sparse, unpack_sparse
from .topk import largest


@register("fedsparsify")
class FedSparsify(PackedMethod):
    """Sends sparse weights, not differences, of convolution and linear layers.

    Options: `sparsity` at the end, from 0 to below 1; `over`, the number of rounds in which it rises (100 as
    in the protocol, independent of the rounds of the run, which can be extended later); `vote`.
    """

    ID = 5
    OPTIONS: ClassVar[dict[str, Any]] = {"sparsity": 0.9, "over": 100, "vote": True}
    SERVER_OPTIONS: ClassVar[dict[str, Any]] = {}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.require("sparsity", 0 <= self.options["sparsity"] < 1, "0 to below 1")
        self.require("over", self.options["over"] >= 1, "at least 1")

    def sparsity(self, round: int) -> float:
        """The share of pruned weights after this round."""
        done = min(round / self.options["over"], 1.0)
        return float(self.options["sparsity"] * (1 - (1 - done) ** 3))

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train the remaining weights, prune the model further, and send it."""
        schema = self.schema(model)
        before = copy_state(model)
        weights = {t.name: model.get_parameter(t.name) for t in schema if t.masked}
        left = {name: weight.detach() != 0 for name, weight in weights.items()}

        @torch.no_grad()
        def prune(step: int) -> None:
            for name, weight in weights.items():
                weight.mul_(left[name])

        run_sgd(model, task, self.settings, after_step=prune)
        sent = changes(model, before, schema)
        sent |= pruned({n: w.detach().numpy() for n, w in weights.items()}, self.sparsity(task.round))
        return self.message(sent, schema, task)

    def pack(self, update: np.ndarray, stream: int, task: Task) -> bytes:
        """Encode the weights of one tensor that are not 0."""
        return pack_sparse(update, update != 0)

    def unpack(self, part: Part, size: int, stream: int, seed: int) -> np.ndarray:
        """Decode the weights; pruned ones are 0."""
        return unpack_sparse(part, size)[0]

    def server(
        self, schema: fm.Schema, round: int, base_model: int, model: nn.Module | None = None
    ) -> Summing:
        """A collector of the mean of the pruned models, with a vote on the positions."""
        return VotingSum(self, schema, round, base_model)

    def apply_(self, model: nn.Module, mean: dict[str, np.ndarray], round: int) -> None:
        """Replace the weights by their mean, and add the mean change of the dense tensors."""
        masked = {tensor.name for tensor in self.schema(model) if tensor.masked}
        with torch.no_grad():
            for name in masked:
                model.get_parameter(name).copy_(torch.from_numpy(mean[name]))
        fedmrn_torch.apply_(model, {name: array for name, array in mean.items() if name not in masked})


class VotingSum(PackedSum):
    """The mean of sparse models; a weight is kept if at least half of the clients kept it."""

    def __init__(self, method: FedSparsify, schema: fm.Schema, round: int, base_model: int) -> None:
        super().__init__(method, schema, round, base_model)
        self._vote = bool(method.options["vote"])
        self._clients = 0
        self._votes = {t.name: np.zeros(t.shape, np.int64) for t in schema if t.masked}

    def count(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Count the votes of one client."""
        self._clients += 1
        for name, votes in self._votes.items():
            votes += arrays[name] != 0

    def mean(self) -> dict[str, np.ndarray]:
        """The mean weights of the masked tensors, and the mean change of the dense ones."""
        mean = super().mean()
        if self._vote:
            for name, votes in self._votes.items():
                mean[name] = np.where(2 * votes >= self._clients, mean[name], np.float32(0))
        return mean


def pruned(weights: Mapping[str, np.ndarray], sparsity: float) -> dict[str, np.ndarray]:
    """Set the smallest weights, over all tensors together, to 0."""
    together = np.concatenate([weight.reshape(-1) for weight in weights.values()])
    kept = np.where(largest(together, 1 - sparsity), together, np.float32(0))
    parts = np.split(kept, np.cumsum([weight.size for weight in weights.values()])[:-1])
    return {name: part.reshape(weights[name].shape) for name, part in zip(weights, parts, strict=True)}

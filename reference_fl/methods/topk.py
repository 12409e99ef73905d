"""Top-k sparsification of a round's update (Aji and Heafield, EMNLP 2017; Stich et al., NeurIPS 2018).

"Sparse Communication for Distributed Gradient Descent"; "Sparsified SGD with Memory".

The client sends the largest elements of each tensor as float32, with their positions as Golomb-Rice coded
gaps. A kept element costs 32 bits, and about 6.8 bits for its position. The default fraction of 0.025 costs
0.97 bits for each parameter of the tensor, comparable to one bit for each. (With fixed 19-bit positions the
same cost would allow a fraction of 0.0196.)

With `error_feedback` a client adds the elements that it did not send to its next update (Stich et al.). It is
off by default: the leftovers of clients that take part once in ten rounds are old, and cross-device clients
keep no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ..messages import Part
from ..settings import Settings
from . import Task, register
from .base import trained_update
from .packed import PackedMethod
from .sparse import pack_sparse, unpack_sparse


@register("topk")
class TopK(PackedMethod):
    """Sends the largest elements of each tensor, at least one.

    Options: `fraction` of the elements that are sent, above 0 and at most 1; `error_feedback`.
    """

    ID = 4
    OPTIONS: ClassVar[dict[str, Any]] = {"fraction": 0.025, "error_feedback": False}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.require("fraction", 0 < self.options["fraction"] <= 1, "above 0 and at most 1")

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train with SGD, and send the largest elements; with `error_feedback`, store the others."""
        schema = self.schema(model)
        update = trained_update(model, task, self.settings, schema)
        if not self.options["error_feedback"]:
            return self.message(update, schema, task)
        names = [tensor.name for tensor in schema if tensor.masked]
        update, leftover = self.feed_back(update, {n: t.numpy() for n, t in task.memory.items()}, names)
        task.memory.update({name: torch.from_numpy(array) for name, array in leftover.items()})
        return self.message(update, schema, task)

    def feed_back(
        self, update: Mapping[str, np.ndarray], leftovers: Mapping[str, np.ndarray], names: list[str]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Add the leftovers of earlier rounds to the update; return the sum and the new leftovers."""
        corrected = dict(update)
        for name, leftover in leftovers.items():
            corrected[name] = corrected[name] + leftover
        left = {}
        for name in names:
            kept = largest(corrected[name].reshape(-1), self.options["fraction"])
            left[name] = np.where(kept.reshape(corrected[name].shape), np.float32(0), corrected[name])
        return corrected, left

    def pack(self, update: np.ndarray, stream: int, task: Task) -> bytes:
        """Encode the largest elements of one tensor."""
        return pack_sparse(update, largest(update, self.options["fraction"]))

    def unpack(self, part: Part, size: int, stream: int, seed: int) -> np.ndarray:
        """Decode the sent elements at their positions; all others are 0."""
        return unpack_sparse(part, size)[0]


def largest(vector: np.ndarray, fraction: float) -> np.ndarray:
    """Select a fraction of the elements, the largest in magnitude: bool; the count is rounded, at least 1."""
    count = min(len(vector), max(1, round(fraction * len(vector))))
    kept = np.zeros(len(vector), np.bool_)
    if len(vector):
        kept[np.argpartition(np.abs(vector), len(vector) - count)[len(vector) - count :]] = True
    return kept

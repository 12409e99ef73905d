"""How named parameters lie in two flat vectors: the masked ones, and the dense ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


class Layout:
    """Places of the parameters of a network.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        In the order of the schema. Parameters of two or more dimensions are masked, as `fedmrn_torch.schema`
        has it; all others travel dense.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = dict(shapes)
        self.masked = [name for name, shape in shapes.items() if len(shape) >= 2]
        self.dense = [name for name, shape in shapes.items() if len(shape) < 2]
        self.sizes = [math.prod(shapes[name]) for name in self.masked]
        self._dense_sizes = [math.prod(shapes[name]) for name in self.dense]

    def flatten(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The masked and the dense vector, float32, shapes (masked,) and (dense,)."""
        vectors = []
        for chosen in (self.masked, self.dense):
            parts = [parameters[name].reshape(-1) for name in chosen]
            vectors.append(torch.cat(parts) if parts else torch.empty(0))
        return vectors[0], vectors[1]

    def parameters(self, masked: Tensor, dense: Tensor) -> dict[str, Tensor]:
        """Parameters of all clients, from vectors of shapes (clients, masked) and (clients, dense).

        `split` is one operation with one gradient, which many slices would not be.
        """
        found: dict[str, Tensor] = {}
        for vector, chosen, sizes in (
            (masked, self.masked, self.sizes),
            (dense, self.dense, self._dense_sizes),
        ):
            if chosen:
                for name, part in zip(chosen, vector.split(sizes, dim=1), strict=True):
                    found[name] = part.reshape(len(vector), *self.shapes[name])
        return found

    def spread(self, per_tensor: Tensor) -> Tensor:
        """One number a masked tensor, repeated for each of its elements: shape (masked,)."""
        return torch.repeat_interleave(per_tensor, torch.tensor(self.sizes))

    def sums(self, values: Tensor) -> Tensor:
        """Sums over each masked tensor of a vector of shape (masked,): float64, shape (tensors,)."""
        return torch.stack([part.double().sum() for part in values.split(self.sizes)])

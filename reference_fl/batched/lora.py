"""Low-rank adapters (Hu et al., ICLR 2022) on any network here: frozen weights, trained A and zero B."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .layout import Shapes
from .nets import Buffers, Net


class LoRA:
    """The weight of each adapted matrix is W + B A; only A and B are trained and travel.

    Parameters
    ----------
    net : Net
    frozen : dict of str to Tensor
        Its parameters, without the client dimension.
    rank : int
    targets : list of str
        Matrices that get an adapter.
    """

    def __init__(self, net: Net, frozen: dict[str, Tensor], rank: int, targets: list[str]) -> None:
        self.net, self.frozen, self.rank, self.targets = net, frozen, rank, targets
        shapes: dict[str, tuple[int, ...]] = {}
        for name in targets:
            out, inputs = frozen[name].shape
            shapes |= {f"{name}.A": (rank, inputs), f"{name}.B": (out, rank)}
        self.shapes: Shapes = shapes

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Net`: A uniform of variance 1 / (3 inputs), as is usual, B zero."""
        found: dict[str, Tensor] = {}
        for name, shape in self.shapes.items():
            draw = (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(shape[1])
            found[name] = draw if name.endswith(".A") else torch.zeros(shape)
        return found

    def buffers(self) -> Buffers:
        """See `Net`."""
        return self.net.buffers()

    def forward(self, p: dict[str, Tensor], x: Tensor, buffers: Buffers, training: bool) -> Tensor:
        """See `Net`."""
        clients = len(x)
        full = {n: w.expand(clients, *w.shape) for n, w in self.frozen.items()}
        for name in self.targets:
            full[name] = torch.baddbmm(full[name], p[f"{name}.B"], p[f"{name}.A"])
        return self.net.forward(full, x, buffers, training)

"""Networks whose parameters and inputs carry a leading client dimension: perceptrons and convolutions.

A network is its shapes, its initial values, and a function of (parameters, samples). BatchNorm's running
statistics are buffers beside the parameters, updated in place during training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import Shapes

Buffers = dict[str, Tensor]
BN_MOMENTUM, BN_EPSILON = 0.1, 1e-5


class Net(Protocol):
    """A network for batched clients."""

    shapes: Shapes
    """Of its trainable parameters, without the client dimension, in the order of the schema."""

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Initial parameters, float32."""

    def buffers(self) -> Buffers:
        """Initial running statistics, each of shape (channels,)."""

    def forward(self, p: dict[str, Tensor], x: Tensor, buffers: Buffers, training: bool) -> Tensor:
        """Class scores, shape (clients, batch, ..., classes), of samples of shape (clients, batch, ...)."""


def draw(shape: tuple[int, ...], scheme: str, generator: torch.Generator) -> Tensor:
    """Initial weights.

    Parameters
    ----------
    shape : tuple of int
        (outputs, inputs, ...).
    scheme : str
        "torch": uniform within 1/sqrt(fan-in), as PyTorch's layers start; "he": normal of variance 2/fan-in;
        or a number, the standard deviation of a normal ("0.01" is that of Li et al., ACM MM 2024).
    """
    fan_in = math.prod(shape[1:])
    if scheme == "torch":
        return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(fan_in)
    std = math.sqrt(2 / fan_in) if scheme == "he" else float(scheme)
    return torch.randn(shape, generator=generator) * std


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer a client: x (clients, batch, inputs), weight (clients, outputs, inputs)."""
    if bias is None:
        return torch.bmm(x, weight.transpose(1, 2))
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


def batch_norm(x: Tensor, p: dict[str, Tensor], name: str, buffers: Buffers, training: bool) -> Tensor:
    """BatchNorm over the batch of each client; x ends in channels, or in channels, height, width."""
    over = [1] if x.ndim == 3 else [1, 3, 4]
    wide = (len(x), 1, x.shape[2]) + (1,) * (x.ndim - 3)
    if training:
        variance, mean = torch.var_mean(x, over, correction=0)
        with torch.no_grad():
            count = x.numel() / mean.numel()
            buffers[f"{name}.mean"].lerp_(mean, BN_MOMENTUM)
            buffers[f"{name}.var"].lerp_(variance * (count / (count - 1)), BN_MOMENTUM)
    else:
        mean, variance = buffers[f"{name}.mean"], buffers[f"{name}.var"]
    factor = p[f"{name}.weight"] * torch.rsqrt(variance + BN_EPSILON)
    return x * factor.view(wide) + (p[f"{name}.bias"] - mean * factor).view(wide)


def _norm_values(shapes: Shapes) -> dict[str, Tensor]:
    """Ones for the scales of normalisation layers, zeros for all other dense parameters."""
    scales = {n: torch.ones(s) for n, s in shapes.items() if len(s) == 1 and ".weight" in n}
    return scales | {n: torch.zeros(s) for n, s in shapes.items() if len(s) == 1 and ".weight" not in n}


class _Drawn:
    """What networks share whose weights are drawn by one scheme and whose BatchNorm follows their shapes."""

    shapes: Shapes
    scheme: str

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Net`."""
        weights = {n: draw(s, self.scheme, generator) for n, s in self.shapes.items() if len(s) > 1}
        return weights | _norm_values(self.shapes)

    def buffers(self) -> Buffers:
        """See `Net`."""
        return _buffers(self.shapes)


class MLP(_Drawn):
    """Linear layers with biases and ReLU, with BatchNorm before each ReLU if `norm`.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, hidden sizes, classes.
    norm : bool
    scheme : str
        Initial weights: see `draw`.
    """

    def __init__(self, sizes: Sequence[int], norm: bool = False, scheme: str = "torch") -> None:
        self.layers, self.norm, self.scheme = len(sizes) - 1, norm, scheme
        self.sizes = tuple(sizes)
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(self.layers):
            shapes[f"linear{i}.weight"] = (sizes[i + 1], sizes[i])
            if norm and i < self.layers - 1:
                shapes |= {f"bn{i}.weight": (sizes[i + 1],), f"bn{i}.bias": (sizes[i + 1],)}
            else:
                shapes[f"linear{i}.bias"] = (sizes[i + 1],)
        self.shapes: Shapes = shapes

    def forward(self, p: dict[str, Tensor], x: Tensor, buffers: Buffers, training: bool) -> Tensor:
        """See `Net`; samples are flattened."""
        x = x.flatten(2)
        for i in range(self.layers):
            x = linear(x, p[f"linear{i}.weight"], p.get(f"linear{i}.bias"))
            if i < self.layers - 1:
                x = batch_norm(x, p, f"bn{i}", buffers, training) if self.norm else x
                x = F.relu(x)
        return x


class CNN(_Drawn):
    """Groups of 3x3 convolution, optional BatchNorm, ReLU and 2x2 max-pool; one linear layer without bias.

    Parameters
    ----------
    in_shape : tuple of int
        Channels, height, width.
    classes : int
    channels : sequence of int
        Of the convolutions.
    norm : bool
        BatchNorm; without it convolutions have biases.
    scheme : str
        Initial weights: see `draw`.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        classes: int,
        channels: Sequence[int],
        norm: bool = True,
        scheme: str = "0.01",
    ) -> None:
        self.blocks, self.norm, self.scheme = len(channels), norm, scheme
        shapes: dict[str, tuple[int, ...]] = {}
        before, height, width = in_shape
        for i, out in enumerate(channels):
            shapes[f"conv{i}.weight"] = (out, before, 3, 3)
            if norm:
                shapes |= {f"bn{i}.weight": (out,), f"bn{i}.bias": (out,)}
            else:
                shapes[f"conv{i}.bias"] = (out,)
            before, height, width = out, height // 2, width // 2
        shapes["linear.weight"] = (classes, before * height * width)
        self.shapes: Shapes = shapes

    def forward(self, p: dict[str, Tensor], x: Tensor, buffers: Buffers, training: bool) -> Tensor:
        """See `Net`; the clients are the groups of one convolution."""
        clients, batch = x.shape[:2]
        for i in range(self.blocks):
            weight = p[f"conv{i}.weight"]
            out = weight.shape[1]
            bias = p[f"conv{i}.bias"].reshape(-1) if f"conv{i}.bias" in p else None
            flat = x.transpose(0, 1).reshape(batch, -1, *x.shape[3:])
            flat = F.conv2d(flat, weight.flatten(0, 1), bias, padding=1, groups=clients)
            x = flat.view(batch, clients, out, *flat.shape[2:]).transpose(0, 1)
            if self.norm:
                x = batch_norm(x, p, f"bn{i}", buffers, training)
            x = F.relu(F.max_pool2d(x.flatten(0, 1), 2)).view(clients, batch, out, *_halves(x))
        return linear(x.flatten(2), p["linear.weight"])


def _halves(x: Tensor) -> tuple[int, int]:
    return x.shape[-2] // 2, x.shape[-1] // 2


def _buffers(shapes: Shapes) -> Buffers:
    found: Buffers = {}
    for name, shape in shapes.items():
        if name.startswith("bn") and name.endswith(".weight"):
            base = name.removesuffix(".weight")
            found |= {f"{base}.mean": torch.zeros(shape), f"{base}.var": torch.ones(shape)}
    return found

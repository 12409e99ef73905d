"""The networks: those of the main experiments (Li et al., ACM MM 2024), one for 8x8 images, LSTMs.

Those of the convergence experiment are in `smooth`.

The convolutional networks consist of one kind of block: 3x3 convolution (padding 1, no bias), BatchNorm,
ReLU. Each group of blocks ends with a 2x2 max-pool, placed before the last ReLU: there it gives the same
outputs and gradients, and ReLU has a quarter of the elements to process. The last layer is linear, without
bias.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.utils import skip_init

from .lstm import CharLSTM
from .smooth import PENALTY, PROBLEMS, Smooth

INIT_STD = 0.01  # Li et al., ACM MM 2024: convolution and linear weights start as N(0, 0.01^2)

# Output channels of the convolutions, one inner tuple between two pools.
ARCHITECTURES: dict[str, tuple[tuple[int, ...], ...]] = {
    "cnn2": ((32,), (64,)),
    "cnn4": ((32,), (64,), (128,), (256,)),
    "cnn8": ((32, 32), (64, 64), (128, 128), (256, 256)),
}
# Embedding size, hidden size, layers: those of McMahan et al., AISTATS 2017, and smaller ones for quick runs.
LSTMS = {"lstm": (8, 256, 2), "lstm-small": (8, 64, 1)}


class ConvNet(nn.Module):
    """Groups of convolution blocks, each ended by a 2x2 max-pool, and one linear layer.

    The weights are not initialised; `build` initialises them.

    Parameters
    ----------
    in_shape : tuple of int
        Channels, height, width of an image.
    classes : int
        Number of outputs.
    groups : sequence of sequence of int
        Output channels of each convolution, grouped by pool.

    Raises
    ------
    ValueError
        The image is too small for the number of pools.
    """

    def __init__(self, in_shape: tuple[int, int, int], classes: int, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        channels, height, width = in_shape
        shrink = 2 ** len(groups)
        if min(height, width) < shrink:
            expected = f"at least {shrink}x{shrink} for {len(groups)} pools"
            raise ValueError(f"image size: expected {expected}, got {height}x{width}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        number = 0
        for pool, group in enumerate(groups, 1):
            for place, width_out in enumerate(group, 1):
                number += 1
                layers[f"conv{number}"] = skip_init(
                    nn.Conv2d, channels, width_out, kernel_size=3, padding=1, bias=False
                )
                layers[f"bn{number}"] = nn.BatchNorm2d(width_out)
                if place == len(group):
                    layers[f"pool{pool}"] = nn.MaxPool2d(2)
                layers[f"relu{number}"] = nn.ReLU()
                channels = width_out
        self.features = nn.Sequential(layers)
        self.linear = skip_init(
            nn.Linear, channels * (height // shrink) * (width // shrink), classes, bias=False
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores.

        Parameters
        ----------
        x : torch.Tensor
            float32, shape (batch, channels, height, width).

        Returns
        -------
        torch.Tensor
            float32, shape (batch, classes).
        """
        # With channels-last activations a training step takes a third less time on the CPU. Only the input is
        # converted: each layer keeps the layout of its input, and the parameters keep their plain layout.
        features: torch.Tensor = self.features(x.to(memory_format=torch.channels_last))
        scores: torch.Tensor = self.linear(features.flatten(1))
        return scores


def names() -> list[str]:
    """The names that `build` knows, sorted."""
    return sorted([*ARCHITECTURES, *LSTMS, *PROBLEMS])


def build(name: str, in_shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """A network with its initial weights.

    The weights depend only on the arguments; no global random state is read or changed.

    Parameters
    ----------
    name : str
        One of `names()`.
    in_shape : tuple of int
        Channels, height, width of an image; or, for an LSTM, the length of a sequence.
    classes : int
        Number of classes; for an LSTM also the number of tokens.
    seed : int
        Seed of the initial weights, >= 0.

    Returns
    -------
    torch.nn.Module
        On the CPU, float32, in training mode. Weights of convolution and linear layers are N(0, 0.01^2),
        BatchNorm scales 1 and shifts 0; an LSTM's weights are those of `CharLSTM.initialise`, those of
        `smooth.PROBLEMS` of `Smooth.initialise`.

    Raises
    ------
    ValueError
        An unknown name, samples of another kind than the network takes, or an image too small for its pools.
    """
    if name not in names():
        raise ValueError(f"model: expected one of {', '.join(names())}, got {name!r}")
    kind, dimensions = ("sequences", 1) if name in LSTMS else ("images", 3)
    if len(in_shape) != dimensions:
        expected = f"{kind} of {dimensions} dimensions"
        raise ValueError(f"samples for model {name!r}: expected {expected}, got {len(in_shape)} dimensions")
    rng = np.random.default_rng(seed)
    if name in LSTMS:
        lstm = CharLSTM(classes, *LSTMS[name])
        lstm.initialise(rng)
        return lstm
    if name in PROBLEMS:
        smooth = Smooth(in_shape, classes, PROBLEMS[name], PENALTY[name])
        smooth.initialise(rng)
        return smooth
    channels, height, width = in_shape
    model = ConvNet((channels, height, width), classes, ARCHITECTURES[name])
    _initialise(model, rng)
    return model


@torch.no_grad()
def _initialise(model: ConvNet, rng: np.random.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw = rng.normal(0.0, INIT_STD, tuple(module.weight.shape))
            module.weight.copy_(torch.from_numpy(draw.astype(np.float32)))

"""The network and the data: scikit-learn's digits, images of 8x8 pixels. Replace them by your own."""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import fedmrn_codec as fm
import fedmrn_torch

EPOCHS, BATCH, RATE = 5, 20, 0.1

Arrays = dict[str, np.ndarray]
Data = tuple[torch.Tensor, torch.Tensor]


def build() -> nn.Module:
    """Two convolutions and a linear layer; the first model is that of the seed of torch."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 10)),
    )


def arrays_of(model: nn.Module) -> Arrays:
    """The state of a model as NumPy arrays."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def filled(arrays: Arrays) -> nn.Module:
    """A model with these arrays."""
    model = build()
    model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return model


@cache
def load() -> Data:
    """All images, of shape (images, 1, 8, 8), and their labels."""
    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images.reshape(-1, 1, 8, 8).astype(np.float32) / 16), torch.from_numpy(labels)


def held_out() -> Data:
    """Every fifth image, which no client trains on."""
    images, labels = load()
    return images[::5], labels[::5]


def part_of(number: int, count: int) -> Data:
    """The images and labels of one client of `count`; the parts are disjoint."""
    images, labels = load()
    rest = torch.arange(len(images)) % 5 != 0
    return images[rest][number::count], labels[rest][number::count]


def accuracy(arrays: Arrays) -> float:
    """The share of the test images that a model of these arrays gets right."""
    images, labels = held_out()
    with torch.no_grad():
        return (filled(arrays)(images).argmax(1) == labels).float().mean().item()


def train(model: nn.Module, data: Data, psm: fedmrn_torch.PSM | None = None) -> None:
    """Local training; with a PSM, of binary masks, at twice the rate, since they halve each step."""
    images, labels = data
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE if psm is None else 2 * RATE)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            if psm is not None:
                psm.step()


def frame_of(request: fm.Request, arrays: Arrays, data: Data) -> bytes:
    """The frame of a client for a request: masks that were trained on its data, from the model `arrays`."""
    model = filled(arrays)
    steps = EPOCHS * -(-len(data[0]) // BATCH)
    with fedmrn_torch.PSM.from_request(model, request, steps=steps) as psm:
        train(model, data, psm)
        return psm.finish()

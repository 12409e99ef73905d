"""The network and the data: scikit-learn's digits, images of 8x8 pixels."""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *convolution(1, 32),
            *convolution(32, 64),
            nn.Flatten(),
            nn.Linear(256, 10, bias=False),
        )

    def forward(self, images):
        """Scores of the ten digits, of shape (images, 10)."""
        return self.layers(images)


def convolution(channels, out):
    """A convolution, and a pooling that halves the image."""
    return nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)


@cache
def load():
    """The images and labels to train on, and those to test on."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.float32) / 16
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    train_x, test_x, train_y, test_y = map(torch.from_numpy, parts)
    return (train_x, train_y), (test_x, test_y)


def train_loader(client, clients, batch_size):
    """Batches of one client's part of the training images; the parts are disjoint."""
    (images, labels), _ = load()
    part = slice(client, None, clients)
    return DataLoader(TensorDataset(images[part], labels[part]), batch_size=batch_size, shuffle=True)


def accuracy(model):
    """Accuracy on the test images, which no client trains on."""
    _, (images, labels) = load()
    model.eval()
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()

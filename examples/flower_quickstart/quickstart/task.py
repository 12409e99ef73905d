"""The task: data, network, training and test."""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Sequential):
    """Two convolutions and a linear layer, for images of 8x8 pixels."""

    def __init__(self):
        super().__init__(
            *convolution(1, 32),
            *convolution(32, 64),
            nn.Flatten(),
            nn.Linear(256, 10, bias=False),
        )


def convolution(channels, out):
    """A convolution, and a pooling that halves the image."""
    return nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)


@cache
def load():
    """The images and labels to train on, and those to test on, of scikit-learn's digits."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.float32) / 16
    parts = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    train_x, test_x, train_y, test_y = map(torch.from_numpy, parts)
    return (train_x, train_y), (test_x, test_y)


def train_loader(partition_id, num_partitions, batch_size):
    """Batches of one client's part of the training images; the parts are disjoint."""
    (images, labels), _ = load()
    part = slice(partition_id, None, num_partitions)
    return DataLoader(TensorDataset(images[part], labels[part]), batch_size=batch_size, shuffle=True)


def train(net, loader, epochs, lr, psm):
    """Train, and return the mean loss."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    net.train()
    total = 0.0
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            psm.step()
            total += loss.item()
    return total / (epochs * len(loader))


def test(net):
    """Accuracy on the test images."""
    _, (images, labels) = load()
    net.eval()
    with torch.no_grad():
        return (net(images).argmax(1) == labels).float().mean().item()

"""The task: data, network, training and test."""

from functools import cache

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from reference_fl import data, models, partition

load = cache(data.load)


def build_model(dataset):
    """CNN4, or for 8x8 images CNN2, with the same initial weights everywhere."""
    images = load(dataset)
    return models.build(
        "cnn2" if min(images.in_shape[1:]) < 16 else "cnn4", images.in_shape, images.classes, 0
    )


def train_loader(dataset, partition_id, num_partitions, batch_size):
    """One client's share of the training images: the shares are disjoint and of one size."""
    images = load(dataset)
    share = partition.iid(images.train_y, num_partitions, 0)[partition_id].tolist()
    own = Subset(TensorDataset(images.train_x, images.train_y), share)
    return DataLoader(own, batch_size=batch_size, shuffle=True)


def train(net, loader, epochs, lr, psm):
    """Local training; the mean loss."""
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


def test(net, dataset):
    """Accuracy on the test images."""
    images = load(dataset)
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(batch).argmax(1) for batch in images.test_x.split(1000)])
    return (found == images.test_y).float().mean().item()

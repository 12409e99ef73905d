"""Local training of the sampled clients, all at once: plain SGD on an update that starts at zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import Layout
from .nets import Buffers, Net

Effective = Callable[[Tensor, Tensor], Tensor]
"""From the update, and each client's share of masked elements, to what is added to the base."""


@dataclass
class Batches:
    """What the sampled clients train on.

    Attributes
    ----------
    places : Tensor
        int64, shape (steps, clients, batch): samples of each step.
    steps : Tensor
        int64, shape (clients,): a client's own number of steps; it rests in the others.
    weights : Tensor
        float32, shape (clients,), sum 1: by number of samples.
    """

    places: Tensor
    steps: Tensor
    weights: Tensor


def draw_batches(parts: list[Tensor], batch: int, epochs: int, generator: torch.Generator) -> Batches:
    """Shuffled passes over each client's samples, cut into batches; a short last batch is filled up."""
    counts = [epochs * -(-len(part) // batch) for part in parts]
    places = []
    for part in parts:
        rounds = -(-max(counts) * batch // len(part))
        order = torch.cat([part[torch.randperm(len(part), generator=generator)] for _ in range(rounds)])
        places.append(order[: max(counts) * batch].view(max(counts), batch))
    sizes = torch.tensor([float(len(part)) for part in parts])
    return Batches(torch.stack(places, 1), torch.tensor(counts), sizes / sizes.sum())


def train(
    net: Net,
    layout: Layout,
    base: tuple[Tensor, Tensor],
    buffers: Buffers,
    data: tuple[Tensor, Tensor],
    batches: Batches,
    rate: float,
    effective: Effective | None,
) -> tuple[Tensor, Tensor]:
    """Train all clients.

    Parameters
    ----------
    net, layout
    base : tuple of Tensor
        The masked and the dense vector of the server's model, shapes (masked,), (dense,).
    buffers : dict of str to Tensor
        With the client dimension; updated in place.
    data : tuple of Tensor
        All samples and labels.
    batches : Batches
    rate : float
        Learning rate of SGD, without momentum.
    effective : callable, optional
        None: the update itself is added, as in FedAvg. The gradient is straight-through either way.

    Returns
    -------
    tuple of Tensor
        The updates, shapes (clients, masked) and (clients, dense).
    """
    clients = len(batches.steps)
    update = torch.zeros(clients, len(base[0]))
    dense = torch.zeros(clients, len(base[1]))
    for step, places in enumerate(batches.places, 1):
        tau = (step / batches.steps).clamp(max=1.0).unsqueeze(1)
        masked = base[0] + (update if effective is None else effective(update, tau))
        weights = masked.requires_grad_(), (base[1] + dense).requires_grad_()
        resting = step > batches.steps  # clients that have done all of their steps, whose buffers stay
        kept = {name: buffer[resting] for name, buffer in buffers.items()}
        scores = net.forward(layout.parameters(*weights), data[0][places], buffers, True)
        for name, buffer in kept.items():
            buffers[name][resting] = buffer
        labels = data[1][places]
        losses = F.cross_entropy(scores.flatten(0, -2), labels.flatten(), reduction="sum")
        loss = losses * clients / labels.numel()  # the sum over clients of each one's mean
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        own = torch.where(resting, 0.0, -rate).unsqueeze(1)
        for vector, gradient in zip((update, dense), gradients, strict=True):
            if gradient is not None:
                vector.addcmul_(gradient, own)
    return update, dense

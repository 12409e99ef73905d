"""Local training and evaluation of one model on one set of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from .data import Augment

# Minimum number of samples of a batch. PyTorch's BatchNorm refuses a channel with a single value, which has
# no variance: one sample whose image has shrunk to 1x1.
MIN_BATCH = 2


def local_steps(n: int, batch_size: int, epochs: int) -> int:
    """The number of batches that `batches` gives for the same arguments.

    Parameters
    ----------
    n : int
        Samples, >= 0.
    batch_size : int
        Samples in a batch, >= 2.
    epochs : int
        Passes over the samples, >= 0.

    Raises
    ------
    ValueError
        An argument out of range.
    """
    for what, got, least in (("n", n, 0), ("batch_size", batch_size, MIN_BATCH), ("epochs", epochs, 0)):
        if got < least:
            raise ValueError(f"{what}: expected at least {least}, got {got}")
    full, rest = divmod(n, batch_size)
    return epochs * (full + (rest >= MIN_BATCH))


def batches(n: int, batch_size: int, epochs: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Batches of sample indices, in a new random order each epoch.

    A short last batch of an epoch is kept, except that a single sample is dropped, because BatchNorm cannot
    train on it. The order is new in each epoch, so another sample is dropped each time.

    Parameters
    ----------
    n, batch_size, epochs : int
        As in `local_steps`.
    generator : torch.Generator
        Source of the random numbers; each epoch draws one permutation.

    Yields
    ------
    torch.Tensor
        int64, shape (samples of the batch,), values in 0..n-1.

    Raises
    ------
    ValueError
        An argument out of range.
    """
    local_steps(n, batch_size, epochs)  # checks the arguments now, not at the first batch
    return _batches(n, batch_size, epochs, generator)


def _batches(n: int, batch_size: int, epochs: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    for _ in range(epochs):
        order = torch.randperm(n, generator=generator)
        for batch in torch.split(order, batch_size):
            if len(batch) >= MIN_BATCH:
                yield batch


def local_train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    batch_size: int,
    epochs: int,
    generator: torch.Generator,
    after_step: Callable[[int], None] | None = None,
    augment: Augment | None = None,
) -> float:
    """Train a model on one client's samples with cross-entropy, plus the model's `penalty` if it has one.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place, and left in training mode.
    optimizer : torch.optim.Optimizer
        Holds the parameters to train.
    x : torch.Tensor
        Samples of the model's input shape: (samples, ...).
    y : torch.Tensor
        int64, shape (samples,).
    batch_size, epochs : int
        As in `local_steps`.
    generator : torch.Generator
        Source of the random numbers for `batches` and `augment`.
    after_step : callable, optional
        Called after each optimiser step with the number of steps so far, 1..local_steps(...).
    augment : callable, optional
        Changes each batch of samples; see `data.Dataset`.

    Returns
    -------
    float
        Mean loss over all samples, each at the step in which it was used.

    Raises
    ------
    ValueError
        x and y differ in length, an argument is out of range, or there is no batch to train on.
    """
    _check_pair(x, y)
    if local_steps(len(y), batch_size, epochs) == 0:
        what = f"batches of {len(y)} samples, at most {batch_size} each, over {epochs} epochs"
        raise ValueError(f"{what}: expected at least 1 of {MIN_BATCH} samples or more, got none")
    model.train()
    total, seen = 0.0, 0
    for step, index in enumerate(batches(len(y), batch_size, epochs, generator), 1):
        optimizer.zero_grad(set_to_none=True)
        batch = x[index] if augment is None else augment(x[index], generator)
        loss = F.cross_entropy(model(batch), y[index]) + getattr(model, "penalty", 0.0)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(index)
        seen += len(index)
        if after_step is not None:
            after_step(step)
    return total / seen


@torch.no_grad()
def evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor, batch: int = 128) -> tuple[float, float]:
    """Accuracy and mean cross-entropy in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Unchanged; the mode of every submodule is restored afterwards.
    x : torch.Tensor
        Samples of the model's input shape: (samples, ...).
    y : torch.Tensor
        int64, shape (samples,).
    batch : int
        Samples that are evaluated together; limits the memory. Above about 256 the buffers of CNN4 are
        allocated as new pages each time instead of from the heap, which takes twice as long.

    Returns
    -------
    tuple of float
        The share (0..1) of samples whose label has the highest score, and the mean loss.

    Raises
    ------
    ValueError
        x and y differ in length or are empty, or `batch` is below 1.
    """
    _check_pair(x, y)
    if len(y) == 0 or batch < 1:
        raise ValueError(f"samples and batch: expected at least 1 each, got {len(y)} and {batch}")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        hits, loss = 0, 0.0
        for part_x, part_y in zip(torch.split(x, batch), torch.split(y, batch), strict=True):
            scores = model(part_x)
            hits += int((scores.argmax(1) == part_y).sum())
            loss += F.cross_entropy(scores, part_y, reduction="sum").item()
    finally:
        for module, mode in modes.items():
            module.training = mode
    return hits / len(y), loss / len(y)


def _check_pair(x: torch.Tensor, y: torch.Tensor) -> None:
    if len(x) != len(y):
        raise ValueError(f"labels: expected {len(x)}, one for each sample, got {len(y)}")

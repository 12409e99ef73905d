"""Local training and evaluation of one model on one set of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from .data import Augment

# Fewest samples of a batch. BatchNorm has no variance to normalise by where a channel has one value, as with
# one sample once the image has shrunk to 1x1; PyTorch refuses it.
MIN_BATCH = 2


def local_steps(n: int, batch_size: int, epochs: int) -> int:
    """The number of batches that `batches` gives for the same arguments.

    Parameters
    ----------
    n : int
        Samples, >= 0.
    batch_size : int
        Samples a batch, >= 2.
    epochs : int
        Passes over the samples, >= 0.

    Raises
    ------
    ValueError
        An argument out of range.
    """
    for what, found, least in (("n", n, 0), ("batch_size", batch_size, MIN_BATCH), ("epochs", epochs, 0)):
        if found < least:
            raise ValueError(f"{what}: found {found}, required at least {least}")
    full, rest = divmod(n, batch_size)
    return epochs * (full + (rest >= MIN_BATCH))


def batches(n: int, batch_size: int, epochs: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Batches of sample indices, in a new random order each epoch.

    The last batch of an epoch is kept when it is short, but dropped when it would be a single sample, on
    which BatchNorm cannot train. The order is new each epoch, so it is another sample each time.

    Parameters
    ----------
    n, batch_size, epochs : int
        As `local_steps`.
    generator : torch.Generator
        Where the randomness comes from; it advances by one permutation an epoch.

    Yields
    ------
    torch.Tensor
        int64, shape (samples of the batch,), values in 0..n-1.

    Raises
    ------
    ValueError
        An argument out of range.
    """
    local_steps(n, batch_size, epochs)  # checks the arguments, before the first batch is asked for
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
    """Train a model on one client's samples with cross-entropy.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place, and left in training mode.
    optimizer : torch.optim.Optimizer
        Over the parameters to train.
    x : torch.Tensor
        Samples as the model takes them, shape (samples, ...).
    y : torch.Tensor
        int64, shape (samples,).
    batch_size, epochs : int
        As `local_steps`.
    generator : torch.Generator
        Orders the samples, as `batches`, and augments them.
    after_step : callable, optional
        Called after each optimiser step with the number of steps done, 1..local_steps(...).
    augment : callable, optional
        Changes each batch of samples; see `data.Dataset`.

    Returns
    -------
    float
        Mean loss over all samples seen, each at its own step.

    Raises
    ------
    ValueError
        x and y differ in length, an argument is out of range, or there is no batch to train on.
    """
    _check_pair(x, y)
    if local_steps(len(y), batch_size, epochs) == 0:
        what = f"{len(y)} samples in batches of {batch_size} for {epochs} epochs"
        raise ValueError(f"{what} give no batch of at least {MIN_BATCH} to train on")
    model.train()
    total, seen = 0.0, 0
    for step, index in enumerate(batches(len(y), batch_size, epochs, generator), 1):
        optimizer.zero_grad(set_to_none=True)
        batch = x[index] if augment is None else augment(x[index], generator)
        loss = F.cross_entropy(model(batch), y[index])
        loss.backward()  # type: ignore[no-untyped-call]
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
        Unchanged; every submodule's mode is put back afterwards.
    x : torch.Tensor
        Samples as the model takes them, shape (samples, ...).
    y : torch.Tensor
        int64, shape (samples,).
    batch : int
        Samples at a time; bounds the memory. Past about 256 the buffers of CNN4 no longer come from the heap
        but from fresh pages each time, and it takes twice as long.

    Returns
    -------
    tuple of float
        The share of samples whose highest score is at their label (0..1), and the mean loss.

    Raises
    ------
    ValueError
        x and y differ in length or are empty, or `batch` is below 1.
    """
    _check_pair(x, y)
    if len(y) == 0 or batch < 1:
        raise ValueError(f"found {len(y)} samples in batches of {batch}, required at least 1 of each")
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
        raise ValueError(f"labels: found {len(y)}, {len(x)} samples need as many")

"""The methods: one small file each, what a client sends and what the server does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

import fedmrn_codec as fm

from ..settings import Settings
from ..train import local_train


@dataclass(frozen=True, eq=False)
class Task:
    """What one client is asked to do in one round.

    Attributes
    ----------
    x, y : torch.Tensor
        The client's samples.
    round, base_model : int
        For the frame's header.
    seed, private_seed : int
        Of the noise, given by the server; and of the client's own draws. (A real client keeps the latter to
        itself; here both follow from the run's seed, so that a run can be repeated.)
    order_seed : int
        Of the order of the samples.
    """

    x: torch.Tensor
    y: torch.Tensor
    round: int
    base_model: int
    seed: int
    private_seed: int
    order_seed: int


class Summing(Protocol):
    """What the server collects messages in."""

    def add(self, data: bytes, weight: int, *, seed: int | None = None) -> fm.Info:
        """Check, decode and add one message; a refused one changes nothing."""

    def mean(self) -> dict[str, np.ndarray]:
        """The weighted mean of the updates, to be added to the model."""


class Method(Protocol):
    """One way to send an update."""

    def __init__(self, settings: Settings) -> None: ...

    def schema(self, model: nn.Module) -> fm.Schema:
        """The schema that client and server agree on."""

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train `model`, which holds the global weights, and return the message; it may stay changed."""

    def server(self, schema: fm.Schema, round: int, base_model: int) -> Summing:
        """A new collector for one round."""


METHODS: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Class decorator that makes a method known by name; a name can be taken once."""

    def add(method: type[Method]) -> type[Method]:
        if name in METHODS:
            raise ValueError(f"method {name!r} is registered already")
        METHODS[name] = method
        return method

    return add


def build(settings: Settings) -> Method:
    """The method that the settings name.

    Raises
    ------
    ValueError
        There is no such method.
    """
    if settings.method not in METHODS:
        raise ValueError(f"method: found {settings.method!r}, known are {', '.join(sorted(METHODS))}")
    return METHODS[settings.method](settings)


def run_sgd(
    model: nn.Module, task: Task, settings: Settings, after_step: Callable[[int], None] | None = None
) -> None:
    """The clients' local training: plain SGD, no momentum, no weight decay (Li et al., ACM MM 2024)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    local_train(
        model,
        torch.optim.SGD(parameters, lr=settings.learning_rate),
        task.x,
        task.y,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=torch.Generator().manual_seed(task.order_seed),
        after_step=after_step,
    )


from . import fedavg, fedmrn  # noqa: E402, F401  (they register themselves)

"""The methods: one small file each, what a client sends and what the server does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import nn

import fedmrn_codec as fm

from ..data import Augment
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
        For the message's header.
    seed, private_seed : int
        Of the noise, given by the server; and of the client's own draws. (A real client keeps the latter to
        itself; here both follow from the run's seed, so that a run can be repeated.)
    order_seed : int
        Of the order of the samples.
    client : int
        Which client this is.
    augment : callable, optional
        Applied to each training batch; see `data.Dataset`.
    memory : dict of str to torch.Tensor
        What this client remembers from its earlier rounds. The one thing here that `Method.client` may
        change: it is kept for the client's next round, wherever that runs (`engines`).
    """

    x: torch.Tensor
    y: torch.Tensor
    round: int
    base_model: int
    seed: int
    private_seed: int
    order_seed: int
    client: int = 0
    augment: Augment | None = None
    memory: dict[str, torch.Tensor] = field(default_factory=dict)


class Sizes(Protocol):
    """The bytes of one message: the three kinds add up to its length."""

    @property
    def frame_bytes(self) -> int:
        """The message's length."""

    @property
    def mask_bytes(self) -> int:
        """Of the coded weights of convolution and linear layers: masks, or what the method has instead."""

    @property
    def dense_bytes(self) -> int:
        """Of BatchNorm and whatever else travels as it is."""

    @property
    def header_bytes(self) -> int:
        """All else."""


class Summing(Protocol):
    """What the server collects messages in."""

    def add(self, data: bytes, weight: int, *, seed: int | None = None) -> Sizes:
        """Check, decode and add one message; a refused one (fedmrn_codec.FrameError) changes nothing."""

    def mean(self) -> dict[str, np.ndarray]:
        """The weighted mean of what was sent: what the method's `apply_` takes."""


class Method(Protocol):
    """One way to send an update; `base.Base` has what most methods share."""

    OPTIONS: ClassVar[dict[str, Any]]
    """The options that only this method has, with their defaults."""

    SERVER_OPTIONS: ClassVar[dict[str, Any]]
    """Those of the server's step, which most methods have in common."""

    HAS_MASKS: ClassVar[bool]
    """Whether the bits of its frames are masks, worth counting; where they are signs (`signs`), they are as
    random as the noise."""

    def __init__(self, settings: Settings) -> None: ...

    def schema(self, model: nn.Module) -> fm.Schema:
        """The schema that client and server agree on."""

    def start(self, model: nn.Module) -> None:
        """Turn the initial weights into what the server broadcasts, in place; once a run."""

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train `model`, which holds the broadcast state, and return the message; it may stay changed.

        It changes nothing else but the task's memory: the next client may have another copy of this method.
        """

    def frame(self, message: bytes, schema: fm.Schema) -> tuple[bytes, fm.Schema]:
        """The frame in a message, and its schema: the message itself where it is one."""

    def server(
        self, schema: fm.Schema, round: int, base_model: int, model: nn.Module | None = None
    ) -> Summing:
        """A new collector for one round; `model` as broadcast, for methods whose noise depends on it."""

    def apply_(self, model: nn.Module, mean: dict[str, np.ndarray], round: int) -> None:
        """Change `model`, which holds the broadcast state, by what the round's collector gave."""

    def evaluated(self, model: nn.Module, round: int) -> nn.Module:
        """The model to evaluate; `model` itself where it is the trained state."""

    def state(self) -> dict[str, torch.Tensor]:
        """What the server remembers from one round to the next, the model aside; saved with it."""

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a saved state."""


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
        There is no such method, or one of its options is unknown or out of range.
    """
    if settings.method not in METHODS:
        raise ValueError(f"method: found {settings.method!r}, known are {', '.join(sorted(METHODS))}")
    return METHODS[settings.method](settings)


def run_sgd(
    model: nn.Module,
    task: Task,
    settings: Settings,
    after_step: Callable[[int], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """The clients' local training: plain SGD, no momentum, no weight decay (Li et al., ACM MM 2024).

    A method that trains something else than the model's parameters brings its own optimiser.
    """
    if optimizer is None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=settings.learning_rate)
    local_train(
        model,
        optimizer,
        task.x,
        task.y,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        generator=torch.Generator().manual_seed(task.order_seed),
        after_step=after_step,
        augment=task.augment,
    )


from . import (  # noqa: E402  (they register themselves)
    drive,  # noqa: F401
    eden,  # noqa: F401
    fedavg,  # noqa: F401
    fedbat,  # noqa: F401
    fedmrn,  # noqa: F401
    fedpm,  # noqa: F401
    fedsparsify,  # noqa: F401
    postmask,  # noqa: F401
    signsgd,  # noqa: F401
    terngrad,  # noqa: F401
    topk,  # noqa: F401
)

"""The methods, one file each: what a client sends, and what the server does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import nn

import fedmrn_codec as fm

from ..data import Augment
from ..secure import Terms
from ..settings import RAW, Settings
from ..train import local_train


@dataclass(frozen=True, eq=False)
class Task:
    """The work of one client in one round.

    Attributes
    ----------
    x, y : torch.Tensor
        The client's samples.
    round, base_model : int
        Values for the message's header.
    seed, private_seed : int
        The seed of the noise, chosen by the server, and the seed of the client's own draws. (A real client
        keeps the latter secret; here both are derived from the seed of the run, so that a run can be
        repeated.)
    order_seed : int
        The seed of the order of the samples.
    client : int
        The number of the client.
    augment : callable, optional
        Applied to each training batch; see `data.Dataset`.
    instructions : dict of str to str
        What the method's server has told the clients of this round (`Method.instructions`).
    memory : dict of str to torch.Tensor
        The client's state from its earlier rounds. `Method.client` may change it, and nothing else here; it
        is kept for the client's next round, wherever that runs (`engines`).
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
    instructions: dict[str, str] = field(default_factory=dict)
    memory: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def header(self) -> dict[str, Any]:
        """Seed, round and base model, as arguments of `fedmrn_codec.encode`."""
        return {"seed": self.seed, "round": self.round, "base_model": self.base_model}


class Sizes(Protocol):
    """The sizes of one message in bytes; mask, dense and header bytes add up to its length."""

    @property
    def frame_bytes(self) -> int:
        """The length of the message."""

    @property
    def mask_bytes(self) -> int:
        """The weights of convolution and linear layers: masks, or the method's own coding."""

    @property
    def dense_bytes(self) -> int:
        """The tensors that are not compressed, such as those of BatchNorm."""

    @property
    def header_bytes(self) -> int:
        """Everything else."""


class Summing(Protocol):
    """A collector: adds the messages of one round."""

    def add(self, data: bytes, weight: int, *, seed: int | None = None) -> Sizes:
        """Check, decode and add a message; one that is refused (fedmrn_codec.FrameError) changes nothing."""

    def mean(self) -> dict[str, np.ndarray]:
        """The weighted mean of the added updates, as the method's `apply_` takes it."""


class Method(Protocol):
    """One way to send an update; `base.Base` implements the parts that most methods share."""

    OPTIONS: ClassVar[dict[str, Any]]
    """The options of this method alone, with their defaults."""

    SERVER_OPTIONS: ClassVar[dict[str, Any]]
    """The options of the server's step, which most methods share, with their defaults."""

    HAS_MASKS: ClassVar[bool]
    """Whether the bits of its frames are masks, so that counting them is useful. In methods that send signs
    (`signs`) the bits are as random as the noise."""

    options: dict[str, Any]
    """Those of `OPTIONS` and `SERVER_OPTIONS`, as the settings or the defaults have them."""

    def __init__(self, settings: Settings) -> None: ...

    def schema(self, model: nn.Module) -> fm.Schema:
        """The schema, the same on client and server."""

    def start(self, model: nn.Module) -> None:
        """Turn the initial weights into the broadcast state, in place; called once in a run."""

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train `model`, which holds the broadcast state, and return the message.

        The model may be left changed. Apart from it, only the task's memory may change: the next client may
        have another copy of this method.
        """

    def frame(self, message: bytes, schema: fm.Schema) -> tuple[bytes, fm.Schema]:
        """The frame in a message, or the message itself if it is a frame, and the schema of the frame."""

    def instructions(self) -> dict[str, str]:
        """What the server tells each client of the coming round, beside the model."""

    def noise_seed(self, round: int, client: int) -> int:
        """The seed of the noise of a client in a round."""

    def weight(self, samples: int) -> int:
        """The weight in the mean of a client with so many samples."""

    def terms(self) -> Terms | None:
        """The terms of secure aggregation; None for a server that receives every update."""

    def request(self, schema: fm.Schema, round: int, base_model: int, model: nn.Module) -> fm.Request:
        """What all clients of a round with secure aggregation are asked for; `model` as in `server`."""

    def server(
        self, schema: fm.Schema, round: int, base_model: int, model: nn.Module | None = None
    ) -> Summing:
        """A new collector for one round; `model` is the one that clients hold; the noise may depend on it."""

    def apply_(self, model: nn.Module, mean: dict[str, np.ndarray], round: int) -> None:
        """Update `model`, the server's own, by the mean of the round's collector."""

    def evaluated(self, model: nn.Module, round: int) -> nn.Module:
        """The model to evaluate: `model` itself unless the method trains something else."""

    def state(self) -> dict[str, torch.Tensor]:
        """The state of the server between rounds, without the model; saved together with the model."""

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from a saved state."""


METHODS: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Class decorator that registers a method under an unused name."""

    def add(method: type[Method]) -> type[Method]:
        if name in METHODS:
            raise ValueError(f"method: expected an unused name, got {name!r}")
        METHODS[name] = method
        return method

    return add


def build(settings: Settings) -> Method:
    """The method that the settings name.

    Raises
    ------
    ValueError
        The method is unknown, one of its options is unknown or out of range, or its server does not add the
        mean update to its own model, which a grid download requires.
    """
    if settings.method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(sorted(METHODS))}, got {settings.method!r}")
    method = METHODS[settings.method](settings)
    if settings.downlink != RAW and not method.SERVER_OPTIONS:
        expected = f"{RAW}, since its server replaces the weights instead of adding an update to them"
        raise ValueError(f"downlink of {settings.method}: expected {expected}, got {settings.downlink!r}")
    return method


def run_sgd(
    model: nn.Module,
    task: Task,
    settings: Settings,
    after_step: Callable[[int], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Train a client's model: plain SGD, no momentum, no weight decay (Li et al., ACM MM 2024).

    A method that does not train the model's parameters passes its own optimiser.
    """
    if optimizer is None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=settings.rate(task.round))
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


from . import (  # noqa: E402  (each module registers its method)
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

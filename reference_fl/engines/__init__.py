"""Engines run the clients of a round: an engine takes the round's assignments and returns the replies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import torch

from ..data import Dataset
from ..settings import Settings

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Turns off Flower's telemetry, update check and installation of packages, unless the user has set these."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """The work of one client in one round, without the samples, which the client has.

    Attributes
    ----------
    client, round, base_model, seed, private_seed, order_seed : int
        As in `methods.Task`.
    instructions : dict of str to str
        As in `methods.Task`.
    memory : dict of str to torch.Tensor
        The client's state from its earlier rounds.
    """

    client: int
    round: int
    base_model: int
    seed: int
    private_seed: int
    order_seed: int
    instructions: dict[str, str]
    memory: dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Reply:
    """A client's reply: its message, which counts as uplink, and its new state."""

    client: int
    message: bytes
    memory: dict[str, torch.Tensor]


class ClientError(RuntimeError):
    """A client has failed, and therefore the round."""


class WorkerError(ClientError):
    """The worker process has failed, not the client; a retry may succeed."""


class Engine(Protocol):
    """Runs clients; a `with` block starts and stops the engine.

    The bits of a reply depend only on the settings, the broadcast and the assignment: not on the engine, nor
    on earlier work of the process.
    """

    @property
    def name(self) -> str:
        """The name in the record of a run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def replies(self, broadcast: bytes, assignments: Sequence[Assignment]) -> Iterator[Reply]:
        """Yield one reply for each assignment, in any order, each as soon as it is ready.

        Parameters
        ----------
        broadcast : bytes
            The state of the global model, as safetensors.
        assignments : sequence of Assignment
            For different clients.

        Raises
        ------
        ClientError
            A client in another process failed. An error of a client in this process is raised unchanged.
        """


def on_flower(settings: Settings, data: Dataset, root: Path | None, address: str | None) -> Engine:
    """Make Flower's engine; the arguments are those of `flower.Flower`.

    Raises
    ------
    ValueError
        A package that the engine needs is not installed.
    """
    for name, value in QUIET.items():  # flwr reads them while it is imported
        os.environ.setdefault(name, value)
    try:
        from .flower import Flower

        return Flower(settings, data, root, address)
    except ModuleNotFoundError as error:
        install = "pip install 'fedmrn-codec[reference,simulation]'"
        expected = f"the package {error.name}, which `{install}` installs"
        raise ValueError(f"--engine flower: expected {expected}, got none") from None

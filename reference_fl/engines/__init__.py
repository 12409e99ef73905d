"""Where the clients of a round run: an engine takes the round's assignments and gives the replies."""

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
"""What keeps Flower from calling home, unless the user decides otherwise."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """What the server asks of one client in one round; no data, which the client has.

    Attributes
    ----------
    client, round, base_model, seed, private_seed, order_seed : int
        As `methods.Task`.
    memory : dict of str to torch.Tensor
        What the client remembers from its earlier rounds.
    """

    client: int
    round: int
    base_model: int
    seed: int
    private_seed: int
    order_seed: int
    memory: dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Reply:
    """What a client gives back: its message, which counts as uplink, and what it remembers from now on."""

    client: int
    message: bytes
    memory: dict[str, torch.Tensor]


class ClientError(RuntimeError):
    """A client has failed, and with it the round."""


class WorkerError(ClientError):
    """What ran it has failed, not the client: another try may do."""


class Engine(Protocol):
    """Runs clients; a `with` block starts and stops it.

    The bits of a reply depend on the settings, the broadcast and the assignment alone: not on the engine, nor
    on what else the process did before.
    """

    @property
    def name(self) -> str:
        """For the record of a run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def replies(self, broadcast: bytes, assignments: Sequence[Assignment]) -> Iterator[Reply]:
        """One reply an assignment, in any order, each as soon as it is there.

        Parameters
        ----------
        broadcast : bytes
            The global model's state, as safetensors.
        assignments : sequence of Assignment
            Of different clients.

        Raises
        ------
        ClientError
            A client that runs elsewhere failed; what a client raises in this process is not changed.
        """


def on_flower(settings: Settings, data: Dataset, root: Path | None, address: str | None) -> Engine:
    """Flower's engine; the arguments are those of `flower.Flower`.

    Raises
    ------
    ValueError
        A package that it needs is not installed.
    """
    for name, value in QUIET.items():  # flwr reads them while it is imported
        os.environ.setdefault(name, value)
    try:
        from .flower import Flower

        return Flower(settings, data, root, address)
    except ModuleNotFoundError as error:
        extras = "pip install 'fedmrn-codec[reference,simulation]'"
        raise ValueError(
            f"--engine flower: the package {error.name} is not installed, required: {extras}"
        ) from None

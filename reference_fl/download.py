"""The download: the messages that bring the model of a round to its clients, and what each client holds.

`downlink` "raw": every client of every round receives all tensors as they are, as safetensors. `downlink`
"grid": the clients' model is the server's, rounded (`fedmrn_codec.Downlink`); a client receives one frame,
which leads from the version of its last participation to that of the round, or the whole model if it has
none or one that is no longer kept. The server's own model is not rounded, and the mean update is added to it.

Engines hand the same bytes to every client, since a client that applies its frame holds `Downlink.model`, bit
for bit. What is counted are the messages here.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from torch import nn

import fedmrn_codec as fm

from .settings import GRID, Settings

DOWN, VERSIONS = "downlink", "versions"
"""The names of the entries of the state."""


@dataclass(frozen=True)
class Sent:
    """What the server sends in a round.

    Attributes
    ----------
    broadcast : bytes
        The tensors that the clients then hold, as safetensors: what an engine hands to them.
    base_model : int
        The id of this model, for the headers of the clients' frames.
    messages : dict of int to bytes
        The message to each client.
    frames : bool
        Whether the messages are frames.
    """

    broadcast: bytes
    base_model: int
    messages: Mapping[int, bytes]
    frames: bool


class Download(Protocol):
    """One way to send the model.

    Attributes
    ----------
    model : torch.nn.Module
        What the clients hold after the last download, or will hold after the next one.
    """

    model: nn.Module

    def send(self, clients: Iterable[int]) -> Sent:
        """The messages to these clients, who hold the present version from now on."""

    def advance(self, model: nn.Module) -> None:
        """Begin a new version, that of the server's own model after a round."""

    def state(self) -> dict[str, torch.Tensor]:
        """What the next round depends on, beside the server's own model."""

    def load_state(self, model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Continue with the server's own model and a saved state."""


class Raw:
    """Sends the server's own model, whatever the clients hold; nothing is kept between rounds."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def send(self, clients: Iterable[int]) -> Sent:
        """The same message to each."""
        broadcast = safetensors.torch.save(tensors(self.model))
        base_model = int.from_bytes(hashlib.sha256(broadcast).digest()[:8], "little") or 1
        return Sent(broadcast, base_model, dict.fromkeys(clients, broadcast), frames=False)

    def advance(self, model: nn.Module) -> None:
        """Send this model from now on."""
        self.model = model

    def state(self) -> dict[str, torch.Tensor]:
        """Nothing."""
        return {}

    def load_state(self, model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Send this model from now on."""
        self.model = model


class Grid:
    """Sends frames from the version that a client holds to the present one.

    Parameters
    ----------
    schema : fedmrn_codec.Schema
        All tensors of the model.
    model : torch.nn.Module
        The server's own; not changed.
    """

    def __init__(self, schema: fm.Schema, model: nn.Module) -> None:
        self.schema = schema
        self.down = fm.Downlink(schema, arrays(model))
        self.versions: dict[int, int] = {}  # the id of the model that each client holds
        self.model = copy.deepcopy(model)
        self._copy_down()

    def send(self, clients: Iterable[int]) -> Sent:
        """To each client the frame for the version that it holds."""
        messages = {client: self.down.frame(self.versions.get(client)) for client in clients}
        self.versions |= dict.fromkeys(messages, self.down.model_id)
        broadcast = safetensors.torch.save(tensors(self.model))
        return Sent(broadcast, self.down.model_id, messages, frames=True)

    def advance(self, model: nn.Module) -> None:
        """Round this model anew; errors as in `fedmrn_codec.Downlink.advance`."""
        self.down.advance(arrays(model))
        self._copy_down()

    def state(self) -> dict[str, torch.Tensor]:
        """The bytes of `Downlink.to_bytes`, and the versions of the clients as those of their JSON."""
        return {
            DOWN: _as_tensor(self.down.to_bytes()),
            VERSIONS: _as_tensor(json.dumps(sorted(self.versions.items())).encode()),
        }

    def load_state(self, model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Continue with a saved downlink and the versions of the clients."""
        self.down = fm.Downlink.from_bytes(state[DOWN].numpy().tobytes(), self.schema)
        self.versions = dict(json.loads(state[VERSIONS].numpy().tobytes()))
        self._copy_down()

    def _copy_down(self) -> None:
        """Copy the rounded model into the module."""
        self.model.load_state_dict({name: torch.tensor(array) for name, array in self.down.model.items()})


def build(settings: Settings, schema: fm.Schema, model: nn.Module) -> Download:
    """The download that the settings name, from the first model on."""
    return Grid(schema, model) if settings.downlink == GRID else Raw(model)


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model, by name."""
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def arrays(model: nn.Module) -> dict[str, Any]:
    """The tensors of a model as arrays, which share their memory."""
    return {name: tensor.numpy() for name, tensor in tensors(model).items()}


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())

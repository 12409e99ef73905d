"""What most methods share: their options, and the hooks that only a few of them need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

import fedmrn_codec as fm
import fedmrn_torch
from fedmrn_torch.schema import difference

from ..settings import Settings
from . import Summing, Task, run_sgd, server_step
from .collect import FrameSum


class Base:
    """A method whose message is one frame and whose server adds the mean update to the model.

    Attributes
    ----------
    OPTIONS : dict
        What only this method has.
    SERVER_OPTIONS : dict
        Of the server's step (`server_step`); none where the server does not add the mean of updates.
    settings : Settings
    options : dict
        The settings' options, the defaults filled in.

    Raises
    ------
    ValueError
        An option that the method does not have, of another type, or out of range.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {}
    SERVER_OPTIONS: ClassVar[dict[str, Any]] = server_step.OPTIONS
    HAS_MASKS: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        known = {**self.OPTIONS, **self.SERVER_OPTIONS}
        self.options = checked_options(settings.method, known, settings.options)
        if self.SERVER_OPTIONS:
            self.require("server_learning_rate", self.options["server_learning_rate"] > 0, "above 0")
            self.require("server_momentum", 0 <= self.options["server_momentum"] < 1, "0 to below 1")
        self._server_step = server_step.ServerStep({**server_step.OPTIONS, **self.options})

    def require(self, option: str, holds: bool, required: str) -> None:
        """Refuse an option's value."""
        if not holds:
            found = self.options[option]
            raise ValueError(
                f"option {option} of {self.settings.method}: found {found!r}, required {required}"
            )

    def schema(self, model: nn.Module) -> fm.Schema:
        """Weights of convolution and linear layers masked, all else dense."""
        return fedmrn_torch.schema(model)

    def start(self, model: nn.Module) -> None:
        """The initial weights are what is broadcast."""

    def frame(self, message: bytes, schema: fm.Schema) -> tuple[bytes, fm.Schema]:
        """The message is the frame."""
        return message, schema

    def server(
        self, schema: fm.Schema, round: int, base_model: int, model: nn.Module | None = None
    ) -> Summing:
        """The exact weighted mean of the decoded frames."""
        return FrameSum(schema, round, base_model)

    def apply_(self, model: nn.Module, mean: dict[str, np.ndarray], round: int) -> None:
        """Add what the server's step makes of the mean update."""
        fedmrn_torch.apply_(model, self._server_step.update(model, mean))

    def evaluated(self, model: nn.Module, round: int) -> nn.Module:
        """The model is the trained state."""
        return model

    def state(self) -> dict[str, torch.Tensor]:
        """The server's velocity, where there is momentum."""
        return self._server_step.state()

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Go on with a saved velocity.

        Raises
        ------
        ValueError
            The state holds something else, of another method or an older version of this one.
        """
        if other := sorted(name for name in state if not name.startswith(server_step.PREFIX)):
            raise ValueError(f"state of {self.settings.method}: found {other[0]}, which it does not keep")
        self._server_step.load_state(state)


def checked_options(method: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults, replaced by what is given; an int is fine for a float.

    Raises
    ------
    ValueError
        An unknown name, or a value of another type than the default's.
    """
    if unknown := sorted(set(given) - set(defaults)):
        known = ", ".join(sorted(defaults)) or "none"
        raise ValueError(f"options of {method}: found {', '.join(unknown)}, known are {known}")
    out = dict(defaults)
    for name, value in given.items():
        kind = type(defaults[name])
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"option {name} of {method}: found {value!r}, required: of type {kind.__name__}")
        out[name] = value
    return out


def copy_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model as they are now."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changes(
    model: nn.Module, before: Mapping[str, torch.Tensor], schema: fm.Schema, masked: bool | None = None
) -> dict[str, np.ndarray]:
    """What training changed: now minus before, by name, of all tensors or only the masked or dense ones."""
    now = model.state_dict()
    return {
        tensor.name: difference(now[tensor.name].detach(), before[tensor.name])
        for tensor in schema
        if masked is None or tensor.masked == masked
    }


def trained_update(
    model: nn.Module, task: Task, settings: Settings, schema: fm.Schema
) -> dict[str, np.ndarray]:
    """Train as FedAvg does; the update."""
    before = copy_state(model)
    run_sgd(model, task, settings)
    return changes(model, before, schema)

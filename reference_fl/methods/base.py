"""The base class of methods: options, defaults of the hooks, and helpers for local training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

import fedmrn_codec as fm
import fedmrn_torch
from fedmrn_torch.schema import difference

from ..secure import Terms
from ..seeds import derive
from ..settings import Settings
from . import Summing, Task, run_sgd, server_step
from .collect import FrameSum


class Base:
    """A method whose message is one frame and whose server adds the mean update to the model.

    Attributes
    ----------
    OPTIONS : dict
        The options of this method alone.
    SERVER_OPTIONS : dict
        The options of the server's step (`server_step`); empty if the server does not add the mean update.
    settings : Settings
    options : dict
        The options of the settings, completed by the defaults.

    Raises
    ------
    ValueError
        An option is unknown, of another type, or out of range.
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

    def require(self, option: str, holds: bool, expected: str) -> None:
        """Refuse the value of an option unless `holds`."""
        if not holds:
            got = repr(self.options[option])
            raise ValueError(f"option {option} of {self.settings.method}: expected {expected}, got {got}")

    def schema(self, model: nn.Module) -> fm.Schema:
        """Weights of convolution and linear layers masked, all other tensors dense."""
        return fedmrn_torch.schema(model)

    def start(self, model: nn.Module) -> None:
        """Broadcast the initial weights unchanged."""

    def frame(self, message: bytes, schema: fm.Schema) -> tuple[bytes, fm.Schema]:
        """The message, which is a frame."""
        return message, schema

    def instructions(self) -> dict[str, str]:
        """Nothing."""
        return {}

    def noise_seed(self, round: int, client: int) -> int:
        """Another one for each client and round."""
        return derive(self.settings.seed, "noise", round, client)

    def weight(self, samples: int) -> int:
        """The number of samples."""
        return samples

    def terms(self) -> Terms | None:
        """None: there is no secure aggregation."""
        return None

    def request(self, schema: fm.Schema, round: int, base_model: int, model: nn.Module) -> fm.Request:
        """Not called without `terms`."""
        raise NotImplementedError

    def server(
        self, schema: fm.Schema, round: int, base_model: int, model: nn.Module | None = None
    ) -> Summing:
        """A collector of the exact weighted mean of the decoded frames."""
        return FrameSum(schema, round, base_model)

    def apply_(self, model: nn.Module, mean: dict[str, np.ndarray], round: int) -> None:
        """Add the mean update to the model, after the server's step."""
        fedmrn_torch.apply_(model, self._server_step.update(model, mean))

    def evaluated(self, model: nn.Module, round: int) -> nn.Module:
        """The model itself."""
        return model

    def state(self) -> dict[str, torch.Tensor]:
        """The server's velocity, if there is momentum."""
        return self._server_step.state()

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue with a saved velocity.

        Raises
        ------
        ValueError
            The state has other entries, as of another method or an older version of this one.
        """
        if other := sorted(name for name in state if not name.startswith(server_step.PREFIX)):
            expected = f"only names that begin with {server_step.PREFIX!r}"
            raise ValueError(f"state of {self.settings.method}: expected {expected}, got {other[0]!r}")
        self._server_step.load_state(state)


def checked_options(method: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults, overridden by the given options; an int is accepted for a float.

    Raises
    ------
    ValueError
        An unknown name, or a value of another type than the default.
    """
    if unknown := sorted(set(given) - set(defaults)):
        known = f"only {', '.join(sorted(defaults))}" if defaults else "none"
        raise ValueError(f"options of {method}: expected {known}, got {', '.join(unknown)}")
    out = dict(defaults)
    for name, value in given.items():
        kind = type(defaults[name])
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"option {name} of {method}: expected {kind.__name__}, got {value!r}")
        out[name] = value
    return out


def copy_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the tensors of a model."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changes(
    model: nn.Module, before: Mapping[str, torch.Tensor], schema: fm.Schema, masked: bool | None = None
) -> dict[str, np.ndarray]:
    """The change of a model: its tensors minus `before`, by name; all, or only masked or dense ones."""
    now = model.state_dict()
    return {
        tensor.name: difference(now[tensor.name].detach(), before[tensor.name])
        for tensor in schema
        if masked is None or tensor.masked == masked
    }


def trained_update(
    model: nn.Module, task: Task, settings: Settings, schema: fm.Schema
) -> dict[str, np.ndarray]:
    """Train as FedAvg does, and return the update."""
    before = copy_state(model)
    run_sgd(model, task, settings)
    return changes(model, before, schema)

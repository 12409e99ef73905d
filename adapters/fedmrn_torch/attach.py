"""Attaching masked noise to the parameters of a module, and detaching it so that nothing of it remains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .masking import MaskedNoise, Sampler
from .schema import Entry


class Attached:
    """The masked parameters of one PSM, by name.

    An attached parameter is the same object as before, in the same modules. It holds the update u, which
    starts as zeros in new storage. Its old storage is the base and is not written to; detaching restores it.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Entry, MaskedNoise]] = {}
        self._orders: dict[nn.Module, list[str]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def attach(self, entry: Entry, noise: np.ndarray, low: float, sampler: Sampler) -> None:
        """Turn a parameter into its update; `noise` is flat float32, `low` the value of mask bit 0."""
        parameter = entry.tensor
        base = parameter.data
        values = torch.from_numpy(noise).view(base.shape).to(base.device)
        masked = MaskedNoise(base, values, low, sampler)
        for module, _ in entry.sites:
            self._orders.setdefault(module, list(module._parameters))
        self._entries[entry.name] = entry, masked
        parameter.data, parameter.grad = torch.zeros_like(base), None
        for module, attribute in entry.sites:
            _parametrize(module, attribute, parameter, masked)

    def detach(self) -> None:
        """Restore all parameters, the classes of their modules, and the order of their parameters."""
        attached: dict[nn.Module, dict[str, Tensor]] = {module: {} for module in self._orders}
        for entry, masked in self._entries.values():
            entry.tensor.data, entry.tensor.grad = masked.base, None
            for module, attribute in entry.sites:
                attached[module][attribute] = entry.tensor
        for module, parameters in attached.items():
            _remove_parametrizations(module, set(parameters))
            for attribute, parameter in parameters.items():
                setattr(module, attribute, parameter)
            for attribute in self._orders[module]:
                module._parameters[attribute] = module._parameters.pop(attribute)
        self._entries.clear()
        self._orders.clear()

    def dtypes(self) -> list[torch.dtype]:
        """The present dtypes of the parameters, which a conversion of the module changes."""
        return [masked.base.dtype for _, masked in self._entries.values()]

    def update(self, name: str) -> Tensor:
        """The update u of a parameter, read from the module as it is now."""
        module, attribute = self._entries[name][0].sites[0]
        original = module.get_submodule(f"parametrizations.{attribute}").original
        assert isinstance(original, Tensor)
        return original.detach()

    def deterministic_bits(self, name: str) -> Tensor:
        """The mask bits of a parameter's update without stochastic masking; bool."""
        return self._entries[name][1].deterministic_bits(self.update(name))


def _parametrize(module: nn.Module, attribute: str, parameter: Tensor, masked: MaskedNoise) -> None:
    """Register the parametrization of a parameter, which stays the same object and keeps its hooks.

    torch calls `set_` on the tensor that it parametrizes, which detaches the gradient hooks of a
    DistributedDataParallel; so another tensor takes the parameter's place during the call.
    """
    own_class = not parametrize.is_parametrized(module)
    parameters: dict[str, Any] = module._parameters
    parameters[attribute] = nn.Parameter(torch.empty_like(parameter), parameter.requires_grad)
    try:
        # unsafe=True skips the trial forward pass, which would draw a mask
        parametrize.register_parametrization(module, attribute, masked, unsafe=True)
    except BaseException:
        parameters[attribute] = parameter
        raise
    registered: dict[str, Any] = module.get_submodule(f"parametrizations.{attribute}")._parameters
    registered["original"] = parameter
    if own_class:  # torch makes a class for each parametrized module; its own message proposes state_dict()
        type(module).__getstate__ = _refuse_to_pickle  # type: ignore[method-assign]


def _refuse_to_pickle(module: nn.Module) -> NoReturn:
    raise RuntimeError(
        "saving a module: expected one without an active PSM, got one whose parameters hold updates in "
        "place of weights; call the PSM's finish() or restore() first, or save its state_dict() to resume "
        "this training"
    )


def _remove_parametrizations(module: nn.Module, attributes: set[str]) -> None:
    """Remove the parametrizations of these attributes from a module; attributes without one are skipped.

    If no other parametrization remains, the module gets its original class back. torch's
    `remove_parametrizations` would instead delete a property of the parametrized class, which copies of the
    module still use.
    """
    found = {attribute for attribute in attributes if parametrize.is_parametrized(module, attribute)}
    if found and set(module.get_submodule("parametrizations")._modules) == found:
        cls = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        module.__class__ = cls
    else:
        for attribute in found:
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)

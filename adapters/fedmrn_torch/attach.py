"""Putting masked noise on the parameters of a module, and taking it off without a trace."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .masking import MaskedNoise, Sampler
from .schema import Entry


class Attached:
    """The masked parameters of one PSM, by name.

    An attached parameter is the same object as before, wherever it hangs, and holds the update u: zeros, in a
    new storage. Its old storage, untouched, is the base. Detaching gives it back.
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
            # unsafe: without trying the forward pass out, which would draw a mask
            parametrize.register_parametrization(module, attribute, masked, unsafe=True)

    def detach(self) -> None:
        """Restore all parameters, the classes of their modules, and the order of parameters in these."""
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

    def update(self, name: str) -> Tensor:
        """The update u of a parameter, as it hangs in the module now."""
        module, attribute = self._entries[name][0].sites[0]
        original = module.get_submodule(f"parametrizations.{attribute}").original
        assert isinstance(original, Tensor)
        return original.detach()

    def deterministic_bits(self, name: str) -> Tensor:
        """The bits of its mask without stochastic masking."""
        return self._entries[name][1].deterministic_bits(self.update(name))


def _remove_parametrizations(module: nn.Module, attributes: set[str]) -> None:
    """Take the parametrizations of these attributes off a module, as far as they have one.

    Where none is left, the module's class is put back as a whole: torch's `remove_parametrizations` would
    delete a property of the parametrized class, which copies of the module still use.
    """
    found = {attribute for attribute in attributes if parametrize.is_parametrized(module, attribute)}
    if found and set(module.get_submodule("parametrizations")._modules) == found:
        cls = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        module.__class__ = cls
    else:
        for attribute in found:
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)

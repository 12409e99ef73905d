"""Which tensors of a module travel, and how: the schema (spec 5), differences, and adding an update."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import add, subtract

from .masking import MaskedNoise

Masked = Callable[[str, nn.Parameter], bool] | Collection[str] | None
"""How a caller chooses the masked parameters: a predicate, names, or None for the default rule."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a module that travels.

    Attributes
    ----------
    name : str
        The first of its names in the state_dict.
    tensor : Tensor
        The parameter or persistent buffer itself.
    sites : list of (Module, str)
        Where it hangs; more than one if it is tied.
    masked : bool
    """

    name: str
    tensor: Tensor
    sites: list[tuple[nn.Module, str]]
    masked: bool

    @property
    def spec(self) -> fm.Tensor:
        """Its line of the schema; a masked tensor is float32 there, whatever the module has (spec 5.2)."""
        dtype = "float32" if self.masked else str(self.tensor.dtype).removeprefix("torch.")
        return fm.Tensor(self.name, tuple(self.tensor.shape), self.masked, dtype)


def schema(model: nn.Module, masked: Masked = None) -> fm.Schema:
    """The schema of a module's updates: the same for a server and for `PSM`, if `masked` is the same.

    It holds the trainable parameters and the persistent buffers, in the order of the state_dict; a tied
    parameter once, under its first name. A frozen parameter (requires_grad is False) does not travel.

    Parameters
    ----------
    model : torch.nn.Module
        Unchanged.
    masked : callable, collection of str, or None
        The trainable floating-point parameters to mask: those for which `masked(name, parameter)` is true, or
        those named, or (None) those of two or more dimensions. All else travels dense.

    Returns
    -------
    fedmrn_codec.Schema

    Raises
    ------
    fedmrn_codec.ArgumentError
        A name that is no trainable floating-point parameter, or a tensor that the format cannot express.
    RuntimeError
        The module is under a PSM.
    """
    return fm.Schema(entry.spec for entry in entries(model, masked))


def entries(model: nn.Module, masked: Masked) -> list[Entry]:
    """The tensors that travel, in schema order; arguments and errors are those of `schema`."""
    found = _named_tensors(model)
    chosen = _chosen(found, masked)
    sites = _sites(model)
    return [
        Entry(names[0], tensor, sites[id(tensor)], names[0] in chosen)
        for names, tensor in found
        if not isinstance(tensor, nn.Parameter) or tensor.requires_grad
    ]


def apply_(model: nn.Module, arrays: Mapping[str, Any]) -> None:
    """Add an update to a module in place: of one frame (`fm.decode`) or of many (`fm.Aggregator.mean`).

    Floats are added in the parameter's dtype (a masked update's float32 to a parameter of fewer bits in
    float32, with one rounding), integers modulo their range, bools exclusive-or. Nothing is changed if there
    is an error.

    Parameters
    ----------
    model : torch.nn.Module
    arrays : mapping of str to array
        Of the tensors' shapes; names that are missing are left alone. Of the tensor's dtype (bfloat16 as its
        bits, in uint16), or float32 for any floating-point tensor. Unchanged.

    Raises
    ------
    fedmrn_codec.UpdateError
        A name that the module does not have, or another shape or dtype.
    RuntimeError
        The module is under a PSM.
    """
    tensors = {names[0]: tensor for names, tensor in _named_tensors(model)}
    if unknown := [name for name in arrays if name not in tensors]:
        raise fm.UpdateError("update", "names of the module's tensors", unknown)
    addends = {name: _checked(name, tensors[name], np.asarray(array)) for name, array in arrays.items()}
    with torch.no_grad():
        for name, addend in addends.items():
            tensors[name].copy_(sum_of(tensors[name], addend))


def difference(now: Tensor, start: Tensor) -> np.ndarray:
    """The update of a dense tensor: now - start, as `to_numpy` gives it.

    Integers wrap around and bools are exclusive-or, so that `apply_` restores them.
    """
    if now.is_floating_point():
        return to_numpy(now - start.to(now.device))
    return subtract(to_numpy(now), to_numpy(start))


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A copy of a tensor as the format holds it: of the same dtype, but bfloat16 as its bits, in uint16."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(np.uint16).copy()
    return tensor.numpy().copy()


def is_masked(model: nn.Module) -> bool:
    """Whether the module, or a part of it, is under a PSM."""
    return any(isinstance(module, MaskedNoise) for module in model.modules())


def _checked(name: str, tensor: Tensor, array: np.ndarray) -> np.ndarray:
    """The array, if it can be added to the tensor."""
    if array.shape != tuple(tensor.shape):
        raise fm.UpdateError(f"shape of {name!r}", f"{tuple(tensor.shape)}, as in the module", array.shape)
    own = str(tensor.dtype).removeprefix("torch.")
    allowed = {"uint16" if own == "bfloat16" else own} | (
        {"float32"} if tensor.is_floating_point() else set()
    )
    if array.dtype.name not in allowed:
        raise fm.UpdateError(f"dtype of {name!r}", " or ".join(sorted(allowed)), array.dtype)
    return array


def sum_of(tensor: Tensor, array: np.ndarray) -> Tensor:
    """Tensor plus update: floats in the tensor's dtype, or in float32 if that is wider (spec 1.6)."""
    if not tensor.is_floating_point():
        return torch.from_numpy(add(to_numpy(tensor), array))
    addend = torch.from_numpy(
        np.array(array, array.dtype.newbyteorder("="))
    )  # torch wants native and writable
    return tensor + (addend.view(torch.bfloat16) if array.dtype == np.uint16 else addend).to(tensor.device)


def _named_tensors(model: nn.Module) -> list[tuple[list[str], Tensor]]:
    """All parameters and persistent buffers with all their names, in the order of the state_dict."""
    if is_masked(model):
        raise RuntimeError("the module is under a PSM: finish() or restore() that first")
    sites = _sites(model)
    found: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in sites:  # a module may put other things in its state_dict
            found.setdefault(id(tensor), ([], tensor))[0].append(name)
    return list(found.values())


def _sites(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Where each parameter and buffer hangs, by its id."""
    sites: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for attributes in (
            module.named_parameters(recurse=False, remove_duplicate=False),
            module.named_buffers(recurse=False, remove_duplicate=False),
        ):
            for attribute, tensor in attributes:
                sites.setdefault(id(tensor), []).append((module, attribute))
    return sites


def _chosen(found: list[tuple[list[str], Tensor]], masked: Masked) -> set[str]:
    """First names of the masked parameters."""
    able = [
        (names, parameter)
        for names, parameter in found
        if isinstance(parameter, nn.Parameter) and parameter.requires_grad and parameter.is_floating_point()
    ]
    if masked is None:
        return {names[0] for names, parameter in able if parameter.dim() >= 2}
    if callable(masked):
        return {names[0] for names, parameter in able if masked(names[0], parameter)}
    if isinstance(masked, str):
        raise fm.ArgumentError("masked", "a collection of names", repr(masked))
    first = {name: names[0] for names, _ in able for name in names}
    if unknown := [name for name in masked if name not in first]:
        raise fm.ArgumentError("masked", "names of trainable floating-point parameters", unknown)
    return {first[name] for name in masked}

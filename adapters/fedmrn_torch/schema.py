"""The schema of a module (spec 5), the update of a dense tensor, and adding an update to the module."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import add, first_difference, subtract

from .masking import MaskedNoise, check_not_wrapped

Masked = Callable[[str, nn.Parameter], bool] | Collection[str] | None
"""The masked parameters: a predicate, their names, or None for all of two or more dimensions."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a module that its frames hold.

    Attributes
    ----------
    name : str
        The first of its names in the state_dict.
    tensor : Tensor
        The parameter or persistent buffer itself.
    sites : list of (Module, str)
        The modules and attributes that hold it; more than one if it is tied.
    masked : bool
    """

    name: str
    tensor: Tensor
    sites: list[tuple[nn.Module, str]]
    masked: bool

    @property
    def spec(self) -> fm.Tensor:
        """Its entry in the schema; a masked tensor is float32 there, whatever its own dtype (spec 5.2)."""
        dtype = "float32" if self.masked else str(self.tensor.dtype).removeprefix("torch.")
        return fm.Tensor(self.name, tuple(self.tensor.shape), self.masked, dtype)


def schema(model: nn.Module, masked: Masked = None) -> fm.Schema:
    """The schema of a module's updates; a `PSM` with the same module and `masked` has the same schema.

    It holds the trainable parameters and the persistent buffers, in the order of the state_dict. A tied
    parameter appears once, under the first of its names. Frozen parameters (requires_grad is False) are left
    out.

    Parameters
    ----------
    model : torch.nn.Module
        Unchanged.
    masked : callable, collection of str, or None
        The trainable floating-point parameters to mask: those for which `masked(name, parameter)` is true,
        those whose name is in the collection, or, for None, those of two or more dimensions. All other
        tensors are dense.

    Returns
    -------
    fedmrn_codec.Schema

    Raises
    ------
    fedmrn_codec.ArgumentError
        A name is not that of a trainable floating-point parameter, the format has no dtype for a tensor, or
        the module is a DataParallel, DistributedDataParallel or FSDP one: pass the module inside.
    RuntimeError
        A `PSM` is active on the module; call its `finish` or `restore` first.
    """
    return fm.Schema(entry.spec for entry in entries(model, masked))


def check_requested(requested: fm.Schema, model: nn.Module, remedy: str | None) -> set[str]:
    """Return a request's masked names; SchemaError, with `remedy`, if its schema is not the module's."""
    check_not_wrapped(model)
    masked = {tensor.name for tensor in requested if tensor.masked}
    try:
        own = schema(model, masked)
    except fm.ArgumentError as error:
        expected, got = error.expected, error.got
    else:
        if own == requested:
            return masked
        expected, got = "the model's own, fedmrn_torch.schema(model)", first_difference(requested, own)
    hint = f" ({remedy})" if remedy else ""
    raise fm.SchemaError("schema of the request", f"{expected}{hint}", got)


def entries(model: nn.Module, masked: Masked) -> list[Entry]:
    """The tensors of the schema, in its order; arguments and errors as in `schema`."""
    check_not_wrapped(model)
    found = _named_tensors(model)
    chosen = _chosen(found, masked)
    sites = _sites(model)
    return [
        Entry(names[0], tensor, sites[id(tensor)], names[0] in chosen)
        for names, tensor in found
        if not isinstance(tensor, nn.Parameter) or tensor.requires_grad
    ]


def apply_(model: nn.Module, arrays: Mapping[str, Any]) -> None:
    """Add an update (from `fedmrn_codec.decode` or `fedmrn_codec.Aggregator.mean`) to a module in place.

    Floats are added in the wider of the two dtypes and rounded once to the tensor's. Integers wrap around
    and bools are combined by exclusive-or (spec 1.6). If there is an error, nothing is changed.

    Parameters
    ----------
    model : torch.nn.Module
    arrays : mapping of str to array
        Arrays of the tensors' shapes and dtypes (bfloat16 as its bits, in uint16), or of float32 for any
        floating-point tensor. Tensors without an array keep their values. The arrays are not changed.

    Raises
    ------
    fedmrn_codec.UpdateError
        A name is not that of a tensor of the module, or an array's shape or dtype does not fit the tensor's.
    RuntimeError
        A `PSM` is active on the module; call its `finish` or `restore` first.
    """
    tensors = {names[0]: tensor for names, tensor in _named_tensors(model)}
    if unknown := [name for name in arrays if name not in tensors]:
        raise fm.UpdateError("update", "names of the module's tensors", unknown)
    addends = {name: _checked(name, tensors[name], np.asarray(array)) for name, array in arrays.items()}
    with torch.no_grad():
        for name, addend in addends.items():
            tensors[name].copy_(sum_of(tensors[name], addend))


def difference(now: Tensor, start: Tensor) -> np.ndarray:
    """The update of a dense tensor, now - start (of one shape and dtype), in the form of `to_numpy`.

    Integers wrap around and bools are combined by exclusive-or, so that `apply_` restores `now` (spec 1.6).
    """
    if now.is_floating_point():
        return to_numpy(now - start.to(now.device))
    return subtract(to_numpy(now), to_numpy(start))


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A copy of a tensor as the format stores it: of the same dtype, but bfloat16 as its bits, in uint16."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(np.uint16).copy()
    return tensor.numpy().copy()


HELD = "_fedmrn_psm"
"""The attribute of each tensor that an active `PSM` has, also of one that another module shares."""


def is_masked(model: nn.Module) -> bool:
    """Whether a `PSM` is active on a tensor of the module: one that is neither finished nor restored."""
    if any(isinstance(module, MaskedNoise) for module in model.modules()):
        return True
    return any(hasattr(tensor, HELD) for tensor in (*model.parameters(), *model.buffers()))


def _checked(name: str, tensor: Tensor, array: np.ndarray) -> np.ndarray:
    """Return the array if it can be added to the tensor; else raise UpdateError."""
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
    """Tensor plus update: floats in the wider of the two dtypes, others in the tensor's (spec 1.6)."""
    if not tensor.is_floating_point():
        return torch.from_numpy(add(to_numpy(tensor), array))
    native = np.array(
        array, array.dtype.newbyteorder("=")
    )  # torch needs native byte order and a writable array
    addend = torch.from_numpy(native)
    return tensor + (addend.view(torch.bfloat16) if array.dtype == np.uint16 else addend).to(tensor.device)


def _named_tensors(model: nn.Module) -> list[tuple[list[str], Tensor]]:
    """All parameters and persistent buffers with all their names, in the order of the state_dict."""
    if is_masked(model):
        raise RuntimeError(
            "module: expected one without an active PSM, got one under a PSM; call its finish() or restore()"
        )
    sites = _sites(model)
    found: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in sites:  # a module may put other things in its state_dict
            found.setdefault(id(tensor), ([], tensor))[0].append(name)
    return list(found.values())


def _sites(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """The modules and attributes that hold each parameter and buffer, by the id of the tensor."""
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
    """The first of the names of each masked parameter; `found` is from `_named_tensors`."""
    maskable = [
        (names, parameter)
        for names, parameter in found
        if isinstance(parameter, nn.Parameter) and parameter.requires_grad and parameter.is_floating_point()
    ]
    if masked is None:
        return {names[0] for names, parameter in maskable if parameter.dim() >= 2}
    if callable(masked):
        return {names[0] for names, parameter in maskable if masked(names[0], parameter)}
    if isinstance(masked, str):
        raise fm.ArgumentError("masked", "a collection of names", repr(masked))
    first = {name: names[0] for names, _ in maskable for name in names}
    if unknown := [name for name in masked if name not in first]:
        raise fm.ArgumentError("masked", "names of trainable floating-point parameters", unknown)
    return {first[name] for name in masked}

"""Decoding frames to tensors: packed payloads are copied to the device and decoded there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import DEFAULT_LIMITS, Entry, Expected, checked_names
from fedmrn_codec.adapter_api import torch as kernels

from .schema import _named_tensors, sum_of


def decode(
    frame: Any,
    schema: fm.Schema | None = None,
    *,
    device: torch.device | str = "cpu",
    out: Mapping[str, Tensor] | None = None,
    names: Collection[str] | None = None,
    round: int | None = None,
    base_model: int | None = None,
    seed: int | None = None,
    limits: fm.Limits = DEFAULT_LIMITS,
) -> dict[str, Tensor]:
    """Decode a frame to tensors on any device, with the same bits as `fedmrn_codec.decode`.

    Parameters
    ----------
    frame : bytes, bytearray, memoryview, mmap or any contiguous buffer; or a fedmrn_codec.CheckedFrame
    schema : fedmrn_codec.Schema, optional
        The model's schema; required unless the frame embeds one.
    device : torch.device or str
        Device of the tensors that are not in `out`.
    out : mapping of str to Tensor, optional
        Tensors to write into, by name, of the schema's shapes and dtypes; each may be on another device. If
        there is an error, they are not changed.
    names : collection of str, optional
        Decode only these tensors.
    round, base_model, seed : int, optional
        Refuse a frame with another value.
    limits : fedmrn_codec.Limits

    Returns
    -------
    dict of str to Tensor
        In schema order, the tensors of `out` and new ones for all others. Shapes and dtypes are the schema's;
        masked tensors are float32.

    Raises
    ------
    fedmrn_codec.FrameError
        A check of spec 7 fails; the first one that fails determines the subclass.
    fedmrn_codec.ArgumentError
        The schema has no tensor of a name, or a tensor of `out` has another shape or dtype.
    """
    checked, parts = _open(frame, Expected(schema, round, base_model, seed), limits, names)
    given = {} if out is None else dict(out)
    for tensor, _, _, _ in parts:
        if tensor.name in given:
            _check_out(tensor, given[tensor.name])
    if unknown := set(given) - {tensor.name for tensor, _, _, _ in parts}:
        raise fm.ArgumentError("out", "names of decoded tensors", sorted(unknown))
    decoded = {}
    with torch.no_grad():
        for tensor, stream, entry, content in parts:
            target = given.get(tensor.name)
            if target is None:
                target = torch.empty(tensor.shape, dtype=_dtype(tensor), device=device)
            _write(target, checked.seed, stream, entry, content)
            decoded[tensor.name] = target
    return decoded


def add_(
    model: nn.Module,
    frame: Any,
    schema: fm.Schema | None = None,
    *,
    scale: float = 1.0,
    round: int | None = None,
    base_model: int | None = None,
    seed: int | None = None,
    limits: fm.Limits = DEFAULT_LIMITS,
) -> None:
    """Add the update of one frame to a module in place, block by block.

    With the default scale the result equals `apply_(model, fm.decode(frame, schema))`, bit for bit, on any
    device. With another scale, float updates are first multiplied by it and rounded to their dtype; integers
    and bools are not scaled. Repeated calls do not compute the exact mean of many frames; for that use
    `fedmrn_codec.Aggregator`. If there is an error, nothing is changed.

    Parameters
    ----------
    model : torch.nn.Module
        Parameters and buffers may be on any devices and in any memory layout. The update of a contiguous
        masked parameter is never held in memory as a whole.
    frame, schema, round, base_model, seed, limits : as in `decode`
    scale : float
        Factor of the update; finite, rounded to float32.

    Raises
    ------
    fedmrn_codec.FrameError
        As in `decode`.
    fedmrn_codec.UpdateError
        The module has no tensor of a name of the schema, or one of another shape or dtype.
    fedmrn_codec.ArgumentError
        The scale is not finite.
    RuntimeError
        A `PSM` is active on the module; call its `finish` or `restore` first.
    """
    scale = float(np.float32(scale))
    if not np.isfinite(scale):
        raise fm.ArgumentError("scale", "a finite float32", scale)
    checked, parts = _open(frame, Expected(schema, round, base_model, seed), limits, None)
    own = {names[0]: tensor for names, tensor in _named_tensors(model)}
    if unknown := [tensor.name for tensor, _, _, _ in parts if tensor.name not in own]:
        raise fm.UpdateError("update", "names of the module's tensors", unknown)
    for tensor, _, _, _ in parts:
        _check_addend(tensor, own[tensor.name])
    with torch.no_grad():
        for tensor, stream, entry, content in parts:
            _add(own[tensor.name], checked.seed, stream, entry, content, scale)


Part = tuple[fm.Tensor, int, Entry, np.ndarray]
"""A tensor of the schema, its stream, its entry in the frame, and its payload."""


def _open(
    frame: Any, expected: Expected, limits: fm.Limits, names: Collection[str] | None
) -> tuple[fm.CheckedFrame, list[Part]]:
    """Make the checks of spec 7, of payloads only those of `names`; return frame and tensors to decode."""
    checked = fm.CheckedFrame.open(frame, expected, limits)
    selected = checked_names(names, checked.checked_schema)
    return checked, [
        (tensor, stream, entry, checked.elements(stream, "torch"))
        for stream, (tensor, entry) in enumerate(zip(checked.checked_schema, checked.tensors, strict=True))
        if tensor.name in selected
    ]


def _dtype(tensor: fm.Tensor) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, tensor.dtype)
    return dtype


def _check_out(tensor: fm.Tensor, target: Tensor) -> None:
    if tuple(target.shape) != tensor.shape or target.dtype != _dtype(tensor):
        found = f"{target.dtype} of shape {tuple(target.shape)}"
        raise fm.ArgumentError(f"out of {tensor.name!r}", f"{tensor.dtype} {tensor.shape}", found)


def _check_addend(tensor: fm.Tensor, own: Tensor) -> None:
    """Make the checks of `apply_`."""
    if tuple(own.shape) != tensor.shape:
        raise fm.UpdateError(
            f"shape of {tensor.name!r}", f"{tuple(own.shape)}, as in the module", tensor.shape
        )
    if _dtype(tensor) != own.dtype and not (own.is_floating_point() and tensor.dtype == "float32"):
        raise fm.UpdateError(f"dtype of {tensor.name!r}", f"{own.dtype}, as in the module", tensor.dtype)


def _write(target: Tensor, seed: int, stream: int, entry: Entry, content: np.ndarray) -> None:
    """Decode a payload into a tensor."""
    if entry.noise is None:
        target.copy_(_dense(content, target.dtype).view(target.shape))
        return
    flat = target.view(-1) if target.is_contiguous() else _flat_like(target)
    payload = kernels.shared(content).to(target.device)
    kernels.decode_into(entry.noise, entry.mask_kind, seed, stream, payload, flat)
    if not target.is_contiguous():
        target.copy_(flat.view(target.shape))


def _add(own: Tensor, seed: int, stream: int, entry: Entry, content: np.ndarray, scale: float) -> None:
    """Add a payload to a tensor of the module."""
    if entry.noise is not None and own.is_contiguous():
        payload = kernels.shared(content).to(own.device)
        kernels.add_into(entry.noise, entry.mask_kind, seed, stream, payload, scale, own.view(-1))
        return
    if not own.is_floating_point():
        own.copy_(sum_of(own, content.reshape(own.shape)))
        return
    if entry.noise is not None:
        update = _flat_like(own)
        _write(update, seed, stream, entry, content)
    else:
        update = _dense(content, getattr(torch, entry.dtype)).to(own.device)
    update = update.view(own.shape)
    own.add_(update if scale == 1 else update.mul_(scale))


def _flat_like(tensor: Tensor) -> Tensor:
    """An empty flat float32 tensor for the update of a tensor that is not contiguous."""
    return torch.empty(tensor.numel(), dtype=torch.float32, device=tensor.device)


def _dense(content: np.ndarray, dtype: torch.dtype) -> Tensor:
    """The elements of a dense payload, as a new flat tensor on the CPU."""
    if dtype == torch.bfloat16:
        return torch.from_numpy(content.view("<i2").astype(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(content.astype(content.dtype.newbyteorder("=")))

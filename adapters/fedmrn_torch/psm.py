"""PSM: progressive stochastic masking around a user's own training loop (Li et al., ACM MM 2024)."""

from __future__ import annotations

import hashlib
import secrets
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import U64, first_difference, masked_values, unsigned
from fedmrn_codec.errors import UpdateNonFiniteError

from .attach import Attached
from .masking import LOW, Sampler
from .schema import Masked, difference, entries, schema, to_numpy


class PSM:
    """Masked random noise on the parameters of a module, for the local training of one client in one round.

    While it lasts, each masked parameter holds an update u, which starts at zero and is what the optimiser
    trains; the forward pass uses the parameter's old value plus the masked noise. The parameter stays the
    same object, so the optimiser may have been made before or after; its weight decay, if any, acts on u.
    `finish` gives the frame and restores the module.

    In training mode every forward pass samples new masks; in eval mode the update enters clipped to the
    noise's reach, which is its mean. The gradient of u is that of the weight (straight-through).

    Parameters
    ----------
    model : torch.nn.Module
        Float parameters of any floating dtype; the noise is computed in float32.
    seed : int
        Public seed of the noise; unsigned 64-bit, another one for every client and round.
    noise : fedmrn_codec.Noise, or mapping of name to Noise
        For all masked parameters, or for each by name.
    mask : {"binary", "signed"}, or mapping of name to one of them
    steps : int, optional
        Number of local optimiser steps T: in step t = 1, 2, ... an element is masked with probability
        min(t / T, 1). Needed if `progressive`.
    masked : callable, collection of str, or None
        Which parameters to mask; see `schema`.
    stochastic, progressive : bool
        The ablations. Not `stochastic`: the mask is deterministic, in training and in the frame (the nearer
        of its two values). Not `progressive`: every element is masked from the first step on. Neither: plain
        training of base + u, and a deterministic mask made of its result.
    private_seed : int, optional
        Unsigned 64-bit, not `seed`. All masks are drawn from it and `seed` together. By default from the
        operating system; give one only where a run must repeat, and keep it secret (spec 4.3, [M-03]).

    Attributes
    ----------
    schema : fedmrn_codec.Schema
        What `schema(model, masked)` gave before.

    Raises
    ------
    fedmrn_codec.ArgumentError
        An argument out of range, or no parameter to mask. The module is unchanged.
    RuntimeError
        The module is already under a PSM.

    Examples
    --------
    >>> with PSM(model, seed=7, noise=fm.Uniform(0.01), steps=len(loader)) as psm:  # doctest: +SKIP
    ...     for x, y in loader:
    ...         loss(model(x), y).backward(); optimizer.step(); optimizer.zero_grad(); psm.step()
    ...     frame = psm.finish(round=3)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int,
        noise: fm.Noise | Mapping[str, fm.Noise],
        mask: str | Mapping[str, str] = "binary",
        steps: int | None = None,
        masked: Masked = None,
        stochastic: bool = True,
        progressive: bool = True,
        private_seed: int | None = None,
    ) -> None:
        found = entries(model, masked)
        self.schema = fm.Schema(entry.spec for entry in found)
        self._seed, self._noise, self._mask = seed, noise, mask
        self._asked: dict[str, Any] = {"round": 0, "base_model": 0, "coding": "raw", "dense_coding": "raw"}
        self._private_seed = _checked_private_seed(private_seed, seed)
        if not any(entry.masked for entry in found):
            raise fm.ArgumentError("masked", "at least one that is trainable", "no parameter")
        noises, lows = self._each(noise, "noise"), _lows(self._each(mask, "mask"))
        self._sampler = Sampler(
            _checked_steps(steps, progressive),
            bool(stochastic),
            bool(progressive),
            _derive(self._private_seed, seed, "training"),
        )
        values = {
            entry.name: fm.noise(noises[entry.name], seed=seed, stream=stream, count=entry.spec.size)
            for stream, entry in enumerate(found)
            if entry.masked
        }  # every argument has been checked now; from here on the module changes
        self._dense = {entry.name: entry for entry in found if not entry.masked}
        self._start = {name: entry.tensor.detach().clone() for name, entry in self._dense.items()}
        self._masked = Attached()
        self._hooks = [
            model.register_forward_pre_hook(self._sampler.begin),
            model.register_forward_hook(self._sampler.end, always_call=True),
        ]
        self._active = True
        try:
            for entry in found:
                if entry.masked:
                    self._masked.attach(entry, values.pop(entry.name), lows[entry.name], self._sampler)
        except BaseException:
            self.restore()
            raise

    @classmethod
    def from_request(
        cls, model: nn.Module, request: fm.Request, *, steps: int | None = None, **options: Any
    ) -> PSM:
        """A PSM with the seed, noise, mask and masked tensors that a server asks for.

        Its frame answers the request: what `finish` is not given, it takes from there.

        Parameters
        ----------
        model : torch.nn.Module
            With the arrays of the request's base model loaded.
        request : fedmrn_codec.Request
        steps : int, optional
        **options
            `stochastic`, `progressive`, `private_seed`.

        Raises
        ------
        fedmrn_codec.SchemaError
            The request is for another model, or one whose tensors have another order.
        fedmrn_codec.ArgumentError
            Another argument is out of range.
        """
        masked = {tensor.name for tensor in request.schema if tensor.masked}
        field = "schema of the request"
        try:
            own = schema(model, masked)
        except fm.ArgumentError as error:
            raise fm.SchemaError(field, error.expected, error.got) from None
        if own != request.schema:
            found = first_difference(request.schema, own)
            raise fm.SchemaError(field, "the model's own, fedmrn_torch.schema(model)", found)
        psm = cls(
            model,
            seed=request.seed,
            noise=request.noise,
            mask=request.mask,
            steps=steps,
            masked=masked,
            **options,
        )
        psm._asked = {name: getattr(request, name) for name in psm._asked}
        return psm

    @property
    def upload_seed(self) -> int:
        """The private seed that `finish` gives to `fedmrn_codec.encode`: secret, as `private_seed` is."""
        return _derive(self._private_seed, self._seed, "upload")

    def step(self) -> None:
        """Count one local step: call it once after each `optimizer.step()`."""
        self._require_active("step")
        self._sampler.step()

    def update(self) -> dict[str, np.ndarray]:
        """The client's update before masking: what `finish` encodes.

        Returns
        -------
        dict of str to numpy.ndarray
            In schema order, new arrays of the schema's dtypes (bfloat16 as uint16 bits): u of the masked
            parameters, trained minus start value of all else.
        """
        self._require_active("update")
        return {
            tensor.name: to_numpy(self._masked.update(tensor.name).float())
            if tensor.masked
            else difference(self._dense_now(tensor.name), self._start[tensor.name])
            for tensor in self.schema
        }

    def finish(
        self,
        *,
        round: int | None = None,
        base_model: int | None = None,
        embed_schema: bool = False,
        coding: str | Mapping[str, str] | None = None,
        dense_coding: str | Mapping[str, str] | None = None,
    ) -> bytes:
        """Encode the update as a frame, and restore the module.

        Parameters
        ----------
        round, base_model : int, optional
            Unsigned 32 and 64 bits; 0 means "not given". By default the request's, without one 0.
        embed_schema : bool
            Write the schema into the frame, so that it decodes without one.
        coding, dense_coding : str or mapping of str to str, optional
            As in `fedmrn_codec.encode`. By default the request's, without one raw.

        Returns
        -------
        bytes
            The masks are sampled by the codec (spec 4.3), or are the deterministic ones if not `stochastic`.

        Raises
        ------
        fedmrn_codec.UpdateError
            Training left a NaN or an infinity. The module is not restored then, nor with any other error:
            `restore`, or the end of the `with` block, does that.
        RuntimeError
            The PSM is finished.
        """
        self._require_active("finish")
        update = self.update()
        sampler, trained = self._sampler, any(update[name].any() for name in self._masked)
        if trained and sampler.progressive and sampler.done == 0:
            warnings.warn(
                "psm.step() was never called, so masking did not progress: call it after optimizer.step()",
                RuntimeWarning,
                stacklevel=2,
            )
        given = {"round": round, "base_model": base_model, "coding": coding, "dense_coding": dense_coding}
        settings: dict[str, Any] = {
            "seed": self._seed,
            "noise": self._noise,
            "mask": self._mask,
            "embed_schema": embed_schema,
            **self._asked,
            **{name: value for name, value in given.items() if value is not None},
        }
        if sampler.stochastic:
            frame = fm.encode(update, self.schema, private_seed=self.upload_seed, **settings)
        else:
            dense = {name: update[name] for name in self._dense}
            frame = fm.encode_bits(self._deterministic_bits(update), self.schema, dense=dense, **settings)
        self.restore()
        return frame

    def restore(self) -> None:
        """Give up: restore the module as it was, without a frame. Does nothing if that is already done.

        Parameters and buffers are the same objects as before with the values they had; their gradients are
        None.
        """
        if not self._active:
            return
        self._active = False
        for hook in self._hooks:
            hook.remove()
        self._masked.detach()
        with torch.no_grad():
            for name, entry in self._dense.items():
                entry.tensor.copy_(self._start[name])
                entry.tensor.grad = None
                for module, attribute in entry.sites:
                    if getattr(module, attribute, None) is not entry.tensor:
                        setattr(module, attribute, entry.tensor)

    def state_dict(self) -> dict[str, Any]:
        """All of a half-done training that `model.state_dict()` and the optimiser's do not hold.

        To resume, build the model and PSM with the same arguments, then load the model's, the optimiser's and
        this state. It holds the private seed: keep it secret. Nothing but numbers, strings and tensors, so
        that `torch.load(..., weights_only=True)` reads it.
        """
        self._require_active("state_dict")
        return {
            "settings": self._settings(),
            "private_seed": self._private_seed,
            "done": self._sampler.done,
            "drawn": self._sampler.drawn,
            "start": {name: start.clone() for name, start in self._start.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`.

        Raises
        ------
        fedmrn_codec.ArgumentError
            The state is of a PSM with other arguments, or of another model.
        """
        self._require_active("load_state_dict")
        settings = self._settings()
        for key, value in settings.items():
            if state["settings"].get(key) != value:
                raise fm.ArgumentError(
                    f"state_dict: {key}", f"{value!r}, as in this PSM", repr(state["settings"].get(key))
                )
        self._private_seed = state["private_seed"]
        self._sampler.private_seed = _derive(self._private_seed, self._seed, "training")
        self._sampler.done = state["done"]
        self._sampler.drawn = state["drawn"]
        for name, start in self._start.items():
            start.copy_(state["start"][name])

    def __enter__(self) -> PSM:
        """Return the PSM itself; the end of the block restores the module if `finish` did not."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the module, also after an exception."""
        self.restore()

    def _require_active(self, verb: str) -> None:
        if not self._active:
            raise RuntimeError(f"PSM.{verb}: this PSM is finished and its module restored; make a new one")

    def _dense_now(self, name: str) -> Tensor:
        """A dense tensor as it hangs in the module now."""
        module, attribute = self._dense[name].sites[0]
        value = getattr(module, attribute)
        assert isinstance(value, Tensor)
        return value.detach()

    def _deterministic_bits(self, update: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name in self._masked:
            if not np.isfinite(update[name]).all():
                raise UpdateNonFiniteError(f"{name!r}", "finite values", "a NaN or an infinity")
        return {name: to_numpy(self._masked.deterministic_bits(name)) for name in self._masked}

    def _settings(self) -> dict[str, Any]:
        """What two PSMs must have in common to share a state."""
        return {
            "schema": self.schema.digest.hex(),
            "seed": int(self._seed),
            "noise": {name: repr(its) for name, its in self._each(self._noise, "noise").items()},
            "mask": self._each(self._mask, "mask"),
            "steps": self._sampler.steps,
            "stochastic": self._sampler.stochastic,
            "progressive": self._sampler.progressive,
        }

    def _each(self, given: Any, field: str) -> dict[str, Any]:
        return masked_values(self.schema, given, field)


def _derive(private_seed: int, seed: int, purpose: str) -> int:
    """A 64-bit seed for one purpose, of the private and the public seed; never the public one."""
    digest = hashlib.sha256(f"fedmrn_torch {purpose} {private_seed} {seed}".encode()).digest()
    derived = int.from_bytes(digest[:8], "little")
    return derived if derived != seed else (derived + 1) % U64


def _checked_private_seed(private_seed: int | None, seed: int) -> int:
    if private_seed is None:
        return secrets.randbelow(U64)
    number = unsigned(private_seed, U64, "private_seed")
    if number == seed:
        raise fm.ArgumentError("private_seed", "another value than the public seed", number)
    return number


def _checked_steps(steps: Any, progressive: bool) -> int:
    if steps is None and not progressive:
        return 1
    if not hasattr(steps, "__index__") or steps.__index__() < 1:
        raise fm.ArgumentError("steps", "the number of local steps, 1 or more", repr(steps))
    return int(steps)


def _lows(masks: Mapping[str, Any]) -> dict[str, float]:
    for mask in masks.values():
        if mask not in LOW:
            raise fm.ArgumentError("mask", f"one of {', '.join(LOW)}", repr(mask))
    return {name: LOW[mask] for name, mask in masks.items()}

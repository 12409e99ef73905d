"""PSM: progressive stochastic masking around a user's own training loop (Li et al., ACM MM 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import checked_damping, fit_of, masked_values
from fedmrn_codec.errors import UpdateNonFiniteError

from .attach import Attached
from .draws import checked_private_seed, derived_seed
from .masking import Sampler, checked_steps, lows
from .notices import warn
from .schema import HELD, Masked, check_requested, difference, entries, to_numpy

UNDAMPED = {"damping": 1.0, "norm": None}
"""The settings of states that were saved before there was a damping."""


class PSM:
    """Masked random noise on the parameters of a module, for the local training of one client in one round.

    Until `finish` or `restore`, each masked parameter holds an update u, which starts at zero and which the
    optimiser trains. The forward pass uses the parameter's old value plus the masked noise. The parameter
    stays the same object, so the optimiser may be created before or after the PSM; its weight decay, if any,
    acts on u. `finish` returns the frame and restores the module.

    A DistributedDataParallel may be around the module, made before or after the PSM; then every process has a
    PSM of the same seed, and one of them sends its frame. FSDP and DataParallel are not supported.
    `torch.compile`, before the PSM or after, gives the same bits, but layers with masked weights run without
    it, and `fullgraph=True` cannot work.

    In training mode every forward pass samples new masks. In eval mode it uses u, clipped to the range of the
    masked noise, which is the mean of the masks. The gradient of u is that of the weight (straight-through).

    Parameters
    ----------
    model : torch.nn.Module
        The masked parameters may have any floating dtype; the noise is computed in float32.
    seed : int
        Public seed of the noise; unsigned 64-bit, different for every client and round.
    noise : fedmrn_codec.Noise, or mapping of name to Noise
        For all masked parameters, or for each by name.
    mask : {"binary", "signed"}, or mapping of name to one of them
        For all masked parameters, or for each by name.
    steps : int, optional
        Number of local optimiser steps T: in step t = 1, 2, ... an element is masked with probability
        min(t / T, 1). Required if `progressive`.
    masked : callable, collection of str, or None
        Which parameters to mask; see `schema`.
    stochastic, progressive : bool
        False gives the ablations of the paper. Without `stochastic`, masks are deterministic (the nearer of
        the two values), in training and in the frame. Without `progressive`, every element is masked from
        the first step on. Without both, training is plain training of base + u, and the frame holds the
        deterministic mask of its result.
    private_seed : int, optional
        Unsigned 64-bit, different from `seed`; all masks are derived from the two. By default it comes from
        the operating system. Pass one only to make a run repeatable, and keep it secret (spec 4.3, [M-03]).
    damping : float
        Above 0 and at most 1: updates are clipped at `damping` times the scale, in the forward pass and in
        the frame. Below 1, no mask bit is certain; it needs stochastic signed masks over Bernoulli noise.
    norm : float, optional
        Of the frame, as in `fedmrn_codec.encode`; the forward pass does not know it.

    Attributes
    ----------
    schema : fedmrn_codec.Schema
        `schema(model, masked)` of the module as it was before.
    clipped : float or None
        After `finish`: the share of masked elements whose update was larger than the scale of the noise times
        the damping.

    Raises
    ------
    fedmrn_codec.ArgumentError
        An argument is out of range, no parameter is masked, or the model is a wrapper such as
        DistributedDataParallel. The module is unchanged.
    RuntimeError
        A PSM is already active on the module. All methods but `restore` raise it once the PSM is finished.

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
        damping: float = 1.0,
        norm: float | None = None,
    ) -> None:
        found = entries(model, masked)
        self._model = model
        self.clipped: float | None = None
        self.schema = fm.Schema(entry.spec for entry in found)
        self._seed, self._noise, self._mask = seed, noise, mask
        self._defaults: dict[str, Any] = {"round": 0, "base_model": 0, "coding": "raw", "dense_coding": "raw"}
        self._private_seed = checked_private_seed(private_seed, seed)
        if not any(entry.masked for entry in found):
            raise fm.ArgumentError("masked", "at least one trainable floating-point parameter", "none")
        noises, low = self._each(noise, "noise"), lows(self._each(mask, "mask"))
        self._damping, self._norm = checked_damping(damping, norm, self.schema, noise, mask)
        if self._damping < 1 and not stochastic:
            raise fm.ArgumentError("damping", "1, since masks are not stochastic", damping)
        self._sampler = Sampler(
            checked_steps(steps, progressive),
            bool(stochastic),
            bool(progressive),
            derived_seed(self._private_seed, seed, "training"),
            self._damping,
        )
        values = {
            entry.name: fm.noise(noises[entry.name], seed=seed, stream=stream, count=entry.spec.size)
            for stream, entry in enumerate(found)
            if entry.masked
        }  # all arguments are checked now; the module changes from here on
        self._dense = {entry.name: entry for entry in found if not entry.masked}
        self._start = {name: entry.tensor.detach().clone() for name, entry in self._dense.items()}
        self._masked = Attached()
        self._hooks = [
            model.register_forward_pre_hook(self._sampler.begin),
            model.register_forward_hook(self._sampler.end, always_call=True),
        ]
        self._active, self._held = True, [entry.tensor for entry in found]
        self._dtypes = [entry.tensor.dtype for entry in found if entry.masked]
        try:
            for tensor in self._held:
                setattr(tensor, HELD, True)
            for entry in found:
                if entry.masked:
                    self._masked.attach(entry, values.pop(entry.name), low[entry.name], self._sampler)
        except BaseException:
            self.restore()
            raise

    @classmethod
    def from_request(
        cls,
        model: nn.Module,
        request: fm.Request,
        *,
        steps: int | None = None,
        remedy: str | None = None,
        **options: Any,
    ) -> PSM:
        """A PSM with the seed, noise, mask and masked tensors of a server's request.

        `finish` takes round, base model and codings from the request, unless they are passed to it.

        Parameters
        ----------
        model : torch.nn.Module
            With the arrays of the request's base model loaded.
        request : fedmrn_codec.Request
        steps : int, optional
        remedy : str, optional
            What the user can do about a `SchemaError`; appended to its message.
        **options
            `stochastic`, `progressive`, `private_seed`, `damping`, `norm`, as above.

        Raises
        ------
        fedmrn_codec.SchemaError
            The request's schema is not that of this model: a tensor differs, or the order of the tensors.
        fedmrn_codec.ArgumentError
            Another argument is out of range.
        """
        masked = check_requested(request.schema, model, remedy)
        psm = cls(
            model,
            seed=request.seed,
            noise=request.noise,
            mask=request.mask,
            steps=steps,
            masked=masked,
            **options,
        )
        psm._defaults = {name: getattr(request, name) for name in psm._defaults}
        return psm

    @property
    def upload_seed(self) -> int:
        """The private seed that `finish` passes to `fedmrn_codec.encode`; secret, like `private_seed`."""
        return derived_seed(self._private_seed, self._seed, "upload")

    def step(self) -> None:
        """Count one local step; call it once after each `optimizer.step()`.

        The first call beyond `steps` warns: every element has been masked since step T.
        """
        self._require_active("step")
        self._sampler.step()
        if self._sampler.progressive and self._sampler.done == self._sampler.steps + 1:
            _warn_about_steps(f"more than {self._sampler.steps} times", self._sampler.steps)

    def update(self) -> dict[str, np.ndarray]:
        """The client's update before masking, which `finish` encodes.

        Returns
        -------
        dict of str to numpy.ndarray
            In schema order, new arrays of the schema's dtypes (bfloat16 as its bits, in uint16): u for masked
            parameters, trained minus start value for all other tensors.
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
            Unsigned 32 and 64 bits; 0 means "not given". By default the request's; 0 without a request.
        embed_schema : bool
            Write the schema into the frame, so that a receiver can decode it without having the schema.
        coding, dense_coding : str or mapping of str to str, optional
            As in `fedmrn_codec.encode`. By default the request's; "raw" without a request.

        Returns
        -------
        bytes
            The frame. The codec samples its masks (spec 4.3); without `stochastic` they are deterministic.

        Warns
        -----
        RuntimeWarning
            `step` was called more or less often than `steps` says. Or the noise is one for all tensors, which
            no rule sets, and most of the update is beyond its scale or nearly none of it is seen.

        Raises
        ------
        fedmrn_codec.UpdateError
            The update holds a NaN or an infinity. After this or any other error the module is not restored;
            `restore`, or the end of the `with` block, does that.
        """
        self._require_active("finish")
        update = self.update()
        sampler = self._sampler
        given = {"round": round, "base_model": base_model, "coding": coding, "dense_coding": dense_coding}
        settings: dict[str, Any] = {
            "seed": self._seed,
            "noise": self._noise,
            "mask": self._mask,
            "embed_schema": embed_schema,
            **self._defaults,
            **{name: value for name, value in given.items() if value is not None},
        }
        if sampler.stochastic:
            settings |= {"damping": self._damping, "norm": self._norm}
            frame = fm.encode(update, self.schema, private_seed=self.upload_seed, **settings)
        else:
            dense = {name: update[name] for name in self._dense}
            frame = fm.encode_bits(self._deterministic_bits(update), self.schema, dense=dense, **settings)
        self._warn(update)
        self.restore()
        return frame

    def restore(self) -> None:
        """Restore the module as it was, without a frame; does nothing if the module is already restored.

        Parameters and buffers are the same objects as before, with the values that they had. Their gradients
        are None. A model that was moved meanwhile, or converted to another dtype, stays so; its buffers are
        new objects then.
        """
        if not self._active:
            return
        self._active = False
        for hook in self._hooks:
            hook.remove()
        converted = self._masked.dtypes() != self._dtypes
        self._masked.detach()
        for tensor in self._held:
            if hasattr(tensor, HELD):
                delattr(tensor, HELD)
        with torch.no_grad():
            for name, entry in self._dense.items():
                entry.tensor.copy_(self._start[name])
                entry.tensor.grad = None
                for module, attribute in entry.sites:
                    _put_back(module, attribute, entry.tensor, converted)

    def state_dict(self) -> dict[str, Any]:
        """The state of an unfinished training, without that of the optimiser.

        To resume, create the model and the PSM with the same arguments, then load the states of the optimiser
        and of the PSM. The model's is in the latter: while a PSM is active it holds updates in place of
        weights, so `model.state_dict()` alone warns that it is no checkpoint of the model. Like the states of
        torch, it refers to the tensors themselves: save it before the training continues. It holds the
        private seed, so keep it secret. It consists of numbers, strings and tensors, so
        `torch.load(..., weights_only=True)` can read it.
        """
        self._require_active("state_dict")
        return {
            "model": self._model_state(),
            "settings": self._settings(),
            "private_seed": self._private_seed,
            "done": self._sampler.done,
            "drawn": self._sampler.drawn,
            "start": {name: start.clone() for name, start in self._start.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned.

        Raises
        ------
        fedmrn_codec.ArgumentError
            The state comes from a PSM with other arguments, or of another model. Nothing has changed then.
        """
        self._require_active("load_state_dict")
        given = {**UNDAMPED, **state["settings"]}
        for key, value in self._settings().items():
            if (got := given.get(key)) != value:
                raise fm.ArgumentError(f"state_dict: {key}", f"{value!r}, as in this PSM", repr(got))
        self._check_model(state["model"])
        self._model.load_state_dict(state["model"])
        self._private_seed = state["private_seed"]
        self._sampler.private_seed = derived_seed(self._private_seed, self._seed, "training")
        self._sampler.done = state["done"]
        self._sampler.drawn = state["drawn"]
        for name, start in self._start.items():
            start.copy_(state["start"][name])

    def _model_state(self) -> dict[str, Any]:
        """The model's state_dict, without the warning that it holds updates."""
        self._sampler.saving = True
        try:
            return self._model.state_dict()
        finally:
            self._sampler.saving = False

    def _check_model(self, state: Mapping[str, Any]) -> None:
        """Refuse the state of another model: torch would copy what fits before it raises."""
        own = self._model_state()
        for name in {**own, **state}:
            expected, got = (
                tuple(each[name].shape) if isinstance(each.get(name), Tensor) else name in each
                for each in (own, state)
            )
            if expected != got:
                raise fm.ArgumentError(f"state_dict: model: {name}", f"{expected}, as in the model", got)

    def __enter__(self) -> PSM:
        """Return the PSM; the end of the block restores the module if `finish` did not."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the module, also after an exception."""
        self.restore()

    def _require_active(self, verb: str) -> None:
        if not self._active:
            raise RuntimeError(
                f"PSM.{verb}: expected an active PSM, got one that is finished; create a new one"
            )

    def _warn(self, update: Mapping[str, np.ndarray]) -> None:
        """Warn of what makes a frame worse than the user expects."""
        sampler, fit = self._sampler, fit_of(self._undamped(update), self.schema, self._noise)
        self.clipped = fit.clipped
        if sampler.progressive and sampler.done != sampler.steps and fit.used > 0:
            _warn_about_steps("1 time" if sampler.done == 1 else f"{sampler.done} times", sampler.steps)
        misfit = fit.misfit()
        if misfit and isinstance(self._noise, fm.Noise):
            remedy = f"{misfit.remedy} on the server, or fm.AdaptiveNoise there, which sets it"
            warn(f"{misfit.found}; {remedy}")

    def _undamped(self, update: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The masked tensors of an update, divided by the damping."""
        if self._damping == 1:
            return update
        with np.errstate(over="ignore"):
            return {name: update[name] / np.float32(self._damping) for name in self._masked}

    def _dense_now(self, name: str) -> Tensor:
        """A dense tensor, read from the module as it is now."""
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
        """The settings that a PSM must have to load the state of this one."""
        return {
            "schema": self.schema.digest.hex(),
            "seed": int(self._seed),
            "noise": {name: repr(noise) for name, noise in self._each(self._noise, "noise").items()},
            "mask": self._each(self._mask, "mask"),
            "steps": self._sampler.steps,
            "stochastic": self._sampler.stochastic,
            "progressive": self._sampler.progressive,
            "damping": self._damping,
            "norm": self._norm,
        }

    def _each(self, given: Any, field: str) -> dict[str, Any]:
        return masked_values(self.schema, given, field)


def _put_back(module: nn.Module, attribute: str, tensor: Tensor, converted: bool) -> None:
    """Put a tensor back in its place, on the device of what is there, and of its dtype if `converted`."""
    now = getattr(module, attribute, None)
    if now is tensor:
        return
    if isinstance(now, Tensor):
        moved = tensor.data.to(now.device, now.dtype if converted else tensor.dtype)
        if isinstance(tensor, nn.Parameter):
            tensor.data = moved
        elif moved.device != tensor.device or moved.dtype != tensor.dtype:
            tensor = moved
    setattr(module, attribute, tensor)


def _warn_about_steps(called: str, steps: int) -> None:
    """Warn that the number of steps is not the stated one."""
    warn(
        f"psm.step() was called {called}, but the PSM has steps={steps}: call it once after each "
        "optimizer.step(), and pass steps=epochs * batches, so that masking reaches all "
        "elements in the last step"
    )

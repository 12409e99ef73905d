"""Masked random noise during training: the masks of a forward pass and their straight-through gradient.

The method is progressive stochastic masking (PSM) of Li et al., ACM MM 2024. Here all values are in units of
the noise: a share is update / noise, clipped to [low, 1]; a mask value is low or 1; low is 0 for binary and
-1 for signed masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

import fedmrn_codec as fm

from . import fused
from .draws import draw, thresholds
from .notices import warn

LOW = {"binary": 0.0, "signed": -1.0}
"""Value that mask bit 0 stands for, by mask kind (spec 4.2); mask bit 1 always stands for 1."""


SHARDED = "a PSM needs whole parameters; use DistributedDataParallel, or none"

TWO_PASSES = (
    "activation checkpointing under a PSM: expected one forward pass before each backward(), got more, each "
    "with masks of its own; call backward() after each pass, which adds up gradients all the same"
)

WRAPPERS = {
    "DataParallel": "use DistributedDataParallel around the module, and pass the PSM the module inside",
    "DistributedDataParallel": "pass the module inside, ddp.module, and train with the wrapper as before",
    "FullyShardedDataParallel": SHARDED,
    "FSDPModule": SHARDED,
}
"""Names of torch's classes that distribute a module, and what to do instead of passing one to a PSM."""


def check_not_wrapped(model: nn.Module) -> None:
    """Raise ArgumentError if a module, or one inside, is distributed by a class of torch.

    Parameters of such a wrapper have other names than the model's own, and FSDP cuts them into pieces.
    """
    for module in model.modules():
        for cls in type(module).__mro__:
            if cls.__name__ in WRAPPERS and cls.__module__.startswith("torch."):
                expected = f"the model itself ({WRAPPERS[cls.__name__]})"
                raise fm.ArgumentError("model", expected, f"one in a {cls.__name__}")
    check_not_sharded(model)


def check_not_sharded(module: nn.Module) -> None:
    """Raise ArgumentError if FSDP, of either version, manages the parameters of a module."""
    if getattr(module, "_is_fsdp_managed_module", False):  # torch marks the modules inside so
        raise fm.ArgumentError("model", f"one without FSDP ({SHARDED})", "one that FSDP manages")


def lows(masks: Mapping[str, Any]) -> dict[str, float]:
    """The value of mask bit 0 for each masked tensor, from its checked mask kind."""
    for mask in masks.values():
        if mask not in LOW:
            raise fm.ArgumentError("mask", f"one of {', '.join(LOW)}", repr(mask))
    return {name: LOW[mask] for name, mask in masks.items()}


def checked_steps(steps: Any, progressive: bool) -> int:
    """The number of local steps, an integer of at least 1; it may be None only if not `progressive`."""
    if steps is None and not progressive:
        return 1
    if not hasattr(steps, "__index__") or steps.__index__() < 1:
        raise fm.ArgumentError("steps", "the number of local steps, 1 or more", repr(steps))
    return int(steps)


def clipped_share(update: Tensor, noise: Tensor, low: float, damping: float = 1.0) -> Tensor:
    """The clipped update in units of the noise: float32, in damping * [low, 1]; NaN stays NaN."""
    return torch.div(update.float(), noise).clamp_(low * damping, damping)


def deterministic_bits(share: Tensor, low: float) -> Tensor:
    """The mask bits without stochastic masking, bool: 1 where `share` is at least midway from low to 1."""
    return share >= (1.0 + low) / 2


def mask_(share: Tensor, draws: Tensor, low: float, tau: float, stochastic: bool) -> None:
    """Replace `share` by one sample of PSM, in units of the noise, in place.

    Each element is replaced by a mask value with probability `tau`, else unchanged. A mask value is 1
    with probability (share - low) / (1 - low), else low; if not `stochastic`, it is the nearer of the two.

    Parameters
    ----------
    share : Tensor
        float32, in [low, 1], dense in memory. Changed.
    draws : Tensor
        int16, shape (elements,), uniform, in memory order.
    low : float
        Value of mask bit 0: -1 or 0.
    tau : float
        Probability that an element is masked, in (0, 1].
    stochastic : bool
    """
    # All in place and in floats: comparisons that return bools are several times slower.
    share = share.as_strided((share.numel(),), (1,))
    value, masked = torch.empty_like(share), torch.empty_like(share)
    factor, offset = thresholds(low, tau)
    value.copy_(draws).mul_(factor).add_(offset)
    masked.copy_(value).lt_(1.0)
    if stochastic:
        value.lt_(share)
    else:
        value.copy_(deterministic_bits(share, low))
    if low:
        value.mul_(1.0 - low).add_(low)
    torch.lerp(share, value, masked, out=share)


class Sampler:
    """The state that the masked tensors of one PSM share: settings, local step and private draws.

    One forward pass of the root module samples one mask per parameter, however often it uses the parameter
    (tied weights, recurrent cells). Activation checkpointing, which recomputes parts of that pass during the
    backward pass, sees the same mask. Outside a forward pass every read of a weight samples a new mask.

    Parameters
    ----------
    steps : int
        Local steps T; in step t = 1, 2, ... an element is masked with probability min(t / T, 1).
    stochastic, progressive : bool
        As in `PSM`; if both are false, training does not mask at all.
    private_seed : int
        Unsigned 64-bit seed of the training masks.
    damping : float
        As in `PSM`.
    """

    def __init__(
        self, steps: int, stochastic: bool, progressive: bool, private_seed: int, damping: float = 1.0
    ) -> None:
        self.steps, self.stochastic, self.progressive = steps, stochastic, progressive
        self.damping = damping
        self.private_seed = private_seed
        self.done = 0
        self.drawn = 0
        self.saving = self._told = False
        self._weights: dict[tuple[MaskedNoise, bool], Tensor] = {}
        self._aside: dict[tuple[MaskedNoise, bool], Tensor] = {}  # of a pass without gradients
        self._depth, self._with_gradients = 0, True
        self._passes, self._backward = 0, -1  # passes with gradients since the last backward; its number

    @property
    def plain(self) -> bool:
        """Whether training does not mask at all."""
        return not (self.stochastic or self.progressive)

    @property
    def tau(self) -> float:
        """Probability that an element is masked in the current step."""
        return min((self.done + 1) / self.steps, 1.0) if self.progressive else 1.0

    def place(self) -> tuple[int, int]:
        """Seed and number for an array of draws; each call returns another number."""
        self.drawn += 1
        return self.private_seed, self.drawn

    def step(self) -> None:
        """Advance to the next local step."""
        self.done += 1
        self._passes = 0
        self._weights.clear()

    def begin(self, module: nn.Module, *_: Any) -> None:
        """Hook that runs before the root module's forward pass, which may call the module itself."""
        if torch.compiler.is_compiling():
            from . import untraced

            untraced.begin(self, module)
            return
        self._depth += 1
        check_not_sharded(module)
        if self._depth > 1:
            return
        self._with_gradients = torch.is_grad_enabled()
        if self._with_gradients:
            self._passes += 1
            self._weights.clear()
        else:  # the masks of a pass that is still to be differentiated are kept
            self._aside.clear()

    def end(self, *_: Any) -> None:
        """Hook that runs after the forward pass, also if that raised."""
        if torch.compiler.is_compiling():
            from . import untraced

            untraced.end(self)
            return
        self._depth = max(self._depth - 1, 0)

    def saved(self) -> None:
        """Warn, once, that a state_dict holds updates, unless it is the PSM's own."""
        if self.saving or self._told:
            return
        self._told = True
        warn(
            "this state_dict holds updates in place of weights, because a PSM is active; call its finish() "
            "or restore() first, or save psm.state_dict(), which holds the model's, to resume this training"
        )

    def weight(self, masked: MaskedNoise, update: Tensor) -> Tensor:
        """The weight that the forward pass uses for a parameter, without a gradient."""
        key, backward = (masked, masked.training), torch._C._current_graph_task_id()
        if backward not in (-1, self._backward):  # activation checkpointing computes the weight again
            if self._passes > 1:
                raise RuntimeError(TWO_PASSES)
            self._backward, self._passes = backward, 0
        in_backward = backward != -1
        weights = self._weights if in_backward or self._with_gradients else self._aside
        if (self._depth or in_backward) and key in weights:
            return weights[key].detach()
        weight = masked.effective(update)
        if self._depth:
            weights[key] = weight.detach()
        return weight


class MaskedNoise(nn.Module):
    """The parametrization of one masked parameter: from its update u to the weight of the forward pass.

    In training mode the weight is base + noise * (a sample of PSM). In eval mode it is base + the clipped
    update, which is the mean of stochastic masking. If training does not mask at all, it is base + u.

    Parameters
    ----------
    base : Tensor
        The parameter's value before training. Persistent, so that a state_dict holds all of a half-done
        training.
    noise : Tensor
        float32, of the same shape (spec 3).
    low : float
        Value of mask bit 0.
    sampler : Sampler
    """

    base: Tensor
    noise: Tensor

    def __init__(self, base: Tensor, noise: Tensor, low: float, sampler: Sampler) -> None:
        super().__init__()
        self.low, self.sampler = low, sampler
        self.register_buffer("base", base)
        layout = torch.empty_like(base, dtype=torch.float32)
        self.register_buffer("noise", layout.copy_(noise), persistent=False)

    def forward(self, update: Tensor) -> Tensor:
        """The weight, with the straight-through gradient to `update`."""
        if torch.compiler.is_compiling():
            from . import untraced

            return untraced.straight_through(update, self)
        return straight_through(update, self)

    def effective(self, update: Tensor) -> Tensor:
        """The weight, without a gradient; in training mode with a newly sampled mask."""
        sampler = self.sampler
        if sampler.plain:
            return self.base + update
        if not self.training:
            return self._moved(clipped_share(update, self.noise, self.low, sampler.damping))
        place, how = sampler.place(), (self.low, sampler.tau, sampler.stochastic)
        if fused.usable(self.base, self.noise, update):
            return fused.weight(self.base, self.noise, update, place, *how, sampler.damping)
        share = clipped_share(update, self.noise, self.low, sampler.damping)
        mask_(share, draw(share.numel(), share.device, *place), *how)
        return self._moved(share)

    def _moved(self, share: Tensor) -> Tensor:
        """The base plus `share` times the noise; overwrites `share`."""
        share.mul_(self.noise)
        if self.base.dtype == torch.float32:
            return share.add_(self.base)
        return (self.base + share).to(self.base.dtype)

    def deterministic_bits(self, update: Tensor) -> Tensor:
        """The mask bits of `update` without stochastic masking; bool."""
        return deterministic_bits(clipped_share(update, self.noise, self.low), self.low)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Warn that what is saved is half of a training."""
        self.sampler.saved()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _replicate_for_data_parallel(self) -> NoReturn:
        """Refuse the threads of a DataParallel, which would share the draws."""
        remedy = WRAPPERS["DataParallel"]
        raise RuntimeError(f"module under a PSM: expected no DataParallel around it; {remedy}")

    def _apply(self, fn: Any, recurse: bool = True) -> MaskedNoise:
        """Move with the model to another device, but keep the noise in float32."""
        noise = self.noise
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.noise = noise.to(self.noise.device)
        return self


def straight_through(update: Tensor, masked: MaskedNoise) -> Tensor:
    """The weight of a forward pass, whose gradient is that of the update."""
    weight: Tensor = _StraightThrough.apply(update, masked)  # type: ignore[no-untyped-call]
    return weight


class _StraightThrough(torch.autograd.Function):
    """Masking and clipping in the forward pass; the identity in the backward pass, also outside the range."""

    @staticmethod
    def forward(ctx: Any, update: Tensor, masked: MaskedNoise) -> Tensor:
        # Without a separate setup_context, torch does not inspect this function's signature at every call.
        return masked.sampler.weight(masked, update)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None

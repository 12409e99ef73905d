"""FedBAT (Li et al., ICML 2024): learns a binarised update and its scale for each layer.

"FedBAT: Communication-Efficient Federated Learning via Learnable Binarization", by the authors of FedMRN.
For the first part `warmup` of the local steps the update u trains as in FedAvg. Then each layer's scale
starts at the mean of |u|, and every forward pass uses +scale with probability (u / scale + 1) / 2, clipped,
else -scale. The gradient passes to u where |u| <= scale. The gradient of the scale is b - u / scale there,
where b is the drawn sign, and the sign of u elsewhere. The scale is trained as scale_0 * exp(rho * alpha),
within bounds. At the end the client sends a sample of the signs, and the scale. The defaults are those of
the authors' code for Fashion-MNIST: warm-up 0.5, rho 6, bounds 5e-4 and 5e-2, learning rate 0.1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..seeds import derive
from ..settings import Settings
from ..train import local_steps
from . import Task, register, run_sgd
from .base import Base, changes, copy_state
from .signs import signs_frame
from .substitute import Substituted, other_parameters


@register("fedbat")
class FedBAT(Base):
    """One bit for each parameter, and a float32 for each tensor.

    Options: `warmup`, the share of the local steps before binarisation, from 0 to 1; `rho`, the factor of
    alpha in the logarithm of the scale; `least` and `most`, the bounds of the scale.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {"warmup": 0.5, "rho": 6.0, "least": 5e-4, "most": 5e-2}

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.require("warmup", 0 <= self.options["warmup"] <= 1, "0 to 1")
        self.require("least", 0 < self.options["least"] <= self.options["most"], "above 0, at most `most`")

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train u and the scales, and send a sample of the signs."""
        s = self.settings
        schema, before = self.schema(model), copy_state(model)
        generator = torch.Generator().manual_seed(derive(task.private_seed, "fedbat"))
        bases = {t.name: model.get_parameter(t.name).detach() for t in schema if t.masked}
        layers = {name: Layer(base, self.options, generator) for name, base in bases.items()}
        trained = [tensor for layer in layers.values() for tensor in (layer.u, layer.alpha)]
        start = self.options["warmup"] * local_steps(len(task.y), s.batch_size, s.epochs)

        def after_step(step: int) -> None:
            if step + 1 > start:
                for layer in layers.values():
                    layer.binarise()

        run_sgd(
            Substituted(model, lambda: {name: layer.weight() for name, layer in layers.items()}),
            task,
            s,
            after_step,
            torch.optim.SGD([*trained, *other_parameters(model, set(layers))], lr=s.rate(task.round)),
        )
        with torch.no_grad():
            for layer in layers.values():
                layer.binarise()  # if training was too short to start it
            positive = {name: layer.draw().numpy() for name, layer in layers.items()}
            scales = {name: float(layer.scale()) for name, layer in layers.items()}
        return signs_frame(positive, scales, changes(model, before, schema, masked=False), schema, task)


class Layer:
    """The update of one tensor while it trains.

    Attributes
    ----------
    u : Tensor
        The update, of the base's shape.
    alpha : Tensor
        0-d; the scale is scale_0 * exp(rho * alpha).
    """

    def __init__(self, base: Tensor, options: dict[str, Any], generator: torch.Generator) -> None:
        self.base, self.options, self.generator = base, options, generator
        self.u = torch.zeros_like(base).requires_grad_()
        self.alpha = torch.zeros((), requires_grad=True)
        self._first: Tensor | None = None

    def binarise(self) -> None:
        """Start to binarise, with the present mean magnitude as the scale; later calls do nothing."""
        if self._first is None:
            self._first = self.u.detach().abs().mean()

    def scale(self) -> Tensor:
        """The scale: 0-d, differentiable."""
        assert self._first is not None
        free = self._first * torch.exp(self.options["rho"] * self.alpha)
        return free.clamp(self.options["least"], self.options["most"])

    def weight(self) -> Tensor:
        """Base plus update; the update is binarised from the first call of `binarise` on."""
        if self._first is None:
            return self.base + self.u
        draws = torch.rand(self.u.shape, generator=self.generator)
        update: Tensor = Binarised.apply(self.u, self.scale(), draws)  # type: ignore[no-untyped-call]
        return self.base + update

    def draw(self) -> Tensor:
        """A sample of the signs: bool, True for positive."""
        return positive(self.u, self.scale(), torch.rand(self.u.shape, generator=self.generator))


def positive(u: Tensor, scale: Tensor, draws: Tensor) -> Tensor:
    """Signs that are positive with probability (u / scale + 1) / 2, clipped; draws are uniform on [0, 1)."""
    return draws < (u / scale + 1) / 2


class Binarised(torch.autograd.Function):
    """Samples +scale or -scale, with the gradients of the paper."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, scale: Tensor, draws: Tensor) -> Tensor:
        """Draw a sample."""
        signs = torch.where(positive(u, scale, draws), 1.0, -1.0)
        ctx.save_for_backward(u / scale, signs)
        return signs * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """Pass the gradient to u where |u| <= scale, and to the scale as the module's docstring says."""
        share, signs = ctx.saved_tensors
        inside = share.abs() <= 1
        to_scale = torch.where(inside, signs - share, share.sign())
        return grads[0] * inside, (grads[0] * to_scale).sum(), None

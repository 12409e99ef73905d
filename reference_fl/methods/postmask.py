"""Post-training masking: an ablation of FedMRN (Li et al., ACM MM 2024) that trains as FedAvg does.

The client masks only the final update, by the same stochastic masking (spec 4.3), and sends the same frame;
the masks have no influence on training. The default learning rate is FedAvg's: with FedMRN's 0.1, values of
an ordinary update lie outside the range of the noise and are clipped. (FedMRN with neither SM nor PM has
FedMRN's rate, and the nearest masks in place of sampled ones.)
"""

from __future__ import annotations

from torch import nn

import fedmrn_codec as fm

from ..settings import Settings, noise_of
from . import Task, register
from .base import Base, trained_update


@register("postmask")
class PostMask(Base):
    """Sends masks of an ordinary update. No options; mask kind and noise are settings."""

    HAS_MASKS = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.noise = noise_of(settings)

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train with SGD, and send sampled masks of the difference."""
        schema = self.schema(model)
        return fm.encode(
            trained_update(model, task, self.settings, schema),
            schema,
            noise=self.noise,
            mask=self.settings.mask or "binary",
            private_seed=task.private_seed,
            **task.header,
        )

    def server(
        self, schema: fm.Schema, round: int, base_model: int, model: nn.Module | None = None
    ) -> fm.Aggregator:
        """A collector of the exact weighted mean; frames with another noise are refused."""
        return fm.Aggregator(schema, noise=self.noise, round=round, base_model=base_model)

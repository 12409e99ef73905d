"""FedAvg (McMahan et al., AISTATS 2017): sends the change of every parameter with 32 bits."""

from __future__ import annotations

from torch import nn

import fedmrn_codec as fm
import fedmrn_torch

from . import Task, register
from .base import Base, trained_update


@register("fedavg")
class FedAvg(Base):
    """Sends frames in which all tensors are dense. No options."""

    def schema(self, model: nn.Module) -> fm.Schema:
        """All tensors of the model, dense."""
        return fedmrn_torch.schema(model, masked=())

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train with SGD; send the difference."""
        schema = self.schema(model)
        update = trained_update(model, task, self.settings, schema)
        return fm.encode(update, schema, noise={}, mask={}, **task.header)

    def server(
        self, schema: fm.Schema, round: int, base_model: int, model: nn.Module | None = None
    ) -> fm.Aggregator:
        """A collector of the exact weighted mean."""
        return fm.Aggregator(schema, round=round, base_model=base_model)

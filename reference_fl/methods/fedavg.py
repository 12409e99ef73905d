"""FedAvg (McMahan et al., AISTATS 2017): every parameter's difference, 32 bits each."""

from __future__ import annotations

from torch import nn

import fedmrn_codec as fm
import fedmrn_torch

from ..settings import Settings
from . import Task, register, run_sgd


@register("fedavg")
class FedAvg:
    """Frames whose tensors are all dense."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def schema(self, model: nn.Module) -> fm.Schema:
        """All tensors of the model, dense."""
        return fedmrn_torch.schema(model, masked=())

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train with SGD; send the difference."""
        schema = self.schema(model)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        run_sgd(model, task, self.settings)
        after = model.state_dict()
        return fm.encode(
            {t.name: (after[t.name] - before[t.name]).numpy() for t in schema},
            schema,
            seed=task.seed,
            noise={},
            mask={},
            round=task.round,
            base_model=task.base_model,
        )

    def server(self, schema: fm.Schema, round: int, base_model: int) -> fm.Aggregator:
        """The exact weighted mean."""
        return fm.Aggregator(schema, round=round, base_model=base_model)

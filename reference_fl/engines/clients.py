"""The clients of a run in one process: the data set, and one model that they train in turn."""

from __future__ import annotations

import safetensors.torch
import torch

from .. import methods, models
from ..data import Dataset
from ..settings import Settings, split
from . import Assignment, Reply


class Clients:
    """All clients of a run, trained one at a time. Sets the number of torch's threads.

    Parameters
    ----------
    settings : Settings
    data : Dataset

    Raises
    ------
    ValueError
        The settings do not fit the data.
    """

    def __init__(self, settings: Settings, data: Dataset) -> None:
        torch.set_num_threads(settings.threads)
        self._data, self._parts = data, split(settings, data)
        self._model = models.build(settings.model, data.in_shape, data.classes, seed=0)
        self._method = methods.build(settings)

    def answer(self, broadcast: bytes, assignment: Assignment) -> Reply:
        """Train one client."""
        self._model.load_state_dict(safetensors.torch.load(broadcast))
        index = torch.from_numpy(self._parts[assignment.client])
        task = methods.Task(
            x=self._data.train_x[index],
            y=self._data.train_y[index],
            round=assignment.round,
            base_model=assignment.base_model,
            seed=assignment.seed,
            private_seed=assignment.private_seed,
            order_seed=assignment.order_seed,
            client=assignment.client,
            augment=self._data.augment,
            instructions=assignment.instructions,
            memory=dict(assignment.memory),
        )
        message = self._method.client(self._model, task)
        return Reply(assignment.client, message, task.memory)

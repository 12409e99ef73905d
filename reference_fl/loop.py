"""The federated loop: sample clients, train, send real frames, aggregate exactly, evaluate, keep it all."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

import fedmrn_codec as fm
from fedmrn_codec import backends

from . import methods, models
from .data import Dataset
from .layers import MaskCounts
from .record import Record
from .seeds import derive
from .settings import Settings, split
from .train import evaluate

PROGRESS = Callable[[str, int, int], None]
OWN = "method state/"
"""Before the names of what a method remembers, in the file of the model's state."""


@dataclass
class Uplink:
    """Bytes of the messages of one round, by kind."""

    mask: int = 0
    dense: int = 0
    header: int = 0

    def add(self, info: methods.Sizes) -> None:
        """Count one message."""
        self.mask += info.mask_bytes
        self.dense += info.dense_bytes
        self.header += info.header_bytes


def run(
    settings: Settings,
    data: Dataset,
    folder: Path,
    *,
    verify: bool = False,
    progress: PROGRESS = lambda what, done, of: None,
) -> Iterator[dict[str, Any]]:
    """Train a federation, one round at a time; go on where an earlier call stopped.

    A round depends on the settings, its number, the global model and what the method remembers alone; the
    last two are saved together after each round. So a run that was killed and resumed gives what an unbroken
    one gives, to the bit, on the same machine.

    Parameters
    ----------
    settings : Settings
    data : Dataset
    folder : pathlib.Path
        Holds `metrics.jsonl` (spec of the keys: `record.py`) and `state.safetensors`.
    verify : bool
        Decode every frame with every installed backend too, and compare the bytes.
    progress : callable
        Called with ("round" or "client", how many are done, of how many).

    Yields
    ------
    dict
        The line of each finished round, those of earlier calls included.

    Raises
    ------
    ValueError
        The settings do not fit the data, or the folder holds a run with other settings.
    """
    torch.set_num_threads(settings.threads)
    clients = split(settings, data)
    model = models.build(settings.model, data.in_shape, data.classes, derive(settings.seed, "model"))
    method = methods.build(settings)
    with Record.open(folder, settings) as record:
        kept = record.load_state()
        if kept is None:
            method.start(model)
        else:
            _restore(safetensors.torch.load(kept), model, method)
        yield from record.rounds
        for number in range(len(record.rounds) + 1, settings.rounds + 1):
            progress("round", number - 1, settings.rounds)
            masks = MaskCounts()
            line = _round(settings, data, clients, model, method, number, masks, verify, progress)
            whole = {**_state(model), **{OWN + name: t for name, t in method.state().items()}}
            state = safetensors.torch.save(whole, metadata={"round": str(number)})
            record.append(line, state, masks.line(number))
            yield line
        progress("round", settings.rounds, settings.rounds)


def _round(
    settings: Settings,
    data: Dataset,
    clients: list[np.ndarray],
    model: nn.Module,
    method: methods.Method,
    number: int,
    masks: MaskCounts,
    verify: bool,
    progress: PROGRESS,
) -> dict[str, Any]:
    """One round, from `model` to `model`; its line of metrics, and what its masks add to `masks`."""
    start = time.perf_counter()
    broadcast = safetensors.torch.save(_state(model))
    base_model = int.from_bytes(hashlib.sha256(broadcast).digest()[:8], "little") or 1
    schema = method.schema(model)
    server = method.server(schema, number, base_model, model)
    uplink = Uplink()
    chosen = _choose(settings, number)
    for done, client in enumerate(chosen):
        progress("client", done, len(chosen))
        model.load_state_dict(safetensors.torch.load(broadcast))
        index = torch.from_numpy(clients[client])
        task = methods.Task(
            x=data.train_x[index],
            y=data.train_y[index],
            round=number,
            base_model=base_model,
            seed=derive(settings.seed, "noise", number, client),
            private_seed=derive(settings.seed, "private", number, client),
            order_seed=derive(settings.seed, "order", number, client),
            client=client,
            augment=data.augment,
        )
        message = method.client(model, task)
        if verify:
            compare_backends(*method.frame(message, schema))
        uplink.add(server.add(message, weight=len(index), seed=task.seed))
        masks.add(message, schema)
    model.load_state_dict(safetensors.torch.load(broadcast))
    method.apply_(model, server.mean(), number)
    accuracy, loss = evaluate(method.evaluated(model, number), data.test_x, data.test_y)
    return {
        "dataset": settings.dataset,
        "partition": settings.partition,
        "method": settings.method,
        "mask": settings.mask,
        "seed": settings.seed,
        "round": number,
        "accuracy": accuracy,
        "loss": loss,
        "clients": len(chosen),
        "uplink_mask_bytes": uplink.mask,
        "uplink_dense_bytes": uplink.dense,
        "uplink_header_bytes": uplink.header,
        "downlink_bytes": len(broadcast) * len(chosen),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _choose(settings: Settings, number: int) -> list[int]:
    """The clients of a round, without replacement."""
    rng = np.random.default_rng(derive(settings.seed, "clients", number))
    return [int(c) for c in rng.choice(settings.clients, settings.clients_per_round, replace=False)]


def _restore(state: dict[str, torch.Tensor], model: nn.Module, method: methods.Method) -> None:
    """Put a saved state back into the model and the method."""
    own = {name: tensor for name, tensor in state.items() if name.startswith(OWN)}
    model.load_state_dict({name: tensor for name, tensor in state.items() if name not in own})
    method.load_state({name.removeprefix(OWN): tensor for name, tensor in own.items()})


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def compare_backends(message: bytes, schema: fm.Schema) -> None:
    """Decode a frame, or the frame in a message, with every installed backend.

    Raises
    ------
    RuntimeError
        Two of them give different bytes: a defect of a backend.
    """
    names = backends.installed()
    first = fm.decode(message, schema, backend=names[0])
    for other in names[1:]:
        for name, array in fm.decode(message, schema, backend=other).items():
            if array.tobytes() != first[name].tobytes():
                raise RuntimeError(f"backends {names[0]} and {other} decode {name!r} differently")

"""The federated loop: the rounds run in order, and each is saved before the next begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from .data import Dataset
from .engines import Engine
from .engines.local import Local
from .mask_counts import MaskCounts
from .objective import Objective
from .record import Record
from .server import PROGRESS, Server
from .settings import Settings, split
from .smooth import Smooth
from .traffic import Traffic


def run(
    settings: Settings,
    data: Dataset,
    folder: Path,
    *,
    engine: Engine | None = None,
    verify: bool = False,
    progress: PROGRESS = lambda what, done, of: None,
) -> Iterator[dict[str, Any]]:
    """Train a federation, one round at a time; continue where an earlier call stopped.

    A round depends only on the settings, its number, the global model and the states that server and clients
    keep; model and states are saved together after each round. On the same kind of machine a run that was
    killed and resumed therefore gives the same bits as an uninterrupted one, with any engine.

    Parameters
    ----------
    settings : Settings
    data : Dataset
    folder : pathlib.Path
        Holds `metrics.jsonl` and `state.safetensors`, which `record.py` describes.
    engine : Engine, optional
        Runs the clients; by default they run in this process. Started only if a round is left to do.
    verify : bool
        Also decode every frame with every installed backend, and compare the bytes.
    progress : callable
        Called with "round" or "client", the number done and the total.

    Yields
    ------
    dict
        The line of each finished round, including those of earlier calls.

    Raises
    ------
    ValueError
        The settings do not fit the data, or the folder holds a run with other settings.
    ClientError
        A client of the engine failed; the finished rounds are kept.
    """
    torch.set_num_threads(settings.threads)
    engine = engine or Local(settings, data)
    weights = [len(part) for part in split(settings, data)]
    server = Server(settings, data, weights)
    with Record.open(folder, settings, engine.name, server.method.options) as record:
        if (kept := record.load_state()) is not None:
            server.restore(safetensors.torch.load(kept))
        objective = Objective(server.model, settings, data) if isinstance(server.model, Smooth) else None
        yield from record.rounds
        numbers = range(len(record.rounds) + 1, settings.rounds + 1)
        with engine if numbers else nullcontext():
            for number in numbers:
                progress("round", number - 1, settings.rounds)
                masks, traffic = MaskCounts(), Traffic()
                line = server.round(number, engine, masks, traffic, verify, progress)
                state = safetensors.torch.save(server.state(), metadata={"round": str(number)})
                own = objective.line(number, server.evaluated(number)) if objective else None
                others = {
                    "layers": masks.line(number),
                    "objective": own,
                    "traffic": traffic.line(number),
                    "secure": traffic.secure,
                }
                record.append(line, state, others)
                yield line
        progress("round", settings.rounds, settings.rounds)

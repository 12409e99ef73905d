"""Frames to measure on: for the paper's networks, with synthetic or trained updates."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

import fedmrn_codec as fm
import fedmrn_torch
from fedmrn_codec import backends
from reference_fl import data, methods, models, server
from reference_fl.methods.base import copy_state
from reference_fl.record import read
from reference_fl.seeds import derive
from reference_fl.settings import Settings, split

SHAPES = {"cnn2": (1, 8, 8), "cnn4": (1, 28, 28), "cnn8": (3, 32, 32)}
CLASSES, SEED, PRIVATE_SEED = 10, 7, 99
NOISE = fm.Uniform(0.01)
BACKEND = backends.installed()[0]  # by name, since the default begins with NumPy
SPREADS = 2.6, 1.0, 0.7, 0.15, 0.7
"""Standard deviations of a synthetic update divided by the noise scale, from the first masked tensor to the
last. They give the densities, and about the entropy, of CNN4's masks on Fashion-MNIST after 16 rounds."""


@cache
def schema_of(model: str) -> fm.Schema:
    """The schema of a network in `SHAPES`."""
    return fedmrn_torch.schema(models.build(model, SHAPES[model], CLASSES, 1))


def float32_bytes(schema: fm.Schema) -> int:
    """The bytes of an update in the schema's own dtypes."""
    return sum(tensor.size * np.dtype(tensor.dtype).itemsize for tensor in schema)


def update_of(schema: fm.Schema) -> dict[str, np.ndarray]:
    """A synthetic update whose masks resemble trained ones: Laplace values, with `SPREADS` by depth."""
    rng = np.random.default_rng(0)
    masked = [tensor.name for tensor in schema if tensor.masked]
    depths = np.linspace(0, len(SPREADS) - 1, len(masked))
    spreads = dict(zip(masked, np.interp(depths, range(len(SPREADS)), SPREADS), strict=True))
    out = {}
    for tensor in schema:
        spread = NOISE.scale * spreads.get(tensor.name, 1.0)
        out[tensor.name] = rng.laplace(0, spread / np.sqrt(2), tensor.shape).astype(tensor.dtype)
    return out


def made_frame(model: str, **options: Any) -> bytes:
    """The frame of a synthetic update; `options` are those of `fm.encode`, such as mask and codings."""
    schema = schema_of(model)
    return fm.encode(update_of(schema), schema, seed=SEED, noise=NOISE, private_seed=PRIVATE_SEED, **options)


def trained_frames(folder: Path, most: int) -> tuple[list[bytes], fm.Schema, str]:
    """The frames that a run's clients would send in its next round; their schema; and a description.

    Raises
    ------
    ValueError
        The folder does not hold a run of FedMRN.
    """
    ((header, rounds),) = read(folder / "metrics.jsonl")
    settings, number = Settings(**header["settings"]), len(rounds) + 1
    if settings.method != "fedmrn":
        raise ValueError(f"method of the run in {folder}: expected fedmrn, got {settings.method}")
    raw, samples = (folder / "state.safetensors").read_bytes(), data.load(settings.dataset)
    parts, chosen = split(settings, samples), server.choose(settings, number)[:most]
    torch.set_num_threads(settings.threads)
    run = server.Server(settings, samples, [len(part) for part in parts])
    run.restore(safetensors.torch.load(raw))
    state = copy_state(run.download.model)  # from which clients train
    frames = []
    for client in chosen:
        run.model.load_state_dict(state)
        frames.append(_train(run, samples, parts[client], number, client))
    what = f"{settings.dataset}, {len(frames)} clients of round {number}, {settings.mask} masks"
    return frames, fedmrn_torch.schema(run.model), what


def _train(run: server.Server, samples: data.Dataset, part: np.ndarray, number: int, client: int) -> bytes:
    index, seed = torch.from_numpy(part), run.settings.seed
    task = methods.Task(
        x=samples.train_x[index],
        y=samples.train_y[index],
        round=number,
        base_model=1,
        seed=derive(seed, "noise", number, client),
        private_seed=derive(seed, "private", number, client),
        order_seed=derive(seed, "order", number, client),
        client=client,
        augment=samples.augment,
        instructions=run.method.instructions(),
    )
    return run.method.client(run.model, task)

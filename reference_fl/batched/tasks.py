"""Small federated tasks: a network, data, a split among clients, and the settings of local training."""

from __future__ import annotations

import inspect
import pydoc_data.topics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import data, partition
from .layout import Layout
from .local import draw_batches, train
from .lora import LoRA
from .nets import CNN, MLP, Net
from .sequences import LSTM, Transformer

Split = Callable[[np.ndarray, int, int], list[np.ndarray]]
LENGTH = 32  # characters of a sequence
ALPHABET = " etaoinsrlhdcupmfgybvwkxqjz0123456789.,:;()[]{}<>_-=+*/\\'\"`|#%!?@&^~$\n"


@dataclass(frozen=True)
class Task:
    """A federated task; `split` is a function of (labels, clients, seed).

    Attributes
    ----------
    start : dict of str to Tensor, optional
        Pretrained parameters; without them the network draws its own by the seed of the run.
    """

    name: str
    net: Net
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    split: Split
    rate: float
    clients: int = 100
    sampled: int = 10
    batch: int = 32
    epochs: int = 2
    rounds: int = 30
    start: dict[str, Tensor] | None = None


_TASKS: dict[str, Callable[[], Task]] = {}

SPLITS: dict[str, Split] = {
    "iid": partition.iid,
    "labels": lambda y, n, seed: partition.labels_per_client(y, n, seed, k=3),
    "dirichlet": lambda y, n, seed: partition.dirichlet(y, n, seed, alpha=0.3),
    "groups": lambda y, n, seed: list(np.array_split(np.arange(len(y)), n)),
}


def register(name: str, *splits: str) -> Callable[[Callable[[], Task]], Callable[[], Task]]:
    """Register a task once a split, as name-split."""

    def add(make: Callable[[], Task]) -> Callable[[], Task]:
        for split in splits:
            full = f"{name}-{split}"
            if full in _TASKS:
                raise ValueError(f"task {full!r} is registered already")
            _TASKS[full] = lambda full=full, split=split: replace(  # type: ignore[misc]
                make(), name=full, split=SPLITS[split]
            )
        return make

    return add


def names() -> list[str]:
    """All tasks."""
    return list(_TASKS)


@lru_cache(maxsize=4)
def task(name: str) -> Task:
    """A task by name; data and pretrained weights are made anew each time, the same each time."""
    if name not in _TASKS:
        raise ValueError(f"task: expected one of {', '.join(_TASKS)}, got {name!r}")
    return _TASKS[name]()


@cache
def _fashion() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fashion-MNIST, 2x2 means: 14x14; 30,000 for training, 4,000 for test; and 30,000 others kept aside."""
    found = data.load("fashion-mnist")
    pooled = F.avg_pool2d(found.train_x, 2)
    return pooled, found.train_y, F.avg_pool2d(found.test_x[:4000], 2), found.test_y[:4000]


def _fashion_task(net: Net, rate: float, **more: object) -> Task:
    x, y, test_x, test_y = _fashion()
    return Task("", net, (x[:30000], y[:30000]), (test_x, test_y), SPLITS["iid"], rate, **more)  # type: ignore[arg-type]


@cache
def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    found = data.load("digits")
    return (found.train_x, found.train_y), (found.test_x, found.test_y)


def _encode(text: str) -> Tensor:
    code = {c: i for i, c in enumerate(ALPHABET)}
    return torch.tensor([code.get(c, 0) for c in text.lower()])


def _windows(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Consecutive windows and the tokens that follow each of their places."""
    count = (len(tokens) - 1) // LENGTH
    return tokens[: count * LENGTH].view(count, LENGTH), tokens[1 : count * LENGTH + 1].view(count, LENGTH)


def _text(tokens: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test windows: of every six the last is for test, 600 at most; three are left out."""
    x, y = _windows(tokens)
    place = torch.arange(len(x)) % 6
    own, held = (place == 0) | (place == 2), place == 5
    return (x[own], y[own]), (x[held][:600], y[held][:600])


@cache
def _manual() -> Tensor:
    """The text of Python's own manual topics, which every Python ships."""
    return _encode("\n".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics)))


@cache
def _sources() -> Tensor:
    """Source code of modules of the standard library."""
    import argparse
    import dataclasses
    import decimal
    import inspect as inspected
    import pathlib
    import subprocess
    import tarfile
    import typing

    modules = (argparse, dataclasses, decimal, inspected, pathlib, subprocess, tarfile, typing)
    return _encode("".join(inspect.getsource(module) for module in modules))


def pretrain(
    net: Net, samples: tuple[Tensor, Tensor], rate: float, steps: int, seed: int
) -> dict[str, Tensor]:
    """Parameters after central SGD, batch 64, the rate falling linearly to zero in ten parts."""
    layout = Layout(net.shapes)
    generator = torch.Generator().manual_seed(seed)
    base = layout.flatten(net.init(generator))
    buffers = {n: b.unsqueeze(0).clone() for n, b in net.buffers().items()}
    for part in range(10):
        order = torch.randperm(len(samples[1]), generator=generator)[: 64 * steps // 10]
        batches = draw_batches([order], 64, 1, generator)
        changes = train(net, layout, base, buffers, samples, batches, rate * (1 - part / 10), None)
        base = base[0] + changes[0][0], base[1] + changes[1][0]
    found = layout.parameters(base[0].unsqueeze(0), base[1].unsqueeze(0))
    return {name: found[name][0] for name in net.shapes}


@cache
def _pretrained_mlp() -> dict[str, Tensor]:
    """A perceptron that has seen the first five classes of the samples that clients do not have."""
    x, y = (part[30000:] for part in _fashion()[:2])
    return pretrain(MLP_PLAIN, (x[y < 5], y[y < 5]), 0.1, 2000, 7)


@cache
def _pretrained_transformer() -> dict[str, Tensor]:
    """A transformer that has read the manual."""
    return pretrain(TRANSFORMER, _windows(_manual()), 0.5, 1000, 7)


MLP_PLAIN = MLP((196, 128, 64, 10))
TRANSFORMER = Transformer(len(ALPHABET), LENGTH, 48, 4, 1)


# Tasks to choose on.
@register("mlp", "iid", "labels")
def _mlp() -> Task:
    return _fashion_task(MLP_PLAIN, 0.3, rounds=40)


@register("cnn-bn", "iid", "labels")
def _cnn_bn() -> Task:
    return _fashion_task(CNN((1, 14, 14), 10, (8, 16)), 0.3, rounds=25)


@register("lora-mlp", "iid", "labels")
def _lora_mlp() -> Task:
    frozen = _pretrained_mlp()
    targets = [n for n in frozen if n.startswith("linear") and n.endswith("weight")]
    return _fashion_task(LoRA(MLP_PLAIN, frozen, 8, targets), 0.1, rounds=40)


# Tasks to confirm on.
@register("digits-bn", "iid", "labels")
def _digits_bn() -> Task:
    train_, test = _digits()
    net = MLP((64, 64, 32, 10), norm=True)
    return Task("", net, train_, test, SPLITS["iid"], 0.1, 20, 10, 16, 3)


@register("cnn", "iid", "dirichlet")
def _cnn() -> Task:
    return _fashion_task(CNN((1, 14, 14), 10, (8, 16), norm=False, scheme="torch"), 0.1, rounds=25)


@register("lstm", "iid", "groups")
def _lstm() -> Task:
    train_, test = _text(_manual())
    return Task("", LSTM(len(ALPHABET), 16, 64), train_, test, SPLITS["iid"], 1.0, 40, 10, 8, 1, 20)


@register("transformer", "iid", "groups")
def _transformer() -> Task:
    train_, test = _text(_manual())
    return Task("", TRANSFORMER, train_, test, SPLITS["iid"], 0.3, 40, 10, 8, 1, 20)


@register("tuned-transformer", "iid", "groups")
def _tuned_transformer() -> Task:
    train_, test = _text(_sources())
    start = _pretrained_transformer()
    return Task("", TRANSFORMER, train_, test, SPLITS["iid"], 0.1, 40, 10, 8, 1, 15, start)


@register("lora-transformer", "iid", "groups")
def _lora_transformer() -> Task:
    train_, test = _text(_sources())
    frozen = _pretrained_transformer()
    targets = ["attention0.qkv", "attention0.out", "mlp0.up", "mlp0.down", "head"]
    net = LoRA(TRANSFORMER, frozen, 4, targets)
    return Task("", net, train_, test, SPLITS["iid"], 0.3, 40, 10, 8, 1, 15)


@register("tuned-mlp", "iid", "dirichlet")
def _tuned_mlp() -> Task:
    return replace(_fashion_task(MLP_PLAIN, 0.03), start=_pretrained_mlp())

"""The speed of the installed backends: encode, decode and add, on one large tensor.

Each round times one call of each backend, in an order that rotates, so that other load on the machine affects
all backends alike. A ratio compares two calls of one round; medians over the rounds are reported.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import backends
from ..primitives.noise import Noise
from .output import tracked

VERBS = "encode", "decode", "add"
BASE = "numpy"
SEED, PRIVATE_SEED, STREAM, WEIGHT = 7, 99, 0, 600


@dataclass(frozen=True)
class Speed:
    """The measured speed of one verb of one backend.

    Attributes
    ----------
    backend, verb : str
    rate : float
        Elements per second.
    ratio : float
        Speed relative to the NumPy backend.
    """

    backend: str
    verb: str
    rate: float
    ratio: float


def measure(noise: Noise, kind: int, size: int, rounds: int, names: Sequence[str]) -> list[Speed]:
    """Measure the speeds of the named backends, which must include NumPy; `kind` is a `MaskKind`."""
    works = _works(noise, kind, size)
    seconds = _seconds(works, names, rounds)
    out = []
    for verb in works:
        for name in names:
            base, own = seconds[verb, BASE], seconds[verb, name]
            ratio = statistics.median(b / o for b, o in zip(base, own, strict=True))
            out.append(Speed(name, verb, size / statistics.median(own), ratio))
    return out


def _works(noise: Noise, kind: int, size: int) -> dict[str, Callable[[backends.Backend], object]]:
    """Each verb as a function of a backend."""
    rng = np.random.default_rng(0)
    update = rng.normal(0, noise.scale / 2, size).astype(np.float32)
    payload = rng.integers(0, 256, (size + 7) // 8, np.uint8)
    out, sums = np.empty(size, np.float32), np.zeros(size, np.int64)
    place = noise, kind, SEED, STREAM
    return {
        "encode": lambda kernels: kernels.sample(*place, update, PRIVATE_SEED),
        "decode": lambda kernels: kernels.decode(*place, payload, out),
        "add": lambda kernels: kernels.accumulate(*place, payload, WEIGHT, sums),
    }


def _seconds(
    works: Mapping[str, Callable[[backends.Backend], object]], names: Sequence[str], rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Seconds of the calls of each verb and backend, without those of the first round, which may compile."""
    kernels = {name: backends.get(name) for name in names}
    seconds: dict[tuple[str, str], list[float]] = {(verb, name): [] for verb in works for name in names}
    turns = [(verb, number) for verb in works for number in range(rounds + 1)]
    for verb, number in tracked(turns, "compiling and timing"):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            start = time.perf_counter()
            works[verb](kernels[name])
            seconds[verb, name].append(time.perf_counter() - start)
    return {turn: each[1:] for turn, each in seconds.items()}

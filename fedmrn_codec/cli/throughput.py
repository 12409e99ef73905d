"""The speed of the installed backends: encode, decode and add, on one large tensor.

Each round times one call of each backend, in an order that rotates, so that other load on the machine affects
all backends alike. A ratio compares two calls of one round; medians over the rounds are reported.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .. import backends
from ..primitives.noise import Noise

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
    out = []
    for verb, work in _works(noise, kind, size).items():
        seconds = _rounds(work, names, rounds)
        for name in names:
            ratios = [base / own for base, own in zip(seconds[BASE], seconds[name], strict=True)]
            rate = size / statistics.median(seconds[name])
            out.append(Speed(name, verb, rate, statistics.median(ratios)))
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


def _rounds(
    work: Callable[[backends.Backend], object], names: Sequence[str], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each round's calls; a first call of each backend, which may compile, is not counted."""
    kernels = {name: backends.get(name) for name in names}
    for each in kernels.values():
        work(each)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            start = time.perf_counter()
            work(kernels[name])
            seconds[name].append(time.perf_counter() - start)
    return seconds

"""How fast the installed backends are here: encode, decode and add, over one large tensor.

Each round times one call of each backend, in an order that rotates, so that whatever else the machine does
hits all alike. A ratio is that of a round's two calls; what is reported are medians.
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
    """What was measured of one verb of one backend.

    Attributes
    ----------
    backend, verb : str
    rate : float
        Elements a second.
    ratio : float
        Times as fast as NumPy's backend.
    """

    backend: str
    verb: str
    rate: float
    ratio: float


def measure(noise: Noise, kind: int, size: int, rounds: int, names: Sequence[str]) -> list[Speed]:
    """Speeds of the named backends, NumPy among them; `kind` is a `MaskKind`."""
    out = []
    for verb, work in _works(noise, kind, size).items():
        seconds = _rounds(work, names, rounds)
        for name in names:
            ratios = [base / own for base, own in zip(seconds[BASE], seconds[name], strict=True)]
            rate = size / statistics.median(seconds[name])
            out.append(Speed(name, verb, rate, statistics.median(ratios)))
    return out


def _works(noise: Noise, kind: int, size: int) -> dict[str, Callable[[backends.Backend], object]]:
    """The verbs, as functions of a backend."""
    rng = np.random.default_rng(0)
    update = rng.normal(0, noise.scale / 2, size).astype(np.float32)
    payload = rng.integers(0, 256, (size + 7) // 8, np.uint8)
    out, sums = np.empty(size, np.float32), np.zeros(size, np.int64)
    place = noise, kind, SEED, STREAM
    return {
        "encode": lambda run: run.sample(*place, update, PRIVATE_SEED),
        "decode": lambda run: run.decode(*place, payload, out),
        "add": lambda run: run.accumulate(*place, payload, WEIGHT, sums),
    }


def _rounds(
    work: Callable[[backends.Backend], object], names: Sequence[str], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each round's calls; the first call of each backend, which may compile, is not counted."""
    runs = {name: backends.get(name) for name in names}
    for run in runs.values():
        work(run)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            start = time.perf_counter()
            work(runs[name])
            seconds[name].append(time.perf_counter() - start)
    return seconds

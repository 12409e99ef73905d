"""Throughput of each backend against NumPy's: `make bench-backends`.

Each round times one call of each backend, in an order that rotates, so that whatever else the machine does
hits all alike. A ratio is that of a round's two calls; the table has medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.mask import BINARY

SEED, PRIVATE_SEED, STREAM, WEIGHT = 7, 99, 0, 600
NOISES = (fm.Uniform(0.01), fm.Gaussian(0.01), fm.Bernoulli(0.01))
BASE = "numpy"


def operations(noise: fm.Noise, size: int) -> dict[str, Callable[[backends.Backend], object]]:
    """The verbs, as functions of a backend, over `size` elements."""
    rng = np.random.default_rng(0)
    payload = rng.integers(0, 256, (size + 7) // 8, np.uint8)
    update = rng.normal(0, 0.01, size).astype(np.float32)
    out, sums = np.empty(size, np.float32), np.zeros(size, np.int64)
    place = noise, BINARY, SEED, STREAM
    return {
        "decode": lambda run: run.decode(*place, payload, out),
        "accumulate": lambda run: run.accumulate(*place, payload, WEIGHT, sums),
        "sample": lambda run: run.sample(*place, update, PRIVATE_SEED),
    }


def measure(work: Callable[[backends.Backend], object], names: list[str], rounds: int) -> list[list[float]]:
    """Seconds of each round's calls, backend by backend; the first call of each is not counted."""
    for name in names:
        work(backends.get(name))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            run, start = backends.get(name), time.perf_counter()
            work(run)
            seconds[name].append(time.perf_counter() - start)
    return [seconds[name] for name in names]


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backends", description="each backend against NumPy"
    )
    parser.add_argument("--size", type=int, default=2**22, help="elements; default %(default)s")
    parser.add_argument("--rounds", type=int, default=9, help="default %(default)s")
    arguments = parser.parse_args()
    names = [BASE, *(name for name in backends.installed() if name != BASE)]
    load = os.getloadavg()[0]
    rows = []
    for noise in NOISES:
        for verb, work in operations(noise, arguments.size).items():
            seconds = measure(work, names, arguments.rounds)
            row = f"{noise.name:11}{verb:12}{arguments.size / statistics.median(seconds[0]) / 1e6:8.1f}"
            for mine in seconds[1:]:
                rate = arguments.size / statistics.median(mine) / 1e6
                ratio = statistics.median(base / own for base, own in zip(seconds[0], mine, strict=True))
                row += f"{rate:10.1f}{ratio:8.2f}"
            rows.append(row)
    print(f"Millions of elements a second, and ratio to NumPy; {arguments.size:,} elements")
    print(
        f"load average {load:.2f} before, {os.getloadavg()[0]:.2f} after, on {os.cpu_count()} cores; "
        f"{arguments.rounds} interleaved rounds, medians\n"
    )
    print(f"{'':23}{BASE:>8}" + "".join(f"{name:>10}{'ratio':>8}" for name in names[1:]))
    print("\n".join(rows))


if __name__ == "__main__":
    main()

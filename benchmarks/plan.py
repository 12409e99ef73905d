"""How much is measured: all of it, a minute's worth, or just enough to see that it runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fedmrn_codec.backends.threads import threads


@dataclass(frozen=True)
class Plan:
    """The sizes of the benchmarks.

    Attributes
    ----------
    sizes : tuple of int
        Elements, for the curves.
    size : int
        Elements, for the lines of acceptance and for memory.
    clients : tuple of int
        Frames that are summed; the last is that of the line of acceptance.
    model : str
        Whose frames are summed and sent; CNN8 but for a trial.
    rounds : int
        Of the interleaved timings.
    limit : float
        Seconds that the rounds of one group should take; there are at least three.
    processes : int
        Rounds of the benchmark that starts processes.
    run : pathlib.Path, optional
        A folder of `fedmrn train`; coding 1 is measured on the frames that its next round would send.
    frames : int
        How many of them, at most; each is a client's training.
    """

    sizes: tuple[int, ...] = (10**4, 10**5, 10**6, 10**7)
    size: int = 2**24
    clients: tuple[int, ...] = (1, 10, 100, 1000)
    model: str = "cnn8"
    rounds: int = 15
    limit: float = 60.0
    processes: int = 7
    run: Path | None = None
    frames: int = 10


QUICK = Plan((10**4, 10**6), 2**21, (1, 10, 50), rounds=5, limit=1.5, processes=2, frames=2)
TRIAL = Plan((1000,), 5000, (1, 3), "cnn2", rounds=3, limit=0.5, processes=1, frames=1)


def every_thread() -> int:
    """As many as the codec would use by itself."""
    return threads()


def machine() -> str:
    """What a reader of the tables must know of it."""
    return f"{os.cpu_count()} cores, {every_thread()} threads, load average {os.getloadavg()[0]:.2f}"

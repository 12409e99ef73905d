"""The amount of work of the benchmarks: in full, in about a minute, or just enough to test the program."""

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
        Numbers of elements for the curves.
    size : int
        Number of elements for the acceptance targets and for memory.
    clients : tuple of int
        Numbers of frames to sum; the last is that of the acceptance targets.
    model : str
        The network of the frames that are summed and sent; CNN8 except in a trial.
    rounds : int
        Rounds of the interleaved timings.
    limit : float
        Seconds that the rounds of one group should take; there are at least three rounds.
    processes : int
        Rounds of the benchmark that starts processes.
    run : pathlib.Path, optional
        A folder of `fedmrn train`; coding 1 is measured on the frames of its next round.
    frames : int
        The maximum number of these frames; each needs the training of a client.
    cohort : int
        Clients of a secure round; one in ten of them drops out, but at least two.
    vector : int
        Masked elements of a secure round.
    sparse : tuple of int
        Degree and threshold of its sparse graph; those of spec/SECAGG.md 12 for 100 clients. For other
        numbers of clients they are as small as a round allows, without its security.
    network : str
        The network of the comparison of secure aggregation with others.
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
    cohort: int = 100
    vector: int = 10**6
    sparse: tuple[int, int] = (42, 21)
    network: str = "cnn4"


QUICK = Plan(
    (10**4, 10**6),
    2**21,
    (1, 10, 50),
    rounds=5,
    limit=1.5,
    processes=2,
    frames=2,
    cohort=20,
    vector=10**5,
    sparse=(12, 7),
)
TRIAL = Plan(
    (1000,),
    5000,
    (1, 3),
    "cnn2",
    rounds=3,
    limit=0.5,
    processes=1,
    frames=1,
    cohort=6,
    vector=1000,
    sparse=(4, 3),
    network="cnn2",
)


def every_thread() -> int:
    """The number of threads that the codec uses by default."""
    return threads()


def machine() -> str:
    """A description of the machine for readers of the tables."""
    return f"{os.cpu_count()} cores, {every_thread()} threads, load average {os.getloadavg()[0]:.2f}"

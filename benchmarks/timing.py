"""Interleaved timing: contenders run in rounds, in rotating order, so that other load affects all equally.

A ratio compares two calls of one round; the reported ratio is the median over the rounds.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

T = TypeVar("T")

SHORTEST = 2e-3
"""Seconds; shorter calls are repeated within one timing."""

LEAST_ROUNDS = 3
ADDS = 32
"""Frames added in one timed call: an `Aggregator` sums its frames in batches."""


@dataclass(frozen=True)
class Work:
    """A call to be timed.

    Attributes
    ----------
    call : callable
    threads : int, optional
        The number of threads that it may use; None leaves the setting unchanged.
    times : int
        The number of operations in one call; times are divided by it.
    """

    call: Callable[[], object]
    threads: int | None = None
    times: int = 1


def adding(add: Callable[[], object], threads: int = 1) -> Work:
    """Time to add one frame, over `ADDS` calls of `add`."""
    return Work(lambda: [add() for _ in range(ADDS)], threads, ADDS)


@dataclass(frozen=True)
class Timings:
    """The seconds of each contender, round by round."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """The median seconds of a call."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """The median ratio of a contender's time to the time of `base`."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return statistics.median(mine / its for mine, its in pairs)

    @property
    def rounds(self) -> int:
        """The number of rounds."""
        return min(map(len, self.seconds.values()))


def measure(works: dict[str, Work], rounds: int, limit: float = math.inf) -> Timings:
    """Time all contenders in turn.

    Parameters
    ----------
    works : dict of str to Work
        Each is called twice before the first round.
    rounds : int
    limit : float
        Seconds for all rounds together; it reduces the number of rounds, but not below LEAST_ROUNDS.
    """
    first = {name: _timed(work, 1) for name, work in works.items()}
    again = {name: min(first[name], _timed(work, 1)) for name, work in works.items()}
    repeats = {name: max(1, math.ceil(SHORTEST / (s * works[name].times))) for name, s in again.items()}
    one_round = sum(seconds * repeats[name] * works[name].times for name, seconds in again.items())
    rounds = min(rounds, max(LEAST_ROUNDS, int(limit / one_round))) if math.isfinite(limit) else rounds
    return Timings(in_turns({n: partial(_timed, works[n], repeats[n]) for n in works}, rounds))


def in_turns(calls: dict[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call all contenders once in each round, in rotating order; the results by name."""
    names = list(calls)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            results[name].append(calls[name]())
    return results


def _timed(work: Work, repeats: int) -> float:
    with on_threads(work.threads):
        start = time.perf_counter()
        for _ in range(repeats):
            work.call()
        return (time.perf_counter() - start) / (repeats * work.times)


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """Let the codec and torch use this many threads within the block."""
    if count is None:
        yield
        return
    import torch

    before, of_torch = os.environ.get("FEDMRN_THREADS"), torch.get_num_threads()
    os.environ["FEDMRN_THREADS"] = str(count)
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(of_torch)
        if before is None:
            del os.environ["FEDMRN_THREADS"]
        else:
            os.environ["FEDMRN_THREADS"] = before

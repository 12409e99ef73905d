"""The seconds of a round, and the time that a federation needs to reach an accuracy with a given uplink.

Time to an accuracy, for one run and one uplink rate (bits per second):

    T = R * median(seconds / clients) + sum over rounds 1..R of 8 * uplink bytes / (clients * rate)

R is the first round whose test accuracy reaches the target. The clients of a round work and send at the same
time, each on its own uplink. In the runs they trained one after the other, so a client's time is its share
of the seconds of the round, which include the server's work and the test. The median is over all rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .runs import Run, uplink
from .sections import Row, Section

RATES = (1, 10, 100)  # Mbit/s


@dataclass(frozen=True)
class Reached:
    """What the seeds of a row needed to reach an accuracy, as means over seeds.

    Attributes
    ----------
    rounds : float
    sent : float
        Bytes sent by a client that took part in every round.
    work : float
        Seconds without sending.
    seconds : tuple of float
        Seconds with sending, for each of `RATES`.
    """

    rounds: float
    sent: float
    work: float
    seconds: tuple[float, ...]


def round_seconds(row: Row) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile of a round's seconds, over rounds and seeds."""
    low, middle, high = np.quantile(
        [line["seconds"] for run in row.runs for line in run.rounds], (0.25, 0.5, 0.75)
    )
    return float(low), float(middle), float(high)


def overhead(section: Section, row: Row) -> float | None:
    """The ratio of the median seconds of a round to FedAvg's.

    None without FedAvg, or if machine or threads differ, since such times cannot be compared.
    """
    other = section.float32
    if other is None or _machines(row) != _machines(other) or len(_machines(row)) != 1:
        return None
    below = round_seconds(other)[1]
    return round_seconds(row)[1] / below if below else None


def _machines(row: Row) -> set[str]:
    return {repr((sorted(run.machine.items()), run.settings.get("threads"))) for run in row.runs}


def targets(section: Section) -> list[float]:
    """Default accuracies: FedAvg's last (else the best row's) in full points, and 2 and 5 points below."""
    row = section.float32 or max(section.rows, key=lambda row: row.last.mean)
    top = math.floor(100 * row.last.mean + 1e-9)
    return [points / 100 for points in (top, top - 2, top - 5) if points > 0]


def reached(row: Row, target: float) -> Reached | None:
    """What a row needed to reach this accuracy; None if a seed has not reached it."""
    each = [_reached(run, target, row.rounds) for run in row.runs]
    if None in each:
        return None
    values = [(r.rounds, r.sent, r.work, *r.seconds) for r in each if r]
    rounds, sent, work, *seconds = np.array(values, np.float64).mean(axis=0).tolist()
    return Reached(rounds, sent, work, tuple(seconds))


def _reached(run: Run, target: float, rounds: int) -> Reached | None:
    lines: Sequence[dict[str, Any]] = run.rounds[:rounds]
    first = next((i for i, line in enumerate(lines, 1) if line["accuracy"] >= target), None)
    if first is None:
        return None
    work = first * float(np.median([line["seconds"] / line["clients"] for line in run.rounds]))
    sent = sum(uplink(line) / line["clients"] for line in lines[:first])
    return Reached(first, sent, work, tuple(work + 8 * sent / (rate * 1e6) for rate in RATES))

"""The seconds of a round, and the time that its messages need until an accuracy is reached.

Time of the messages to an accuracy, for one run and one pair of rates (bits per second):

    T = sum over rounds 1..R of max over the clients of the round (8 up / rate_up + 8 down / rate_down)

R is the first round whose test accuracy reaches the target; up and down are the bytes that a client sends and
receives in the round (`traffic.jsonl`). The clients of a round work at the same time, each on its own line,
and the round ends with the slowest of them. Runs without that file are older than the grid download: all
clients of a round receive the same bytes, and the mean of what they send is taken.

The time to compute is a number of its own: R * median(seconds / clients). In the runs the clients trained one
after the other, so a client's time is its share of the seconds of the round, which include the server's work
and the test. The median is over all rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .runs import Run, downlink, uplink
from .sections import Row, Section

Bytes = tuple[Sequence[float], Sequence[float]]
"""What the clients of a round sent, and what they received."""

RATES = ((1, 10), (5, 50), (50, 50))  # Mbit/s, from a client to the server and back


@dataclass(frozen=True)
class Reached:
    """What the seeds of a row needed to reach an accuracy, as means over seeds.

    Attributes
    ----------
    rounds : float
    sent, received : float
        Bytes of a client that took part in every round: sums over the rounds of the mean over the clients.
    work : float
        Seconds of computing.
    seconds : tuple of float
        Seconds of the messages, for each of `RATES`.
    """

    rounds: float
    sent: float
    received: float
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
    values = [(r.rounds, r.sent, r.received, r.work, *r.seconds) for r in each if r]
    rounds, sent, received, work, *seconds = np.array(values, np.float64).mean(axis=0).tolist()
    return Reached(rounds, sent, received, work, tuple(seconds))


def _reached(run: Run, target: float, rounds: int) -> Reached | None:
    lines: Sequence[dict[str, Any]] = run.rounds[:rounds]
    first = next((i for i, line in enumerate(lines, 1) if line["accuracy"] >= target), None)
    if first is None:
        return None
    work = first * float(np.median([line["seconds"] / line["clients"] for line in run.rounds]))
    lines = lines[:first]
    sent, received = (sum(way(line) / line["clients"] for line in lines) for way in (uplink, downlink))
    by_round = {each["round"]: (each["up"], each["down"]) for each in run.traffic}
    messages: list[Bytes] = [by_round.get(line["round"]) or _means(line) for line in lines]
    seconds = tuple(sum(_slowest(*each, *pair) for each in messages) for pair in RATES)
    return Reached(first, sent, received, work, seconds)


def _means(line: dict[str, Any]) -> Bytes:
    """The bytes that a client of a round sent and received, as means over its clients."""
    return [uplink(line) / line["clients"]], [downlink(line) / line["clients"]]


def _slowest(up: Sequence[float], down: Sequence[float], rate_up: float, rate_down: float) -> float:
    """The most seconds that a client needs for its bytes, at these rates in Mbit/s."""
    return max(
        8e-6 * (sent / rate_up + received / rate_down) for sent, received in zip(up, down, strict=True)
    )

"""The steps of secure aggregation: the bytes of each message, and the time of the protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from ..secure_steps import DOWN, UP
from .grids import Grid
from .runs import Run
from .sections import Row, Section, sections

HEADS = ["method", *(f"{name} up" for name in UP), *(f"{name} down" for name in DOWN)]
HEADS += ["threshold", "clipped", "seconds", "share of a round"]


def grid(section: Section) -> Grid:
    """The messages of secure aggregation by step; without rows if no run of the section has any.

    Bytes are those of one client and round, as means; seconds are medians over rounds, of both sides;
    the share is that of the seconds of all rounds. `clipped` is the number of dense floats, of all clients
    and rounds, that were beyond the range of their grid.
    """
    out = Grid("Secure aggregation by step: bytes a client and round", HEADS)
    out.rows.extend(cells for row in section.rows if (cells := _cells(row)))
    return out


def _cells(row: Row) -> list[str]:
    pairs = [pair for run in row.runs for pair in _pairs(run, row.rounds)]
    if not pairs:
        return []
    clients = sum(line["clients"] for line, _ in pairs)
    sizes = [
        sum(step[way][name] for _, step in pairs) / clients
        for way, names in (("up", UP), ("down", DOWN))
        for name in names
    ]
    seconds = [step["seconds"] for _, step in pairs]
    share = sum(seconds) / sum(line["seconds"] for line, _ in pairs)
    thresholds = sorted({step["threshold"] for _, step in pairs})
    return [
        row.label,
        *(f"{size:,.0f}" for size in sizes),
        ", ".join(map(str, thresholds)),
        str(sum(step["clipped"] for _, step in pairs)),
        f"{median(seconds):.2f}",
        f"{100 * share:.1f} %",
    ]


def _pairs(run: Run, rounds: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The line of each round, with that of its steps."""
    steps = {step["round"]: step for step in run.secure}
    return [(line, steps[line["round"]]) for line in run.rounds[:rounds] if line["round"] in steps]


def step_table(runs: Iterable[Run]) -> tuple[Sequence[str], list[list[str]]]:
    """Heads and rows of `grid` for all tasks."""
    rows = [
        [str(section.task["dataset"]), str(section.task["partition"]), *cells]
        for section in sections(runs)
        for cells in grid(section).rows
    ]
    return ["data", "partition", *HEADS], rows

"""The tables of the page, as cells of text. A cell is empty if its value is not known or was not run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from . import times
from .runs import both, downlink, uplink
from .sections import RECENT, Row, Section, Spread, all_labels

NOT_REACHED = "not reached"
RATES = [f"{up} up, {down} down" for up, down in times.RATES]
TO_ACCURACY = ["method", "seeds", *RATES, "computing", "rounds", "sent", "received"]
"""The heads of `to_accuracy`."""


@dataclass(frozen=True)
class Grid:
    """A table: its caption, the heads of its columns, and rows whose first cell is the name of the row."""

    caption: str
    heads: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)


def matrix(sections: Sequence[Section]) -> Grid:
    """The last accuracy of every method on every task."""
    by_section = [{row.label: row for row in section.rows} for section in sections]
    grid = Grid("Last accuracy, and after how many rounds", ["method", *(s.name for s in sections)])
    for label in all_labels(sections):
        cells = [rows.get(label) for rows in by_section]
        grid.rows.append([label, *(f"{row.last} (r. {row.rounds})" if row else "" for row in cells)])
    return grid


def accuracy(section: Section) -> Grid:
    """Last, recent and best accuracy; if the rows' rounds differ, also after the rounds that all have."""
    common = section.rounds
    unequal = any(row.rounds != common for row in section.rows)
    values = ["last", f"mean of last {RECENT}", "best", *[f"after round {common}"] * unequal]
    grid = Grid("Accuracy on the test set", ["method", *values, "rounds", "seeds"])
    for row in section.rows:
        done = f"{row.rounds}" if row.rounds >= row.planned else f"{row.rounds} of {row.planned}"
        numbers = [row.last, row.recent, row.best, *[Spread.of(row.accuracy[:, common - 1])] * unequal]
        grid.rows.append([row.label, *map(str, numbers), done, str(len(row.runs))])
    return grid


def sizes(section: Section) -> Grid:
    """The bytes of a message by kind, and of the download; FedAvg's, with a raw download, divided by them."""
    dense = section.float32
    ratios = "FedAvg / message", "FedAvg / both"
    heads = ("method", "mask", "dense", "header", "message", "download", *ratios)
    grid = Grid("Bytes a client and round", heads)
    for row in section.rows:
        kinds = [row.per_message(itemgetter(f"uplink_{kind}_bytes")) for kind in heads[1:4]]
        counts = [*kinds, row.per_message(uplink), row.per_message(downlink)]
        shown = [dense.per_message(way) / row.per_message(way) if dense else None for way in (uplink, both)]
        ratios_shown = ["" if ratio is None else f"{ratio:.1f}" for ratio in shown]
        grid.rows.append([row.label, *(f"{n:,.0f}" for n in counts), *ratios_shown])
    return grid


def seconds(section: Section) -> Grid:
    """The seconds of a round, and their ratio to FedAvg's."""
    grid = Grid("Seconds a round", ["method", "median", "ratio to FedAvg", "quartiles", "measured on"])
    for row in section.rows:
        low, middle, high = times.round_seconds(row)
        ratio = times.overhead(section, row)
        machines = sorted({_machine(run.machine, run.settings) for run in row.runs})
        grid.rows.append(
            [
                row.label,
                f"{middle:.2f}",
                "" if ratio is None else f"{ratio:.2f}",
                f"{low:.2f} to {high:.2f}",
                "; ".join(machines),
            ]
        )
    return grid


def _machine(machine: dict[str, Any], settings: dict[str, Any]) -> str:
    parts = (machine.get("processor"), f"{machine.get('cores')} cores", f"threads: {settings.get('threads')}")
    return ", ".join(map(str, parts)) if machine else ""


def to_accuracy(section: Section, target: float) -> Grid:
    """Time, rounds and bytes until an accuracy is reached."""
    grid = Grid(f"Time of the messages to a test accuracy of {target:g}, by Mbit/s up and down", TO_ACCURACY)
    for row in section.rows:
        found, seeds = times.reached(row, target), str(len(row.runs))
        if found is None:
            grid.rows.append([row.label, seeds, NOT_REACHED, *[""] * (len(TO_ACCURACY) - 3)])
        else:
            durations = map(duration, (*found.seconds, found.work))
            sizes = map(size, (found.sent, found.received))
            grid.rows.append([row.label, seeds, *durations, f"{found.rounds:.3g}", *sizes])
    return grid


def provenance(sections: Sequence[Section]) -> Grid:
    """The settings, commit and machine of every run."""
    heads = ["method", "task", "seed", "rounds", "commit", "machine", "other settings"]
    grid = Grid("The runs", heads)
    for section in sections:
        for row in section.rows:
            grid.rows.extend(_origin(section, row))
    return grid


def _origin(section: Section, row: Row) -> list[list[str]]:
    return [
        [
            row.label,
            section.name,
            str(run.settings["seed"]),
            str(len(run.rounds)),
            (run.commit or "")[:12] + ("+" if (run.commit or "").endswith("+") else ""),
            ", ".join(f"{key} {value}" for key, value in sorted(run.machine.items())),
            json.dumps(run.variant, sort_keys=True),
        ]
        for run in row.runs
    ]


def size(count: float) -> str:
    """Format bytes in the unit that gives one to three digits before the point, such as "1.57 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.3g} {unit}" if count < 999.5 else f"{count:,.0f} {unit}"


def duration(seconds: float) -> str:
    """Format seconds as "4.2 s", "3 min 20 s" or "2 h 05 min"."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min"

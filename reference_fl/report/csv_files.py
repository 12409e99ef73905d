"""The numbers of the report as CSV, in full precision: for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from . import times
from .runs import both, uplink
from .sections import Section
from .table import exact_line

KINDS = "mask", "dense", "header"
ROUND = ("round", "accuracy", "loss", "clients", *(f"uplink_{kind}_bytes" for kind in KINDS))
ROUND += ("downlink_bytes", "seconds")


def table(sections: Sequence[Section]) -> str:
    """A row for each task and method: what the tables of the page show, not rounded.

    The columns are those of `report.table`, with the bytes of each kind in a message, and the median seconds
    of a round. A cell is empty where a value is not known.
    """
    lines = []
    for section in sections:
        for row in section.rows:
            kinds = {
                f"uplink_{kind}_bytes_per_client_round": row.per_message(itemgetter(f"uplink_{kind}_bytes"))
                for kind in KINDS
            }
            seconds = {"median_seconds_per_round": times.round_seconds(row)[1]}
            lines.append({"task": section.name, **exact_line(section, row), **kinds, **seconds})
    return _text(lines)


def to_accuracy(sections: Sequence[Section], chosen: Sequence[float] = ()) -> str:
    """A row for each task, accuracy and method: what it needed to reach the accuracy; empty if it did not.

    `chosen` are the accuracies; by default `times.targets` of each task.
    """
    lines = []
    for section in sections:
        for target in chosen or times.targets(section):
            for row in section.rows:
                found = times.reached(row, target)
                seconds = found.seconds if found else [None] * len(times.RATES)
                names = [f"message_seconds_{up}_up_{down}_down_mbit" for up, down in times.RATES]
                lines.append(
                    {
                        "task": section.name,
                        "method": row.label,
                        "accuracy": target,
                        "rounds": found and found.rounds,
                        "bytes_sent": found and found.sent,
                        "bytes_received": found and found.received,
                        "computing_seconds": found and found.work,
                        **dict(zip(names, seconds, strict=True)),
                    }
                )
    return _text(lines)


def rounds(sections: Sequence[Section]) -> str:
    """A row for each round of each run; bytes are sums over the clients of the round."""
    lines = []
    for section in sections:
        for row in section.rows:
            for run in row.runs:
                for line in run.rounds:
                    counts = {"uplink_bytes": uplink(line), "both_bytes": both(line)}
                    names = {"task": section.name, "method": row.label, "seed": run.settings["seed"]}
                    lines.append({**names, **{key: line[key] for key in ROUND}, **counts})
    return _text(lines)


def _text(lines: Iterable[dict[str, Any]]) -> str:
    """CSV by RFC 4180; floats have as many digits as tell them apart from all others."""
    lines = list(lines)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(lines[0]) if lines else [])
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()

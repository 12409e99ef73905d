"""The table of the README and of `fedmrn train`: a row a method."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fedmrn_codec.primitives import atomic

from .runs import Run, uplink
from .sections import RECENT, Row, Section, Spread, sections

BYTES = "bytes a client and round"
ACCURACIES = "last accuracy", f"mean of last {RECENT}", "best accuracy"
HEADS = ("data", "partition", "method", "seeds", "rounds", *ACCURACIES, BYTES, "ratio")


def table(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """A row a task and method: accuracies (means over seeds), bytes, and the ratio to FedAvg's bytes.

    Last, recent (`Row.recent`) and best accuracy are those of the rounds that all seeds of the row have
    finished; the spreads are sample standard deviations over seeds, None with one seed. The ratio is None
    without a FedAvg run of the same task.
    """
    return [_line(section, row) for section in sections(runs) for row in section.rows]


def _line(section: Section, row: Row) -> dict[str, Any]:
    size = row.per_message(uplink)
    dense = section.float32
    last, recent, best = row.last, row.recent, row.best
    return {
        "dataset": section.task["dataset"],
        "partition": section.task["partition"],
        "method": row.label,
        "seeds": len(row.runs),
        "rounds": row.rounds,
        "last_accuracy": last.mean,
        "last_spread": last.deviation,
        "recent_accuracy": recent.mean,
        "recent_spread": recent.deviation,
        "best_accuracy": best.mean,
        "best_spread": best.deviation,
        "uplink_bytes_per_client_round": round(size),
        "ratio": round(dense.per_message(uplink) / size, 2) if dense else None,
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for r in rows:
        cells = (
            *(r[key] for key in ("dataset", "partition", "method", "seeds", "rounds")),
            Spread(r["last_accuracy"], r["last_spread"]),
            Spread(r["recent_accuracy"], r["recent_spread"]),
            Spread(r["best_accuracy"], r["best_spread"]),
            f"{r['uplink_bytes_per_client_round']:,}",
            "" if r["ratio"] is None else f"{r['ratio']:.1f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def insert(document: Path, text: str, place: str = "results") -> None:
    """Replace what stands between a document's comments `<!-- PLACE... -->` and `<!-- end of PLACE -->`.

    Raises
    ------
    ValueError
        The document has no such comments.
    """
    old = document.read_text()
    name = re.escape(place)
    pattern = re.compile(rf"(<!-- {name}\b[^\n]*-->\n).*?(<!-- end of {name} -->)", re.S)
    new, count = pattern.subn(lambda m: f"{m[1]}{text}\n{m[2]}", old)
    if count != 1:
        raise ValueError(f"{document}: found {count} places for {place}, required 1")
    atomic.write(document, new.encode())

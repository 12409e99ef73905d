"""The table of documents and of `fedmrn train`, with one row for each method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .runs import Run, uplink
from .sections import RECENT, Row, Section, Spread, sections

BYTES = "bytes a client and round"
ACCURACIES = "last accuracy", f"mean of last {RECENT}", "best accuracy"
HEADS = ("data", "partition", "method", "seeds", "rounds", *ACCURACIES, BYTES, "ratio")


def table(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """A row for each task and method: accuracies (means over seeds), bytes, and the ratio to FedAvg's bytes.

    Last, recent (`Row.recent`) and best accuracy refer to the rounds that all seeds of the row have finished.
    The spreads are sample standard deviations over seeds, None for one seed. The ratio is None without a
    FedAvg run of the same task.
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


def cells(row: dict[str, Any]) -> list[str]:
    """A row of `table` as text, in the order of `HEADS`."""
    return [
        *(str(row[key]) for key in ("dataset", "partition", "method", "seeds", "rounds")),
        *(str(Spread(row[f"{kind}_accuracy"], row[f"{kind}_spread"])) for kind in ("last", "recent", "best")),
        f"{row['uplink_bytes_per_client_round']:,}",
        "" if row["ratio"] is None else f"{row['ratio']:.1f}",
    ]

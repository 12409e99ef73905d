"""The tables of documents and of `fedmrn train`: a row for each method, and the time to accuracies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from . import grids, times
from .runs import Run, both, downlink, uplink
from .sections import RECENT, Row, Section, Spread, sections

ACCURACIES = "last accuracy", f"mean of last {RECENT}", "best accuracy"
BYTES = "bytes up", "bytes down", "ratio up", "ratio both"
HEADS = ("data", "partition", "method", "seeds", "rounds", *ACCURACIES, *BYTES)


def table(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """A row for each task and method: accuracies (means over seeds), bytes, and ratios of FedAvg's to them.

    Bytes are those that a client sends and receives in a round, as a mean. The ratios are those of the bytes
    sent, and of the bytes sent and received, of FedAvg with a raw download to those of the row; None without
    such a run of the same task. Last, recent (`Row.recent`) and best accuracy refer to the rounds that all
    seeds of the row have finished. The spreads are sample standard deviations over seeds, None for one seed.
    """
    return [_line(section, row) for section in sections(runs) for row in section.rows]


def _line(section: Section, row: Row) -> dict[str, Any]:
    exact = exact_line(section, row)
    bytes_of = {key: round(exact[key]) for key in exact if key.endswith("_bytes_per_client_round")}
    return {**exact, **bytes_of}


def exact_line(section: Section, row: Row) -> dict[str, Any]:
    """The row of `table`, with bytes that are not rounded."""
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
        "uplink_bytes_per_client_round": row.per_message(uplink),
        "downlink_bytes_per_client_round": row.per_message(downlink),
        "ratio": _ratio(dense, row, uplink),
        "ratio_both": _ratio(dense, row, both),
    }


def _ratio(dense: Row | None, row: Row, count: Callable[[dict[str, Any]], float]) -> float | None:
    return dense.per_message(count) / row.per_message(count) if dense else None


def cells(row: dict[str, Any]) -> list[str]:
    """A row of `table` as text, in the order of `HEADS`."""
    return [
        *(str(row[key]) for key in ("dataset", "partition", "method", "seeds", "rounds")),
        *(str(Spread(row[f"{kind}_accuracy"], row[f"{kind}_spread"])) for kind in ("last", "recent", "best")),
        *(f"{row[f'{way}_bytes_per_client_round']:,}" for way in ("uplink", "downlink")),
        *("" if row[key] is None else f"{row[key]:.1f}" for key in ("ratio", "ratio_both")),
    ]


def time_table(runs: Iterable[Run], targets: Sequence[float] = ()) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of what each method needs to reach accuracies: `grids.to_accuracy` of all tasks.

    Parameters
    ----------
    runs : iterable of Run
    targets : sequence of float, optional
        The accuracies; by default `times.targets` of each task.
    """
    heads, rows = ["data", "partition", "accuracy", *grids.TO_ACCURACY], []
    for section in sections(runs):
        task = [str(section.task[key]) for key in ("dataset", "partition")]
        for target in targets or times.targets(section):
            rows += [[*task, f"{target:g}", *row] for row in grids.to_accuracy(section, target).rows]
    return heads, rows

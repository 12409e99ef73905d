"""Tables and figures of finished runs, from their metrics files alone."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

from .record import METRICS, read, write_whole

mpl.use("Agg")
from matplotlib import pyplot as plt

FLOAT32 = "fedavg"
BYTES = "bytes a client and round"


@dataclass(frozen=True)
class Run:
    """One metrics file."""

    settings: dict[str, Any]
    rounds: list[dict[str, Any]]

    @property
    def label(self) -> str:
        """The method, with its mask kind."""
        mask = self.settings["mask"]
        return f"{self.settings['method']} {mask}" if mask else str(self.settings["method"])

    def uplink_per_client(self) -> float:
        """Mean bytes of a message."""
        return sum(uplink(r) for r in self.rounds) / sum(r["clients"] for r in self.rounds)


def uplink(line: dict[str, Any]) -> int:
    """All bytes that the clients of a round sent."""
    return int(line["uplink_mask_bytes"] + line["uplink_dense_bytes"] + line["uplink_header_bytes"])


def load(paths: Sequence[Path]) -> list[Run]:
    """The runs with a finished round, of metrics files or of folders (their own file, or else all below)."""
    runs = [run for path in paths for file in _files(path) for run in read(file)]
    return [Run(header["settings"], rounds) for header, rounds in runs if rounds]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / METRICS).exists():
        return [path / METRICS]
    return sorted(file for file in path.rglob("*.jsonl") if not file.name.endswith("layers.jsonl"))


def table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row a run: rounds, last and best accuracy, bytes a client and round, ratio to FedAvg's bytes.

    The ratio is None where no FedAvg run of the same data set and model is at hand.
    """
    dense = {_task(run): run.uplink_per_client() for run in runs if run.settings["method"] == FLOAT32}
    rows = []
    for run in runs:
        size = run.uplink_per_client()
        rows.append(
            {
                "dataset": run.settings["dataset"],
                "partition": run.settings["partition"],
                "method": run.label,
                "rounds": len(run.rounds),
                "last_accuracy": run.rounds[-1]["accuracy"],
                "best_accuracy": max(r["accuracy"] for r in run.rounds),
                "uplink_bytes_per_client_round": round(size),
                "ratio": round(dense[_task(run)] / size, 2) if _task(run) in dense else None,
            }
        )
    return rows


def _task(run: Run) -> tuple[str, str]:
    return run.settings["dataset"], run.settings["model"]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown."""
    heads = ("data", "partition", "method", "rounds", "last accuracy", "best accuracy", BYTES, "ratio")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for r in rows:
        ratio = "" if r["ratio"] is None else f"{r['ratio']:.1f}"
        lines.append(
            f"| {r['dataset']} | {r['partition']} | {r['method']} | {r['rounds']} | {r['last_accuracy']:.4f} "
            f"| {r['best_accuracy']:.4f} | {r['uplink_bytes_per_client_round']:,} | {ratio} |"
        )
    return "\n".join(lines)


def insert(document: Path, text: str) -> None:
    """Replace what stands between a document's comments `<!-- results... -->` and `<!-- end of results -->`.

    Raises
    ------
    ValueError
        The document has no such comments.
    """
    old = document.read_text()
    pattern = re.compile(r"(<!-- results[^\n]*-->\n).*?(<!-- end of results -->)", re.S)
    new, count = pattern.subn(lambda m: f"{m[1]}{text}\n{m[2]}", old)
    if count != 1:
        raise ValueError(f"{document}: found {count} places for results, required 1")
    write_whole(document, new.encode())


def figure(runs: Sequence[Run], path: Path) -> None:
    """Draw test accuracy against the bytes a client has sent (log axis) and against rounds; PNG or SVG."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for run in runs:
        accuracy = [r["accuracy"] for r in run.rounds]
        sent, total = [], 0.0
        for r in run.rounds:
            total += uplink(r) / r["clients"]
            sent.append(total / 1e6)
        style = {"label": f"{run.label}, {run.settings['partition']}", "marker": "o", "markersize": 3}
        left.plot(sent, accuracy, **style)
        right.plot([r["round"] for r in run.rounds], accuracy, **style)
    left.set_xscale("log")
    left.xaxis.set_major_formatter(lambda megabytes, _: f"{megabytes:g}")
    left.set_xlabel("uplink of a client taking part in every round, MB")
    left.set_ylabel("test accuracy")
    right.set_xlabel("round")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_title(", ".join(sorted({run.settings["dataset"] for run in runs})))
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def main() -> None:
    """Print the table of runs; draw their figure; put the table between a document's "results" comments."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--readme", type=Path)
    arguments = parser.parse_args()
    runs = load(arguments.runs)
    text = markdown(table(runs))
    print(text)
    if arguments.output:
        figure(runs, arguments.output)
    if arguments.readme:
        insert(arguments.readme, text)


if __name__ == "__main__":
    main()

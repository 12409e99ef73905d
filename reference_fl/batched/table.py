"""A table of runs, printed, or written into a document between its comments.

python -m reference_fl.batched.table FILE... [--document FILE --place NAME]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from ..report import insert

HEAD = "| task | method | seeds | last, % | to FedAvg | to EDEN | bits |\n|---|---|---|---|---|---|---|"

Run = dict[str, Any]


def read(paths: list[Path]) -> list[Run]:
    """The runs of these files; of runs that repeat, the last."""
    found: dict[tuple[Any, ...], Run] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            run = json.loads(line)
            found[run["task"], run["method"], run["seed"], run["rounds"]] = run
    return list(found.values())


def gap(runs: list[Run], others: list[Run]) -> str:
    """Mean difference in points over the seeds that both have, with their number if that is smaller."""
    known = {(run["seed"], run["rounds"]): run["last"] for run in others}
    each = [run["last"] - known[key] for run in runs if (key := (run["seed"], run["rounds"])) in known]
    pairs = f" ({len(each)})" if len(each) < len(runs) else ""
    return f"{100 * mean(each):+.2f}{pairs}" if each else ""


def one_length(runs: Iterable[tuple[str, Run]]) -> None:
    """ValueError if runs of one name, which a table averages or compares, differ in their rounds."""
    lengths: dict[str, set[int]] = {}
    for name, run in runs:
        lengths.setdefault(name, set()).add(run["rounds"])
    for name, found in lengths.items():
        if len(found) > 1:
            raise ValueError(f"rounds of the runs of {name}: expected one number, got {sorted(found)}")


def table(runs: list[Run]) -> str:
    """One line a task and method; gaps are means over paired seeds."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run["task"], run["method"] not in ("fedavg", "eden"))):
        groups.setdefault((run["task"], run["method"]), []).append(run)
    lines = [HEAD]
    one_length((f"{run['task']}, {run['method']}", run) for run in runs)
    for (task, method), mine in groups.items():
        others = [[] if method == name else groups.get((task, name), []) for name in ("fedavg", "eden")]
        gaps = [gap(mine, runs_) for runs_ in others]
        bits = [run["bits"] for run in mine if "bits" in run]
        cells = [task, method, str(len(mine)), f"{100 * mean(run['last'] for run in mine):.2f}", *gaps]
        lines.append("| " + " | ".join([*cells, f"{mean(bits):.2f}" if bits else ""]) + " |")
    return "\n".join(lines)


def add_document(parser: argparse.ArgumentParser) -> None:
    """Add the options that `put` reads."""
    parser.add_argument("--document", type=Path, help="write the table here, between the comments of --place")
    parser.add_argument("--place", help="the name in these comments")


def put(text: str, arguments: argparse.Namespace) -> None:
    """Print a table, or write it into the document."""
    if arguments.document is None:
        print(text)
    else:
        insert(arguments.document, text, arguments.place)


def main() -> None:
    """Print the table of the files that are named, or write it into a document."""
    parser = argparse.ArgumentParser(
        prog="python -m reference_fl.batched.table", description="a table of runs"
    )
    parser.add_argument(
        "files", nargs="+", type=Path, help="lines of runs, as reference_fl.batched writes them"
    )
    add_document(parser)
    arguments = parser.parse_args()
    put(table(read(arguments.files)), arguments)


if __name__ == "__main__":
    main()

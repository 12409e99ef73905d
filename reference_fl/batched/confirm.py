"""Run methods on tasks in real frames: one file of JSON lines a task and seed, and one line in it a method.

    python -m reference_fl.batched.confirm --tasks lstm-iid lstm-groups --seeds 0 1 2 --out FOLDER

Methods are fedavg, eden and rule, or those that --methods names; "rule" has the options `rate` (a factor on
the task's learning rate, 2 by default), `bits`, `off` and `bad` (`framed.Masked`). A run that a file has is
skipped, so the same command continues after an interrupt. `reference_fl.batched.bars` makes the tables.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from ..record import made_by
from . import names, task
from .framed import RATES, parse, run
from .summary import last_of, summary

SHOWN = (1, 2, 3, 5)  # and every tenth: the rounds whose scales are kept


def entry(records: list[dict[str, Any]]) -> dict[str, Any]:
    """A run in one entry: its summary, the bytes of a message in the last rounds, and some scales."""
    found = summary(records) | {"bytes": last_of(records, "bytes", 1)}
    if "scale" in records[0]:
        shown = [r for r in records if r["round"] in SHOWN or r["round"] % 10 == 0]
        found["scales"] = [{"round": r["round"], "scale": r["scale"]} for r in shown]
    return found


def confirm(name: str, method: str, seed: int, rounds: int | None, folder: Path) -> dict[str, Any] | None:
    """Do a run and append its line to the file of its task and seed; None if the file has it."""
    path = folder / f"{name}-seed{seed}.jsonl"
    rounds = rounds or task(name).rounds
    lines = path.read_text().splitlines() if path.exists() else []
    if any((r["method"], r["rounds"]) == (method, rounds) for r in map(json.loads, lines)):
        return None
    found = entry(list(run(task(name), method, seed, rounds)))
    line = {"task": name, "method": method, "seed": seed, "rounds": rounds, **found, **made_by()}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(
        prog="python -m reference_fl.batched.confirm", description="methods on tasks, in real frames"
    )
    parser.add_argument("--tasks", nargs="+", required=True, choices=names(), metavar="TASK")
    parser.add_argument("--methods", nargs="+", default=list(RATES), help="default: %(default)s")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=None, help="default: those of the task")
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    args = parser.parse_args()
    for method in args.methods:
        parse(method)  # refuses an unknown one before anything runs
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.tasks:
        for seed in args.seeds:
            for method in args.methods:
                line = confirm(name, method, seed, args.rounds, args.out)
                if line:
                    print(name, method, seed, line["last"], line.get("bits"), line["seconds"], flush=True)


if __name__ == "__main__":
    main()

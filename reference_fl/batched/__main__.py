"""Run methods on tasks and append one JSON line a run; a run that the file has is skipped."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from ..record import made_by
from . import names, run, task
from .summary import summary


def entry(records: list[dict[str, Any]]) -> dict[str, Any]:
    """A run in one line: its summary, and the tensors of every fifth round."""
    found = summary(records)
    if "bits" in found:
        keys = ("scale", "density", "signal", "noise", "true_signal", "true_size", "weights")
        shown = [r for r in records if r["round"] in (1, 2, 3) or r["round"] % 5 == 0]
        found["tensors"] = [{k: r[k] for k in ("round", *keys)} for r in shown]
    return found


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m reference_fl.batched", description=__doc__)
    parser.add_argument("--tasks", nargs="+", required=True, help=", ".join(names()))
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if args.out.exists():
        lines = [json.loads(line) for line in args.out.read_text().splitlines()]
        done = {(r["task"], r["method"], r["seed"], r["rounds"]) for r in lines}
    for name in args.tasks:
        for method in args.methods:
            for seed in args.seeds:
                rounds = args.rounds or task(name).rounds
                if (name, method, seed, rounds) in done:
                    continue
                records = list(run(task(name), method, seed, rounds))
                about = {"task": name, "method": method, "seed": seed, "rounds": rounds}
                line = {**about, **entry(records), **made_by()}
                with args.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(name, method, seed, line["last"], line.get("bits"), line["seconds"], flush=True)


if __name__ == "__main__":
    main()

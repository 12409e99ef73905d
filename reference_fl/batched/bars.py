"""Tables of the runs in real frames, which say where the rule misses its bars.

    python -m reference_fl.batched.bars FOLDER [--chosen FILE...] [--simulated FILE...]
    python -m reference_fl.batched.bars FOLDER --disturbed

With --document FILE and --place NAME the table is written into a document, between the comments of that name.
The bars of the first table: mean accuracy of the last eight rounds at most 0.5 points below FedAvg on IID
data and 1.0 points on skewed data, and below EDEN by no more than the spread of the seeds, the standard
deviation of EDEN's accuracy over them. That of the second, for runs that were disturbed: from round 21 on at
most 0.5 points below the rule left alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from ..report.documents import markdown
from .table import Run, add_document, one_length, put, read

IID, SKEWED = 0.5, 1.0  # points
DISTURBED, AFTER = 0.5, 20
METHODS = FEDAVG, EDEN, RULE = "fedavg", "eden", "rule"
DISTURBANCES = {
    "rule:off=0.01": "scales 100 times too small",
    "rule:off=100": "scales 100 times too large, clipped to 10 spreads",
    "rule:bad=10": "round 10 all noise",
}

Seeds = dict[int, Run]


def points(mine: Sequence[float], others: Sequence[float]) -> list[float]:
    """The differences of paired accuracies, in points."""
    return [100 * (a - b) for a, b in zip(mine, others, strict=True)]


def shown(gaps: Sequence[float]) -> str:
    """Their mean and, if there are several, their standard deviation."""
    return f"{mean(gaps):+.2f}" + (f" ± {stdev(gaps):.2f}" if len(gaps) > 1 else "")


def misses(task: str, to_fedavg: Sequence[float], to_eden: Sequence[float], spread: float | None) -> str:
    """The bars that a task misses, and by how many points; "none" if it misses none.

    Parameters
    ----------
    task : str
        Its name ends in "-iid" if its data are.
    to_fedavg, to_eden : sequence of float
        Differences in points, one a seed.
    spread : float, optional
        Of EDEN's accuracy over the seeds, in points; None with one seed, which no bar of EDEN's has.
    """
    bar = IID if task.endswith("-iid") else SKEWED
    found = []
    if (short := -bar - mean(to_fedavg)) > 0:
        found.append(f"FedAvg, by {short:.2f}")
    if spread is None:
        found.append("EDEN's unknown, one seed")
    elif (short := -spread - mean(to_eden)) > 0:
        found.append(f"EDEN, by {short:.2f}")
    return "; ".join(found) or "none"


def by_task(runs: list[Run]) -> dict[str, dict[str, Seeds]]:
    """The runs by task, method and seed; ValueError if those of a task have not one number of rounds."""
    found: dict[str, dict[str, Seeds]] = {}
    for run in sorted(runs, key=lambda run: run["task"]):
        found.setdefault(run["task"], {}).setdefault(run["method"], {})[run["seed"]] = run
    one_length((run["task"], run) for run in runs)
    return found


def confirmed(runs: list[Run], chosen: set[str], simulated: set[str]) -> str:
    """The table of FedAvg, EDEN and the rule: a row a task, over the seeds that all three have."""
    heads = ["task", "first run", "seeds", "FedAvg, %", "EDEN, %", "rule, %", "to FedAvg", "to EDEN"]
    heads += ["spread", "bits", "bytes: FedAvg", "bytes: EDEN", "bytes: rule", "bars missed"]
    rows = []
    for task, methods in by_task(runs).items():
        seeds = sorted(set.intersection(*(set(methods.get(name, ())) for name in METHODS)))
        if not seeds:
            continue
        its = {name: [methods[name][seed] for seed in seeds] for name in METHODS}
        last = {name: [run["last"] for run in its[name]] for name in METHODS}
        to_fedavg, to_eden = (points(last[RULE], last[name]) for name in (FEDAVG, EDEN))
        spread = 100 * stdev(last[EDEN]) if len(seeds) > 1 else None
        first = "to choose" if task in chosen else "simulated" if task in simulated else "here"
        rows.append(
            [
                *(task, first, str(len(seeds))),
                *(f"{100 * mean(last[name]):.2f}" for name in METHODS),
                *(shown(to_fedavg), shown(to_eden)),
                "" if spread is None else f"{spread:.2f}",
                f"{mean(run['bits'] for run in its[RULE]):.2f}",
                *(f"{mean(run['bytes'] for run in its[name]):,.0f}" for name in METHODS),
                misses(task, to_fedavg, to_eden, spread),
            ]
        )
    return markdown(heads, rows)


def disturbed(runs: list[Run]) -> str:
    """The table of disturbances: a row a task and disturbance, over the seeds that the rule alone has too."""
    heads = ["task", "disturbance", "seeds", f"rounds {AFTER + 1} to", "left alone, %", "disturbed, %"]
    heads += ["difference", "bar missed"]
    rows = []
    for task, methods in by_task(runs).items():
        for method, what in DISTURBANCES.items():
            seeds = sorted(set(methods.get(method, ())) & set(methods.get(RULE, ())))
            if not seeds:
                continue
            alone, its = ([methods[m][seed]["accuracy"] for seed in seeds] for m in (RULE, method))
            after = [[mean(run[AFTER:]) for run in runs_] for runs_ in (alone, its)]
            gaps = points(after[1], after[0])
            short = -DISTURBED - mean(gaps)
            cells = [task, what, str(len(seeds)), str(len(its[0]))]
            cells += [f"{100 * mean(values):.2f}" for values in after]
            rows.append([*cells, shown(gaps), f"by {short:.2f}" if short > 0 else "no"])
    return markdown(heads, rows)


def main() -> None:
    """Print a table, or write it into a document."""
    parser = argparse.ArgumentParser(
        prog="python -m reference_fl.batched.bars", description="tables of runs in real frames"
    )
    parser.add_argument("folder", type=Path, help="files that reference_fl.batched.confirm wrote")
    parser.add_argument("--disturbed", action="store_true", help="the table of disturbances")
    parser.add_argument("--chosen", nargs="*", type=Path, default=[], help="simulations to choose the rule")
    parser.add_argument("--simulated", nargs="*", type=Path, default=[], help="simulations after the choice")
    add_document(parser)
    args = parser.parse_args()
    runs = read(sorted(args.folder.glob("*.jsonl")))
    if args.disturbed:
        text = disturbed(runs)
    else:
        chosen, simulated = ({run["task"] for run in read(files)} for files in (args.chosen, args.simulated))
        text = confirmed(runs, chosen, simulated)
    put(text, args)


if __name__ == "__main__":
    main()

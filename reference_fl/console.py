"""What `fedmrn train` and `fedmrn sweep` do and show: a line a round, a table and a figure at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedmrn_codec.primitives import atomic

from . import data, loop, report
from .engines import Engine
from .engines.local import Local
from .record import METRICS
from .report.sections import Spread
from .settings import Settings
from .sweep import Sweep

WIDTH = 120  # of the table where there is no terminal


def run(
    runs: list[Settings],
    out: Path,
    data_root: Path | None,
    *,
    several: bool,
    engine: Callable[[Settings, data.Dataset], Engine] = Local,
    verify: bool,
    as_json: bool,
) -> None:
    """Train these runs one after the other, in `out` or (several) in a folder each below it."""
    samples = data.load(runs[0].dataset, data_root)
    _say_groups(Console(stderr=True), samples, runs)
    folders = [out / settings.label if several else out for settings in runs]
    for settings, folder in zip(runs, folders, strict=True):
        _train(settings, samples, folder, engine(settings, samples), verify=verify, as_json=as_json)
    _summary([folder / METRICS for folder in folders], out, as_json)


def _say_groups(messages: Console, samples: data.Dataset, runs: list[Settings]) -> None:
    """Say what the clients are, where the data decides it."""
    if samples.groups is not None:
        for clients in sorted({run.clients for run in runs if run.partition == "natural"}):
            there = len(set(samples.groups.tolist()))
            messages.print(f"{samples.name}: {clients} clients share {there} {samples.group_kind}")


def _train(
    settings: Settings, samples: data.Dataset, folder: Path, engine: Engine, *, verify: bool, as_json: bool
) -> None:
    """One run, with a bar for its rounds and one for the round's clients."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {what: bars.add_task(f"{settings.label}: {what}s") for what in ("round", "client")}

        def progress(what: str, done: int, of: int) -> None:
            bars.update(tasks[what], completed=done, total=of)

        for line in loop.run(settings, samples, folder, engine=engine, verify=verify, progress=progress):
            if as_json:
                print(json.dumps(line), flush=True)
            else:
                bars.console.print(
                    f"{settings.label}: round {line['round']:3d}  accuracy {line['accuracy']:.4f}  "
                    f"loss {line['loss']:.4f}  uplink {report.uplink(line):,} bytes  {line['seconds']:.1f} s",
                    soft_wrap=True,
                )


def _summary(files: list[Path], out: Path, as_json: bool) -> None:
    """The table of the runs on the screen; all their lines and a figure in the folder."""
    runs = report.load(files)
    report.figure(runs, out / "accuracy.png")
    if len(files) > 1:
        atomic.write(out / METRICS, b"".join(path.read_bytes() for path in files))
    if not as_json:
        console = _console()
        _show(console, report.table(runs))
        console.print(f"lines: {out / METRICS}   figure: {out / 'accuracy.png'}", soft_wrap=True)


def _console() -> Console:
    """Standard output; where it is no terminal, wide enough for the table."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def _show(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print rows of `report.table`, a table for each data set and partition."""
    for (dataset, partition), some in groupby(rows, key=itemgetter("dataset", "partition")):
        view = Table(title=f"{dataset}, {partition}: test accuracy and uplink")
        for head in report.HEADS[2:]:
            view.add_column(head, justify="left" if head == "method" else "right")
        for row in some:
            view.add_row(
                row["method"],
                str(row["seeds"]),
                str(row["rounds"]),
                str(Spread(row["last_accuracy"], row["last_spread"])),
                str(Spread(row["recent_accuracy"], row["recent_spread"])),
                str(Spread(row["best_accuracy"], row["best_spread"])),
                f"{row['uplink_bytes_per_client_round']:,}",
                "" if row["ratio"] is None else f"{row['ratio']:.1f}",
            )
        console.print(view)


def sweep(planned: Sweep, *, as_json: bool) -> dict[str, str]:
    """Do what is left of a sweep, then show its table.

    Returns
    -------
    dict of str to str
        The runs that failed, and why.
    """
    messages = Console(stderr=True, highlight=False)
    left = planned.left()
    for name in sorted({run.settings.dataset for run in left}):
        samples = data.load(name, planned.data_root)  # says at once what is missing, not once a run
        _say_groups(messages, samples, [run.settings for run in left if run.settings.dataset == name])
    messages.print(f"{len(planned.runs)} runs, {len(planned.runs) - len(left)} of them done")

    def round_done(name: str, line: dict[str, Any]) -> None:
        accuracy, seconds = line["accuracy"], line["seconds"]
        text = f"{name}: round {line['round']:3d}  accuracy {accuracy:.4f}  {seconds:.1f} s"
        messages.print(text, soft_wrap=True, markup=False)

    try:
        failed = planned.execute(round_done)
    except (KeyboardInterrupt, SystemExit):
        messages.print("stopped; every finished round is kept, and the same command goes on")
        raise
    finished = planned.merge()
    rows = report.table(report.load([finished]))
    if as_json:
        for row in rows:
            print(json.dumps(row))
    elif rows:
        console = _console()
        _show(console, rows)
        console.print(f"lines: {finished}   page: fedmrn report {planned.out}", soft_wrap=True)
    for name, reason in failed.items():
        messages.print(f"failed: {name}: {reason}", soft_wrap=True, markup=False)
    return failed

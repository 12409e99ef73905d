"""The output of `fedmrn train` and `fedmrn sweep`: a line for each round, then a table and a figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Console

from fedmrn_codec.cli.output import print_table, progress
from fedmrn_codec.primitives import atomic

from . import data, events, loop, report
from .engines import Engine
from .engines.local import Local
from .record import METRICS
from .settings import Settings
from .sweep import Sweep


def run(
    runs: list[Settings],
    out: Path,
    data_root: Path | None,
    *,
    several: bool,
    engine: Callable[[Settings, data.Dataset], Engine] = Local,
    verify: bool,
    as_json: bool,
    tensorboard: Path | None = None,
) -> None:
    """Train these runs one after the other, in `out` or, if `several`, each in a folder below it.

    With `tensorboard`, a folder, the rounds are also written there (`events`), each run as `out` has it.
    """
    if tensorboard is not None:
        events.require()
    messages = Console(stderr=True, highlight=False)
    samples = _load(messages, runs[0].dataset, data_root)
    _say_groups(messages, samples, runs)
    folders = [out / settings.label if several else out for settings in runs]
    for settings, folder in zip(runs, folders, strict=True):
        board = tensorboard and (tensorboard / folder.relative_to(out))
        with events.Log(folder, board) if board else nullcontext() as log:
            clients = engine(settings, samples)
            for line in _train(settings, samples, folder, clients, verify=verify, as_json=as_json):
                if log is not None:
                    log.add(line)
    _summary([folder / METRICS for folder in folders], out, as_json)


def _load(messages: Console, name: str, root: Path | None) -> data.Dataset:
    with messages.status(f"reading the data set {name}"):
        return data.load(name, root)


def _say_groups(messages: Console, samples: data.Dataset, runs: list[Settings]) -> None:
    """Print what a client is, where the data defines the clients."""
    if samples.groups is not None:
        for clients in sorted({run.clients for run in runs if run.partition == "natural"}):
            there = len(set(samples.groups.tolist()))
            messages.print(f"{samples.name}: {clients} clients share {there} {samples.group_kind}")


def _train(
    settings: Settings, samples: data.Dataset, folder: Path, engine: Engine, *, verify: bool, as_json: bool
) -> Iterator[dict[str, Any]]:
    """Train one run, with a progress bar for its rounds and one for the clients of the round; give its lines.

    The clients of a round count as parts of it, so that the time left is known before the first round ends.
    """
    with progress() as bars:
        rounds = bars.add_task(f"{settings.label}: splitting the data, making the model", total=None)
        clients = bars.add_task("clients of the round", total=None, visible=False)
        finished = 0

        def show(what: str, done: int, of: int) -> None:
            nonlocal finished
            if what == "round":
                finished = done
                bars.update(rounds, completed=done, total=of, description=f"{settings.label}: rounds")
            else:
                bars.update(rounds, completed=finished + done / of)
                bars.update(clients, completed=done, total=of, visible=True)

        for line in loop.run(settings, samples, folder, engine=engine, verify=verify, progress=show):
            if as_json:
                print(json.dumps(line), flush=True)
            else:
                bars.console.print(
                    f"{settings.label}: round {line['round']:3d}  accuracy {line['accuracy']:.4f}  "
                    f"loss {line['loss']:.4f}  bytes up {report.uplink(line):,}, down "
                    f"{line['downlink_bytes']:,}  {line['seconds']:.1f} s",
                    soft_wrap=True,
                )
            yield line


def _summary(files: list[Path], out: Path, as_json: bool) -> None:
    """Print the table of the runs; write all their lines and a figure into the folder."""
    runs = report.load(files)
    report.figure(runs, out / "accuracy.png")
    if len(files) > 1:
        atomic.write(out / METRICS, b"".join(path.read_bytes() for path in files))
    if not as_json:
        _print_tables(report.table(runs))
        print(f"lines: {out / METRICS}   figure: {out / 'accuracy.png'}")


def _print_tables(rows: list[dict[str, Any]]) -> None:
    """Print rows of `report.table`, a table for each data set and partition."""
    for (dataset, partition), some in groupby(rows, key=itemgetter("dataset", "partition")):
        title = f"{dataset}, {partition}: test accuracy, and bytes of a client and round"
        print_table(title, report.HEADS[2:], [report.cells(row)[2:] for row in some])


def sweep(planned: Sweep, *, as_json: bool) -> dict[str, str]:
    """Run the unfinished part of a sweep, then print its table.

    Returns
    -------
    dict of str to str
        The names of the runs that failed, each with the reason.
    """
    messages = Console(stderr=True, highlight=False)
    if planned.tensorboard is not None:
        events.require()
    left = planned.left()
    for name in sorted({run.settings.dataset for run in left}):
        samples = _load(
            messages, name, planned.data_root
        )  # missing files are reported once, not for each run
        _say_groups(messages, samples, [run.settings for run in left if run.settings.dataset == name])
    messages.print(f"{len(planned.runs)} runs, {len(planned.runs) - len(left)} of them done")
    try:
        with progress() as bars:
            rounds = bars.add_task("starting the first runs", total=sum(run.settings.rounds for run in left))

            def round_done(name: str, line: dict[str, Any]) -> None:
                accuracy, seconds = line["accuracy"], line["seconds"]
                text = f"{name}: round {line['round']:3d}  accuracy {accuracy:.4f}  {seconds:.1f} s"
                bars.console.print(text, soft_wrap=True, markup=False, highlight=False)
                bars.update(rounds, advance=1, description="rounds of all runs")

            failed = planned.execute(round_done)
    except (KeyboardInterrupt, SystemExit):
        messages.print("stopped; the finished rounds are kept; run the same command to continue")
        raise
    planned.log_finished()
    finished = planned.merge()
    rows = report.table(report.load([finished]))
    if as_json:
        for row in rows:
            print(json.dumps(row))
    elif rows:
        _print_tables(rows)
        print(f"lines: {finished}   page: fedmrn report {planned.out}")
    for name, reason in failed.items():
        messages.print(f"failed: {name}: {reason}", soft_wrap=True, markup=False)
    return failed

"""What `fedmrn train` does and shows: progress bars, a line a round, a table and a figure at the end."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import data, loop, report
from .record import METRICS, write_whole
from .settings import Settings


def run(
    runs: list[Settings], out: Path, data_root: Path | None, *, several: bool, verify: bool, as_json: bool
) -> None:
    """Train these runs one after the other, in `out` or (several) in a folder each below it."""
    samples = data.load(runs[0].dataset, data_root)
    folders = [out / settings.label if several else out for settings in runs]
    for settings, folder in zip(runs, folders, strict=True):
        _train(settings, samples, folder, verify=verify, as_json=as_json)
    _summary([folder / METRICS for folder in folders], out, as_json)


def _train(settings: Settings, samples: data.Dataset, folder: Path, *, verify: bool, as_json: bool) -> None:
    """One run, with a bar for its rounds and one for the round's clients."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {what: bars.add_task(f"{settings.label}: {what}s") for what in ("round", "client")}

        def progress(what: str, done: int, of: int) -> None:
            bars.update(tasks[what], completed=done, total=of)  # type: ignore[arg-type]

        for line in loop.run(settings, samples, folder, verify=verify, progress=progress):
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
        write_whole(out / METRICS, b"".join(path.read_bytes() for path in files))
    rows = report.table(runs)
    if as_json:
        return
    view = Table(title=f"{runs[0].settings['dataset']}: test accuracy and uplink")
    for head in ("method", "rounds", "last accuracy", "best accuracy", report.BYTES, "ratio"):
        view.add_column(head, justify="left" if head == "method" else "right")
    for row in rows:
        view.add_row(
            row["method"],
            str(row["rounds"]),
            f"{row['last_accuracy']:.4f}",
            f"{row['best_accuracy']:.4f}",
            f"{row['uplink_bytes_per_client_round']:,}",
            "" if row["ratio"] is None else f"{row['ratio']:.1f}",
        )
    console = Console()
    console.print(view)
    console.print(f"lines: {out / METRICS}   figure: {out / 'accuracy.png'}")

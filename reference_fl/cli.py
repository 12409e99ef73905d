"""`fedmrn train`: the reference experiment from the shell."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import data, loop, report
from .record import METRICS, write_whole
from .settings import Settings, defaults

DEMO = (("fedavg", None), ("fedmrn", "binary"), ("fedmrn", "signed"))
EXIT_USAGE, EXIT_FILES = 2, 3


def train(
    dataset: Annotated[str, typer.Option(help="digits needs no download; fashion-mnist")] = "digits",
    method: Annotated[str, typer.Option(help="fedavg or fedmrn")] = "fedmrn",
    mask: Annotated[Optional[str], typer.Option(help="binary or signed; of fedmrn")] = None,  # noqa: UP045
    noise: Annotated[Optional[str], typer.Option(help="NAME:SCALE, like uniform:0.01")] = None,  # noqa: UP045
    partition: Annotated[str, typer.Option(help="iid, dirichlet:ALPHA or labels:K")] = "iid",
    model: Annotated[Optional[str], typer.Option(help="cnn2, cnn4 or cnn8")] = None,  # noqa: UP045
    rounds: Annotated[Optional[int], typer.Option(min=1)] = None,  # noqa: UP045
    clients: Annotated[Optional[int], typer.Option(min=1)] = None,  # noqa: UP045
    clients_per_round: Annotated[Optional[int], typer.Option(min=1)] = None,  # noqa: UP045
    epochs: Annotated[Optional[int], typer.Option(min=1, help="local epochs")] = None,  # noqa: UP045
    batch_size: Annotated[Optional[int], typer.Option(min=2)] = None,  # noqa: UP045
    learning_rate: Annotated[Optional[float], typer.Option(min=0.0)] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[Optional[int], typer.Option(min=1, help="of torch")] = None,  # noqa: UP045
    data_root: Annotated[Optional[Path], typer.Option(help="folder of the data set's files")] = None,  # noqa: UP045
    out: Annotated[Path, typer.Option(help="folder of the run; an unfinished run there goes on")] = Path(
        "runs/train"
    ),
    verify: Annotated[bool, typer.Option(help="decode every frame with every backend and compare")] = False,
    demo: Annotated[bool, typer.Option(help="FedAvg and FedMRN, binary and signed, on the digits")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON line a round")] = False,
) -> None:
    """Train a federation; every update travels as a frame. Settings left out are the protocol's."""
    given: dict[str, Any] = {
        "noise": noise,
        "partition": partition,
        "model": model,
        "rounds": rounds,
        "clients": clients,
        "clients_per_round": clients_per_round,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "threads": threads,
    }
    wanted = DEMO if demo else ((method, mask),)
    try:
        runs = [defaults("digits" if demo else dataset, which, kind, **given) for which, kind in wanted]
        samples = data.load(runs[0].dataset, data_root)
        for settings in runs:
            folder = out / settings.label if demo else out
            _train(settings, samples, folder, verify=verify, as_json=as_json)
    except data.DataMissingError as error:
        _fail(error, EXIT_FILES)
    except OSError as error:
        _fail(error, EXIT_FILES)
    except (ValueError, KeyError) as error:
        _fail(error, EXIT_USAGE)
    _summary([out / s.label / METRICS for s in runs] if demo else [out / METRICS], out, as_json)


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
                    f"loss {line['loss']:.4f}  uplink {report.uplink(line):,} bytes  {line['seconds']:.1f} s"
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


def _fail(error: Exception, code: int) -> None:
    print(f"fedmrn train: {error}", file=sys.stderr)
    raise typer.Exit(code)

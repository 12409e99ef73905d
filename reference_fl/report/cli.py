"""`fedmrn report`: the report from the shell."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

EXIT_USAGE, EXIT_FILES = 2, 3


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUNS...", help="folders of runs, or their metrics files")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="write the page, figures and tables into this folder"
        ),
    ] = Path("runs/report"),
    target: Annotated[
        list[float] | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="ACCURACY",
            help="show the time to this accuracy; may be repeated; default: FedAvg's last one, and 2 and 5 "
            "points below",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the rows of the table as JSON lines")
    ] = False,
) -> None:
    """Write a page of tables and figures about finished runs: index.html, PNG and CSV files.

    The page needs no network and no other file, and names what is best on which axis. The CSV files have the
    numbers of its tables in full precision, and those of every round. Runs that differ only by their seed are
    shown as one row, by mean and standard deviation. Each data set and partition is a section.
    """
    # Imported here: Matplotlib takes a second, and `fedmrn --help` reads this module.
    from . import page
    from .runs import contradicting, distinct, read_all
    from .table import table

    try:
        every = read_all(runs)
        found = distinct(every)
        if not found:
            names = ", ".join(map(str, runs))
            raise ValueError(f"runs with a finished round in {names}: expected at least 1, got no run")
        files = page.write(found, out, target or (), left_out=contradicting(every, found))
    except OSError as error:
        _fail(error, EXIT_FILES)
    except ValueError as error:
        _fail(error, EXIT_USAGE)
    if as_json:
        for row in table(found):
            print(json.dumps(row))
    else:
        figures = sum(file.suffix == ".png" for file in files)
        beside = f"{figures} figures and {len(files) - 1 - figures} tables beside it"
        print(f"{files[0]}: {len(found)} runs; {beside}")


def _fail(error: Exception, code: int) -> None:
    print(f"fedmrn report: {error}", file=sys.stderr)
    raise typer.Exit(code)

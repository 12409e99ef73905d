"""`python -m reference_fl.convergence`: curves of finished runs, their table and their figure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fedmrn_codec.primitives import atomic

from ..record import METRICS
from ..report import insert
from . import curves, report


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect curves from runs (collect), or make a table and a figure of curves (report)."""
    parser = argparse.ArgumentParser(prog="python -m reference_fl.convergence", description=main.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    collect = verbs.add_parser("collect", help="write the curves of finished runs into a file")
    collect.add_argument("folders", nargs="+", type=Path, help="folders of runs, or folders above them")
    collect.add_argument("-o", "--output", type=Path, required=True, help="JSON lines, one for each run")
    make = verbs.add_parser("report", help="print the table of curves; write it and the figure")
    make.add_argument("files", nargs="+", type=Path, help="files that `collect` has written")
    make.add_argument("-o", "--output", type=Path, help="draw the figure into this PNG or SVG file")
    make.add_argument("--document", type=Path, help="write the table here, between the comments of --place")
    make.add_argument("--place", default="slopes", help="the name in these comments; default: %(default)s")
    given = parser.parse_args(arguments)
    if given.verb == "collect":
        atomic.write(given.output, curves.write(map(curves.of_run, _runs(given.folders))).encode())
    else:
        _report(given)


def _runs(folders: list[Path]) -> list[Path]:
    """The folders of runs at or below these; a sweep's own file of all its runs is left out."""
    found = {path.parent for folder in folders for path in folder.rglob(METRICS)}
    return sorted(
        folder
        for folder in found
        if not any(other != folder and other.is_relative_to(folder) for other in found)
    )


def _report(arguments: argparse.Namespace) -> None:
    found = curves.load(arguments.files)
    text = report.table(found)
    print(text)
    if arguments.output:
        report.figure(found).save(arguments.output)
    if arguments.document:
        insert(arguments.document, text, arguments.place)


if __name__ == "__main__":
    main()

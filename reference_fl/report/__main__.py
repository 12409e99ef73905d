"""`python -m reference_fl.report`: tables and figures of documents."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import figure, insert, load, markdown, table
from .runs import first_rounds


def main() -> None:
    """Print the table of runs; draw their figure; put the table between two comments of a document."""
    parser = argparse.ArgumentParser(prog="python -m reference_fl.report", description=main.__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="PNG or SVG of the figure")
    parser.add_argument("--document", type=Path)
    parser.add_argument("--place", default="results", help="name in the comments; default: %(default)s")
    parser.add_argument("--rounds", type=int, help="of each run only the first")
    arguments = parser.parse_args()
    runs = load(arguments.runs)
    if arguments.rounds:
        runs = first_rounds(runs, arguments.rounds)
    text = markdown(table(runs))
    print(text)
    if arguments.output:
        figure(runs, arguments.output)
    if arguments.document:
        insert(arguments.document, text, arguments.place)


if __name__ == "__main__":
    main()

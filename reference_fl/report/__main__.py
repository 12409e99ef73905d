"""`python -m reference_fl.report`: tables and figures for documents."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import HEADS, cells, figure, insert, load, markdown, table, time_table
from .runs import some_rounds
from .steps import step_table


def main() -> None:
    """Print the table of runs, draw their figure, and write the table between two comments of a document."""
    parser = argparse.ArgumentParser(prog="python -m reference_fl.report", description=main.__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or their metrics files")
    parser.add_argument("-o", "--output", type=Path, help="draw the figure into this PNG or SVG file")
    parser.add_argument("--document", type=Path, help="write the table into this file")
    parser.add_argument(
        "--place", default="results", help="name in the comments of the document; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, help="use the rounds of each run up to this one only")
    parser.add_argument("--from-round", type=int, default=1, help="and none before this one")
    parser.add_argument(
        "--columns", help=f"the columns of the table, separated by commas; default: all, {','.join(HEADS)}"
    )
    parser.add_argument("--total", action="store_true", help="the figure counts received bytes too")
    parser.add_argument(
        "--rates", action="store_true", help="the figure has a point for each row, against the bytes sent"
    )
    parser.add_argument(
        "--times",
        action="store_true",
        help="make the table of the time to an accuracy",
    )
    parser.add_argument(
        "--steps",
        action="store_true",
        help="make the table of the messages and the time of secure aggregation",
    )
    parser.add_argument(
        "--target",
        type=float,
        action="append",
        default=[],
        help="with --times: to this accuracy; may be repeated; default: as in `fedmrn report`",
    )
    arguments = parser.parse_args()
    runs = load(arguments.runs)
    runs = some_rounds(runs, arguments.from_round, arguments.rounds)
    heads = arguments.columns.split(",") if arguments.columns else HEADS
    if unknown := set(heads) - set(HEADS):
        parser.error(f"--columns: expected names of {', '.join(HEADS)}, got {', '.join(sorted(unknown))}")
    if arguments.times:
        text = markdown(*time_table(runs, arguments.target))
    elif arguments.steps:
        text = markdown(*step_table(runs))
    else:
        rows = (dict(zip(HEADS, cells(row), strict=True)) for row in table(runs))
        text = markdown(heads, [[row[head] for head in heads] for row in rows])
    print(text)
    if arguments.output:
        way = "rates" if arguments.rates else "total" if arguments.total else "uplink"
        figure(runs, arguments.output, way)
    if arguments.document:
        insert(arguments.document, text, arguments.place)


if __name__ == "__main__":
    main()

"""`python -m reference_fl.report`: the README's table and figure."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import figure, insert, load, markdown, table


def main() -> None:
    """Print the table of runs; draw their figure; put the table between a document's "results" comments."""
    parser = argparse.ArgumentParser(prog="python -m reference_fl.report", description=main.__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--readme", type=Path)
    arguments = parser.parse_args()
    runs = load(arguments.runs)
    text = markdown(table(runs))
    print(text)
    if arguments.output:
        figure(runs, arguments.output)
    if arguments.readme:
        insert(arguments.readme, text)


if __name__ == "__main__":
    main()

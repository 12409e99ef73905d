"""The benchmarks of the codec: `make bench`, or `make bench-quick`, which takes about a minute."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reference_fl.report.documents import insert

from . import (
    clients,
    coding,
    density,
    downlink,
    hostile,
    kernels,
    memory,
    secagg,
    secagg_peers,
    secagg_round,
    startup,
    tallies,
    uplink,
)
from .figure import drawing
from .plan import QUICK, TRIAL, Plan, machine
from .tables import Section, Target, targets_table

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS: dict[str, ModuleType] = {
    "kernels": kernels,
    "uplink": uplink,
    "coding": coding,
    "density": density,
    "downlink": downlink,
    "clients": clients,
    "tallies": tallies,
    "memory": memory,
    "hostile": hostile,
    "secagg": secagg,
    "startup": startup,
    "secure-round": secagg_round,
    "secure-peers": secagg_peers,
}
APART = "secure-round", "secure-peers"
"""Those that run only if they are named, as in `make bench-secagg`: they take minutes."""

LARGEST = 10**8
SPEED = "speed"
"""The place in docs/benchmarks.md of the figure, the messages and the targets of `make bench`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmarks of the command line and print them; write the figure, and the tables into a page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="compare the codec with what a user would use instead"
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(BENCHMARKS)}; default: all but {' and '.join(APART)}",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="about a minute in all")
    how.add_argument("--trial", action="store_true", help="tiny sizes, only to test the program")
    parser.add_argument(
        "--largest", action="store_true", help=f"also {LARGEST:,} elements; needs about 10 GB of memory"
    )
    parser.add_argument(
        "--run",
        type=Path,
        help="a folder of `fedmrn train`: measure coding 1 on the frames of its next round",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    parser.add_argument("--figure", type=Path, help="draw the speed by size into this PNG file")
    parser.add_argument("--document", type=Path, help="write the tables between the comments of this file")
    parser.add_argument(
        "--place", default=SPEED, help=f"name in these comments; {SPEED} gets the main tables, others get all"
    )
    arguments = parser.parse_args(argv)
    names = arguments.names or [name for name in BENCHMARKS if name not in APART]
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"NAME: expected {', '.join(BENCHMARKS)}, got {', '.join(sorted(unknown))}")
    if arguments.figure is not None and "kernels" not in names:
        parser.error(f"--figure: expected kernels among the names, got {', '.join(names)}")
    sections = {name: measured(name, plan_of(arguments), arguments.markdown) for name in names}
    if arguments.figure is not None:
        drawing(sections["kernels"].curves).save(arguments.figure)
    if (document := arguments.document) is not None:
        figure = arguments.figure and os.path.relpath(arguments.figure, document.parent)
        insert(document, markdown(sections, figure, arguments.place != SPEED), arguments.place)


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The plan of the command line."""
    plan = QUICK if arguments.quick else TRIAL if arguments.trial else Plan()
    sizes = (*plan.sizes, LARGEST) if arguments.largest else plan.sizes
    return dataclasses.replace(plan, sizes=sizes, run=arguments.run)


def measured(name: str, plan: Plan, markdown: bool = False) -> Section:
    """Run one benchmark, and print its tables, as text or in Markdown."""
    print(f"=== {name}: {machine()}\n", flush=True)
    section: Section = BENCHMARKS[name].run(plan)
    for table in [*section.tables, *([targets_table(section.targets)] if section.targets else [])]:
        if markdown:
            print(f"**{table.title}**{': '.join(['', *table.notes])}\n\n{table.markdown()}\n")
        else:
            table.print()
    sys.stdout.flush()
    return section


def markdown(sections: dict[str, Section], figure: str | None, whole: bool = False) -> str:
    """Figure and tables for a page: the measured messages or all tables, and the acceptance targets."""
    targets: list[Target] = [target for section in sections.values() for target in section.targets]
    if not whole:
        tables = [section.summary for section in sections.values() if section.summary is not None]
        parts = [f"{'; '.join(table.notes)}.\n\n{table.markdown()}" for table in tables]
    else:
        every = [table for section in sections.values() for table in section.tables]
        parts = [
            "\n\n".join(filter(None, (f"**{table.title}**", "; ".join(table.notes), table.markdown())))
            for table in every
        ]
    if targets:
        parts.append(targets_table(targets).markdown())
    if figure is not None:
        words = "Decode and add is what the aggregator does: sixteen frames in one pass."
        parts.insert(0, f"![Speed by size]({figure})\n\n{words}")
    return "\n\n".join([f"Measured on {machine()}.", *parts])


if __name__ == "__main__":
    main()

"""All benchmarks: `make bench`, or `make bench-quick` for a minute's worth."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import clients, coding, kernels, memory, startup, uplink
from .figure import drawing
from .plan import QUICK, TRIAL, Plan, machine
from .tables import Section, Target, insert, markdown, targets_table, text

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS: dict[str, ModuleType] = {
    "kernels": kernels,
    "uplink": uplink,
    "coding": coding,
    "clients": clients,
    "memory": memory,
    "startup": startup,
}
LARGEST = 10**8


def main(argv: Sequence[str] | None = None) -> None:
    """Read the arguments, measure, print; draw and write what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="the codec against what a user would use instead"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="about a minute in all")
    how.add_argument("--trial", action="store_true", help="tiny sizes: only to see that it runs")
    parser.add_argument(
        "--largest", action="store_true", help=f"{LARGEST:,} elements too, some 10 GB of memory"
    )
    parser.add_argument("--run", type=Path, help="a folder of `fedmrn train`: coding 1 on its next frame")
    parser.add_argument("--figure", type=Path, help="draw speed by size into this PNG")
    parser.add_argument("--readme", type=Path, help="write tables between its comments")
    arguments = parser.parse_args(argv)
    names = arguments.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    if arguments.figure is not None and "kernels" not in names:
        parser.error("--figure: found no kernels among the names, which it draws")
    sections = {name: measured(name, plan_of(arguments)) for name in names}
    if arguments.figure is not None:
        drawing(sections["kernels"].curves).save(arguments.figure)
    if arguments.readme is not None:
        insert(arguments.readme, readme(sections, arguments.figure))


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The plan of the command line."""
    plan = QUICK if arguments.quick else TRIAL if arguments.trial else Plan()
    sizes = (*plan.sizes, LARGEST) if arguments.largest else plan.sizes
    return dataclasses.replace(plan, sizes=sizes, run=arguments.run)


def measured(name: str, plan: Plan) -> Section:
    """Run one benchmark and print what it found."""
    print(f"=== {name}: {machine()}\n", flush=True)
    found: Section = BENCHMARKS[name].run(plan)
    for table in found.tables:
        print(text(table))
    if found.targets:
        print(text(targets_table(found.targets)))
    sys.stdout.flush()
    return found


def readme(sections: dict[str, Section], figure: Path | None) -> str:
    """The README's figure and tables: the messages that were measured, and the lines of acceptance."""
    targets: list[Target] = [target for section in sections.values() for target in section.targets]
    tables = [section.summary for section in sections.values() if section.summary is not None]
    parts = [f"{'; '.join(table.notes)}.\n\n{markdown(table)}" for table in tables]
    if targets:
        parts.append(markdown(targets_table(targets)))
    if figure is not None:
        words = "Decode and add is what the aggregator does: sixteen frames in one pass."
        parts.insert(0, f"![Speed by size]({figure})\n\n{words}")
    return "\n\n".join([f"Measured on {machine()}.", *parts])


if __name__ == "__main__":
    main()

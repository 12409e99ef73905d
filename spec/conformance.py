"""Run the conformance kit against every implementation in this repository, and print one table.

python spec/conformance.py [--examples N] [--junit FOLDER] [NAME ...]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from fedmrn_codec import backends
from fedmrn_codec.conformance.module import ModuleTarget
from fedmrn_codec.conformance.program import CommandTarget
from fedmrn_codec.conformance.report import junit, lines_of
from fedmrn_codec.conformance.request import PROFILES
from fedmrn_codec.conformance.run import EXPECTED, FAILED, PASSED, SKIPPED, Report, run
from fedmrn_codec.conformance.suite import checks_for
from fedmrn_codec.conformance.target import Target

DECODERS = Path(__file__).resolve().parent / "decoders"
TIMEOUT = 60.0
SHOWN = 3
"""The number of failures of one implementation that are shown."""


class Missing(Exception):
    """A tool or package that an implementation needs is not installed."""


def module(backend: str) -> Target:
    """This project's codec with one of its backends."""
    if backend not in backends.installed():
        raise Missing(f"{' and '.join(backends.MODULES[backend])} not installed")
    return ModuleTarget("fedmrn_codec", backend)


def c(program: str, compiler: str, *runner: str) -> Target:
    """The C implementation, built now."""
    for tool in ("make", compiler, *runner[:1]):
        _require(tool)
    subprocess.run(["make", "-s", "-C", DECODERS / "c", program], check=True)
    return CommandTarget([*runner, str(DECODERS / "c" / program)], TIMEOUT)


def javascript() -> Target:
    """The JavaScript implementation, in Node."""
    _require("node")
    return CommandTarget(["node", str(DECODERS / "js" / "conform.mjs")], TIMEOUT)


def _require(tool: str) -> None:
    if shutil.which(tool) is None:
        raise Missing(f"{tool} not installed")


IMPLEMENTATIONS: dict[str, Callable[[], Target]] = {
    "numpy": lambda: module("numpy"),
    "numba": lambda: module("numba"),
    "onnx": lambda: module("onnx"),
    "torch": lambda: module("torch"),
    "c": lambda: c("conform", "cc"),
    "c-sanitized": lambda: c("conform-sanitized", "cc"),
    "c-s390x": lambda: c("conform-s390x", "s390x-linux-gnu-gcc", "qemu-s390x", "-L", "/usr/s390x-linux-gnu"),
    "js": javascript,
}


def test(target: Target, examples: int) -> Report:
    """Run all checks of the profiles that the target offers."""
    try:
        report = Report(target.name, target.version, target.profiles)
        report.records += run(target, checks_for(target, report.profiles, examples=examples))
        return report
    finally:
        target.close()


def main() -> int:
    """Test, print the table, and return the exit code. It is 1 if a check failed."""
    parser = argparse.ArgumentParser(description="the conformance kit against every implementation here")
    names = ", ".join(IMPLEMENTATIONS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {names}; default: all")
    parser.add_argument("--examples", type=int, default=100, help="cases of a property; default %(default)s")
    parser.add_argument("--junit", type=Path, metavar="FOLDER", help="write a JUnit file for each")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(IMPLEMENTATIONS):
        parser.error(f"NAME: expected some of {names}, got {', '.join(sorted(unknown))}")
    console = Console(highlight=False)
    table = Table("implementation", "what answers", PASSED, FAILED, SKIPPED, "seconds", box=box.SIMPLE)
    ok = True
    for name in arguments.names or IMPLEMENTATIONS:
        begin = time.perf_counter()
        try:
            target = IMPLEMENTATIONS[name]()
        except Missing as reason:
            table.add_row(name, f"skipped: {reason}", style="dim")
            continue
        report = test(target, arguments.examples)
        ok &= report.ok and not report.count(EXPECTED)
        for record in report.of(FAILED)[:SHOWN]:
            console.print("\n".join([f"{name}:", *lines_of(record)]), markup=False)
        missing = [profile for profile in PROFILES if profile not in report.profiles]
        without = f", without {' and '.join(missing)}" if missing else ""
        counts = (str(report.count(status)) for status in (PASSED, FAILED, SKIPPED))
        seconds = f"{time.perf_counter() - begin:.0f}"
        table.add_row(name, f"{report.name} {report.version}{without}", *counts, seconds)
        if arguments.junit:
            arguments.junit.mkdir(parents=True, exist_ok=True)
            (arguments.junit / f"{name}.xml").write_bytes(junit(report))
    console.print(table)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

"""`make fuzz`: run harnesses, print a table, and keep the input of each finding."""

import argparse
import sys
from pathlib import Path

from reference_fl.commit import short_commit
from reference_fl.report import insert

from . import run, seeds
from .harness import Result

FOUND = run.ROOT / "build" / "fuzz"

LONGEST, MOST = 400, 60
"""The length and the number of the inputs that one run adds to the corpus of a harness."""


def main() -> int:
    """Run what the command line asks for; 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=600, help="for all harnesses together; default %(default)s"
    )
    parser.add_argument("--only", default="", metavar="A,B", help=f"some of {', '.join(run.ALL)}")
    parser.add_argument(
        "--seed", type=int, default=0, help="another one gives other inputs; default %(default)s"
    )
    parser.add_argument(
        "--document",
        type=Path,
        help="write the table into this document, between its comments; other rows stay",
    )
    parser.add_argument(
        "--grow", type=Path, metavar="FOLDER", help="write inputs with new outcomes to FOLDER/NAME.txt"
    )
    parser.add_argument("--repeat", nargs=2, metavar=("NAME", "FILE"), help="give one input to one harness")
    given = parser.parse_args()
    if given.repeat:
        results = [run.repeat(given.repeat[0], Path(given.repeat[1]))]
        for finding in results[0].findings:
            print(finding.error)
        return int(bool(results[0].findings))
    names = [name.strip() for name in given.only.split(",") if name.strip()] or list(run.ALL)
    if unknown := [name for name in names if name not in run.ALL]:
        parser.error(f"--only: expected some of {', '.join(run.ALL)}, got {', '.join(unknown)}")
    version = short_commit(run.ROOT / "SECURITY.md")
    results = run.run_all(names, given.seconds, given.seed, tell)
    made = run.rows(results, version)
    print(f"\n{run.table(made)}")
    if given.document:
        insert(given.document, run.table(made, run.former(given.document.read_text())), "fuzzing")
    if given.grow:
        for result in results:
            grow(given.grow, result)
    return int(any(result.findings for result in results))


def tell(result: Result) -> None:
    """Print a line about a harness, and write its findings."""
    what = f"skipped: {result.skipped}" if result.skipped else f"{result.executions:,} executions"
    print(
        f"{result.harness:20} {what}, {len(result.findings)} findings, {len(result.new)} new outcomes",
        flush=True,
    )
    for finding in result.findings:
        path = finding.write(FOUND)
        print(f"    {path}: {finding.error.strip().splitlines()[-1][:300]}", flush=True)


def grow(folder: Path, result: Result) -> None:
    """Write the corpus and some new inputs of all lengths, a line of hexadecimal digits each."""
    name = result.harness.split(" ")[0]
    folder.mkdir(parents=True, exist_ok=True)
    new = [data for data in result.new if len(data) <= LONGEST]
    path = folder / f"{name}.txt"
    before = map(bytes.fromhex, path.read_text().split()) if path.exists() else seeds.finds(name)
    known = dict.fromkeys((*before, *sorted(new, key=len)[:: len(new) // MOST + 1]))
    path.write_text("".join(f"{data.hex()}\n" for data in known))


if __name__ == "__main__":
    sys.exit(main())

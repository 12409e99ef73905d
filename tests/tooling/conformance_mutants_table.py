"""Write the score of `make conformance-mutants` into docs/conformance_mutants.md, and check its reasons.

    python tests/tooling/conformance_mutants_table.py RESULTS

The reasons of mutants that are alive stand in that document, one in a row of the table under "Why these are
alive". The exit status is 1 if a mutant is alive without a reason, or one with a reason is killed or gone.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from reference_fl.report import insert

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "conformance_mutants.md"
NAMES = {"python": "Python, NumPy", "c": "C", "js": "JavaScript"}
HEAD = ["| implementation | mutants | killed | score | alive, explained | alive, unexplained |"]
HEAD += ["|---|---|---|---|---|---|"]

Key = tuple[str, str]
"""An implementation, and a mutant of it."""


def main(results: Path) -> int:
    """Write the table; print the mutants that need a reason, and those that need none."""
    states = latest(results.read_text(encoding="utf-8").splitlines())
    document = DOCUMENT.read_text(encoding="utf-8")
    explained = reasons(document)
    rows = [row(name, states, explained) or former(name, document) for name in NAMES]
    insert(DOCUMENT, "\n".join([*HEAD, *rows]), "conformance-mutants")
    alive = {key for key, state in states.items() if state == "alive"}
    run = {name for name, _ in states}
    for name, mutant in sorted(alive - explained):
        print(f"alive and not explained: | {name} | {mutant} |  |")
    needless = sorted(key for key in explained - alive if key[0] in run)
    for name, mutant in needless:
        print(f"explained, but killed or no longer there: {name}: {mutant}")
    return int(bool(alive - explained or needless))


def latest(lines: Iterable[str]) -> dict[Key, str]:
    """The state of each mutant, by the last result of the implementation's last version."""
    rows = [json.loads(line) for line in lines]
    version = {row["implementation"]: row["digest"] for row in rows}
    return {
        (row["implementation"], row["mutant"]): row["state"]
        for row in rows
        if row["digest"] == version[row["implementation"]]
    }


def reasons(document: str) -> set[Key]:
    """The mutants of the rows that have a reason in their last cell."""
    found = re.findall(rf"^\| ({'|'.join(NAMES)}) \| (.+?) \| *([^|]*?) *\|$", document, re.MULTILINE)
    return {(name, mutant) for name, mutant, reason in found if reason}


def row(name: str, states: dict[Key, str], explained: set[Key]) -> str:
    """A line of the table; empty if the implementation has no results."""
    found = {key: state for key, state in states.items() if key[0] == name and state != "invalid"}
    if not found:
        return ""
    alive = [key for key, state in found.items() if state == "alive"]
    known = sum(key in explained for key in alive)
    killed = len(found) - len(alive)
    score = f"{100 * killed / len(found):.1f} %"
    return f"| {NAMES[name]} | {len(found)} | {killed} | {score} | {known} | {len(alive) - known} |"


def former(name: str, document: str) -> str:
    """The line that the document has of an implementation which was not run again."""
    begin = f"| {NAMES[name]} |"
    lines = (line for line in document.splitlines() if line.startswith(begin))
    return next(lines, f"{begin}{' not run |' * 5}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""Write the result of `make mutation` into docs/mutation.md, and check that it explains each live mutant.

    python tests/tooling/mutation_table.py RESULTS

The exit status is 1 if a mutant is alive without an explanation, or an explained one is killed or gone.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from reference_fl.commit import short_commit
from reference_fl.report import insert

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "mutation.md"
MODULES = (
    "format/parsing.py", "format/schema.py", "format/checked.py", "format/frame.py", "format/rans.py",
    "format/rans12.py", "format/rans14.py", "backends/numpy_rans.py", "face/aggregation.py", "face/policy.py",
    "face/policy_arguments.py", "face/policy_toml.py", "face/terms.py", "face/intake.py", "face/request.py",
    "face/envelope.py", "face/keys.py", "sums/state.py", "sums/partial.py", "sums/exact.py",
)  # fmt: skip
HEAD = ["| module | mutants | killed | explained | unexplained | commit |", "|---|---|---|---|---|---|"]


def main(results: Path) -> int:
    """Write the table; print the mutants that need an explanation, and those that need none."""
    alive = latest(results.read_text().splitlines())
    document = DOCUMENT.read_text()
    explained = explanations(document)
    commit = short_commit(DOCUMENT)
    rows = [row(module, alive, explained, commit) or former(module, document) for module in MODULES]
    insert(DOCUMENT, "\n".join([*HEAD, *rows]), "mutants")
    run = {module for module, _ in alive}
    missing = sorted(key for key, is_alive in alive.items() if is_alive and key not in explained)
    needless = sorted(key for key in explained if key[0] in run and not alive.get(key, False))
    for module, mutant in missing:
        print(f"alive and not explained: | `{module}` | {mutant} |  |")
    for module, mutant in needless:
        print(f"explained, but killed or no longer there: {module}: {mutant}")
    return int(bool(missing or needless))


def latest(lines: Iterable[str]) -> dict[tuple[str, str], bool]:
    """Whether each mutant (module, mutant) is alive, by the last result of the module's last version."""
    rows = [json.loads(line) for line in lines]
    version = {row["module"]: row["digest"] for row in rows}
    return {(r["module"], r["mutant"]): "alive" in r for r in rows if r["digest"] == version[r["module"]]}


def explanations(document: str) -> set[tuple[str, str]]:
    """The mutants (module, mutant) of the rows that have a reason in their last cell."""
    rows = re.findall(r"^\| `([a-z_/]+\.py)` \| (.+?) \| *([^|]*?) *\|$", document, re.MULTILINE)
    return {(module, mutant) for module, mutant, reason in rows if reason}


def row(module: str, alive: dict[tuple[str, str], bool], explained: set[tuple[str, str]], commit: str) -> str:
    """A line of the table; empty if the module was not run."""
    found = {key: state for key, state in alive.items() if key[0] == module}
    if not found:
        return ""
    left = [key for key, state in found.items() if state]
    reasons = sum(key in explained for key in left)
    return cells(module, [len(found), len(found) - len(left), reasons, len(left) - reasons, commit])


def former(module: str, document: str) -> str:
    """The line that the table has of a module that was not run."""
    found = re.search(rf"^\| {re.escape(module)} \|.*\|$", document, re.MULTILINE)
    return found[0] if found else cells(module, ["not run"] * 5)


def cells(module: str, values: Sequence[object]) -> str:
    return f"| {module} | {' | '.join(map(str, values))} |"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

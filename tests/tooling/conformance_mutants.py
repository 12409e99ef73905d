"""A mutation test of the conformance kit: which faults in an implementation does the kit not notice?

    python tests/tooling/conformance_mutants.py python c js --count 220 --results .conformance-mutants.jsonl

One small fault at a time is put into the codec in Python, the decoder in C and the decoder in JavaScript.
Each such mutant runs under the checks of the kit until one fails. A mutant is chosen by the digest of its
name, so that the choice does not depend on where faults stand. Results are kept in a file of JSON lines: an
interrupted run goes on where it stopped, and a mutant is run again when its source has changed or, where it
is alive, the kit. At the end `conformance_mutants_table` writes the table of docs/conformance_mutants.md and
checks its reasons.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import conformance_mutants_table
from kit_checks import kit_checks
from mutants_of_programs import C, JavaScript
from mutants_of_python import Python

ROOT = Path(__file__).resolve().parents[2]
IMPLEMENTATIONS = {"python": Python, "c": C, "js": JavaScript}
EXAMPLES = 30
"""Generated cases of a property of the kit; they are the same for each mutant."""


class Result(NamedTuple):
    """What became of a mutant: "killed" by the named check, "alive", or "invalid": it does not compile."""

    state: str
    by: str = ""


def main() -> int:
    """Run the mutants that have no result yet, and write the table."""
    parser = argparse.ArgumentParser(description="mutants of implementations under the conformance kit")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(IMPLEMENTATIONS)}; default: all")
    parser.add_argument(
        "--count", type=int, default=220, help="mutants an implementation; default %(default)s"
    )
    parser.add_argument("--results", type=Path, required=True, help="a file of JSON lines")
    arguments = parser.parse_args()
    names = arguments.names or list(IMPLEMENTATIONS)
    if unknown := set(names) - set(IMPLEMENTATIONS):
        parser.error(f"expected some of {', '.join(IMPLEMENTATIONS)}, got {', '.join(sorted(unknown))}")
    checks = kit_checks(EXAMPLES)
    kit = digest_of_kit()
    for name in names:
        implementation = IMPLEMENTATIONS[name](checks)
        known = {r["mutant"]: r for r in current(read(arguments.results), name, implementation.digest, kit)}
        with arguments.results.open("a", encoding="utf-8") as out:
            for row in run(name, implementation, known, arguments.count, kit):
                out.write(json.dumps(row) + "\n")
                out.flush()
    return conformance_mutants_table.main(arguments.results)


def run(
    name: str, implementation: Any, known: dict[str, dict[str, str]], count: int, kit: str
) -> Iterator[dict[str, str]]:
    """Yield the results that are missing, until `count` mutants that compile have one."""
    found: Counter[str] = Counter()
    for mutant in sorted(implementation.mutants(), key=lambda m: hashlib.sha256(m.key.encode()).digest()):
        if found["killed"] + found["alive"] >= count:
            return
        row = known.get(mutant.key)
        if row is None:
            state, by = implementation.test(mutant)
            row = {"implementation": name, "mutant": mutant.key, "state": state, "by": by}
            yield row | {"digest": implementation.digest, "kit": kit}
        found[row["state"]] += 1
        show(name, found, mutant.key if row["state"] == "alive" else "")


def show(name: str, found: Counter[str], alive: str) -> None:
    """Print the counts on one line, and a mutant that is alive on a line of its own."""
    counts = ", ".join(f"{found[state]} {state}" for state in ("killed", "alive", "invalid"))
    end = f"\n  alive: {alive}\n" if alive else "\r"
    print(f"{name}: {counts}", end=end, file=sys.stderr, flush=True)


def read(results: Path) -> list[dict[str, str]]:
    """The rows of the file; a last line that was not written completely is left out."""
    lines = results.read_text(encoding="utf-8").splitlines(keepends=True) if results.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def current(rows: Sequence[dict[str, str]], name: str, digest: str, kit: str) -> Iterator[dict[str, str]]:
    """The rows of an implementation that still hold: of its present source and, if alive, the present kit."""
    for row in rows:
        if (row["implementation"], row["digest"]) == (name, digest) and (
            row["state"] != "alive" or row["kit"] == kit
        ):
            yield row


def digest_of_kit() -> str:
    """The digest of the kit and its vectors."""
    folders = (ROOT / "fedmrn_codec" / "conformance", ROOT / "spec" / "vectors")
    return digest(
        sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".json"))
    )


def digest(files: Collection[Path]) -> str:
    """The digest of these files together."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())

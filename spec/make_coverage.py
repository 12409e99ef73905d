"""List every numbered requirement with the vectors and the kit's checks that cover it: COVERAGE.md.

python spec/make_coverage.py            # check that the file is what this would write
python spec/make_coverage.py --write    # write it
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from fedmrn_codec.conformance.protocol import first, last  # noqa: E402
from fedmrn_codec.conformance.suite import checks  # noqa: E402
from fedmrn_codec.conformance.vector_files import FILES, load  # noqa: E402
from fedmrn_codec.conformance.verdict import ALSO  # noqa: E402

FORMAT, FILE = ROOT / "spec" / "FORMAT.md", ROOT / "spec" / "COVERAGE.md"

REMARKS = {
    "N-01": "through [N-04], [M-04], [A-03] and [A-04]: other operations give other bits",
    "M-03": "cannot be seen from outside: frames with public or with private r look alike",
}
"""Numbers that need a remark."""

HEAD = """\
# Numbered requirements and their tests

Each number of [FORMAT.md](FORMAT.md), with the [vectors](vectors/README.md) that are about it and the checks
of the [conformance kit](CONFORMANCE.md) beyond the vectors. `x-*` stands for `x` and all ids that begin with
`x-`; their number follows in brackets. Generated checks (`generated/`) compare with the plain-integer oracle;
those of hostile input can reach every check of sections 7, 8.5 and 8.6. `spec/make_coverage.py` writes
this file.

"""


def numbers() -> list[str]:
    """The numbers in the order of the text."""
    return re.findall(r"^(?:\| |- )\[([A-Z]-\d\d)\]", FORMAT.read_text(encoding="utf-8"), re.MULTILINE)


def known_vectors() -> dict[str, list[str]]:
    """The ids of the vectors of each number."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in FILES:
        for case in load(name):
            for number in case["spec"]:
                found[number].append(case["id"])
    return found


def further_checks() -> dict[str, list[str]]:
    """The ids of the kit's checks of each number that are not made from one vector."""
    vectors = {case["id"] for name in FILES for case in load(name)}
    found: dict[str, list[str]] = defaultdict(list)
    for check in [*first(), *checks(examples=1), *last()]:
        if check.id.rpartition(":")[0] not in vectors:
            for number in check.musts:
                found[number].append(check.id)
    return found


def vectors_in_words(ids: list[str]) -> str:
    """The ids, with those together that are all of a file, or all that begin alike."""
    parts = []
    for name in FILES:
        every = [case["id"] for case in load(name)]
        mine = [id for id in every if id in ids]
        if mine == every:
            parts.append(f"`{name}/*` ({len(mine)})")
            continue
        for begin, group in _by_beginning(mine).items():
            if len(group) > 1 and group == _by_beginning(every)[begin]:
                parts.append(f"`{begin}-*` ({len(group)})")
            else:
                parts += [f"`{id}`" for id in group]
    return ", ".join(parts)


def _by_beginning(ids: Iterable[str]) -> dict[str, list[str]]:
    """The ids by what is before their first hyphen."""
    groups: dict[str, list[str]] = defaultdict(list)
    for id in ids:
        groups[id.partition("-")[0]].append(id)
    return groups


def checks_in_words(ids: Iterable[str]) -> str:
    """The ids, with those together that differ after their first hyphen only."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for id in ids:
        before, _, op = id.partition(":")
        groups[re.sub(r"-.*", "", before), op].append(id)
    parts = []
    for (begin, op), mine in groups.items():
        suffix = f":{op}" if op else ""
        parts.append(f"`{mine[0]}`" if len(mine) == 1 else f"`{begin}-*{suffix}` ({len(mine)})")
    return ", ".join(parts)


def text() -> str:
    """The text of COVERAGE.md."""
    vectors, further = known_vectors(), further_checks()
    also: dict[str, list[str]] = defaultdict(list)
    for number, others in ALSO.items():
        for other in others:
            also[other].append(f"as [{number}]")
    lines = ["| number | vectors | checks beyond the vectors |", "|---|---|---|"]
    for number in numbers():
        second = [checks_in_words(further[number]), *also[number], REMARKS.get(number, "")]
        cells = (f"[{number}]", vectors_in_words(vectors[number]), "; ".join(filter(None, second)))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Checks that cite a section:", "", "| section | checks beyond the vectors |", "|---|---|"]
    for section in sorted(set(further) - set(numbers()), key=_order):
        lines.append(f"| {section} | {checks_in_words(further[section])} |")
    return HEAD + "\n".join(lines) + "\n"


def _order(section: str) -> tuple[bool, list[int]]:
    return section.startswith("C"), [int(n) for n in re.findall(r"\d+", section)]


def uncovered() -> list[str]:
    """The numbers that have no vector, no check and no remark."""
    vectors, further = known_vectors(), further_checks()
    also = {other for others in ALSO.values() for other in others}
    return [n for n in numbers() if not (vectors[n] or further[n] or n in also or n in REMARKS)]


def main() -> None:
    """Write the file with --write; in any case check it."""
    if "--write" in sys.argv:
        FILE.write_text(text(), encoding="utf-8")
    if missing := uncovered():
        sys.exit(
            f"FORMAT.md: expected a vector or a check for every number, got none for {', '.join(missing)}"
        )
    if not FILE.is_file() or FILE.read_text(encoding="utf-8") != text():
        sys.exit("spec/COVERAGE.md is not what spec/make_coverage.py writes")


if __name__ == "__main__":
    main()

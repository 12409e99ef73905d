"""Show the invalid vectors as annotated views, and make the page INVALID.md of what is wrong with each.

python spec/show_vectors.py              # check that the page is what this would write
python spec/show_vectors.py --write      # write it
python spec/show_vectors.py ID ...       # print the whole views of these vectors
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from fedmrn_codec.conformance import replay, tally_vectors  # noqa: E402
from fedmrn_codec.conformance.annotated import View, annotated  # noqa: E402
from fedmrn_codec.conformance.check import Case  # noqa: E402
from fedmrn_codec.conformance.inputs import Input  # noqa: E402
from fedmrn_codec.conformance.vector_files import load  # noqa: E402

PAGE = ROOT / "spec" / "INVALID.md"
HEAD = """# What is wrong with each invalid vector

This page is made by `python spec/show_vectors.py --write` from `invalid.json`, `partials_invalid.json` and
`tallies_invalid.json` of the [vectors](vectors/README.md). For each of them it shows the field that does not
pass its check: the offset of the bytes, the bytes, the field with its value and its section of
[FORMAT.md](FORMAT.md), and below them the check with its number. Where bytes are missing, the mark is below
the last field.
`python spec/show_vectors.py ID` prints all bytes of a vector in this form, and
`fedmrn inspect --annotate FILE` those of any file.
"""


def cases() -> Iterator[tuple[str, str, Case]]:
    """The id, the comment and the check of each invalid frame, partial sum and tally."""
    files = {
        "invalid": replay.refusals,
        "partials_invalid": replay.bad_partials,
        "tallies_invalid": tally_vectors.bad_tallies,
    }
    for name, checks in files.items():
        for vector, case in zip(load(name), checks(), strict=True):
            yield vector["id"], vector["comment"], case


def view(case: Case) -> View:
    """The annotated view of a vector."""
    ((request, _),) = case.steps
    return annotated(Input.of(request))  # type: ignore[arg-type]  # the requests of these two files


def excerpt(text: str) -> list[str]:
    """The first line of the field at fault, the line with the fault, and the check."""
    lines = text.splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("!"))
    row = first = at - 1
    while lines[first].partition("|")[2].startswith("   "):
        first -= 1
    left_out = ["..."] if row - first > 1 else []
    return [*lines[first : first + 1], *left_out, *lines[max(row, first + 1) : at + 1]]


def page() -> str:
    """The text of the page."""
    blocks, last = [HEAD], ""
    for name, comment, case in cases():
        if case.musts[0] != last:
            last = case.musts[0]
            blocks.append(f"## {last} in {name.partition('/')[0]}.json\n")
        lines = "\n".join(excerpt(view(case).text))
        blocks.append(f"`{name}`: {comment}\n\n```text\n{lines}\n```\n")
    return "\n".join(blocks)


def main(arguments: list[str]) -> int:
    """Print views, or write or check the page; the exit code is 1 if it is not up to date."""
    if arguments == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    elif arguments:
        known = {name: case for name, _, case in cases()}
        if unknown := [name for name in arguments if name not in known]:
            sys.exit(
                f"ID: expected ids of invalid vectors, such as {next(iter(known))}, got {', '.join(unknown)}"
            )
        print("\n".join(view(known[name]).text for name in arguments), end="")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        print(f"{PAGE.relative_to(ROOT)}: not up to date; run python spec/show_vectors.py --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

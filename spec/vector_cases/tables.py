"""Tables in Markdown for the worked examples."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: str, rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown; the heads are separated by |."""
    columns = head.split("|")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def fields(whole: bytes, parts: Sequence[tuple[int, str, str]], at: int = 0) -> str:
    """The table of the fields that make up bytes `at` to the last."""
    rows = []
    for size, name, meaning in parts:
        rows.append((at, f"`{whole[at : at + size].hex(' ')}`", name, meaning))
        at += size
    assert at == len(whole)
    return table("offset|bytes|field|meaning", rows)

"""What a benchmark hands back, and how it is printed: tables, and targets beside what was measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedmrn_codec.primitives import atomic


@dataclass(frozen=True)
class Table:
    """A title, the heads of the columns, rows of text, and what a reader must know to read them."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Target:
    """A line of acceptance: what is asked for, and what was measured. Printed, never asserted."""

    name: str
    measured: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether the measurement is on the right side of the bound."""
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Its row of the table of targets."""
        sign = "≥" if self.at_least else "≤"
        measured = number(self.measured) if self.measured >= 10 else f"{self.measured:.3f}"
        return self.name, f"{sign} {self.bound:g}", measured, "yes" if self.met else "no"


@dataclass
class Section:
    """All that one benchmark found; `curves` is for the figure: panel -> contender -> (x, y) pairs."""

    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    summary: Table | None = None
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)


def targets_table(targets: Sequence[Target]) -> Table:
    """The lines of acceptance."""
    heads = "acceptance", "target", "measured", "met"
    return Table("Targets", heads, [target.row for target in targets])


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def text(table: Table) -> str:
    """The table for a terminal: the first column to the left, numbers to the right."""
    rows = [list(map(str, table.heads)), *(list(row) for row in table.rows)]
    if any(len(row) != len(table.heads) for row in rows):
        raise ValueError(f"{table.title}: found rows of {sorted({*map(len, rows)})}, required {len(rows[0])}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join([table.title, *table.notes, "", lines[0].rstrip(), *lines[1:], ""])


def markdown(table: Table) -> str:
    """The table for the README."""
    rule = "|---|" + "---:|" * (len(table.heads) - 1)
    return "\n".join([_line(table.heads), rule, *map(_line, table.rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def insert(document: Path, body: str) -> None:
    """Replace what stands between a document's comments `<!-- speed... -->` and `<!-- end of speed -->`.

    Raises
    ------
    ValueError
        The document does not have them once.
    """
    pattern = re.compile(r"(<!-- speed\b[^\n]*-->\n).*?(<!-- end of speed -->)", re.S)
    new, count = pattern.subn(lambda m: f"{m[1]}{body}\n{m[2]}", document.read_text())
    if count != 1:
        raise ValueError(f"{document}: found {count} places for speeds, required 1")
    atomic.write(document, new.encode())

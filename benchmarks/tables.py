"""What a benchmark returns and how it is printed: tables, and acceptance targets beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fedmrn_codec.cli.output import print_table
from reference_fl.report import documents


@dataclass(frozen=True)
class Table:
    """A title, the heads of the columns, rows of text, and notes that a reader needs.

    Raises
    ------
    ValueError
        A row does not have as many cells as there are heads.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if (counts := {*map(len, self.rows)}) - {len(self.heads)}:
            raise ValueError(
                f"cells of a row of {self.title!r}: expected {len(self.heads)}, got {sorted(counts)}"
            )

    def print(self) -> None:
        """Print the table on stdout."""
        print_table(self.title, self.heads, self.rows, self.notes)

    def markdown(self) -> str:
        """The table without title and notes, in Markdown: the first column left, numbers right."""
        return documents.markdown(self.heads, self.rows, left=1)


@dataclass(frozen=True)
class Target:
    """An acceptance target: a bound, and the measured value. It is printed, never asserted."""

    name: str
    measured: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        """Whether the measured value is on the right side of the bound."""
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    @property
    def row(self) -> tuple[str, str, str, str]:
        """The row in the table of targets."""
        sign = "≥" if self.at_least else "≤"
        measured = number(self.measured) if self.measured >= 10 else f"{self.measured:.3f}"
        return self.name, f"{sign} {self.bound:g}", measured, "yes" if self.met else "no"


@dataclass
class Section:
    """The results of one benchmark; `curves` is for the figure: panel -> contender -> (x, y) pairs."""

    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    summary: Table | None = None
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)


def targets_table(targets: Sequence[Target]) -> Table:
    """The table of acceptance targets."""
    heads = "acceptance", "target", "measured", "met"
    return Table("Targets", heads, [target.row for target in targets])


def number(value: float) -> str:
    """Format a number with about three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"

"""What is best on which axis: accuracy, bytes up, bytes of both directions, and time to an accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import times
from .grids import RATES, Grid, duration
from .runs import both, uplink
from .sections import RECENT, Row, Section


@dataclass(frozen=True)
class Best:
    """The best rows on one axis: those with the best value, usually one; none if no row has a value.

    Attributes
    ----------
    axis : str
    labels : tuple of str
        The labels of the rows, in the order of the section.
    value : str
        The value, with its unit.
    accuracy : str
        The accuracy of these rows, so that few bytes of a poor model do not look like a success.
    """

    axis: str
    labels: tuple[str, ...]
    value: str
    accuracy: str


def best(section: Section, targets: Sequence[float]) -> list[Best]:
    """The best rows on each axis.

    Accuracies are means over seeds and the last rounds (`RECENT`), up to the round that all rows have; bytes
    are means over messages; times are those of `times.reached`, for each of `targets` and `times.RATES`.
    """
    common = section.rounds

    def accuracy(row: Row) -> float:
        return float(row.accuracy[:, :common][:, -RECENT:].mean())

    def bytes_of(count: Callable[[dict[str, object]], float]) -> Callable[[Row], float]:
        return lambda row: row.per_message(count)

    def shown_bytes(value: float) -> str:
        return f"{value:,.0f} B"

    def shown_accuracy(value: float) -> str:
        return f"{value:.4f}"

    until = f"mean of rounds {max(1, common - RECENT + 1)} to {common}"
    found = [
        _of(
            section, f"accuracy, {until}", lambda row: -accuracy(row), accuracy, lambda v: shown_accuracy(-v)
        ),
        _of(section, "bytes up of a client and round", bytes_of(uplink), accuracy, shown_bytes),
        _of(section, "bytes of both directions", bytes_of(both), accuracy, shown_bytes),
    ]
    for target in targets:
        reached = {row.label: times.reached(row, target) for row in section.rows}
        for i, rates in enumerate(RATES):
            seconds = {label: each.seconds[i] for label, each in reached.items() if each is not None}
            axis = f"time to {target:g} at {rates} (Mbit/s)"
            found.append(_of(section, axis, lambda row, s=seconds: s.get(row.label), accuracy, duration))  # type: ignore[misc]
    return found


def _of(
    section: Section,
    axis: str,
    value: Callable[[Row], float | None],
    accuracy: Callable[[Row], float],
    shown: Callable[[float], str],
) -> Best:
    """The rows of the lowest value."""
    values = [(row, each) for row in section.rows if (each := value(row)) is not None]
    if not values:
        return Best(axis, (), "", "")
    lowest = min(each for _, each in values)
    rows = [row for row, each in values if each == lowest]
    accuracies = ", ".join(f"{accuracy(row):.4f}" for row in rows)
    return Best(axis, tuple(row.label for row in rows), shown(lowest), accuracies)


def grid(section: Section, targets: Sequence[float]) -> Grid:
    """`best` as a table."""
    table = Grid("Best on each axis", ["axis", "best", "value", "accuracy of it"])
    for each in best(section, targets):
        table.rows.append([each.axis, "; ".join(each.labels) or "not reached", each.value, each.accuracy])
    return table

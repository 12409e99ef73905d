"""Runs sorted for a comparison: sections by task, in them rows by method, in them runs by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from .runs import IN_LABEL, RAW, TASK, Run

FLOAT32 = "fedavg"
RECENT = 5
"""Rounds of `Row.recent`."""
FIRST = (FLOAT32, "fedmrn")  # the methods at the top of every table


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and, for two seeds or more, the sample standard deviation."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Spread:
        """Compute it from one value for each seed."""
        v = np.asarray(values, np.float64)
        return cls(float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else None)

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if self.deviation is None else f" ± {self.deviation:.4f}")


@dataclass(frozen=True)
class Row:
    """One method with one set of settings.

    Attributes
    ----------
    label : str
        Method and mask kind, and the settings that distinguish it from the other rows of the section.
    runs : tuple of Run
        One for each seed, in the order of the seeds.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.runs[0].settings["method"])

    @property
    def downlink(self) -> str:
        """How the model is sent to the clients."""
        return str(self.runs[0].settings["downlink"])

    @property
    def rounds(self) -> int:
        """The number of rounds that all seeds have finished; all values of the row refer to these rounds."""
        return min(len(run.rounds) for run in self.runs)

    @property
    def planned(self) -> int:
        """The number of rounds in the settings."""
        return max(int(run.settings["rounds"]) for run in self.runs)

    def series(self, value: Callable[[dict[str, Any]], float]) -> np.ndarray:
        """A value of each line: float64, shape (seeds, rounds)."""
        return np.array(
            [[value(line) for line in run.rounds[: self.rounds]] for run in self.runs], np.float64
        )

    @property
    def accuracy(self) -> np.ndarray:
        """Test accuracy, shape (seeds, rounds)."""
        return self.series(itemgetter("accuracy"))

    @property
    def last(self) -> Spread:
        """Accuracy after the last round."""
        return Spread.of(self.accuracy[:, -1])

    @property
    def recent(self) -> Spread:
        """Mean accuracy of the last `RECENT` rounds: with label skew, it varies much from round to round."""
        return Spread.of(self.accuracy[:, -RECENT:].mean(axis=1))

    @property
    def best(self) -> Spread:
        """The highest accuracy of each seed. It is chosen on the test set, so it is optimistically biased."""
        return Spread.of(self.accuracy.max(axis=1))

    def per_message(self, value: Callable[[dict[str, Any]], float]) -> float:
        """The mean over all messages: the sum over rounds and seeds, divided by the number of clients."""
        return float(self.series(value).sum() / self.series(itemgetter("clients")).sum())


@dataclass(frozen=True)
class Section:
    """The rows of one task.

    Attributes
    ----------
    name : str
        Data set and partition, and the settings that distinguish it from the other sections.
    task : dict
        The settings that are equal in all runs.
    rows : tuple of Row
    """

    name: str
    task: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def rounds(self) -> int:
        """The number of rounds that every row has."""
        return min(row.rounds for row in self.rows)

    @property
    def float32(self) -> Row | None:
        """The FedAvg row with a raw download, to compare with; of several, that of the best last accuracy."""
        rows = [row for row in self.rows if row.method == FLOAT32 and row.downlink == RAW]
        return max(rows, key=lambda row: row.last.mean) if rows else None


def sections(runs: Iterable[Run]) -> list[Section]:
    """Sort distinct runs into sections by task, and into rows by all other settings except the seed."""
    groups: dict[tuple[Any, ...], dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: (_order(run), run.settings["seed"])):
        groups.setdefault(run.task, {}).setdefault(repr(run.variant), []).append(run)
    distinguishing = _distinguishing(groups.values())
    return [
        Section(
            name=_name(task, groups),
            task=dict(zip(TASK, task, strict=True)),
            rows=tuple(Row(_label(of[0], distinguishing[of[0].kind]), tuple(of)) for of in rows.values()),
        )
        for task, rows in groups.items()
    ]


def _name(task: tuple[Any, ...], others: Iterable[tuple[Any, ...]]) -> str:
    alike = [other for other in others if other[:2] == task[:2]]
    differing = [i for i in range(2, len(TASK)) if len({other[i] for other in alike}) > 1]
    return ", ".join([*task[:2], *(f"{TASK[i].replace('_', ' ')} {task[i]}" for i in differing)])


def all_labels(found: Sequence[Section]) -> list[str]:
    """The labels of all sections, in the order of the rows."""
    rows = {row.label: row for section in found for row in section.rows}
    return sorted(rows, key=lambda label: _place(rows[label].runs[0]))


def _order(run: Run) -> tuple[Any, ...]:
    """The sort key: by data set, partition (IID first) and method."""
    dataset, partition, model, *numbers = run.task
    return (dataset, partition != "iid", partition, model, *map(float, numbers), *_place(run))


def _place(run: Run) -> tuple[Any, ...]:
    """The sort key of methods: FedAvg and FedMRN first, the others by name; fewest settings first."""
    method = run.settings["method"]
    first = FIRST.index(method) if method in FIRST else len(FIRST)
    return (first, run.label, len(run.variant), repr(run.variant))


def _distinguishing(groups: Iterable[dict[str, list[Run]]]) -> dict[str, list[str]]:
    """For each method and mask kind, the settings that differ between its rows of one section.

    Those that a run's label has anyway, its download and secure aggregation, are not among them.
    """
    found: dict[str, list[str]] = {}
    for rows in groups:
        variants: dict[str, list[dict[str, Any]]] = {}
        for of in rows.values():
            variants.setdefault(of[0].kind, []).append(of[0].variant)
        for kind, these in variants.items():
            keys = found.setdefault(kind, [])
            every = sorted({key for variant in these for key in variant} - set(IN_LABEL))
            differ = [key for key in every if len({repr(variant.get(key)) for variant in these}) > 1]
            keys.extend(key for key in differ if key not in keys)
    return found


def _label(run: Run, distinguishing: Sequence[str]) -> str:
    parts = [
        f"{key.replace('_', ' ')} {_short(run.variant[key])}" for key in distinguishing if key in run.variant
    ]
    return ", ".join([run.label, *parts])


def _short(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)

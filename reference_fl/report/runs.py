"""Finished runs, read from their metrics files alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import beside, mask_counts, secure_steps, traffic
from ..record import LATER_SETTINGS, METRICS, read

# Settings that must be equal in all runs of a comparison.
TASK = ("dataset", "partition", "model", "clients", "clients_per_round", "epochs", "batch_size")
# Settings in which runs of one method may differ.
REPEATED = ("seed", "rounds", "threads")
RAW = LATER_SETTINGS["downlink"]
"""The download in which every client receives all tensors as they are."""
IN_LABEL = ("mask", "downlink", "secure")
"""Settings that `Run.label` names."""
REQUIRED = (*TASK, "method", "mask", "seed", "rounds")


@dataclass(frozen=True)
class Run:
    """One run: its settings and its finished rounds.

    Attributes
    ----------
    settings : dict
    rounds : list of dict
        The lines with the keys `record.ROUND_KEYS`.
    commit : str or None
    machine : dict
    masks : list of dict
        The lines of `layers.jsonl`; empty for a method without masks, or if the file is missing.
    traffic : list of dict
        The lines of `traffic.jsonl`; empty if the file is missing, as for older runs.
    secure : list of dict
        The lines of `secure.jsonl`; empty without secure aggregation, or if the file is missing.
    options : dict or None
        All options of the method, with the defaults of the version that ran; None for older runs.
    """

    settings: dict[str, Any]
    rounds: list[dict[str, Any]]
    commit: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    masks: list[dict[str, Any]] = field(default_factory=list)
    traffic: list[dict[str, Any]] = field(default_factory=list)
    secure: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        """The method, with its mask kind."""
        name, mask = self.settings["method"], self.settings["mask"]
        return f"{name}{f' {mask}' if mask else ''}"

    @property
    def label(self) -> str:
        """The kind, with secure aggregation, and the download if that is not raw."""
        secure, way = self.settings["secure"], self.settings["downlink"]
        return f"{self.kind}{', secure' if secure else ''}{'' if way == RAW else f', downlink {way}'}"

    @property
    def task(self) -> tuple[Any, ...]:
        """The settings that must be equal for runs to be compared."""
        return tuple(self.settings[key] for key in TASK)

    @property
    def variant(self) -> dict[str, Any]:
        """The settings and options by which methods differ, except those that are None."""
        settings = {k: v for k, v in self.settings.items() if k not in (*TASK, *REPEATED, "options")}
        settings |= self.settings["options"]
        return {key: settings[key] for key in sorted(settings) if settings[key] is not None}


def uplink(line: dict[str, Any]) -> int:
    """The number of bytes that the clients of a round sent."""
    return int(line["uplink_mask_bytes"] + line["uplink_dense_bytes"] + line["uplink_header_bytes"])


def downlink(line: dict[str, Any]) -> int:
    """The number of bytes that the clients of a round received."""
    return int(line["downlink_bytes"])


def both(line: dict[str, Any]) -> int:
    """The number of bytes that the clients of a round sent and received."""
    return uplink(line) + downlink(line)


def load(paths: Sequence[Path]) -> list[Run]:
    """Read the runs of these files or folders, each once: `distinct` of `read_all`."""
    return distinct(read_all(paths))


def read_all(paths: Sequence[Path]) -> list[Run]:
    """Read the runs with a finished round from metrics files or folders.

    In a folder and in each folder below it, the file `metrics.jsonl` is read; without it, all `.jsonl` files.

    Raises
    ------
    OSError
        A file cannot be read.
    ValueError
        A file does not hold metrics, or its settings lack one of `REQUIRED`.
    """
    return _told_apart([run for path in paths for file in _files(path) for run in _read(file)])


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs; where the default of an option has changed between them, their settings name its value."""
    unnamed = [
        {key: value for key, value in (run.options or {}).items() if key not in run.settings["options"]}
        for run in runs
    ]
    values: dict[tuple[str, str], set[str]] = {}
    for run, defaults in zip(runs, unnamed, strict=True):
        for key, value in defaults.items():
            values.setdefault((run.kind, key), set()).add(repr(value))
    told = []
    for run, defaults in zip(runs, unnamed, strict=True):
        changed = {key: value for key, value in defaults.items() if len(values[run.kind, key]) > 1}
        told.append(
            replace(run, settings={**run.settings, "options": {**run.settings["options"], **changed}})
        )
    return told


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = (file for file in sorted(path.rglob("*.jsonl")) if not beside.is_one(file))
    return [file for file in found if file.name == METRICS or not file.with_name(METRICS).exists()]


def _read(file: Path) -> list[Run]:
    runs = read(file)
    alone = len(runs) == 1
    masks = mask_counts.read(beside.path(file, "layers")) if alone else []
    messages = traffic.read(beside.path(file, "traffic")) if alone else []
    steps = secure_steps.read(beside.path(file, "secure")) if alone else []
    for header, _ in runs:
        if missing := [key for key in REQUIRED if key not in header["settings"]]:
            expected = ", ".join(REQUIRED)
            raise ValueError(f"{file}: settings: expected {expected}, got none for {', '.join(missing)}")
    return [
        Run(
            {**LATER_SETTINGS, **header["settings"]},
            rounds,
            header.get("commit"),
            header.get("machine") or {},
            masks,
            messages,
            steps,
            header.get("options"),
        )
        for header, rounds in runs
        if rounds
    ]


def distinct(runs: Iterable[Run]) -> list[Run]:
    """One of the runs with the same settings and seed: that with most rounds, then most lines beside them."""
    kept: dict[str, Run] = {}
    for run in runs:
        other = kept.setdefault(_identity(run), run)
        if _lines(run) > _lines(other):
            kept[_identity(run)] = run
    return list(kept.values())


def _lines(run: Run) -> tuple[int, int, int, int]:
    return len(run.rounds), len(run.masks), len(run.traffic), len(run.secure)


def some_rounds(runs: Iterable[Run], first: int = 1, last: int | None = None) -> list[Run]:
    """The runs with these rounds only, both included; without a last one, to the end."""

    def some(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [line for line in lines if first <= line["round"] <= (last or line["round"])]

    return [
        replace(
            run,
            rounds=some(run.rounds),
            masks=some(run.masks),
            traffic=some(run.traffic),
            secure=some(run.secure),
        )
        for run in runs
    ]


def contradicting(runs: Iterable[Run], kept: Iterable[Run]) -> int:
    """The number of runs whose rounds differ from those of the kept run with the same settings and seed."""
    by_identity = {_identity(run): run for run in kept}
    return sum(by_identity[_identity(run)].rounds[: len(run.rounds)] != run.rounds for run in runs)


def _identity(run: Run) -> str:
    return repr((run.task, run.variant, run.settings["seed"]))

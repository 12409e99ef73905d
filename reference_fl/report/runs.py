"""Finished runs, read from their metrics files alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import layers
from ..record import LATER_SETTINGS, METRICS, read

# What every method of a comparison has in common.
TASK = ("dataset", "partition", "model", "clients", "clients_per_round", "epochs", "batch_size")
# What one method may have several of, without becoming another.
REPEATED = ("seed", "rounds", "threads")
REQUIRED = (*TASK, "method", "mask", "seed", "rounds")


@dataclass(frozen=True)
class Run:
    """One run: its settings and the rounds that are finished.

    Attributes
    ----------
    settings : dict
    rounds : list of dict
        The lines of `record.ROUND_KEYS`.
    commit : str or None
    machine : dict
    masks : list of dict
        The lines of `layers.jsonl`; empty for a method without masks, or where the file is not at hand.
    """

    settings: dict[str, Any]
    rounds: list[dict[str, Any]]
    commit: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    masks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The method, with its mask kind."""
        mask = self.settings["mask"]
        return f"{self.settings['method']} {mask}" if mask else str(self.settings["method"])

    @property
    def task(self) -> tuple[Any, ...]:
        """What runs must share to be compared."""
        return tuple(self.settings[key] for key in TASK)

    @property
    def variant(self) -> dict[str, Any]:
        """The settings by which methods differ, options among them; what is None is left out."""
        settings = {k: v for k, v in self.settings.items() if k not in (*TASK, *REPEATED, "options")}
        settings |= self.settings["options"]
        return {key: settings[key] for key in sorted(settings) if settings[key] is not None}


def uplink(line: dict[str, Any]) -> int:
    """All bytes that the clients of a round sent."""
    return int(line["uplink_mask_bytes"] + line["uplink_dense_bytes"] + line["uplink_header_bytes"])


def load(paths: Sequence[Path]) -> list[Run]:
    """The runs of these files or folders, each once: `distinct` of `read_all`."""
    return distinct(read_all(paths))


def read_all(paths: Sequence[Path]) -> list[Run]:
    """The runs with a finished round, of metrics files or of folders.

    Of a folder and each one below it: its file `metrics.jsonl`; without one, all its `.jsonl` files.

    Raises
    ------
    OSError
        A file cannot be read.
    ValueError
        It holds no metrics, or settings without one of `REQUIRED`.
    """
    return [run for path in paths for file in _files(path) for run in _read(file)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = (file for file in sorted(path.rglob("*.jsonl")) if not file.name.endswith("layers.jsonl"))
    return [file for file in found if file.name == METRICS or not file.with_name(METRICS).exists()]


def _read(file: Path) -> list[Run]:
    runs = read(file)
    masks = layers.read(layers.path_beside(file)) if len(runs) == 1 else []
    for header, _ in runs:
        if missing := [key for key in REQUIRED if key not in header["settings"]]:
            raise ValueError(
                f"{file}: settings without {', '.join(missing)}, required: {', '.join(REQUIRED)}"
            )
    return [
        Run(
            {**LATER_SETTINGS, **header["settings"]},
            rounds,
            header.get("commit"),
            header.get("machine") or {},
            masks,
        )
        for header, rounds in runs
        if rounds
    ]


def distinct(runs: Iterable[Run]) -> list[Run]:
    """One run of those with the same settings and seed: that with most rounds, then with mask counts."""
    kept: dict[str, Run] = {}
    for run in runs:
        other = kept.setdefault(_identity(run), run)
        if (len(run.rounds), len(run.masks)) > (len(other.rounds), len(other.masks)):
            kept[_identity(run)] = run
    return list(kept.values())


def first_rounds(runs: Iterable[Run], count: int) -> list[Run]:
    """The runs as they were after their first rounds."""
    return [
        replace(run, rounds=run.rounds[:count], masks=[m for m in run.masks if m["round"] <= count])
        for run in runs
    ]


def contradicting(runs: Iterable[Run], kept: Iterable[Run]) -> int:
    """How many runs are not in `kept`, though their rounds differ from those of the run that is."""
    by_identity = {_identity(run): run for run in kept}
    return sum(by_identity[_identity(run)].rounds[: len(run.rounds)] != run.rounds for run in runs)


def _identity(run: Run) -> str:
    return repr((run.task, run.variant, run.settings["seed"]))

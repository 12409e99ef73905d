"""The files of a run: one line of JSON for each round, and the state that the next round needs.

`metrics.jsonl`: the first line holds the settings, all options of the method, the commit, the machine and the
engines of the run (the result does not depend on the last two); and, for each time that another commit or
machine resumed the run, these and the number of rounds before. Each further line is a finished round with the
keys `ROUND_KEYS`; bytes are the lengths of the messages, summed over the clients of the round.
`layers.jsonl`: for methods with masks, the counts of `mask_counts.py`, one line for each round.
`objective.jsonl`: for smooth models, the quantities of `objective.py`, one line for each round.
`traffic.jsonl`: the bytes to and from each client of a round, as `traffic.py` writes them.
`secure.jsonl`: with secure aggregation, the bytes and the time of its steps, as in `secure_steps.py`.
`state.safetensors`: the state after the last round. The lines are written before the state: if the process
is killed in between, there is one line too many, which is dropped, and its round is repeated.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import safetensors

import fedmrn_codec as fm
from fedmrn_codec.primitives import atomic

from . import beside
from .commit import commit

if TYPE_CHECKING:  # `settings` imports torch, which reading a record does not need
    from .settings import Settings

ROUND_KEYS = (
    "dataset",
    "partition",
    "method",
    "mask",
    "seed",
    "round",
    "accuracy",
    "loss",
    "clients",
    "uplink_mask_bytes",
    "uplink_dense_bytes",
    "uplink_header_bytes",
    "downlink_bytes",
    "seconds",
)
METRICS, STATE = "metrics.jsonl", "state.safetensors"
LOCAL = "local"  # the engine of runs whose header names none
LATER_SETTINGS: dict[str, Any] = {
    "options": {},
    "learning_rate_schedule": "constant",
    "downlink": "raw",
    "secure": False,
}  # values for runs that are older than these settings


class Record:
    """The files of one run, made by `open`.

    Attributes
    ----------
    rounds : list of dict
        The lines of the finished rounds.
    """

    def __init__(self, folder: Path, header: dict[str, Any], rounds: list[dict[str, Any]]) -> None:
        self.folder, self.header, self.rounds = folder, header, rounds
        self._file: BinaryIO | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        settings: Settings,
        engine: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Record:
        """Open the record of a new or a resumed run; of the settings only the number of rounds may differ.

        Parameters
        ----------
        folder : pathlib.Path
        settings : Settings
        engine : str, optional
            The name of the engine for the remaining rounds.
        options : mapping of str to object, optional
            All options of the method, defaults included, since a later version may have other defaults. They
            are compared with those in the record; an older record has none, and its run is simply resumed.

        Raises
        ------
        ValueError
            The folder holds a run with other settings, or files that are not those of a run.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / METRICS).exists():
            return cls(folder, header_line(settings, engine, options), [])
        ((header, rounds),) = read(folder / METRICS) or [(header_line(settings, engine, options), [])]
        before, now = {**LATER_SETTINGS, **header["settings"]}, settings.as_json()
        if options is not None and "options" in header:
            before, now = {**header["options"], **before}, {**options, **now}
        changed = [key for key in now if key != "rounds" and before.get(key) != now[key]]
        if changed:
            raise ValueError(
                f"settings of the run in {folder / METRICS}: "
                + ", ".join(f"{key} expected {now[key]!r}, got {before.get(key)!r}" for key in changed)
            )
        done = _finished_rounds(folder / STATE)
        if len(rounds) < done:
            what = f"rounds in {folder / METRICS}"
            raise ValueError(f"{what}: expected at least {done}, as {STATE} states, got {len(rounds)}")
        header["settings"] = {**settings.as_json(), "rounds": max(done, settings.rounds)}
        engines = header.setdefault("engines", [LOCAL])
        if engine is not None and engine not in engines and done < settings.rounds:
            engines.append(engine)
        return cls(folder, header, rounds[:done])

    def __enter__(self) -> Record:
        done = len(self.rounds)
        if 0 < done < self.header["settings"]["rounds"]:
            _add_resumption(self.header, done)
        for name in beside.NAMES:
            file = beside.path(self.folder / METRICS, name)
            kept = [line for line in beside.read(file) if line["round"] <= done]
            if kept:
                atomic.write(file, _as_lines(kept))
            else:
                file.unlink(missing_ok=True)
        atomic.write(self.folder / METRICS, _as_lines([self.header, *self.rounds]))
        self._file = (self.folder / METRICS).open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def load_state(self) -> bytes | None:
        """The state after the last finished round, as safetensors; None before the first."""
        return (self.folder / STATE).read_bytes() if self.rounds else None

    def append(
        self, line: dict[str, Any], state: bytes, others: Mapping[str, dict[str, Any] | None] | None = None
    ) -> None:
        """Save a finished round: the lines of other files (`beside.NAMES`), its line, then its state."""
        assert self._file is not None
        assert tuple(line) == ROUND_KEYS
        for name, other in (others or {}).items():
            if other is not None:
                with beside.path(self.folder / METRICS, name).open("ab") as file:
                    _add_line(file, other)
        _add_line(self._file, line)
        self.rounds.append(line)
        atomic.write(self.folder / STATE, state)


def _as_lines(lines: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _add_line(file: BinaryIO, line: dict[str, Any]) -> None:
    """Append a line, and wait until it is on the disk."""
    file.write(_as_lines([line]))
    file.flush()
    os.fsync(file.fileno())


def header_line(
    settings: Settings, engine: str | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The first line of a run: settings, all options of the method, commit, machine and engine."""
    completed = {} if options is None else {"options": dict(options)}
    return {"settings": settings.as_json(), **completed, **made_by(), "engines": [engine or LOCAL]}


def _add_resumption(header: dict[str, Any], done: int) -> None:
    """Note another commit or machine than before for the rounds after `done`."""
    now, last = made_by(), header.get("resumed", [header])[-1]
    if {key: last.get(key) for key in now} != now:
        header.setdefault("resumed", []).append({"after": done, **now})


def made_by() -> dict[str, Any]:
    """The commit of this source tree, and the machine with the versions of Python, torch and the codec."""
    import torch

    return {
        "commit": commit(Path(__file__).parent),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "fedmrn_codec": fm.__version__,
        },
    }


def read(path: Path) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Read the runs of a metrics file, each its first line and its rounds; usually one run.

    An incomplete last line, which a killed process leaves, is left out.

    Raises
    ------
    ValueError
        The file does not hold metrics.
    """
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    runs: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            if "settings" in line:
                runs.append((line, []))
            else:
                runs[-1][1].append({key: line[key] for key in ROUND_KEYS})
        except (ValueError, KeyError, TypeError, IndexError) as error:
            got = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path}, line {number}: expected metrics, got {got}") from None
    return runs


def _finished_rounds(path: Path) -> int:
    """The round after which the state was saved; 0 without a state."""
    if not path.exists():
        return 0
    with safetensors.safe_open(path, "np") as file:
        return int(file.metadata()["round"])


def _processor() -> str:
    """The name of the processor, where the system provides it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

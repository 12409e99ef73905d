"""The rounds of a run for TensorBoard, if it is installed: `fedmrn train --tensorboard FOLDER`.

Everything is read from the files of the run after a round is saved, so logging cannot change a result. The
tags are `accuracy`, `loss`, `seconds`, `bytes/up` and `bytes/down` (sums over the clients of the round, as in
`metrics.jsonl`) and, for methods with masks, `density/TENSOR` and `scale/TENSOR` (`layers.jsonl`). The step
is the number of the round.

A run that is resumed, or logged only later, gets the rounds that its log lacks and none twice: the file
`fedmrn-rounds.txt` in the folder of the log holds the number of the last round in it. It is written after the
events are on the disk. If the process is killed in between, the round is written again, and TensorBoard is
told to drop the first copy (`purge_step`).
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from fedmrn_codec.primitives import atomic

from . import beside, mask_counts
from .record import METRICS, read
from .report import uplink

LOGGED = "fedmrn-rounds.txt"


def require() -> None:
    """See that events can be written.

    Raises
    ------
    ValueError
        The package `tensorboard` is not installed.
    """
    try:
        from torch.utils import tensorboard  # noqa: F401
    except ImportError as error:
        what = "--tensorboard: expected the package tensorboard"
        raise ValueError(f"{what}, got none ({error}); install it with: pip install tensorboard") from None


class Log:
    """The log of one run; a context manager.

    Parameters
    ----------
    run : pathlib.Path
        The folder of the run, with its metrics.
    folder : pathlib.Path
        For the events; made if it does not exist.

    Raises
    ------
    ValueError
        The package `tensorboard` is not installed, or the folder holds the log of another run.
    """

    def __init__(self, run: Path, folder: Path) -> None:
        require()
        self._run, self._folder = run, folder
        self._last = _last_round(folder / LOGGED)
        done = len(_lines(run))
        if self._last > done:
            what = f"{folder}: expected a log of at most {done} rounds, as many as {run} has"
            raise ValueError(f"{what}, got one of {self._last}; choose another folder")
        self._writer: Any = None

    def __enter__(self) -> Log:
        from torch.utils.tensorboard import SummaryWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        purge = self._last + 1 if self._last else None
        self._writer = SummaryWriter(str(self._folder), purge_step=purge)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, line: dict[str, Any]) -> None:
        """Write a round, whose line of the metrics this is, unless it is in the log."""
        number = int(line["round"])
        if number <= self._last:
            return
        for tag, value in self._values(line).items():
            self._writer.add_scalar(tag, value, number)
        self._writer.flush()
        atomic.write(self._folder / LOGGED, f"{number}\n".encode())
        self._last = number

    def _values(self, line: dict[str, Any]) -> dict[str, float]:
        found = {key: float(line[key]) for key in ("accuracy", "loss", "seconds")}
        found |= {"bytes/up": float(uplink(line)), "bytes/down": float(line["downlink_bytes"])}
        for masks in mask_counts.read(beside.path(self._run / METRICS, "layers")):
            if masks["round"] == line["round"]:
                for name, counts in masks["tensors"].items():
                    found[f"density/{name}"] = mask_counts.density(counts)
                    if "scale" in counts:
                        found[f"scale/{name}"] = counts["scale"]
        return found


def catch_up(run: Path, folder: Path) -> None:
    """Write the finished rounds of a run that its log lacks."""
    with Log(run, folder) as log:
        for line in _lines(run):
            log.add(line)


def _lines(run: Path) -> list[dict[str, Any]]:
    """The lines of the finished rounds of a run; none before it began."""
    return [line for _, rounds in read(run / METRICS) for line in rounds] if (run / METRICS).exists() else []


def _last_round(file: Path) -> int:
    """The number in the file; 0 if there is none."""
    if not file.exists():
        return 0
    text = file.read_text(errors="replace").strip()
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{file}: expected the number of a round, got {text[:40]!r}")
    return int(text)

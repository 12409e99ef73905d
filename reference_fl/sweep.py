"""Runs many experiments, several at a time, each in its own process; finished rounds are kept and skipped."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from os import environ
from pathlib import Path
from typing import Any

from fedmrn_codec.backends.threads import processors
from fedmrn_codec.primitives import atomic

from . import events
from .record import METRICS, Record, read
from .sweep_runs import Planned

LOG = "log.txt"  # the standard error of a run
GRACE = 5.0  # seconds between asking a process to end and killing it
THREADS = tuple(f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"))
THREADS += ("FEDMRN_THREADS",)

Report = Callable[[str, dict[str, Any]], None]
"""Called with the name of a run and the line of a round that has just finished."""


class Sweep:
    """Runs whose folders are below one folder.

    Parameters
    ----------
    runs : sequence of Planned
    out : pathlib.Path
        Holds one folder for each run, with its name.
    data_root : pathlib.Path or None
        As in `data.load`.
    threads : int or None
        Threads of each run. None keeps the number that an unfinished run began with; a new run gets an even
        share of the cores.
    jobs : int
        The most runs at the same time; fewer run if their threads would be more than the processors.
    tensorboard : pathlib.Path, optional
        Holds one folder for each run, with its events (`events`).
    """

    def __init__(
        self,
        runs: Sequence[Planned],
        out: Path,
        data_root: Path | None,
        threads: int | None,
        jobs: int,
        tensorboard: Path | None = None,
    ) -> None:
        share = max(1, processors() // jobs)
        self.out, self.data_root, self.jobs, self.tensorboard = out, data_root, jobs, tensorboard
        self.runs = [
            replace(
                run, settings=replace(run.settings, threads=threads or begun_with(out / run.name) or share)
            )
            for run in runs
        ]
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def left(self) -> list[Planned]:
        """The runs with unfinished rounds."""
        return [run for run in self.runs if not is_done(self.out / run.name, run)]

    def execute(self, report: Report) -> dict[str, str]:
        """Do all unfinished rounds.

        If the call is interrupted, by Ctrl-C or an exception, the processes are ended; finished rounds are
        kept.

        Returns
        -------
        dict of str to str
            The names of the runs that failed, each with the reason.

        Raises
        ------
        ValueError
            A run has more threads than there are processors.
        """
        failed: dict[str, str] = {}
        left = self.left()
        most, cores = max((run.settings.threads for run in left), default=1), processors()
        if most > cores:
            raise ValueError(f"threads of a run: expected at most {cores}, the processors, got {most}")
        with ThreadPoolExecutor(min(self.jobs, cores // most)) as pool:
            try:
                futures = {pool.submit(self._run, run, report): run for run in left}
                for future in as_completed(futures):
                    if (reason := future.result()) is not None:
                        failed[futures[future].name] = reason
            except BaseException:
                self._stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return failed

    def merge(self) -> Path:
        """Write the finished rounds of all runs into one file, whose path is returned.

        A folder that holds a run with other settings is left out.
        """
        path = self.out / METRICS
        records = [record for run in self.runs if (record := kept(self.out / run.name, run))]
        lines = [line for record in records for line in (record.header, *record.rounds)]
        atomic.write(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        return path

    def log_finished(self) -> None:
        """Log the rounds that were finished before the sweep was asked to log."""
        for run in self.runs if self.tensorboard else ():
            if kept(self.out / run.name, run):
                assert self.tensorboard is not None
                events.catch_up(self.out / run.name, self.tensorboard / run.name)

    def _run(self, run: Planned, report: Report) -> str | None:
        """Do one run in a process; return the reason if it failed, else None."""
        folder = self.out / run.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            log = (folder / LOG).open("w")
        except OSError as error:
            return str(error)
        with log:
            child = self._start(run, log)
            if child is None:
                return "not started"
            assert child.stdout is not None
            with child:
                for text in child.stdout:
                    report(run.name, json.loads(text))
            self._children.discard(child)
        return None if child.returncode == 0 else _reason(child.returncode, folder / LOG)

    def _start(self, run: Planned, log: Any) -> subprocess.Popen[str] | None:
        settings = run.settings
        root = None if self.data_root is None else str(self.data_root)
        job = {"settings": settings.as_json(), "folder": str(self.out / run.name), "data_root": root}
        if self.tensorboard is not None:
            job["tensorboard"] = str(self.tensorboard / run.name)
        command = [sys.executable, "-m", f"{__package__}.worker", json.dumps(job)]
        environment = environ | dict.fromkeys(THREADS, str(settings.threads))
        with self._lock:  # so that `_stop` ends this process too
            if self._stopped:
                return None
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
            self._children.add(child)
            return child

    def _stop(self) -> None:
        """End all processes."""
        with self._lock:
            self._stopped = True
            children = list(self._children)
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                child.kill()


def begun_with(folder: Path) -> int | None:
    """The number of threads of the run in a folder, or None; the last bits of its results depend on it."""
    try:
        ((header, _),) = read(folder / METRICS)
        return int(header["settings"]["threads"])
    except (OSError, ValueError, KeyError):
        return None


def kept(folder: Path, run: Planned) -> Record | None:
    """The record of a run with finished rounds; None if there is none, or the folder holds another run."""
    try:
        record = Record.open(folder, run.settings)
    except (OSError, ValueError):
        return None
    return record if record.rounds else None


def is_done(folder: Path, run: Planned) -> bool:
    """Whether all rounds of a run are finished."""
    record = kept(folder, run)
    return record is not None and len(record.rounds) >= run.settings.rounds


def _reason(code: int, log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'no message'} (exit code {code}; {log})"

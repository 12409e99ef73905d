"""One run of a sweep, as a process of its own: `python -m reference_fl.worker JOB`.

JOB is JSON with the keys `settings`, `folder` and `data_root`. Each finished round is a line of JSON.
Standard input is the parent's hand: when it closes, the parent is gone, and so is this process. Ended at any
moment it leaves a run that can go on (`record`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK, PATIENCE = "lock", 10.0  # seconds for an earlier worker of the same run to be gone


def main() -> None:
    """Do the job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    job = json.loads(sys.argv[1])
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        from . import data, loop
        from .settings import Settings

        settings = Settings(**job["settings"])
        root = None if job["data_root"] is None else Path(job["data_root"])
        for line in loop.run(settings, data.load(settings.dataset, root), folder):
            print(json.dumps(line), flush=True)


def _die_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(128 + signal.SIGTERM)


@contextmanager
def locked(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Keep a run's folder to this process; the system gives it back however the process ends.

    Raises
    ------
    RuntimeError
        Another process still has it after `patience` seconds.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two sweeps in one folder are the user's to avoid
        yield
        return
    with (folder / LOCK).open("w") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{folder}: another process works in this folder") from None
                time.sleep(0.05)
        yield


if __name__ == "__main__":
    main()

"""One run of a sweep, in a process of its own: `python -m reference_fl.worker JOB`.

JOB is JSON with the keys `settings`, `folder` and `data_root`, and maybe `tensorboard`, a folder for
events. The process prints one line of JSON for each finished round. It exits when standard input closes,
which happens when the parent process ends. It can be killed at any moment, and the run can then be
continued (`record`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

LOCK, PATIENCE = "lock", 10.0  # seconds to wait for an earlier worker of the same run to end


def main() -> None:
    """Do the run that the command line names."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes of the group; the parent handles it
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    job = json.loads(sys.argv[1])
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        from . import data, events, loop
        from .settings import Settings

        settings = Settings(**job["settings"])
        root = None if job["data_root"] is None else Path(job["data_root"])
        board = job.get("tensorboard")
        with events.Log(folder, Path(board)) if board else nullcontext() as log:
            for line in loop.run(settings, data.load(settings.dataset, root), folder):
                if log is not None:
                    log.add(line)
                print(json.dumps(line), flush=True)


def _exit_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(128 + signal.SIGTERM)


@contextmanager
def locked(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Lock the folder of a run; the system releases the lock when the process ends, in whatever way.

    Raises
    ------
    RuntimeError
        Another process still holds the lock after `patience` seconds.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock: do not run two sweeps in one folder there
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
                    what = f"lock of {folder}"
                    raise RuntimeError(f"{what}: expected a free one, got one of another process") from None
                time.sleep(0.05)
        yield


if __name__ == "__main__":
    main()

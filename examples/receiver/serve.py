"""The receiver: `python serve.py FOLDER`. It takes frames from strangers over HTTP, and closes rounds."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import numpy as np
from bounds import Limits
from clients import Clients
from hosting import GRACE, begin_log, host
from merger import Merger, Plan, RemoteShard
from routes import Around, Place, Receiver, make_app
from shard import Shard
from store import FrameStore, ModelStore

import fedmrn_codec as fm

log = logging.getLogger("receiver")

PAUSE = 0.5
"""Seconds before a worker is started again."""


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "folder", type=Path, help="with policy.toml, clients.json and start.npz; the databases are made there"
    )
    add("--host", default="127.0.0.1")
    add(
        "--port",
        type=int,
        default=8000,
        help="of the first worker; the others have the next ones (default 8000)",
    )
    add("--workers", type=int, default=1, help="processes, each with a part of the clients (default 1)")
    add("--addresses", nargs="+", help="of the workers, as clients see them (default: host and ports)")
    add("--wanted", type=int, default=2, help="frames that end a round (default 2)")
    add(
        "--least",
        type=int,
        default=1,
        help="frames without which a deadline does not end a round (default 1)",
    )
    add(
        "--seconds", type=float, default=60.0, help="from the opening of a round to its deadline (default 60)"
    )
    add("--rounds", type=int, help="end the federation after so many rounds (default: never)")
    add("--keep", type=int, default=2, help="rounds whose frames are kept on the disk (default 2)")
    add("--checks", type=int, default=os.cpu_count(), help="frames checked at once (default: the processors)")
    add("--uploads", type=int, default=64, help="frames in memory at once (default 64)")
    add("--upload-seconds", type=float, default=30.0, help="for the body of a frame (default 30)")
    add("--connections", type=int, default=1000, help="of clients at once (default 1000)")
    add("--worker", type=int, help=argparse.SUPPRESS)  # a process that the supervisor starts
    given = parser.parse_args()
    ports = range(given.port, given.port + given.workers)
    given.addresses = given.addresses or [f"http://{given.host}:{port}" for port in ports]
    if given.workers < 1 or len(given.addresses) != given.workers:
        parser.error(
            f"--addresses: expected one for each worker, got {len(given.addresses)} of {given.workers}"
        )
    return given


def read_policy(path: Path) -> fm.Policy:
    """The policy of every round; its own round, model and seeds are replaced in each.

    Raises
    ------
    SystemExit
        Clients cannot be asked for masks: no noise is stated.
    """
    policy = fm.Policy.from_toml(path)
    if policy.noise is None:
        raise SystemExit(
            f"{path}: expected masks of a stated noise, got the kinds {policy.kinds} and no noise"
        )
    return policy


def merger_thread(given: argparse.Namespace, token: str, stopped: threading.Event) -> threading.Thread:
    """The thread of the merger, not started; it ends this process if the merger fails."""
    policy = read_policy(given.folder / "policy.toml")
    plan = Plan(given.wanted, given.least, given.seconds, given.rounds)
    ports = range(given.port, given.port + given.workers)
    shards = [RemoteShard(f"http://{given.host}:{port}", token) for port in ports]
    with np.load(given.folder / "start.npz", allow_pickle=False) as file:
        start = {name: file[name] for name in file.files}
    merger = Merger(
        ModelStore(given.folder / "merger.db", given.workers), policy, shards, plan, start, stopped
    )

    def run() -> None:
        try:
            merger.run()
        except BaseException:
            log.critical("the merger failed", exc_info=True)
            os._exit(1)

    return threading.Thread(target=run, name="merger", daemon=True)


def serve(given: argparse.Namespace, number: int, token: str, around: Around = nullcontext) -> None:
    """Run one worker until SIGTERM or SIGINT."""
    clients, policy = Clients(given.folder / "clients.json"), read_policy(given.folder / "policy.toml")
    store = FrameStore(given.folder / f"shard-{number}.db", given.keep)
    receiver = Receiver(
        Shard(store, policy, given.checks),
        clients,
        token,
        policy.frame_bytes,
        Limits(given.uploads, given.upload_seconds),
        Place(number, tuple(given.addresses)),
    )
    host(make_app(receiver, around), given.host, given.port + number, given.connections)


def serve_alone(given: argparse.Namespace) -> None:
    """Run the only worker, and the merger in a thread beside it."""
    token, stopped = secrets.token_hex(16), threading.Event()
    merging = merger_thread(given, token, stopped)

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        merging.start()
        yield
        stopped.set()

    serve(given, 0, token, around)


def supervise(given: argparse.Namespace) -> None:
    """Run the merger here, and each worker in a process of its own, which is started again if it ends."""
    token, stopped = secrets.token_hex(16), threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    merging = merger_thread(given, token, stopped)
    workers = [_started(number, token) for number in range(given.workers)]
    merging.start()
    while not stopped.wait(PAUSE):
        for number, worker in enumerate(workers):
            if worker.poll() is not None:
                log.warning("worker %d ended with code %d and is started again", number, worker.returncode)
                workers[number] = _started(number, token)
    for worker in workers:
        worker.terminate()
    end = time.monotonic() + 2 * GRACE
    for worker in workers:
        try:
            worker.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            worker.kill()
    merging.join()


def _started(number: int, token: str) -> subprocess.Popen[bytes]:
    """A worker; its standard input brings the token, and closes when this process ends, however that is."""
    command = [sys.executable, *sys.argv, "--worker", str(number)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert worker.stdin is not None
    worker.stdin.write(f"{token}\n".encode())
    worker.stdin.flush()
    return worker


def _end_with_supervisor() -> None:
    sys.stdin.read()
    os._exit(1)  # all that was acknowledged is on the disk


def main() -> None:
    """Do what the command line asks for."""
    os.umask(0o077)  # the databases have frames and secrets
    given = options()
    begin_log()
    if given.worker is not None:
        token = sys.stdin.readline().strip()
        threading.Thread(target=_end_with_supervisor, daemon=True).start()
        serve(given, given.worker, token)
    elif given.workers == 1:
        serve_alone(given)
    else:
        supervise(given)


if __name__ == "__main__":
    main()

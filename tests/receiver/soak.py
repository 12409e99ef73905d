"""The soak test of examples/receiver: many frames, one in five hostile, and kills in between."""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import pickle
import platform
import random
import secrets
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soak_check
from soak_clients import Found, Part, play

import fedmrn_codec as fm

ROOT = Path(__file__).resolve().parents[2]
SERVE = ROOT / "examples" / "receiver" / "serve.py"
DOCUMENT = ROOT / "examples" / "receiver" / "README.md"
SPARE, HOSTILE, POLL, LATEST = 1.02, 16, 0.05, 3600.0
"""Honest clients for each frame that ends a round; hostile ones; seconds between looks; seconds in all."""


@dataclass(frozen=True)
class Settings:
    """The size of a soak test."""

    frames: int = 100_000
    rounds: int = 10
    processes: int = 3
    threads: int = 8
    workers: int = 1
    kills: int = 3

    @property
    def wanted(self) -> int:
        """The honest frames that end a round: four in five of all frames."""
        return max(self.frames * 4 // 5 // self.rounds, 1)


@dataclass
class Result:
    """What a soak test has measured; `wrong` is empty if the receiver did what it promises."""

    found: Found
    seconds: float
    kills: list[str]
    peak: int
    restarts: list[float]
    lost: int
    twice: int
    untold: int
    wrong: list[str]

    @property
    def frames(self) -> int:
        """All frames that were sent, but for those whose connection broke."""
        found = self.found
        return len(found.acknowledged) + found.late + found.again + sum(found.hostile.values())


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        first = random.randrange(20_000, 55_000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


class Process:
    """The receiver: started, killed, started again."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.port = free_ports(settings.workers)
        self.addresses = [f"http://127.0.0.1:{self.port + number}" for number in range(settings.workers)]
        options = {"wanted": settings.wanted, "rounds": settings.rounds, "keep": settings.rounds + 1}
        options |= {"seconds": LATEST, "workers": settings.workers, "port": self.port}
        self._command = [sys.executable, str(SERVE), str(folder)]
        self._command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._log = (folder / "log").open("ab")
        self.peak = 0
        self.start()

    def start(self) -> float:
        """Start it, and wait until every worker is healthy; the seconds that this took."""
        begin = time.monotonic()
        self.process = psutil.Popen(self._command, stderr=self._log, stdout=self._log)
        for address in self.addresses:
            while not self._is_healthy(address):
                if self.process.poll() is not None or time.monotonic() - begin > 60:
                    raise RuntimeError(f"receiver: expected to start, got {Path(self._log.name).read_text()}")
                time.sleep(POLL)
        return time.monotonic() - begin

    def look(self) -> None:
        """Note the memory of the largest of its processes."""
        self.peak = max([self.peak, *(_peak(process) for process in self._family())])

    def kill(self, rng: random.Random) -> tuple[str, float]:
        """SIGKILL one of its processes; which one, and the seconds until all is healthy again."""
        self.look()
        family = self._family()
        victim = rng.choice(family)
        os.kill(victim.pid, signal.SIGKILL)
        begin = time.monotonic()
        if victim.pid == self.process.pid:
            self.process.wait()
            psutil.wait_procs(family, timeout=30)  # its workers end by themselves
            self.start()
            return "receiver", time.monotonic() - begin
        psutil.wait_procs([victim], timeout=30)
        while not all(map(self._is_healthy, self.addresses)):
            time.sleep(POLL)
        return "worker", time.monotonic() - begin

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.look()
        self.process.terminate()
        code = int(self.process.wait(60))
        self._log.close()
        return code

    def end(self) -> None:
        """Kill whatever is left of it."""
        for process in self._family():
            process.kill()
        self._log.close()

    def _family(self) -> list[Any]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    @staticmethod
    def _is_healthy(address: str) -> bool:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=10):
                return True
        except OSError:
            return False


def _peak(process: Any) -> int:
    """The peak memory of a process in bytes; where the system does not tell, the present one."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0


def prepared(
    folder: Path, settings: Settings
) -> tuple[fm.Policy, dict[str, Any], dict[str, str], dict[str, str]]:
    """Write what the receiver reads; the policy, the first model, and the tokens of both kinds of clients."""
    rng = np.random.default_rng(0)
    model = {"w": rng.normal(0, 0.1, (64, 64)).astype(np.float32), "b": np.zeros(64, np.float32)}
    np.savez(folder / "start.npz", **model)  # type: ignore[arg-type]
    expected: dict[str, Any] = {
        "round": 0,
        "base_model": 0,
        "seeds": None,
        "max_weight": 1000,
        "max_value": 1.0,
    }
    policy = fm.Policy(schema=fm.schema_of(model), noise=fm.Uniform(0.01), mask="binary", **expected)
    (folder / "policy.toml").write_text(policy.to_toml(), encoding="utf-8")
    count = int(settings.wanted * SPARE) + settings.processes * settings.threads
    honest = {f"client {number}": secrets.token_hex(16) for number in range(count)}
    hostile = {f"attacker {number}": secrets.token_hex(16) for number in range(HOSTILE)}
    table = {
        name: {"token": hashlib.sha256(token.encode()).hexdigest(), "weight": weight_of(name)}
        for name, token in (honest | hostile).items()
    }
    (folder / "clients.json").write_text(json.dumps(table), encoding="utf-8")
    return policy, model, honest, hostile


def weight_of(client: str) -> int:
    """The weight of a client, from 1 to 1000."""
    return 1 + hashlib.sha256(client.encode()).digest()[0] * 3


def soak(folder: Path, settings: Settings, seed: int) -> Result:
    """Run the test in an empty folder."""
    policy, model, honest, hostile = prepared(folder, settings)
    rng, context = random.Random(seed), multiprocessing.get_context("spawn")
    moments = sorted(
        rng.uniform(0.05, 0.95) * settings.wanted * settings.rounds for _ in range(settings.kills)
    )
    receiver = Process(folder, settings)
    children, files, killed, restarts = [], [], [], []
    try:
        begin = time.monotonic()
        counts = [context.Array("q", 2) for _ in range(settings.processes)]
        for number, done in enumerate(counts):
            tokens = dict(list(honest.items())[number :: settings.processes])
            address = receiver.addresses[number % settings.workers]
            part = Part(address, tokens, hostile, settings.threads, policy.frame_bytes, rng.getrandbits(32))
            files.append(folder / f"found-{number}")
            children.append(context.Process(target=play, args=(part, done, files[-1]), daemon=True))
            children[-1].start()
        while any(child.is_alive() for child in children):
            if moments and sum(done[0] for done in counts) >= moments[0]:
                moments.pop(0)
                time.sleep(rng.uniform(0, 0.1))
                victim, seconds = receiver.kill(rng)
                killed.append(victim)
                restarts.append(seconds)
            receiver.look()
            if any(done[1] for done in counts):
                raise RuntimeError("soak: expected every client to go on, got the errors above")
            if time.monotonic() - begin > LATEST:
                raise TimeoutError(f"soak: expected to end within {LATEST} s")
            time.sleep(POLL)
        seconds = time.monotonic() - begin
        whole = _whole_model(receiver.addresses[0], next(iter(honest.values())))
        code = receiver.stop()
    finally:
        receiver.end()
        for child in children:
            child.kill()
            child.join()
    found = Found()
    for path in files:
        found.add(pickle.loads(path.read_bytes()))
    wrong = [*found.wrong, *([f"exit code: expected 0, got {code}"] if code else [])]
    return checked(
        folder,
        settings,
        policy,
        model,
        whole,
        Result(found, seconds, killed, receiver.peak, restarts, 0, 0, 0, wrong),
    )


def _whole_model(address: str, token: str) -> bytes:
    asked = urllib.request.Request(f"{address}/model", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=60) as reply:
        return bytes(reply.read())


def checked(
    folder: Path, settings: Settings, policy: fm.Policy, model: dict[str, Any], whole: bytes, result: Result
) -> Result:
    """Compare with the serial computation; what differs is added to `result.wrong`."""
    kept, found, rounds = soak_check.stored(folder), result.found, settings.rounds
    weights = {client: weight_of(client) for _, client in found.acknowledged}
    counts = soak_check.problems(kept, found.acknowledged, weights, rounds)
    result.lost, result.twice, result.untold = counts
    own, down = soak_check.serial(model, policy, found.acknowledged, weights, rounds)
    replica = fm.Replica(policy.schema)
    met = {name for name, as_expected in found.hostile if as_expected}
    missed = {name for name, _ in found.hostile} - met
    for what, right in {
        "acknowledged frames are lost": not result.lost,
        "frames are counted twice": not result.twice,
        "frames are counted that were not acknowledged": not result.untold,
        "the server's model differs from the serial one": soak_check.same(kept.model, own),
        "the clients' model differs from the serial one": soak_check.same(replica.apply(whole), down.model),
        "the id of the clients' model differs from the serial one": replica.model_id == down.model_id,
        f"rounds: expected {rounds}, got {len(kept.closed)}": len(kept.closed) == rounds,
        f"kills: expected {settings.kills}, got {len(result.kills)}": len(result.kills) == settings.kills,
        f"never refused as expected: {sorted(missed)}": settings.frames < 10_000 or not missed,
    }.items():
        if not right:
            result.wrong.append(what)
    return result


HEAD = (
    *(
        "frames",
        "acknowledged",
        "hostile, refused",
        "late",
        "sent twice",
        "kills",
        "lost",
        "counted twice",
        "model",
    ),
    *("frames/s", "p50, ms", "p99, ms", "peak memory, MiB", "restart, s", "load"),
)


def row(result: Result, load: float) -> list[str]:
    """The figures of one run, as in `HEAD`."""
    found, (median, high) = result.found, np.percentile(result.found.seconds, [50, 99]) * 1000
    equal = "as the serial one" if not any("model differs" in text for text in result.wrong) else "DIFFERS"
    counts = (result.frames, len(found.acknowledged), sum(found.hostile.values()), found.late, found.again)
    slowest = max(result.restarts, default=0.0)
    return [
        *(f"{count:,}" for count in counts),
        *(str(len(result.kills)), str(result.lost), str(result.twice), equal),
        *(f"{result.frames / result.seconds:.0f}", f"{median:.1f}", f"{high:.1f}"),
        *(f"{result.peak / 2**20:.0f}", f"{slowest:.1f}", f"{load:.1f}"),
    ]


def main() -> int:
    """Run the test as often as the command line says; 0 if the receiver did what it promises in all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in vars(Settings()).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument(
        "--document", action="store_true", help="write the table into the README of the example"
    )
    given = vars(parser.parse_args())
    runs, document = given.pop("runs"), given.pop("document")
    settings, rows, failed = Settings(**given), [], False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all processes are ended
    for number in range(runs):
        seed = secrets.randbits(32)
        print(f"run {number + 1} of {runs}: {settings}, seed {seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="fedmrn-soak-") as folder:
            result = soak(Path(folder), settings, seed)
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        rows.append(row(result, load))
        for name, value in zip(HEAD, rows[-1], strict=True):
            print(f"  {name}: {value}", flush=True)
        print(f"  killed: {dict(Counter(result.kills))}; broken connections: {result.found.broken}")
        for text in result.wrong:
            print(f"  WRONG: {text}", flush=True)
        failed = failed or bool(result.wrong)
    if document and not failed:
        from reference_fl.report import insert  # here, since each process of clients imports this module

        insert(DOCUMENT, table(settings, rows), "soak")
    return int(failed)


def table(settings: Settings, rows: list[list[str]]) -> str:
    """The figures of all runs as Markdown, a column for each run."""
    runs = range(1, len(rows) + 1)
    lines = [f"| run | {' | '.join(map(str, runs))} |", f"|---|{'---|' * len(rows)}"]
    lines += [f"| {' | '.join(line)} |" for line in zip(HEAD, *rows, strict=True)]
    machine = f"{os.cpu_count()} processors ({platform.machine()}), Python {platform.python_version()}"
    return "\n".join([f"{settings.workers} worker(s), {machine}", "", *lines])


if __name__ == "__main__":
    sys.exit(main())

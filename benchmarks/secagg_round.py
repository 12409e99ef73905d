"""A whole secure round, each role in a process of its own, beside the same round without protection.

Without protection, the same clients encode the same frames, and the server adds those of the clients that
have sent a masked vector. Both means must have the same bytes. Time is CPU time; memory is measured in a
round of its own, since the allocator is then told to return all memory at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from .peak import ALLOCATOR, MIB
from .plan import Plan
from .secagg_roles import ENCODE, PLAIN, STEPS, Cohort, Costs
from .tables import Section, Table, number

ROOT = Path(__file__).parents[1]
MOST_ROUNDS = 3
SERVER = "0"
"""Of JSON, where all keys are texts."""


class Role:
    """A process of one role; leaving the `with` block ends it."""

    def __init__(self, role: str, folder: Path, measure: str, cohort: Cohort) -> None:
        settings = json.dumps(dataclasses.asdict(cohort))
        command = [sys.executable, "-m", "benchmarks.secagg_roles", role, str(folder), measure, settings]
        self.role = role
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "FEDMRN_THREADS": "1", **(ALLOCATOR if measure == "bytes" else {})},
        )

    def do(self, step: str) -> dict[str, dict[str, float]]:
        """What the calls of a step have cost.

        Raises
        ------
        RuntimeError
            The process has ended; the reason is on stderr.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(step + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of the {self.role} ended in the step {step!r}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.process.wait()


@dataclasses.dataclass
class Measured:
    """What the calls of some rounds of one cohort have cost.

    Attributes
    ----------
    client : list of dict
        For each round, and each client that stayed to its end: step -> cost.
    server : list of dict
        For each round: step -> cost.
    up, down : int
        Bytes of a client: the medians over those that stayed.
    frame : int
        Bytes of its frame.
    """

    client: list[dict[str, float]]
    server: list[dict[str, float]]
    up: int
    down: int
    frame: int

    def client_median(self, value: Callable[[dict[str, float]], float]) -> float:
        """The median over clients and rounds."""
        return statistics.median(map(value, self.client))

    def server_median(self, value: Callable[[dict[str, float]], float]) -> float:
        """The median over rounds."""
        return statistics.median(map(value, self.server))


def play(cohort: Cohort, rounds: int, measure: str) -> Measured:
    """Play rounds; `measure` is "seconds" or "bytes".

    Raises
    ------
    RuntimeError
        A process has failed, as the server's does where the two means differ.
    """
    stayed = cohort.present("reveal")
    of_clients: list[dict[str, float]] = []
    of_server: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            Role("server", folder, measure, cohort) as server,
            Role("clients", folder, measure, cohort) as clients,
        ):
            for _ in range(rounds):
                costs, mine = one_round(clients, server)
                of_clients += [{step: each[id] for step, each in costs.items()} for id in stayed]
                of_server.append(mine)
        sizes = [(up_of(folder, id), down_of(folder, id), size(folder, ENCODE, id)) for id in stayed]
    up, down, frame = (int(statistics.median(column)) for column in zip(*sizes, strict=True))
    return Measured(of_clients, of_server, up, down, frame)


def one_round(clients: Role, server: Role) -> tuple[Costs, dict[str, float]]:
    """One round, and the sum without protection after it: the costs of the clients, and of the server."""
    costs: Costs = {}
    mine: dict[str, float] = {}
    for step in STEPS:
        for name, each in clients.do(step).items():
            costs[name] = {int(id): cost for id, cost in each.items()}
        mine[step] = server.do(step)[step][SERVER]
    mine[PLAIN] = server.do(PLAIN)[PLAIN][SERVER]
    return costs, mine


def size(folder: Path, *names: Any) -> int:
    """The bytes of a message."""
    return folder.joinpath(*map(str, names)).stat().st_size


def up_of(folder: Path, id: int) -> int:
    """The bytes that a client has sent."""
    return sum(size(folder, step, id) for step in STEPS)


def down_of(folder: Path, id: int) -> int:
    """The bytes that a client has received."""
    return size(folder, "roster") + size(folder, "boxes", id) + size(folder, "survivors")


def protected(costs: dict[str, float]) -> float:
    """The seconds of a client, with its frame."""
    return sum(costs[step] for step in (ENCODE, *STEPS))


def secure(costs: dict[str, float]) -> float:
    """The seconds of the server, up to the mean."""
    return sum(costs[step] for step in STEPS)


def highest(costs: dict[str, float]) -> float:
    """The peak of a client or of the server, over the steps."""
    return max(costs[step] for step in (ENCODE, *STEPS) if step in costs)


def cohorts_of(plan: Plan) -> dict[str, Cohort]:
    """The complete and the sparse graph."""
    drop = max(2, plan.cohort // 10)
    early = drop // 2
    degree, threshold = plan.sparse
    half = plan.cohort // 2 + 1
    sizes = plan.cohort, plan.vector
    return {
        f"complete graph, threshold {half}": Cohort(*sizes, half, None, early, drop - early),
        f"degree {degree}, threshold {threshold}": Cohort(*sizes, threshold, degree, early, drop - early),
    }


def run(plan: Plan) -> Section:
    """The cost of both graphs as a whole, and by step."""
    cohorts = cohorts_of(plan)
    rounds = min(plan.processes, MOST_ROUNDS)
    times = {name: play(cohort, rounds, "seconds") for name, cohort in cohorts.items()}
    peaks = {name: play(cohort, 1, "bytes") for name, cohort in cohorts.items()}
    first = next(iter(cohorts.values()))
    drop = f"{first.early} clients silent from their vectors on and {first.late} after them"
    title = f"A round of {first.clients} clients with {first.size:,} masked parameters"
    notes = [
        f"{drop}; CPU time and peak memory, the median over clients and over {rounds} rounds",
        "a process for the server and one for the clients, each on one thread",
        "a client: encode, then all steps; the server: up to the mean; bytes without model and request",
    ]
    heads = (
        "round",
        "client, s",
        "times without",
        "server, s",
        "times without",
        "bytes up",
        "bytes down",
        "client, MiB",
        "server, MiB",
    )
    rows = [unprotected_row(times, peaks), *(row(name, times[name], peaks[name]) for name in cohorts)]
    return Section([Table(title, heads, rows, notes), by_step(times)], [])


def unprotected_row(times: dict[str, Measured], peaks: dict[str, Measured]) -> list[str]:
    """The row without protection, over the rounds of all cohorts."""
    all_times = pooled(list(times.values()))
    all_peaks = pooled(list(peaks.values()))
    return [
        "without protection",
        number(all_times.client_median(lambda costs: costs[ENCODE])),
        "1.00",
        number(all_times.server_median(lambda costs: costs[PLAIN])),
        "1.00",
        f"{all_times.frame:,}",
        "0",
        number(all_peaks.client_median(lambda costs: costs[ENCODE]) / MIB),
        number(all_peaks.server_median(lambda costs: costs[PLAIN]) / MIB),
    ]


def pooled(measured: Sequence[Measured]) -> Measured:
    """The rounds of several cohorts together, with the sizes of the first."""
    return dataclasses.replace(
        measured[0],
        client=[costs for each in measured for costs in each.client],
        server=[costs for each in measured for costs in each.server],
    )


def row(name: str, times: Measured, peaks: Measured) -> list[str]:
    """The row of a cohort."""
    return [
        name,
        number(times.client_median(protected)),
        number(times.client_median(lambda costs: protected(costs) / costs[ENCODE])),
        number(times.server_median(secure)),
        number(times.server_median(lambda costs: secure(costs) / costs[PLAIN])),
        f"{times.up:,}",
        f"{times.down:,}",
        number(peaks.client_median(highest) / MIB),
        number(peaks.server_median(highest) / MIB),
    ]


def by_step(times: dict[str, Measured]) -> Table:
    """CPU milliseconds of each step."""
    rows = []
    for name, measured in times.items():
        of_client = [measured.client_median(lambda costs, s=step: costs[s]) for step in (ENCODE, *STEPS)]
        of_server = [measured.server_median(lambda costs, s=step: costs[s]) for step in STEPS]
        rows.append([f"client, {name}", *(number(1e3 * each) for each in of_client)])
        rows.append([f"server, {name}", "", *(number(1e3 * each) for each in of_server)])
    heads = ("CPU time in ms", ENCODE, *STEPS)
    return Table("The steps of this round", heads, rows, ["the server's last step includes the mean"])

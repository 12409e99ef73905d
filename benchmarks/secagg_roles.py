"""One role of a secure round in a process of its own: the server, or all clients, one after the other.

`python -m benchmarks.secagg_roles ROLE FOLDER MEASURE COHORT` reads the name of a step from each line of its
input, does that step for its role, and prints what each call has cost as a line of JSON. The messages are
files of the folder; reading and writing them is not measured.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import fedmrn_codec as fm
import fedmrn_secagg
from fedmrn_codec import backends
from fedmrn_codec.adapter_api.secagg import STEPS
from fedmrn_codec.backends.automatic import LOAD

from .peak import growth, resident

ENCODE, PLAIN = "encode", "plain"
"""The work of a client and of the server without protection."""

NOISE = fm.Bernoulli(0.01)
LARGE = 10**6
"""Elements of a frame from which on both processes use the compiled backend from the first frame on."""

Costs = dict[str, dict[int, float]]
"""What each call has cost: step -> client, or 0 for the server -> seconds or bytes."""


@dataclass(frozen=True)
class Cohort:
    """The sizes of a round.

    Attributes
    ----------
    clients, size : int
        Their number, with ids from 1, and the number of masked elements.
    threshold : int
    degree : int or None
        Of the sparse graph; None is the complete one.
    early, late : int
        The number of clients that drop out before the masked vectors, and after them.
    """

    clients: int
    size: int
    threshold: int
    degree: int | None
    early: int
    late: int

    def present(self, step: str) -> range:
        """The ids of the clients that answer in a step."""
        gone = {"masked": self.early, "reveal": self.early + self.late}.get(step, 0)
        return range(1 + gone, 1 + self.clients)

    @property
    def request(self) -> fm.Request:
        """The request of the round, the same for all clients."""
        schema = fm.Schema([fm.Tensor("w", (self.size,), masked=True)])
        return fm.Request(2026, NOISE, "signed", 1, 0, schema)


def update_of(size: int, id: int) -> dict[str, np.ndarray]:
    """The update of a client: normal values, half as large as the noise."""
    values = np.random.default_rng(id).normal(0, NOISE.scale / 2, size)
    return {"w": values.astype(np.float32)}


class Meter(Protocol):
    """Calls something; its result and its cost."""

    def __call__(self, call: Callable[[], Any]) -> tuple[Any, float]: ...


class Seconds:
    """CPU seconds of all threads of the process."""

    def __init__(self, of_server: bool) -> None:
        pass

    def __call__(self, call: Callable[[], Any]) -> tuple[Any, float]:
        begin = time.process_time()
        out = call()
        return out, time.process_time() - begin


class Bytes:
    """The peak of memory: at the server since the round's start, with the messages that it holds.

    That of a client is measured from call to call, since one process has the state of all clients.
    """

    def __init__(self, of_server: bool) -> None:
        gc.collect()
        self.before = resident() if of_server else None

    def __call__(self, call: Callable[[], Any]) -> tuple[Any, float]:
        kept: list[Any] = []
        peak = growth(lambda: kept.append(call()), self.before)
        return kept[0], peak


METERS: dict[str, type[Seconds] | type[Bytes]] = {"seconds": Seconds, "bytes": Bytes}


def messages_of(folder: Path, step: str, ids: range) -> dict[int, bytes]:
    """The messages of a step, by client."""
    return {id: (folder / step / str(id)).read_bytes() for id in ids}


def write(folder: Path, name: str, data: bytes) -> None:
    """Write a message."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


class Clients:
    """All clients of a cohort."""

    def __init__(self, cohort: Cohort, folder: Path, meter: Meter) -> None:
        self.cohort, self.folder, self.meter = cohort, folder, meter
        self.clients: dict[int, fedmrn_secagg.Client] = {}

    def answer(self, step: str) -> Costs:
        """Let each client that is there make its message of a step."""
        if step == STEPS[0]:
            request, threshold = self.cohort.request, self.cohort.threshold
            self.clients = {
                id: fedmrn_secagg.Client(id, request, threshold=threshold) for id in self.cohort.present(step)
            }
        costs: Costs = {}
        for id in self.cohort.present(step):
            for name, call in self._calls(step, id):
                data, costs.setdefault(name, {})[id] = self.meter(call)
                write(self.folder, f"{name}/{id}", data)
        return costs

    def _calls(self, step: str, id: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """What a client calls in a step, one after the other."""
        client = self.clients[id]
        if step == "keys":
            yield step, client.keys
        elif step == "masked":
            update = update_of(self.cohort.size, id)
            yield ENCODE, partial(self.cohort.request.encode, update)
            given = [(self.folder / name / str(id)).read_bytes() for name in (ENCODE, "boxes")]
            yield step, partial(client.masked, *given)
        else:
            given = (self.folder / {"shares": "roster", "reveal": "survivors"}[step]).read_bytes()
            yield step, partial(getattr(client, step), given)


class Server:
    """The server, which also adds the frames without protection, and compares the means."""

    def __init__(self, cohort: Cohort, folder: Path, meter: Meter) -> None:
        self.cohort, self.folder, self.meter = cohort, folder, meter
        self.server: fedmrn_secagg.Server | None = None

    def answer(self, step: str) -> Costs:
        """Take the messages of a step, and write what is for the clients; or add frames (`PLAIN`)."""
        if step == PLAIN:
            frames = messages_of(self.folder, ENCODE, self.cohort.present("masked"))
            mean, cost = self.meter(partial(plain_mean, self.cohort.request, frames))
            if mean["w"].tobytes() != (self.folder / "mean").read_bytes():
                raise AssertionError("the secure mean is not that of the frames")
            return {step: {0: cost}}
        if step == STEPS[0]:
            self.server = fedmrn_secagg.Server(
                self.cohort.request,
                clients=self.cohort.present(step),
                threshold=self.cohort.threshold,
                degree=self.cohort.degree,
            )
        messages = messages_of(self.folder, step, self.cohort.present(step))
        out, cost = self.meter(partial(self._call, step, messages))
        self._write(step, out)
        return {step: {0: cost}}

    def _call(self, step: str, messages: dict[int, bytes]) -> Any:
        """The server's call of a step; in the last one up to the mean."""
        out = getattr(self.server, step)(messages)
        return out.mean() if step == "reveal" else out

    def _write(self, step: str, out: Any) -> None:
        if step == "reveal":
            write(self.folder, "mean", out["w"].tobytes())
        elif step == "shares":
            for id, data in out.items():
                write(self.folder, f"boxes/{id}", data)
        else:
            write(self.folder, {"keys": "roster", "masked": "survivors"}[step], out)


def plain_mean(request: fm.Request, frames: dict[int, bytes]) -> dict[str, np.ndarray]:
    """The mean of frames without protection."""
    aggregator = request.aggregator()
    for frame in frames.values():
        aggregator.add(frame, 1)
    return aggregator.mean()


def warm_up(size: int) -> None:
    """Import, compile and load what a round needs."""
    cohort = Cohort(3, size, 2, None, 0, 0)
    request, update, count = cohort.request, update_of(size, 1), 2
    if size >= LARGE:
        backend, count = backends.installed()[0], 2 + LOAD // size
        compiled = fm.Aggregator(request.schema, noise=NOISE, round=1, backend=backend)
        compiled.add(request.encode(update, backend=backend), 1)
        compiled.mean()
    frames = {id: request.encode(update) for id in range(1, 1 + count)}
    plain_mean(request, frames)
    clients = {id: fedmrn_secagg.Client(id, request, threshold=2) for id in cohort.present("keys")}
    server = fedmrn_secagg.Server(request, clients=clients, threshold=2)
    roster = server.keys({id: client.keys() for id, client in clients.items()})
    boxes = server.shares({id: client.shares(roster) for id, client in clients.items()})
    survivors = server.masked({id: clients[id].masked(frames[id], boxes[id]) for id in (1, 2)})
    server.reveal({id: clients[id].reveal(survivors) for id in (1, 2)}).mean()


ROLES: dict[str, type[Clients] | type[Server]] = {"clients": Clients, "server": Server}


def main() -> None:
    """Play the role of the command line, step by step."""
    role, folder, measure, settings = sys.argv[1:]
    cohort = Cohort(**json.loads(settings))
    warm_up(cohort.size)
    worker = ROLES[role](cohort, Path(folder), METERS[measure](role == "server"))
    for line in sys.stdin:
        print(json.dumps(worker.answer(line.strip())), flush=True)


if __name__ == "__main__":
    main()

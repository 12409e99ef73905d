"""The clients of the soak test: a process with several threads, each of which plays many clients."""

from __future__ import annotations

import http.client
import json
import pickle
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from soak_attacks import KINDS, Attacker, Hostile

import fedmrn_codec as fm

PATIENCE, PAUSE, BETWEEN = 120.0, 0.05, 0.25  # seconds; between two rounds
REPEATED = 50
"""One in so many frames is sent again after it was acknowledged."""


@dataclass
class Found:
    """What the threads of a process have seen."""

    acknowledged: dict[tuple[int, str], bytes] = field(default_factory=dict)
    """The frame of each round and client that was acknowledged."""
    seconds: list[float] = field(default_factory=list)
    hostile: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """By kind, and whether the answer was the one of the kind, or that of a round that is over."""
    models: set[int] = field(default_factory=set)
    late: int = 0
    again: int = 0
    broken: int = 0
    """Connections that broke, as when the receiver was killed."""
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Add what other threads or processes have seen."""
        self.acknowledged |= other.acknowledged
        self.seconds += other.seconds
        self.hostile += other.hostile
        self.models |= other.models
        self.late += other.late
        self.again += other.again
        self.broken += other.broken
        self.wrong += other.wrong


class Caller:
    """Connections that are kept; a request whose answer is lost is repeated."""

    def __init__(self, address: str, found: Found) -> None:
        self._start, self._found = urlsplit(address).netloc, found
        self._open: dict[str, http.client.HTTPConnection] = {}
        self._homes: dict[str, str] = {}

    def ask(
        self, client: str, token: str, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Status and body of the answer, from the worker that the client belongs to."""
        headers = {"Authorization": f"Bearer {token}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        end = time.monotonic() + PATIENCE
        while True:
            place = self._homes.get(client, self._start)
            try:
                status, location, data = self._once(place, method, path, body, headers)
            except (OSError, http.client.HTTPException):
                self._open.pop(place).close()
                self._found.broken += 1
                if time.monotonic() > end:
                    raise
                time.sleep(PAUSE)
                continue
            if status == 307:
                self._homes[client] = urlsplit(location).netloc
            elif status == 503 and time.monotonic() < end:
                time.sleep(PAUSE)
            else:
                return status, data

    def _once(
        self, place: str, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        if place not in self._open:
            self._open[place] = http.client.HTTPConnection(place, timeout=PATIENCE)
        connection = self._open[place]
        chunked = headers.get("Transfer-Encoding") == "chunked"
        connection.request(method, path, [body] if chunked else body, headers, encode_chunked=chunked)
        reply = connection.getresponse()
        return reply.status, reply.getheader("Location", ""), reply.read()


@dataclass(frozen=True)
class Part:
    """What one process does."""

    address: str
    tokens: dict[str, str]
    """Of the honest clients."""
    hostile: dict[str, str]
    threads: int
    most: int
    seed: int


class Player(threading.Thread):
    """A thread that plays some clients until the federation is over."""

    def __init__(self, number: int, part: Part, done: Any) -> None:
        super().__init__(name=f"player {number}")
        self.found = self._found = Found()
        self._part, self._done = part, done
        self._clients = dict(list(part.tokens.items())[number :: part.threads])
        names = list(part.hostile)
        self._attacker = names[number % len(names)]
        self._rng = random.Random(part.seed * 1000 + number)
        self._bits = np.random.default_rng(part.seed * 1000 + number)
        self._caller = Caller(part.address, self._found)
        self._replica: fm.Replica | None = None
        self._own: fm.Request | None = None
        self._due = 0.0
        self._kinds: list[Any] = []

    def run(self) -> None:
        """Send frames; what goes wrong is in `Found.wrong`."""
        try:
            while self._pass():
                pass
        except BaseException as error:
            self._found.wrong.append(f"{self.name}: {type(error).__name__}: {error}")
            print(*self._found.wrong, sep="\n", file=sys.stderr, flush=True)
            with self._done.get_lock():
                self._done[1] += 1

    def _pass(self) -> bool:
        """Play each client once; False when the federation is over."""
        first = next(iter(self._clients))
        while (request := self._request(first, self._clients[first])) is None:
            time.sleep(BETWEEN)
        for client, token in self._clients.items():
            request = request if client == first else self._request(client, token)
            if request == "over":
                return False
            if isinstance(request, fm.Request):
                self._play(client, token, request)
        return True

    def _request(self, client: str, token: str) -> fm.Request | str | None:
        """The request of a client; None if it has none at present."""
        status, data = self._caller.ask(client, token, "GET", "/round")
        if status not in (200, 204, 410):
            raise ValueError(f"GET /round: expected 200, 204 or 410, got {status} {data!r}")
        if status != 200:
            return "over" if status == 410 else None
        return fm.Request.from_dict(json.loads(data))

    def _play(self, client: str, token: str, request: fm.Request) -> None:
        self._follow(client, token, request)
        frame, path = self._encoded(request), f"/frames/{quote(client)}"
        begin = time.perf_counter()
        status, data = self._caller.ask(client, token, "POST", path, frame)
        self._found.seconds.append(time.perf_counter() - begin)
        if status == 202:
            self._found.acknowledged[request.round, client] = frame
            with self._done.get_lock():
                self._done[0] += 1
            if self._rng.randrange(REPEATED) == 0:
                self._again(client, token, path, frame)
        elif status == 409 and json.loads(data)["code"] in ("round", "base_model"):
            self._found.late += 1
        else:
            raise ValueError(
                f"an honest frame: expected 202, or 409 of a round that is over, got {status} {data!r}"
            )
        self._due += 0.25  # one in five is hostile
        while self._due >= 1:
            self._due -= 1
            self._attack(client, token, request, frame, accepted=status == 202)

    def _follow(self, client: str, token: str, request: fm.Request) -> None:
        """Hold the model of the request, frame by frame."""
        replica = self._replica = self._replica or fm.Replica(request.schema)
        if replica.model_id != request.base_model:
            status, data = self._caller.ask(client, token, "GET", f"/model?have={replica.model_id}")
            if status != 200:
                raise ValueError(f"GET /model: expected 200, got {status} {data!r}")
            replica.apply(data)  # of a later round than the request, perhaps
            self._found.models.add(replica.model_id)

    def _again(self, client: str, token: str, path: str, frame: bytes) -> None:
        """The same bytes again: they are acknowledged, as if the first answer had been lost."""
        status, data = self._caller.ask(client, token, "POST", path, frame)
        self._found.again += 1
        if status not in (202, 410):
            raise ValueError(f"a frame again: expected 202, got {status} {data!r}")

    def _encoded(self, request: fm.Request) -> bytes:
        bits, dense = {}, {}
        for tensor in request.schema:
            if tensor.masked:
                bits[tensor.name] = self._bits.integers(0, 2, tensor.shape, np.uint8).astype(bool)
            else:
                dense[tensor.name] = self._bits.normal(0, 0.01, tensor.shape).astype(np.float32)
        settings: dict[str, Any] = {"seed": request.seed, "noise": request.noise, "mask": request.mask}
        versions = {"round": request.round, "base_model": request.base_model}
        return fm.encode_bits(bits, request.schema, dense=dense, **settings, **versions)

    def _attack(self, client: str, token: str, request: fm.Request, frame: bytes, accepted: bool) -> None:
        """One hostile request; its answer is counted."""
        if not self._kinds:
            self._kinds = [*KINDS, None]
            self._rng.shuffle(self._kinds)
        kind, sender, its_token = self._kinds.pop(), self._attacker, self._part.hostile[self._attacker]
        if kind is None:
            if not accepted:
                return
            name, sender, its_token = "twice", client, token
            hostile = Hostile(409, "repeated", self._encoded(request))
        else:
            own = self._own
            if own is None or own.round != request.round:
                asked = self._request(sender, its_token)
                if not isinstance(asked, fm.Request):
                    return  # between two rounds
                own = self._own = asked
            name = kind.__name__
            hostile = kind(Attacker(own, frame, client, self._part.most, self._rng))
        path = hostile.path or f"/frames/{quote(sender)}"
        status, data = self._caller.ask(
            sender, hostile.token or its_token, "POST", path, hostile.body or None, **hostile.headers
        )
        code = json.loads(data).get("code") if data else None
        as_expected = status == hostile.status and hostile.code in (None, code)
        if not as_expected and (status, code) not in ((409, "round"), (409, "base_model"), (410, "over")):
            self._found.wrong.append(
                f"{name}: expected {hostile.status} {hostile.code}, got {status} {data!r}"
            )
        self._found.hostile[name, as_expected] += 1


def play(part: Part, done: Any, path: Path) -> None:
    """The main function of a process; it writes what it has found into a file."""
    players, found = [Player(number, part, done) for number in range(part.threads)], Found()
    for player in players:
        player.start()
    for player in players:
        player.join()
        found.add(player.found)
    path.write_bytes(pickle.dumps(found))

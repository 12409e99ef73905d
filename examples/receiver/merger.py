"""The merger: it closes each round over all shards, and makes the next model from their partial sums."""

from __future__ import annotations

import http.client
import io
import json
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from rounds import Round
from store import ModelStore

import fedmrn_codec as fm

log = logging.getLogger("receiver")

PAUSE, TIMEOUT = 0.1, 60.0  # seconds
T = TypeVar("T")


class Stopped(Exception):
    """The process has been asked to end."""


class RemoteShard:
    """A shard at an address; a failure is an OSError, and a call may be repeated."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self._token = address, token
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({})
        )  # whatever http_proxy says

    def frames(self) -> tuple[int, bool]:
        """The number of frames that it has stored in the present round, and whether it has sealed that."""
        about = json.loads(self._fetch("GET", "/shard/frames"))
        return about["frames"], about["sealed"]

    def seal(self, number: int) -> bytes:
        """End a round; the partial sum, empty if there are no frames."""
        return self._fetch("POST", f"/shard/seal/{number}")

    def open(self, data: bytes) -> None:
        """Begin a round, given as `Round.to_bytes`."""
        self._fetch("PUT", "/shard/round", data)

    def _fetch(self, method: str, path: str, data: bytes | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/octet-stream"}
        asked = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with self._opener.open(asked, timeout=TIMEOUT) as reply:
                return bytes(reply.read())
        except http.client.HTTPException as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Plan:
    """When a round ends: with `wanted` frames, or at its deadline with at least `least`.

    Parameters
    ----------
    wanted, least : int
    seconds : float
        From the opening of a round to its deadline.
    rounds : int, optional
        The federation ends after so many rounds. Default: never.
    """

    wanted: int
    least: int = 1
    seconds: float = 60.0
    rounds: int | None = None

    def is_due(self, frames: int, deadline: float) -> bool:
        """Whether a round with so many frames ends now."""
        return frames >= self.wanted or (frames >= max(self.least, 1) and time.time() >= deadline)


class Merger:
    """Closes rounds. It runs in a thread or process of its own, and may be killed at any time.

    A round is closed in four steps, each of which may be repeated after a crash: every shard seals the round,
    durably, and answers with its partial sum; the partial sums are merged; one transaction stores the new
    model and the next round; every shard opens that. So a frame is in the sum of its round if and only if its
    shard stored it before it sealed the round, and only such frames are acknowledged.

    Parameters
    ----------
    store : ModelStore
    policy : fm.Policy
    shards : list of RemoteShard
    plan : Plan
    start : mapping of str to array
        The model of the first round; that of a later one is in the store.
    stopped : threading.Event
        Makes `run` return.
    """

    def __init__(
        self,
        store: ModelStore,
        policy: fm.Policy,
        shards: list[RemoteShard],
        plan: Plan,
        start: Mapping[str, np.ndarray],
        stopped: threading.Event,
    ) -> None:
        self._store, self._policy, self._shards, self._plan = store, policy, shards, plan
        self._stopped = stopped
        if store.last() is None:
            down = fm.Downlink(policy.schema, start)
            store.advance(1, time.time() + plan.seconds, _packed(start), down.to_bytes())
        self._load()

    def run(self) -> None:
        """Close one round after the other, until the last one or until it is stopped."""
        try:
            for shard in self._shards:
                self._ask(shard, lambda shard: shard.open(self._published))
            while not self.round.over:
                while not self._is_due():
                    self._pause()
                self.close_round()
        except Stopped:
            log.info("the merger stops in round %d", self.round.number)

    def close_round(self) -> None:
        """End the present round and begin the next one."""
        number, schema = self.round.number, self._policy.schema
        parts = [self._ask(shard, lambda shard: shard.seal(number)) for shard in self._shards]
        down = fm.Downlink.from_bytes(self.round.downlink, schema)
        total = self.round.policy(self._policy, down.model_id).aggregator()
        for part in filter(None, parts):
            total.merge(fm.Aggregator.from_bytes(part, schema))
        model = self.model
        if total.frames:
            try:
                down.advance(following := fm.apply(model, total.mean()))
            except fm.CodecError as error:  # the model has no place on a grid
                log.error("round %d leaves the model as it is: %s", number, error)
            else:
                model = following
        deadline = time.time() + self._plan.seconds
        self._store.advance(number + 1, deadline, _packed(model), down.to_bytes(), total.frames, total.weight)
        log.info(
            "round %d: %d frames of weight %d; model %d", number, total.frames, total.weight, down.model_id
        )
        self._load()
        for shard in self._shards:
            self._ask(shard, lambda shard: shard.open(self._published))

    def _load(self) -> None:
        last = self._store.last()
        assert last is not None
        number, deadline, model, downlink = last
        over = self._plan.rounds is not None and number > self._plan.rounds
        self.round = Round(number, deadline, over, self._store.secret, downlink)
        self.model, self._published = _unpacked(model), self.round.to_bytes()

    def _is_due(self) -> bool:
        """Whether the round ends now; one that a shard has sealed, before a crash, cannot go on."""
        counts = [self._ask(shard, lambda shard: shard.frames()) for shard in self._shards]
        sealed = any(sealed for _, sealed in counts)
        return sealed or self._plan.is_due(sum(frames for frames, _ in counts), self.round.deadline)

    def _ask(self, shard: RemoteShard, call: Callable[[RemoteShard], T]) -> T:
        """Call a shard until it answers. One that has a new disk is told the present round again."""
        failures = 0
        while True:
            try:
                if failures:
                    shard.open(self._published)
                return call(shard)
            except OSError as error:
                failures += 1
                log.log(logging.DEBUG if failures < 50 else logging.WARNING, "%s: %s", shard.address, error)
                self._pause()

    def _pause(self) -> None:
        if self._stopped.wait(PAUSE):
            raise Stopped


def _packed(model: Mapping[str, Any]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **model)
    return out.getvalue()


def _unpacked(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}

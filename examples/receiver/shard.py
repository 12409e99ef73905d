"""A shard: it accepts the frames of its clients, keeps them on the disk, and sums them exactly."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from bounds import Refused
from rounds import Round
from store import FrameStore

import fedmrn_codec as fm

log = logging.getLogger("receiver")
T = TypeVar("T")

SHORT = 2**14
"""The check of a frame of so many bytes takes less time than it takes to hand it to a thread."""

STALE = ("round", "base_model")
"""Codes of frames that are for another round: the client asks for a new request."""


def over(round: Round) -> Refused:
    """The answer to clients once the federation has ended."""
    return Refused(410, "over", f"round: expected none after {round.number - 1}, the last one")


@dataclass
class Present:
    """The present round, in memory. Frames under check refer to theirs, which a later one does not change."""

    round: Round
    policy: fm.Policy
    down: fm.Downlink
    sum: fm.Aggregator
    sealed: bool
    accepted: dict[str, bytes]
    """The SHA-256 of the frame of each client."""
    former: dict[str, bytes]
    """The same of the round before."""
    under_way: set[str] = field(default_factory=set)


@dataclass
class Frame:
    """A frame that has passed all checks; `stored` becomes True when it is on the disk and in the sum."""

    present: Present
    client: str
    weight: int
    digest: bytes
    checked: fm.CheckedFrame
    stored: bool = False


class Shard:
    """The frames of a part of the clients; all its methods are called from one event loop.

    A frame is acknowledged after the transaction that stores it. Many frames share a transaction: those that
    pass their checks while one is being written wait for the next. The sum in memory is a copy of what the
    stored frames say. A new process makes it anew from them, so that no frame is counted twice or lost.

    Parameters
    ----------
    store : FrameStore
    policy : fm.Policy
        Of every round, but for its number, model and seeds.
    checks : int
        How many long frames are checked at the same time.
    """

    def __init__(self, store: FrameStore, policy: fm.Policy, checks: int) -> None:
        self._store, self._template = store, policy
        self._checkers = ThreadPoolExecutor(checks, "check")
        self._writer = ThreadPoolExecutor(1, "write")
        self._writing = asyncio.Lock()
        self._waiting: list[Frame] = []
        self._present: Present | None = None
        if stored := store.round():
            self._present = self._begun(Round.from_bytes(stored[0]), sealed=stored[1])

    @property
    def present(self) -> Present:
        """The present round."""
        if self._present is None:
            raise Refused(503, "no_round", "round: expected one that is open, got none so far")
        return self._present

    @property
    def ready(self) -> bool:
        """Whether a round has been opened."""
        return self._present is not None

    def request(self, client: str) -> bytes | None:
        """The request for a client as JSON; None if it has nothing to do at present."""
        present = self.present
        if present.round.over:
            raise over(present.round)
        if present.sealed or client in present.accepted:
            return None
        entries = present.policy.request(client).to_json() | {"deadline": present.round.deadline}
        return json.dumps(entries).encode()

    async def model(self, have: int) -> bytes:
        """The frame that leads from the model `have` to that of the present round."""
        return await self._in(self._checkers, self.present.down.frame, have)

    async def accept(self, client: str, weight: int, data: bytes) -> bool:
        """Check a frame, store it and add it to the sum; False if it was stored before.

        When this returns, the frame is on the disk.

        Raises
        ------
        Refused
        """
        present, digest = self.present, hashlib.sha256(data).digest()
        if digest in (present.accepted.get(client), present.former.get(client)):
            return False  # the acknowledgement was lost, and the client sends the same bytes again
        if client in present.accepted:
            raise Refused(
                409, "repeated", "frame: expected the first of this client in the round, got another"
            )
        if present.round.over:
            raise over(present.round)
        if client in present.under_way:
            raise Refused(503, "under_way", "frame: expected one at a time, got another while one is checked")
        present.under_way.add(client)
        try:
            check = partial(present.policy.check, data, client=client, weight=weight, base=present.down.model)
            checked = check() if len(data) <= SHORT else await self._in(self._checkers, check)
            frame = Frame(present, client, weight, digest, checked)
            if present.sealed:
                raise Refused(
                    409, "round", f"round: expected a later one than {present.round.number}, which is over"
                )
            self._waiting.append(frame)
            await self._flush()
        except fm.FrameError as error:
            status = 409 if error.code in STALE else 400
            raise Refused(status, error.code, str(error)) from None
        finally:
            present.under_way.discard(client)
        if not frame.stored:
            raise Refused(503, "storage", "frame: could not be stored; repeat it later")
        return True

    async def open(self, data: bytes) -> None:
        """Begin a round; nothing happens if it is the present one."""
        new = Round.from_bytes(data)
        async with self._writing:
            old = self._present
            if old is not None and new.number == old.round.number:
                return
            if old is not None and (new.number < old.round.number or not old.sealed):
                found = f"{new.number} while {old.round.number} is {'sealed' if old.sealed else 'open'}"
                raise Refused(409, "round", f"round: expected the one after a sealed one, got {found}")
            await self._in(self._writer, self._store.open, new.number, data)
            self._present = await self._in(self._writer, self._begun, new)

    async def seal(self, number: int) -> bytes | None:
        """End a round; return its partial sum, the same one at each call, or None without frames."""
        present = self.present
        if number != present.round.number:
            raise Refused(409, "round", f"round: expected {present.round.number}, got {number}")
        present.sealed = True  # from here on no frame joins those that wait
        await self._flush()
        async with self._writing:
            await self._in(self._writer, self._store.seal, number)
            return await self._in(self._writer, present.sum.to_bytes) if present.sum.frames else None

    async def close(self) -> None:
        """Finish what waits, and release the database."""
        await self._flush()
        self._checkers.shutdown()
        self._writer.shutdown()
        self._store.close()

    async def _flush(self) -> None:
        """Store what waits in one transaction, after the one that is being written."""
        async with self._writing:
            batch, self._waiting = self._waiting, []
            if batch:
                await self._in(self._writer, self._write, batch)

    def _write(self, batch: list[Frame]) -> None:
        rows = [(f.present.round.number, f.client, f.weight, f.digest, f.checked.view) for f in batch]
        try:
            self._store.add(rows)
        except sqlite3.Error as error:
            log.error("%d frames could not be stored: %s", len(batch), error)
            return
        try:
            for frame in batch:
                frame.present.sum.add(frame.checked, frame.weight)
                frame.present.accepted[frame.client] = frame.digest
                frame.stored = True
        except BaseException:
            log.critical("the sum differs from the stored frames; a new process makes it anew", exc_info=True)
            os._exit(1)

    def _begun(self, new: Round, sealed: bool = False) -> Present:
        """A round in memory, with the frames that are stored for it."""
        down = fm.Downlink.from_bytes(new.downlink, self._template.schema)
        policy = new.policy(self._template, down.model_id)
        total = policy.aggregator()
        for client, weight, frame in self._store.frames(new.number):
            total.add(frame, weight, seed=policy.seed_of(client))
        accepted, former = self._store.digests(new.number), self._store.digests(new.number - 1)
        return Present(new, policy, down, total, sealed, accepted, former)

    @staticmethod
    async def _in(executor: ThreadPoolExecutor, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, call, *arguments)

"""The four exchanges of one round of secure aggregation at the server, without the transport."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from contextlib import suppress
from typing import Any

import shared  # noqa: F401 - for the next import
from agreed import Agreed, id_of
from bounds import Refused

import fedmrn_codec as fm
import fedmrn_secagg
from fedmrn_codec.adapter_api.secagg import KEYS, MASKED, REVEAL, SHARES, STEPS
from fedmrn_secagg.errors import TooFewError


class Exchange:
    """The messages of one round, from the first keys to the sum, or to the step in which the round is lost.

    A step ends when all of its clients have sent their message, or at its deadline; a client whose message is
    not there, or is refused by the protocol, has dropped out of the round. While `keys` has too few messages
    to go on, a client whose message was refused may send another one. All methods belong to one event
    loop; the computations of the protocol run in a thread.

    Parameters
    ----------
    request : fedmrn_codec.Request
        With the round's one seed.
    agreed : Agreed
    wanted : int, optional
        The step `keys` ends when so many clients have sent theirs. Default: all.

    Attributes
    ----------
    step : str
        The present step, or the one in which the round was lost; "done" at the end.
    aggregator : fedmrn_codec.Aggregator or None
        The sum, at the end.
    survivors : tuple of str
        The clients that are in the sum.
    lost : str or None
        Why there is no sum.
    left : dict of str to str
        The step in which a client has dropped out, by name.
    refused : dict of str to str
        The reason why its message was refused, by name of the client.
    up, down : collections.Counter
        Bytes of the messages of the protocol from and to the clients, by step.
    """

    def __init__(self, request: fm.Request, agreed: Agreed, wanted: int | None = None) -> None:
        self.request, self._threshold = request, agreed.threshold
        self._names = {id_of(name): name for name in agreed.clients}
        self._server = fedmrn_secagg.Server(request, clients=self._names, **agreed.options)
        self._wanted = max(wanted or len(self._names), agreed.threshold)
        self._awaited = set(self._names)
        self._messages: dict[int, bytes] = {}
        self._digests: dict[str, dict[int, bytes]] = {step: {} for step in STEPS}
        self._answers: dict[str, dict[int, bytes]] = {}
        self._lengths = {KEYS: self._server.longest}
        self._ends = {step: asyncio.Event() for step in STEPS}
        self._news, self._ending = asyncio.Event(), False
        self.step: str = KEYS
        self.aggregator: fm.Aggregator | None = None
        self.survivors: tuple[str, ...] = ()
        self.lost: str | None = None
        self.left: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.up, self.down = Counter[str](), Counter[str]()

    def is_open_to(self, name: str) -> bool:
        """Whether a client can still join the round."""
        return self.step == KEYS and not self._ending and id_of(name) not in self._digests[KEYS]

    def longest(self, name: str, step: str) -> int:
        """The most bytes that the message of a client in a step can have; it is known before the message.

        Raises
        ------
        Refused
            No message of this client is waited for in this step, nor was one accepted before.
        """
        id = id_of(name)
        if step in self._lengths and id in self._digests[step]:
            return self._lengths[step]  # the acknowledgement was lost, and the client sends it again
        self._check_still_in(name)
        if step != self.step or self._ending:
            expected = f"`{self.step}`, as long as its messages are collected"
            raise Refused(409, "step", f"step: expected {expected}, got a message of `{step}`")
        return self._lengths[step]

    def give(self, name: str, step: str, message: bytes) -> bool:
        """Accept the message of a client; False if it was accepted before.

        Raises
        ------
        Refused
            As in `longest`; or another message of this client was accepted in this step.
        """
        self.longest(name, step)  # once more: the step may have ended while the message came
        id, digest = id_of(name), hashlib.sha256(message).digest()
        known = self._digests[step].get(id)
        if known is not None:
            if known != digest:
                raise Refused(409, "repeated", "message: expected the first one of this step, got another")
            return False
        self._digests[step][id], self._messages[id] = digest, message
        self.refused.pop(name, None)
        self.up[step] += len(message)
        self._news.set()
        return True

    async def answer(self, name: str, step: str, seconds: float) -> bytes | None:
        """The server's answer to a client in a step; None if the step has not ended after so many seconds.

        Raises
        ------
        Refused
            There is none for this client: it has dropped out, or the round is lost.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ends[step].wait()
        answer = self._answers.get(step, {}).get(id_of(name))
        if answer is None:
            self._check_still_in(name)
            if name in self.refused:
                raise Refused(409, "refused", f"message: {self.refused[name]}; another one may be sent")
        return answer

    async def play(self, seconds: float, training: float) -> None:
        """Play the round: `aggregator` has the sum at the end, or `lost` the reason why there is none.

        Parameters
        ----------
        seconds : float
            From the start of a step to its deadline; for `keys`, from the moment when as many clients as the
            threshold have sent theirs, since nothing is lost by waiting for them.
        training : float
            The same for the step `masked`, in which clients train.
        """
        while self.step in STEPS and self.lost is None:
            await self._until_it_may_end(training if self.step == MASKED else seconds)
            await self._end_step()
        for end in self._ends.values():
            end.set()

    async def _until_it_may_end(self, seconds: float) -> None:
        loop, end = asyncio.get_running_loop(), None
        while True:
            if end is None and (self.step != KEYS or len(self._messages) >= self._threshold):
                end = loop.time() + seconds
            wanted = self._wanted if self.step == KEYS else len(self._awaited)
            if len(self._messages) >= wanted or (end is not None and loop.time() >= end):
                return
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._news.wait()

    async def _end_step(self) -> None:
        """Give the messages to the protocol; then the next step begins, or the round is lost."""
        step, self._ending = self.step, True
        refused: dict[int, fedmrn_secagg.SecAggError] = {}
        given = self._server, step, self._messages, refused.__setitem__
        try:
            answer = await asyncio.to_thread(fedmrn_secagg.advance, *given)
        except fedmrn_secagg.SecAggError as error:
            answer = None
            if step != KEYS or not isinstance(error, TooFewError):
                self.lost = f"{step}: {error}"
        for id, error in refused.items():
            self._refuse(id, step, error)
        if answer is None:
            self._ending = False
            return
        for id in self._awaited - set(self._messages):
            self.left.setdefault(self._names[id], step)
        self._begin_after(step, answer)

    def _begin_after(self, step: str, answer: Any) -> None:
        """Begin the step after one whose answer is known."""
        self._awaited, self._messages, self._ending = set(self._messages), {}, False
        self.step = self._server.state
        if step == REVEAL:
            self.aggregator = answer
            self.survivors = tuple(self._names[id] for id in self._server.survivors)
        else:
            self._lengths[self.step] = self._server.longest
            self._answers[step] = answer if step == SHARES else dict.fromkeys(self._awaited, answer)
            self.down[step] += sum(map(len, self._answers[step].values()))
        self._ends[step].set()

    def _refuse(self, id: int, step: str, error: fedmrn_secagg.SecAggError) -> None:
        """Note a refused message: its client has dropped out, but may send other keys as long as it can."""
        name = self._names[id]
        self.refused[name] = f"{error.code}: {error}"
        if step == KEYS:
            del self._digests[KEYS][id]
        else:
            self.left[name] = step
            self._awaited.discard(id)

    def _check_still_in(self, name: str) -> None:
        """Refuse a client that is no longer in the round."""
        if self.lost is not None:
            raise Refused(409, "lost", f"round {self.request.round} is lost; {self.lost}")
        if name in self.left:
            why = self.refused.get(name, "no message of this client came in time")
            raise Refused(409, "dropped_out", f"client: dropped out in `{self.left[name]}`; {why}")
        if id_of(name) not in self._names:
            raise Refused(403, "client", "client: expected one of the federation, got another")

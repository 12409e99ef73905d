"""The server's side of one round of secure aggregation, around the training (spec/SECAGG.md 9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import fedmrn_codec as fm
from fedmrn_codec import ReplyError
from fedmrn_codec.adapter_api import SecAgg
from fedmrn_codec.adapter_api.secagg import KEYS, MASKED, REVEAL, SHARES, STEPS, Agreed
from fedmrn_secagg import SecAggError, Server, advance
from fedmrn_secagg.errors import TooFewError

from .request import Request
from .secagg import MESSAGE, REQUEST, STEP, clients_by_id


@dataclass
class Answers:
    """What clients have answered in a step: their messages, and why others have failed, by name."""

    found: dict[str, bytes] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


Ask = Callable[[str, list[str], Mapping[str, Any]], Answers]
"""Sends the entries of a step to clients, and waits for the answers: step, names, entries."""


class SecureRound:
    """The exchanges with the clients of one round.

    `open` makes those before the training, `accept` takes its results, and `finish` makes the last one. A
    client that does not answer, or whose message is refused, takes no part in the rest of the round.

    Parameters
    ----------
    request : Request
        With the one seed of the round.
    settings : SecAgg
    agreed : Agreed
        Of this round.
    clients : list of str
        The names of those who were sampled.
    ask : callable
        An exchange with clients, as `Ask` says.
    warn : callable
        Logs a text.

    Attributes
    ----------
    lost : int
        0, or the number of the step, 1 to 4, in which the round was lost.
    survivors : list of str
        After `finish`: the clients in the sum.
    up, down : collections.Counter
        Bytes of the messages of the protocol in each direction, by step; `down` has what is sent in it.

    Raises
    ------
    fedmrn_codec.ArgumentError
        The settings do not fit the schema or the number of clients.
    """

    def __init__(
        self,
        request: Request,
        settings: SecAgg,
        agreed: Agreed,
        clients: list[str],
        ask: Ask,
        warn: Callable[[str], None],
    ) -> None:
        self._request, self._agreed, self._send, self._warn = request, agreed, ask, warn
        self._names = clients_by_id(clients)
        self._ids = {name: id for id, name in self._names.items()}
        self._boxes: dict[str, bytes] = {}
        self._masked: dict[str, bytes] = {}
        self.survivors: list[str] = []
        self.lost = 0
        self.up, self.down = Counter[str](), Counter[str]()
        if len(clients) < agreed.threshold:
            self._lose(KEYS, TooFewError("sampled clients", f"at least {agreed.threshold}", len(clients)))
            return
        self._server = Server(request, clients=list(self._names), degree=settings.degree, **agreed.options)

    @property
    def clients(self) -> int:
        """The number of sampled clients."""
        return len(self._names)

    def open(self) -> dict[str, bytes]:
        """Exchange keys and shares; the boxes for each client that is asked to train.

        Returns
        -------
        dict of str to bytes
            By name, without clients that have dropped out; empty if the round is lost.
        """
        if self.lost:
            return {}
        about = {REQUEST: self._request.to_dict(), **self._agreed.to_dict()}
        roster, keyed = self._exchange(KEYS, list(self._ids), about)
        if roster is None:
            return {}
        boxes, _ = self._exchange(SHARES, keyed, {MESSAGE: roster})
        self._boxes = {self._names[id]: box for id, box in (boxes or {}).items()}
        self.down[MASKED] = sum(map(len, self._boxes.values()))
        return dict(self._boxes)

    def accept(self, client: str, message: bytes) -> None:
        """Keep the masked vector of a client; ReplyError if it was not asked for one."""
        if client not in self._boxes or client in self._masked:
            raise ReplyError("client", "one masked vector of each client that was asked to train", client)
        self._masked[client] = message

    def finish(self) -> fm.Aggregator | None:
        """Add the masked vectors, and take the pads away; None if the round is lost."""
        if self.lost:
            return None
        survivors, inside = self._take(MASKED, list(self._boxes), Answers(self._masked))
        if survivors is None:
            return None
        aggregator, _ = self._exchange(REVEAL, inside, {MESSAGE: survivors})
        if not isinstance(aggregator, fm.Aggregator):
            return None
        self.survivors = inside
        return aggregator

    def _exchange(self, step: str, clients: list[str], entries: Mapping[str, Any]) -> tuple[Any, list[str]]:
        """Send a step's entries to clients; the server's answer to theirs, and who has passed."""
        self.down[step] = len(clients) * len(entries.get(MESSAGE, b""))
        return self._take(step, clients, self._send(step, clients, {STEP: step, **entries}))

    def _take(self, step: str, clients: list[str], answers: Answers) -> tuple[Any, list[str]]:
        """Give the messages of a step to the server of the protocol; None for a lost round."""
        self.up[step] = sum(map(len, answers.found.values()))
        self._note(step, clients, answers)
        found = {self._ids[name]: message for name, message in answers.found.items()}

        def refuse(id: int, error: SecAggError) -> None:
            self._warn(f"fedmrn: refused the message of {self._names[id]} ({error.code}): {error}")

        try:
            answer = advance(self._server, step, found, refuse)
        except SecAggError as error:
            self._lose(step, error)
            return None, []
        return answer, [self._names[id] for id in found]

    def _note(self, step: str, asked: list[str], answers: Answers) -> None:
        """Log who has failed or was silent in a step."""
        for name, reason in answers.failed.items():
            self._warn(f"fedmrn: {name} failed in `{step}`: {reason}")
        silent = [name for name in asked if name not in answers.found and name not in answers.failed]
        if silent:
            self._warn(f"fedmrn: no accepted answer in `{step}` of {', '.join(sorted(silent))}")

    def _lose(self, step: str, error: SecAggError) -> None:
        self.lost = STEPS.index(step) + 1
        number = self._request.round - 1
        self._warn(f"fedmrn: round {number} is lost, and the model stays as it is: {step}: {error}")

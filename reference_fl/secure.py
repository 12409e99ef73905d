"""Secure aggregation in a run: each round is the protocol of `spec/SECAGG.md`, with all messages as bytes.

The engine trains the clients as in other runs. Their frames go to the clients' side of the protocol, a
state machine for each client, which turns them into messages; the server's sum is that which
`fedmrn_secagg.Server.reveal` gives. Both sides run in this process, one after the other: the messages are
real and their time is measured, but nothing is hidden from somebody who reads the memory of the process. No
client drops out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fedmrn_codec as fm
from fedmrn_codec.adapter_api.secagg import check_installed, threshold_of

from .engines import Reply
from .secure_steps import DOWN, UP

if TYPE_CHECKING:
    from fedmrn_secagg import Client, Server


def require() -> None:
    """See that the protocol can be run.

    Raises
    ------
    ValueError
        A package of the extra `secagg` is not installed.
    """
    try:
        check_installed()
    except fm.BackendError as error:
        raise ValueError(f"secure aggregation: expected {error.expected}, got none ({error.got})") from None


@dataclass(frozen=True)
class Terms:
    """What server and clients agree on for all rounds of a run.

    Attributes
    ----------
    share : float
        The threshold as a share of the clients of a round, above 0.5 and at most 1.
    largest_weight : int
        The largest weight of a client, 1 or more.
    step : float
        Of the grid of dense floats: a power of two.
    """

    share: float
    largest_weight: int
    step: float

    def threshold(self, clients: int) -> int:
        """The threshold of a round of so many clients."""
        return threshold_of(self.share, clients)

    def arguments(self, clients: int) -> dict[str, Any]:
        """The arguments that both sides of the protocol take."""
        return {
            "threshold": self.threshold(clients),
            "largest_weight": self.largest_weight,
            "step": self.step,
        }


@dataclass(frozen=True)
class MaskedBytes:
    """The bytes of one client's messages, divided as those of a frame are.

    Attributes
    ----------
    mask_bytes, dense_bytes : int
        The masked and the dense elements in the message `masked` (spec/SECAGG.md 13).
    header_bytes : int
        The rest of that message, and all others.
    """

    mask_bytes: int
    dense_bytes: int
    header_bytes: int

    @property
    def frame_bytes(self) -> int:
        """All bytes that the client has sent."""
        return self.mask_bytes + self.dense_bytes + self.header_bytes


class Exchange:
    """One round: the server's and the clients' side, and the bytes of all messages between them.

    Call `open`; let the clients train, and `add` the message of each of `replies`; then call `close`.

    Parameters
    ----------
    request : fedmrn_codec.Request
        With the round's one seed.
    weights : mapping of int to int
        The weight of each client of the round, by its number.
    terms : Terms

    Attributes
    ----------
    up, down : dict of str to dict of int to int
        The bytes of each message, by its name (`UP`, `DOWN`) and client.
    clipped : int
        Dense floats that were beyond the range of their grid, of all clients.
    seconds : float
        The time that both sides have taken, without the training.
    """

    def __init__(self, request: fm.Request, weights: Mapping[int, int], terms: Terms) -> None:
        from fedmrn_secagg import Client, Server

        arguments = terms.arguments(len(weights))
        self.request, self.terms, self.threshold = request, terms, arguments["threshold"]
        self.up: dict[str, dict[int, int]] = {name: {} for name in UP}
        self.down: dict[str, dict[int, int]] = {name: {} for name in DOWN}
        self.clipped, self.seconds = 0, 0.0
        with self._timed():
            self._server: Server = Server(request, clients=[_id(c) for c in weights], **arguments)
            self._clients: dict[int, Client] = {
                client: Client(_id(client), request, weight=weight, **arguments)
                for client, weight in weights.items()
            }
        self._boxes: dict[int, bytes] = {}
        self._masked: dict[int, bytes] = {}

    def open(self) -> None:
        """Before the training: the clients send keys and shares, and receive the roster and their boxes."""
        with self._timed():
            roster = self._server.keys(self._sent("keys", lambda client: client.keys()))
            self._count("roster", dict.fromkeys(self._clients, roster))
            boxes = self._server.shares(self._sent("shares", lambda client: client.shares(roster)))
            self._boxes = {client: boxes[_id(client)] for client in self._clients}
            self._count("boxes", self._boxes)

    def replies(
        self, trained: Iterable[Reply], verify: Callable[[bytes], None] | None = None
    ) -> Iterator[Reply]:
        """The replies of the engine, with the message `masked` in place of each frame.

        Parameters
        ----------
        trained : iterable of Reply
            The message of each is a frame.
        verify : callable, optional
            Called with each frame, where the client has it.
        """
        for reply in trained:
            if verify is not None:
                verify(reply.message)
            with self._timed():
                client = self._clients[reply.client]
                message = client.masked(reply.message, self._boxes[reply.client])
                self.clipped += client.clipped or 0
            yield Reply(reply.client, message, reply.memory)

    def add(self, client: int, message: bytes) -> None:
        """Take the message `masked` of a client to the server."""
        self._masked[client] = message

    def close(self) -> fm.Aggregator:
        """After the training: the sum of the updates, and nothing else of them."""
        with self._timed():
            self._count("masked", self._masked, up=True)
            survivors = self._server.masked({_id(c): message for c, message in self._masked.items()})
            self._masked = {}
            self._count("survivors", dict.fromkeys(self._clients, survivors))
            return self._server.reveal(self._sent("reveal", lambda client: client.reveal(survivors)))

    @property
    def clients(self) -> list[int]:
        """The numbers of the clients of the round."""
        return list(self._clients)

    def sizes(self, client: int) -> MaskedBytes:
        """The bytes that a client has sent, by kind."""
        tensors = list(self.request.schema)
        bits = (len(self._clients) * self.terms.largest_weight).bit_length()
        mask = bits * sum(-(-tensor.size // 8) for tensor in tensors if tensor.masked)
        dense = sum(
            tensor.size * (4 if tensor.type.is_float else 8) for tensor in tensors if not tensor.masked
        )
        return MaskedBytes(mask, dense, self.sent(client) - mask - dense)

    def sent(self, client: int) -> int:
        """The number of bytes that a client has sent."""
        return sum(by_client[client] for by_client in self.up.values())

    def received(self, client: int) -> int:
        """The number of bytes that a client has received, without the model."""
        return sum(by_client[client] for by_client in self.down.values())

    def line(self, number: int) -> dict[str, Any]:
        """The line of a round in `secure.jsonl`."""
        return {
            "round": number,
            "threshold": self.threshold,
            "up": {name: sum(by_client.values()) for name, by_client in self.up.items()},
            "down": {name: sum(by_client.values()) for name, by_client in self.down.items()},
            "clipped": self.clipped,
            "seconds": round(self.seconds, 3),
        }

    def _sent(self, name: str, verb: Callable[[Client], bytes]) -> dict[int, bytes]:
        """A message of every client, by the id in the protocol."""
        messages = {number: verb(client) for number, client in self._clients.items()}
        self._count(name, messages, up=True)
        return {_id(number): message for number, message in messages.items()}

    def _count(self, name: str, messages: Mapping[int, bytes], up: bool = False) -> None:
        (self.up if up else self.down)[name] = {client: len(each) for client, each in messages.items()}

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begin


def _id(client: int) -> int:
    """The id of a client in the protocol, where 0 is not one."""
    return client + 1

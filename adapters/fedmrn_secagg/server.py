"""The server's side of a round: a state machine, with messages in and out (spec/SECAGG.md 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

import numpy as np

import fedmrn_codec as fm

from . import errors, keys, randomness, sharing
from .arguments import checked_id, checked_identities, checked_ids
from .client import BOX_BYTES
from .layout import Layout
from .messages import FOR_ALL, LEAST, Message, Type, digest_of, pack, packed_bitmap
from .outcome import aggregator_of
from .roster import COMPLETE, NO_SEED, Roster, check_distinct, check_signature
from .terms import Steps, Terms
from .vector import Vector

STATES = ("keys", "shares", "masked", "reveal", "done")
COMMITMENT_BYTES = 32


class Server:
    """The server in one round; call `keys`, `shares`, `masked` and `reveal`, in this order.

    Each takes the messages of that step, by client id; a client that is not in the mapping has dropped out. A
    call that is refused leaves the server as it was: where the error names a client (`client`), the call can
    be repeated without its message; where there are too few, with more messages. Several threads may use one
    server; they take turns.

    Parameters
    ----------
    request : fedmrn_codec.Request
        With the round's one seed, the same for all clients.
    clients : iterable of int
        The ids of those who may take part: unsigned 64-bit, not 0, each once.
    threshold : int
        Shares that restore a secret, and least number of clients in a sum: at least 2. Against a
        malicious server, more than 0.62 of the clients, or 0.75 if a third of them may collude (spec 11.3).
    largest_weight : int
        The largest weight of a client: it makes a field wider by its number of bits.
    step : float, or mapping of str to float, optional
        A power of two: the step of the grid of all dense float tensors, or of some by name. By default 2^-18
        for float32 and float64, 2^-10 for float16, 2^-7 for bfloat16.
    session : bytes
        At most 255, such as the name of a run.
    degree : int, optional
        An even number of neighbours for each client, for a sparse graph; by default, or where there are too
        few clients for it, all others are neighbours.
    identities : mapping of int to fedmrn_codec.Key, optional
        The public identity keys of all clients; with them, keys must be signed.

    Attributes
    ----------
    request : fedmrn_codec.Request
    largest_weight : int
    state : str
        The step whose messages are waited for: "keys", "shares", "masked", "reveal"; or "done".
    survivors : tuple of int
        After `masked`: the ids of the clients that are in the sum.

    Raises
    ------
    ArgumentError
        An argument has the wrong type or value.
    """

    def __init__(
        self,
        request: fm.Request,
        *,
        clients: Iterable[int],
        threshold: int,
        largest_weight: int = 1,
        step: Steps = None,
        session: bytes = b"",
        degree: int | None = None,
        identities: keys.Identities | None = None,
    ) -> None:
        self._terms = Terms(request, threshold, largest_weight, step, session, identities is not None)
        self.request, self.largest_weight = request, self._terms.largest_weight
        self._clients = frozenset(checked_ids(clients))
        if len(self._clients) > self._terms.most_clients:
            raise fm.ArgumentError("clients", f"at most {self._terms.most_clients}", len(self._clients))
        if len(self._clients) < self._terms.threshold:
            expected = f"at most {len(self._clients)}, the number of clients"
            raise fm.ArgumentError("threshold", expected, self._terms.threshold)
        self._degree = _checked_degree(degree, self._terms.threshold)
        self._identities = None if identities is None else checked_identities(identities)
        self.state = "keys"
        self.survivors: tuple[int, ...] = ()
        self._lock = Lock()
        self._roster: Roster | None = None
        self._commitments: dict[int, bytes] = {}
        self._boxes: dict[int, dict[int, bytes]] = {}
        self._sum: Vector | None = None
        self._alive = np.zeros(0, bool)
        self._digest = b""

    def __repr__(self) -> str:
        return f"Server(state={self.state!r}, clients={len(self._clients)})"

    @property
    def longest(self) -> int:
        """The bytes of the longest message that a client can send in the present step; 0 after the last one.

        For a transport, which bounds the bodies that it receives before it reads them (spec 13).
        """
        with self._lock:
            if self.state == "done":
                return 0
            if self.state == "keys":
                return LEAST + self._terms.keys_bytes
            others = self._known.neighbours_each
            bodies = {
                "shares": COMMITMENT_BYTES + BOX_BYTES * others,
                "masked": Layout(self._terms, len(self._known.ids)).size,
                "reveal": sharing.SECRET_BYTES * (others + 1),
            }
            return LEAST + bodies[self.state]

    def keys(self, messages: Mapping[int, Any]) -> bytes:
        """The roster, for all clients that have sent keys.

        Parameters
        ----------
        messages : mapping of int to bytes-like
            The message `keys` of each client.

        Raises
        ------
        SecAggError
            A message fails a check, or there are too few clients.
        ArgumentError
            An id is not one of `clients`.
        """
        with self._lock:
            bodies: dict[int, bytes] = {}
            seen: set[bytes] = set()
            for id, message in self._given(messages, "keys", self._clients):
                with _Of(id):
                    bodies[id] = self._checked_keys(id, message, seen)
            self._enough(len(bodies), "clients with keys")
            ids = tuple(sorted(bodies))
            degree = self._degree if self._degree and self._degree <= len(ids) - 2 else COMPLETE
            seed = randomness.draw(len(NO_SEED)) if degree else NO_SEED
            agreement = self._terms.agreement
            self._roster = Roster(ids, tuple(bodies[id] for id in ids), degree, seed, agreement)
            self.state = "shares"
            return self._roster.data

    def shares(self, messages: Mapping[int, Any]) -> dict[int, bytes]:
        """The message `boxes` of each client that has sent shares, by id.

        Parameters
        ----------
        messages : mapping of int to bytes-like
            The message `shares` of each client.

        Raises
        ------
        SecAggError, ArgumentError
            As in `keys`.
        """
        with self._lock:
            roster = self._known if self.state != "keys" else None
            commitments, boxes = {}, {}
            for id, message in self._given(messages, "shares", roster.places if roster else ()):
                assert roster is not None
                position = roster.places[id]
                neighbours = roster.neighbours(position)
                with _Of(id):
                    read = Message(message, Type.SHARES, id, roster.digest)
                    body = read.body(COMMITMENT_BYTES + BOX_BYTES * len(neighbours))
                commitments[position] = bytes(body[:COMMITMENT_BYTES])
                starts = range(COMMITMENT_BYTES, len(body), BOX_BYTES)
                mine = (bytes(body[at : at + BOX_BYTES]) for at in starts)
                boxes[position] = dict(zip(neighbours, mine, strict=True))
            self._enough(len(boxes), "clients with shares")
            out = {self._known.ids[position]: self._boxes_for(position, boxes) for position in boxes}
            self._commitments, self._boxes, self.state = commitments, boxes, "masked"
            return out

    def masked(self, messages: Mapping[int, Any]) -> bytes:
        """The survivors, for all clients that have sent masked vectors, which are added.

        Parameters
        ----------
        messages : mapping of int to bytes-like
            The message `masked` of each client.

        Raises
        ------
        SecAggError, ArgumentError
            As in `keys`.
        """
        with self._lock:
            sharers = {self._known.ids[p] for p in self._boxes} if self.state == "masked" else set()
            given = self._given(messages, "masked", sharers)
            roster = self._known
            layout = Layout(self._terms, len(roster.ids))
            alive = np.zeros(len(roster.ids), bool)
            bodies = {}
            for id, message in given:
                with _Of(id):
                    bodies[id] = Message(message, Type.MASKED, id, roster.digest).body(layout.size)
                alive[roster.places[id]] = True
            self._enough(len(bodies), "clients with masked vectors")
            for position in self._needed(alive):
                self._enough(int(alive[self._sharing(position)].sum()), self._holders_of(position))
            self._check_connected(alive)
            total = Vector(layout)
            for body in bodies.values():
                total.add(Vector.from_bytes(body, layout))
            answer = pack(Type.SURVIVORS, FOR_ALL, roster.digest, packed_bitmap(alive))
            self._sum, self._alive, self._digest = total, alive, digest_of("survivors", answer)
            self.survivors, self.state = tuple(sorted(bodies)), "reveal"
            return answer

    def reveal(self, messages: Mapping[int, Any]) -> fm.Aggregator:
        """The sum, in an aggregator: its mean is that of the survivors' frames, bit for bit.

        A client of weight w counts as w frames of weight 1 (`Aggregator.frames`, `weight`). Dense floats are
        those of the grid.

        Parameters
        ----------
        messages : mapping of int to bytes-like
            The message `reveal` of each client.

        Raises
        ------
        SecAggError, ArgumentError
            As in `keys`; or ReconstructionError or SumError, for a round in which somebody has not followed
            the protocol.
        """
        with self._lock:
            given = self._given(messages, "reveal", self.survivors)
            roster = self._known
            shares: dict[int, dict[int, bytes]] = {}
            for id, message in given:
                owners = self._sharing(roster.places[id])
                with _Of(id):
                    read = Message(message, Type.REVEAL, id, self._digest)
                    body = read.body(sharing.SECRET_BYTES * len(owners))
                for at, owner in enumerate(owners):
                    index = roster.holders(owner).index(roster.places[id]) + 1
                    share = bytes(body[sharing.SECRET_BYTES * at : sharing.SECRET_BYTES * (at + 1)])
                    shares.setdefault(owner, {})[index] = share
            self._enough(len(given), "clients that reveal")
            needed = self._needed(self._alive)
            for position in needed:
                self._enough(len(shares.get(position, ())), self._holders_of(position))
            total = Vector(Layout(self._terms, len(roster.ids)))
            assert self._sum is not None
            total.add(self._sum)
            for position in needed:
                self._unmask(total, position, sharing.combine(shares[position], self._terms.threshold))
            aggregator = aggregator_of(total, int(self._alive.sum()))
            self._sum, self._boxes, self.state = None, {}, "done"
            return aggregator

    @property
    def _known(self) -> Roster:
        assert self._roster is not None
        return self._roster

    def _given(self, messages: Any, step: str, allowed: Any) -> list[tuple[int, Any]]:
        """The messages of a step in ascending order of ids; refuses another step, and unknown ids."""
        if self.state != step:
            raise errors.OrderError("call of the server", f"`{self.state}`", f"`{step}`")
        if not isinstance(messages, Mapping):
            raise fm.ArgumentError("messages", "a mapping of id to bytes", type(messages).__name__)
        for id in messages:
            if checked_id(id) not in allowed:
                raise fm.ArgumentError(
                    "messages", f"clients that take part in the step {step}", f"client {id}"
                )
        return sorted(messages.items())

    def _enough(self, found: int, what: str) -> None:
        """Refuse fewer than the threshold."""
        if found < self._terms.threshold:
            raise errors.TooFewError(what, f"at least {self._terms.threshold}", found)

    def _check_connected(self, alive: np.ndarray) -> None:
        """Refuse survivors that the graph does not connect: each part would show its own sum (spec 11.2)."""
        roster, left = self._known, {int(p) for p in np.flatnonzero(alive)}
        if roster.degree == COMPLETE:
            return
        reached = {min(left)}
        todo = list(reached)
        while todo:
            new = {other for other in roster.neighbours(todo.pop()) if other in left} - reached
            reached |= new
            todo += new
        if reached != left:
            raise errors.TooFewError(
                "clients with masked vectors that the graph connects", f"all {len(left)}", len(reached)
            )

    def _checked_keys(self, id: int, message: Any, seen: set[bytes]) -> bytes:
        """The body of a message `keys`, after the checks [X-11] to [X-22], [X-29] and [X-24]."""
        agreement = self._terms.agreement
        body = bytes(Message(message, Type.KEYS, id, agreement).body(self._terms.keys_bytes))
        if self._identities is not None:
            check_signature(self._identities, id, agreement, body)
        mine = [body[: keys.KEY_BYTES], body[keys.KEY_BYTES : 2 * keys.KEY_BYTES]]
        for key in mine:
            keys.check_point(key)
        check_distinct(mine, seen)
        return body

    def _boxes_for(self, position: int, boxes: Mapping[int, Mapping[int, bytes]]) -> bytes:
        """The message `boxes` for a client; refuses one with too few neighbours left."""
        roster = self._known
        there = [other in boxes for other in roster.neighbours(position)]
        self._enough(sum(there) + 1, self._holders_of(position))
        mine = (boxes[other][position] for other in roster.neighbours(position) if other in boxes)
        return pack(Type.BOXES, roster.ids[position], roster.digest, packed_bitmap(np.array(there)), *mine)

    def _sharing(self, position: int) -> list[int]:
        """Those of a client's holders that have sent shares: positions, ascending."""
        return [other for other in self._known.holders(position) if other in self._boxes]

    def _needed(self, alive: np.ndarray) -> list[int]:
        """Survivors, and dropouts with a survivor among the neighbours: a secret of each is needed."""
        return [p for p in sorted(self._boxes) if alive[self._known.neighbours(p)].any() or alive[p]]

    def _holders_of(self, position: int) -> str:
        return f"holders of the secrets of client {self._known.ids[position]}"

    def _unmask(self, total: Vector, position: int, secret: bytes) -> None:
        """Take a survivor's self mask, or the pads of a dropout, away from the sum."""
        roster = self._known
        id = roster.ids[position]
        if self._alive[position]:
            if keys.commitment(secret, roster.digest, id) != self._commitments[position]:
                raise errors.ReconstructionError(
                    f"self seed of client {id}", "that of its commitment", "another"
                )
            total.pad(keys.self_key(secret, roster.digest, id), negative=True)
            return
        private = keys.pad_private(secret, roster.agreement, id)
        if keys.public(private) != roster.pad_key(position):
            raise errors.ReconstructionError(f"key seed of client {id}", "that of its public key", "another")
        for other in roster.neighbours(position):
            if self._alive[other]:
                key = keys.pair_key(private, roster.pad_key(other), roster.digest, id, roster.ids[other])
                total.pad(key, negative=position > other)


class _Of:
    """Names the client in errors that its message causes."""

    def __init__(self, id: int) -> None:
        self._id = id

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, errors.SecAggError):
            raise error.of_client(self._id) from None


def _checked_degree(degree: Any, threshold: int) -> int:
    if degree is None:
        return COMPLETE
    if not isinstance(degree, int) or degree < 2 or degree % 2 or degree + 1 < threshold:
        raise fm.ArgumentError("degree", f"an even number, at least {max(threshold - 1, 2)}", repr(degree))
    return degree

"""The client's side of a round: a state machine, with messages in and out (spec/SECAGG.md 8)."""

from __future__ import annotations

from threading import Lock
from typing import Any, NoReturn, Self

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import U64, unsigned

from . import errors, keys, randomness, sharing
from .arguments import checked_id, checked_identities, checked_key, checked_weight
from .layout import Layout
from .messages import FOR_ALL, Message, Type, digest_of, pack
from .roster import Roster, keys_head
from .secret_state import Secrets, check, restored, saved
from .terms import Steps, Terms
from .vector import Vector

MAX_CLIENTS = 2**16
"""The most clients of a roster that a client accepts by default."""

VERBS = {"new": "keys", "keyed": "shares", "shared": "masked", "masked": "reveal"}
"""What a client is asked for in each state; in others nothing."""

BOX_BYTES = 2 * sharing.SECRET_BYTES + 16


class Client:
    """One client in one round; call `keys`, `shares`, `masked` and `reveal`, in this order, once each.

    A call that is refused leaves the client as it was. Several threads may use one client; they take turns.

    Parameters
    ----------
    id : int
        Unsigned 64-bit, not 0.
    request : fedmrn_codec.Request
        With the round's one seed.
    threshold, largest_weight, step, session
        As in `Server`; the same values, or all messages are refused.
    weight : int
        1 to `largest_weight`. The server learns the sum of the weights; if it knows them from elsewhere, the
        sum shows it most mask bits of single clients (spec/SECAGG.md, 11.1).
    identity : fedmrn_codec.Key, optional
        This client's own Ed25519 key.
    identities : mapping of int to fedmrn_codec.Key, optional
        The public identity keys of all clients, from a source other than the server. With both, keys must be
        signed: then the server cannot play clients (spec 11.3).
    max_clients : int
        The largest roster that is accepted.

    Attributes
    ----------
    id : int
    state : str
        "new", "keyed", "shared", "masked" or "done"; or "saved" after `to_bytes`.
    clipped : int or None
        After `masked`: how many dense floats were beyond the range of their grid, and sent as its end.

    Raises
    ------
    ArgumentError
        An argument has the wrong type or value.
    """

    def __init__(
        self,
        id: int,
        request: fm.Request,
        *,
        threshold: int,
        weight: int = 1,
        largest_weight: int = 1,
        step: Steps = None,
        session: bytes = b"",
        identity: fm.Key | None = None,
        identities: keys.Identities | None = None,
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        self.id = checked_id(id)
        self.state = "new"
        self.clipped: int | None = None
        if (identity is None) != (identities is None):
            raise fm.ArgumentError("identity", "given together with identities", "one of the two")
        self._terms = Terms(request, threshold, largest_weight, step, session, identities is not None)
        self._weight = checked_weight(weight, self._terms.largest_weight)
        self._identity = identity if identity is None else checked_key(identity, "identity", signs=True)
        self._identities = None if identities is None else checked_identities(identities)
        self._max_clients = unsigned(max_clients, U64, "max_clients")
        self._secrets = Secrets()
        self._lock = Lock()
        self._public = b""
        self._roster: Roster | None = None

    def __repr__(self) -> str:
        return f"Client(id={self.id}, state={self.state!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Client cannot be copied or pickled: each copy could answer a reveal of its own")

    def to_bytes(self) -> bytes:
        """The state, secrets included, for a program that ends between two steps; it leaves this object.

        Keep the bytes as secret as a private key, and restore them once: two clients with one state could
        reveal both secrets of a peer.

        Raises
        ------
        OrderError
            The client is done, or was saved before.
        """
        with self._lock:
            if self.state not in VERBS:
                raise errors.OrderError(f"call of client {self.id}", "nothing in this state", "`to_bytes`")
            out = saved(
                self.id,
                self.state,
                self._terms.agreement,
                self._public,
                self._roster,
                self.clipped,
                self._secrets,
            )
            self._secrets, self._roster, self.state = Secrets(), None, "saved"
            return out

    @classmethod
    def from_bytes(cls, data: bytes, request: fm.Request, **options: Any) -> Self:
        """The client that `to_bytes` has saved; `options` are those that it was made with, but the id.

        Raises
        ------
        ArgumentError
            The bytes are damaged, or no state, or one with other agreed values; or as in `Client`.
        """
        state = restored(data)
        out = cls(state.id, request, **options)
        if state.agreement != out._terms.agreement:
            raise fm.ArgumentError("state", "that of a client with these agreed values", "another")
        if state.roster is not None:
            try:
                out._roster = Roster.parse(state.roster, out._terms, out._max_clients)
            except errors.SecAggError as error:
                raise fm.ArgumentError(f"state, roster, {error.field}", error.expected, error.got) from None
        check(state, out._roster, out._terms)
        out._secrets, out._public = state.secrets, state.public
        out.state, out.clipped = state.state, state.clipped
        return out

    def keys(self) -> bytes:
        """The message `keys`, with new keys.

        Raises
        ------
        OrderError
            It was made before.
        """
        with self._lock:
            self._at("keys")
            secrets = Secrets(
                box_private=randomness.draw(keys.KEY_BYTES),
                key_seed=randomness.draw(sharing.SECRET_BYTES),
                self_seed=randomness.draw(sharing.SECRET_BYTES),
            )
            agreement = self._terms.agreement
            body = keys.public(secrets.box_private) + keys.public(self._pad_private(secrets))
            if self._identity is not None:
                body += keys.sign(self._identity, keys_head(self.id, agreement, body))
            message = pack(Type.KEYS, self.id, agreement, body)
            self._secrets, self._public, self.state = secrets, body, "keyed"
            return message

    def shares(self, roster: Any) -> bytes:
        """The message `shares`: shares of both secrets in a box for each neighbour.

        Parameters
        ----------
        roster : bytes-like
            From the server.

        Raises
        ------
        SecAggError
            The roster fails a check, the last of which is [X-32]; or OrderError.
        """
        with self._lock:
            self._at("shares")
            found = Roster.parse(roster, self._terms, self._max_clients)
            self._check(found)
            me, threshold = found.places[self.id], self._terms.threshold
            products = self._products(found)
            holders = found.holders(me)
            mine = tuple(
                sharing.split(secret, threshold, len(holders))
                for secret in (self._secrets.self_seed, self._secrets.key_seed)
            )
            boxes, own = [], (b"", b"")
            for index, position in enumerate(holders):
                pair = mine[0][index], mine[1][index]
                if position == me:
                    own = pair
                    continue
                other = found.ids[position]
                box = keys.close_box(products[position], found.digest, self.id, other, b"".join(pair))
                boxes.append(box)
            commitment = keys.commitment(self._secrets.self_seed, found.digest, self.id)
            message = pack(Type.SHARES, self.id, found.digest, commitment, *boxes)
            self._secrets.shares = {me: own}
            self._roster, self.state = found, "shared"
            return message

    def masked(self, frame: fm.CheckedFrame | bytes, boxes: Any) -> bytes:
        """The message `masked`: the vector of a frame, plus pads.

        Parameters
        ----------
        frame : bytes-like or CheckedFrame
            For the request. Dense floats are rounded to their grid, and clipped to its range (`clipped`).
        boxes : bytes-like
            From the server, for this client.

        Raises
        ------
        SecAggError
            The boxes fail a check, an integer is beyond its range, or OrderError.
        FrameError
            The boxes are right, but the frame fails a check of FORMAT.md 7; or, as `ReplyError`, its masks
            are not of the request's kind and noise, [X-37].
        """
        with self._lock:
            self._at("masked")
            roster = self._known
            shares = self._open(boxes, roster)
            checked = self._checked(frame)
            me = roster.places[self.id]
            layout = Layout(self._terms, len(roster.ids))
            vector, clipped = vector_of(checked, self._weight, layout)
            private = self._pad_private(self._secrets)
            vector.pad(keys.self_key(self._secrets.self_seed, roster.digest, self.id))
            for position in shares:
                other = roster.ids[position]
                key = keys.pair_key(private, roster.pad_key(position), roster.digest, self.id, other)
                vector.pad(key, negative=position < me)
            message = pack(Type.MASKED, self.id, roster.digest, vector.to_bytes())
            self._secrets = Secrets(shares={**self._secrets.shares, **shares})
            self.clipped, self.state = clipped, "masked"
            return message

    def reveal(self, survivors: Any) -> bytes:
        """The message `reveal`: for each neighbour the share of one of its secrets. It is the last one.

        Parameters
        ----------
        survivors : bytes-like
            From the server.

        Raises
        ------
        SecAggError
            The survivors fail a check, or OrderError.
        """
        with self._lock:
            self._at("reveal")
            roster, shares = self._known, self._secrets.shares
            message = Message(survivors, Type.SURVIVORS, FOR_ALL, roster.digest)
            alive = message.bitmap(len(roster.ids))
            data = bytes(message.view)
            message.body((len(alive) + 7) // 8)
            self._check_survivors(alive, roster)
            digest = digest_of("survivors", data)
            parts = [shares[position][0 if alive[position] else 1] for position in sorted(shares)]
            answer = pack(Type.REVEAL, self.id, digest, *parts)
            self._secrets, self._roster, self.state = Secrets(), None, "done"
            return answer

    @property
    def _known(self) -> Roster:
        assert self._roster is not None
        return self._roster

    def _at(self, verb: str) -> None:
        """Refuse a verb that is not the one of the state, [X-06]."""
        wanted = VERBS.get(self.state)
        if verb != wanted:
            expected = f"`{wanted}`" if wanted else "nothing"
            field = f"call of client {self.id}"
            raise errors.OrderError(field, f"{expected} in state {self.state}", f"`{verb}`")

    def _checked(self, frame: fm.CheckedFrame | bytes) -> fm.CheckedFrame:
        """A frame with the checks of FORMAT.md 7, all of them before [X-37]."""
        request = self._terms.request
        checked = fm.verify(
            frame,
            request.schema,
            round=request.round,
            base_model=request.base_model,
            seed=request.seed,
            limits=request.limits,
        )
        return request.check(checked)

    def _check(self, roster: Roster) -> None:
        """The checks [X-27] to [X-30] of a roster."""
        place = roster.places.get(self.id)
        if place is None or roster.bodies[place] != self._public:
            raise errors.OwnKeyError(f"entry of client {self.id}", "the keys that it sent", "none or others")
        roster.check_keys()
        if self._identities is not None:
            roster.check_signatures(self._identities)
        roster.check_holders(self._terms.threshold)

    def _products(self, roster: Roster) -> dict[int, bytes]:
        """The X25519 products of the box keys, by position of each neighbour; [X-32] of both keys."""
        private, out = self._pad_private(self._secrets), {}
        for position in roster.neighbours(roster.places[self.id]):
            out[position] = self._agree(roster, position)
            keys.agree(private, roster.pad_key(position), f"client {roster.ids[position]}")
        return out

    def _open(self, boxes: Any, roster: Roster) -> dict[int, tuple[bytes, bytes]]:
        """The shares in the boxes of a message, by position: [X-11] to [X-22], then [X-31] and [X-33]."""
        neighbours = roster.neighbours(roster.places[self.id])
        message = Message(boxes, Type.BOXES, self.id, roster.digest)
        there = message.bitmap(len(neighbours))
        begin = (len(neighbours) + 7) // 8
        body = message.body(begin + BOX_BYTES * int(there.sum()))[begin:]
        senders = [position for position, is_there in zip(neighbours, there, strict=True) if is_there]
        if len(senders) + 1 < self._terms.threshold:
            raise errors.TooFewError("boxes", f"at least {self._terms.threshold - 1}", len(senders))
        found = {}
        for at, position in enumerate(senders):
            box = bytes(body[BOX_BYTES * at : BOX_BYTES * (at + 1)])
            product = self._agree(roster, position)
            both = keys.open_box(product, roster.digest, roster.ids[position], self.id, box)
            found[position] = both[: sharing.SECRET_BYTES], both[sharing.SECRET_BYTES :]
        return found

    def _check_survivors(self, alive: np.ndarray, roster: Roster) -> None:
        """The checks [X-34] to [X-36]."""
        me, held = roster.places[self.id], self._secrets.shares
        if not alive[me]:
            raise errors.SurvivorsError("survivors", f"client {self.id} among them", "others only")
        neighbours = [position for position in roster.neighbours(me) if alive[position]]
        if unknown := [roster.ids[position] for position in neighbours if position not in held]:
            raise errors.SurvivorsError("survivors", "clients whose boxes came", f"clients {unknown}")
        if len(neighbours) + 1 < self._terms.threshold:
            raise errors.TooFewError("survivors", f"at least {self._terms.threshold}", len(neighbours) + 1)

    def _agree(self, roster: Roster, position: int) -> bytes:
        """The X25519 product of this client's box key and another's."""
        whose = f"client {roster.ids[position]}"
        return keys.agree(self._secrets.box_private, roster.box_key(position), whose)

    def _pad_private(self, secrets: Secrets) -> bytes:
        return keys.pad_private(secrets.key_seed, self._terms.agreement, self.id)


def vector_of(frame: fm.CheckedFrame, weight: int, layout: Layout) -> tuple[Vector, int]:
    """The vector of a frame, and how many dense floats were clipped; errors as in `Layout.sections`."""
    fields, words, longs, clipped = layout.sections(frame, weight)
    vector = Vector(layout)
    vector.fields.view(np.uint8)[: len(fields)] = fields
    vector.words[:], vector.longs[:] = words, longs
    return vector, clipped

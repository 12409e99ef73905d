"""Who takes part in a round, with which keys, and who is whose neighbour (spec/SECAGG.md 3, 7.3)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from . import errors, keys
from .messages import FOR_ALL, HEADER, MAGIC, VERSION, Message, Type, digest_of, label, pack
from .terms import Terms

HEAD = struct.Struct("<II32s")
NO_SEED = bytes(32)
COMPLETE = 0
"""The degree that stands for the complete graph."""


@dataclass(frozen=True, eq=False)
class Roster:
    """The clients of a round in ascending order of their ids, and the graph.

    Attributes
    ----------
    ids : tuple of int
    bodies : tuple of bytes
        The body of each client's message `keys`: public box key, public pad key, and the signature, if any.
    degree : int
        0 stands for the complete graph.
    graph_seed : bytes
        32; zeros for the complete graph.
    agreement : bytes
        The digest of the agreed values.
    """

    ids: tuple[int, ...]
    bodies: tuple[bytes, ...]
    degree: int
    graph_seed: bytes
    agreement: bytes

    @cached_property
    def data(self) -> bytes:
        """The message `roster`."""
        entries = (keys.number(id) + body for id, body in zip(self.ids, self.bodies, strict=True))
        head = HEAD.pack(len(self.ids), self.degree, self.graph_seed)
        return pack(Type.ROSTER, FOR_ALL, self.agreement, head, *entries)

    @cached_property
    def digest(self) -> bytes:
        """R of spec 7.2, to which all keys and all later messages are bound."""
        return digest_of("roster", self.data)

    @cached_property
    def places(self) -> dict[int, int]:
        """The position of each client, by id."""
        return {id: position for position, id in enumerate(self.ids)}

    def box_key(self, position: int) -> bytes:
        """The public box key of a client."""
        return self.bodies[position][: keys.KEY_BYTES]

    def pad_key(self, position: int) -> bytes:
        """The public pad key of a client."""
        return self.bodies[position][keys.KEY_BYTES : 2 * keys.KEY_BYTES]

    @property
    def neighbours_each(self) -> int:
        """The number of neighbours that each client has."""
        return self.degree or len(self.ids) - 1

    @cached_property
    def _circle(self) -> tuple[list[int], list[int]]:
        """The positions in the order of the circle, and the place of each position on it."""
        digests = [
            hashlib.sha256(label("graph") + self.graph_seed + keys.number(id)).digest() for id in self.ids
        ]
        order = sorted(range(len(self.ids)), key=digests.__getitem__)
        places = [0] * len(order)
        for place, position in enumerate(order):
            places[position] = place
        return order, places

    def neighbours(self, position: int) -> list[int]:
        """The positions of a client's neighbours, ascending."""
        n = len(self.ids)
        if self.degree == COMPLETE:
            return [other for other in range(n) if other != position]
        order, places = self._circle
        reach = range(1, self.degree // 2 + 1)
        place = places[position]
        return sorted(order[(place + step * sign) % n] for step in reach for sign in (1, -1))

    def holders(self, position: int) -> list[int]:
        """The positions of those who hold a client's shares, itself among them, ascending; indices from 1."""
        return sorted([*self.neighbours(position), position])

    @classmethod
    def parse(cls, data: object, terms: Terms, max_clients: int) -> Roster:
        """A roster as a client receives it: [X-11] to [X-22], then [X-25] and [X-26].

        Raises
        ------
        SecAggError
            A check fails; the first one determines the subclass.
        """
        message = Message(data, Type.ROSTER, FOR_ALL, terms.agreement)
        count, degree, graph_seed = HEAD.unpack(message.part(0, HEAD.size))
        most = min(max_clients, terms.most_clients)
        if count > most:
            raise errors.LimitError("number of clients", f"at most {most}", count, HEADER.size)
        size = 8 + terms.keys_bytes
        body = message.body(HEAD.size + count * size)
        if count < terms.threshold:
            raise errors.TooFewError("number of clients", f"at least {terms.threshold}", count, HEADER.size)
        if degree == COMPLETE and graph_seed != NO_SEED:
            raise errors.RosterError("graph seed", "zeros, for the complete graph", graph_seed.hex())
        if degree != COMPLETE and (degree % 2 or degree > count - 2):
            raise errors.RosterError("degree", f"0, or an even number up to {count - 2}", degree)
        entries = [bytes(body[at : at + size]) for at in range(HEAD.size, len(body), size)]
        ids = tuple(int.from_bytes(entry[:8], "little") for entry in entries)
        if not all(a < b for a, b in zip((0, *ids), ids, strict=False)):
            raise errors.RosterError("ids", "ascending ones, without 0", "others")
        return cls(ids, tuple(entry[8:] for entry in entries), degree, graph_seed, terms.agreement)

    def check_keys(self) -> None:
        """Refuse public keys that occur twice, [X-28]."""
        positions = range(len(self.ids))
        check_distinct((key for p in positions for key in (self.box_key(p), self.pad_key(p))), set())

    def check_signatures(self, identities: keys.Identities) -> None:
        """Refuse keys that their owner has not signed, [X-29]."""
        for id, body in zip(self.ids, self.bodies, strict=True):
            check_signature(identities, id, self.agreement, body)

    def check_holders(self, threshold: int) -> None:
        """Refuse a graph with too few holders of each secret, [X-30]."""
        if self.neighbours_each + 1 < threshold:
            raise errors.TooFewError("holders", f"at least {threshold}", self.neighbours_each + 1)


def keys_head(id: int, agreement: bytes, public_keys: bytes) -> bytes:
    """What is signed of a message `keys`: header, and both public keys."""
    return HEADER.pack(MAGIC, VERSION, Type.KEYS, 0, id, agreement) + public_keys


def check_signature(identities: keys.Identities, id: int, agreement: bytes, body: bytes) -> None:
    """Refuse the body of a message `keys` that its owner has not signed, [X-29]."""
    public_keys = body[: 2 * keys.KEY_BYTES]
    keys.verify(identities, id, keys_head(id, agreement, public_keys), body[2 * keys.KEY_BYTES :])


def check_distinct(public_keys: Iterable[bytes], seen: set[bytes]) -> None:
    """Refuse public keys that occur twice, or are among those seen before; they are added to these."""
    for key in public_keys:
        if key in seen:
            raise errors.PublicKeyError("public key", "one that occurs once in a round", key.hex())
        seen.add(key)

"""The checks of spec/SECAGG.md 10 once more, in plain code: the first one that a message fails."""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fedmrn_secagg import keys
from fedmrn_secagg.errors import SecAggError

from .secagg_record import MOST_CLIENTS, STEPS, Record, layout_of

HEADER, CHECKSUM = 48, 4
TO_SERVER = STEPS
TO_CLIENT = {"roster": "shares", "boxes": "masked", "survivors": "reveal"}
"""The messages that a client reads, and the step in which it does."""

FIELDS = (
    (0, 4, "magic"), (4, 1, "version"), (5, 1, "message_type"), (6, 2, "reserved"), (8, 8, "sender"),
    (16, 32, "digest"),
)  # fmt: skip
"""Offset, size and code of the fields of a header."""


class Place(NamedTuple):
    """A message of a round: its kind, and the client that sends it or reads it."""

    record: Record
    kind: str
    id: int

    @property
    def step(self) -> str:
        """The step in which it is read by the server, or answered by the client."""
        return TO_CLIENT.get(self.kind, self.kind)

    @property
    def right(self) -> bytes:
        """The message as it is in the record."""
        if self.kind in TO_SERVER:
            return self.record.sent[self.kind][self.id]
        found: bytes = self.record.before(self.step, self.id)
        return found

    @property
    def ids(self) -> list[int]:
        """The ids of the roster."""
        return sorted(self.record.sent["keys"])

    @property
    def neighbours(self) -> list[int]:
        """The ids of the neighbours in the graph of the record."""
        (degree,) = struct.unpack_from("<I", self.record.answers["keys"], HEADER + 4)
        return neighbours(self.ids, degree, self.record.answers["keys"][HEADER + 8 : HEADER + 40], self.id)


def neighbours(ids: Sequence[int], degree: int, graph_seed: bytes, id: int) -> list[int]:
    """The ids of a client's neighbours, ascending (3)."""
    if degree == 0:
        return [other for other in ids if other != id]
    prefix = b"fedmrn secagg 1 graph\0" + graph_seed
    circle = sorted(ids, key=lambda i: hashlib.sha256(prefix + struct.pack("<Q", i)).digest())
    at = circle.index(id)
    return sorted(circle[(at + away) % len(circle)] for k in range(1, degree // 2 + 1) for away in (k, -k))


def verdict(place: Place, data: bytes) -> str | None:
    """The code of the first check that a message at its place fails; None if it fails none."""
    try:
        _head(place, data)
        CHECKS[place.kind](place, data)
    except Refused as found:
        return str(found)
    return None


class Refused(Exception):
    """A check has failed; its text is the code."""


def _unless(condition: bool, code: str) -> None:
    if not condition:
        raise Refused(code)


def _head(place: Place, data: bytes) -> None:
    _unless(len(data) >= HEADER + CHECKSUM, "truncated")
    for at, size, code in FIELDS:
        _unless(data[at : at + size] == place.right[at : at + size], code)


def _body(data: bytes, size: int) -> bytes:
    """The body, of a known size."""
    found = len(data) - HEADER - CHECKSUM
    _unless(found >= size, "truncated")
    _unless(found <= size, "trailing")
    _unless(data[-CHECKSUM:] == zlib.crc32(data[:-CHECKSUM]).to_bytes(4, "little"), "checksum")
    return data[HEADER:-CHECKSUM]


def _bits(data: bytes, size: int) -> list[bool]:
    """The bitmap at the beginning of the body."""
    length = (size + 7) // 8
    _unless(len(data) - HEADER - CHECKSUM >= length, "truncated")
    string = int.from_bytes(data[HEADER : HEADER + length], "little")
    _unless(string >> size == 0, "padding")
    return [bool(string >> at & 1) for at in range(size)]


def _point(key: bytes) -> None:
    """The X25519 product with any key is zero for points of small order alone."""
    try:
        X25519PrivateKey.from_private_bytes(bytes(32)).exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        raise Refused("public_key") from None


def _signed(place: Place, id: int, body: bytes) -> None:
    """The signature of an entry, if the keys are signed."""
    identities = place.record.identities
    if identities is None:
        return
    _unless(id in identities, "signature")
    head = struct.pack("<4sBBHQ", b"FMRX", 1, 1, 0, id) + place.record.terms.agreement
    try:
        key = Ed25519PublicKey.from_public_bytes(identities[id].data)
        key.verify(body[64:], b"fedmrn secagg 1 sign\0" + head + body[:64])
    except InvalidSignature:
        raise Refused("signature") from None


def _keys(place: Place, data: bytes) -> None:
    body = _body(data, 64 + 64 * (place.record.identities is not None))
    _signed(place, place.id, body)
    mine = body[:32], body[32:64]
    for key in mine:
        _point(key)
    theirs = [message for id, message in place.record.sent["keys"].items() if id != place.id]
    others = [message[at : at + 32] for message in theirs for at in (HEADER, HEADER + 32)]
    _unless(mine[0] != mine[1] and not set(mine) & set(others), "public_key")


def _roster(place: Place, data: bytes) -> None:
    terms, entry = place.record.terms, 72 + 64 * (place.record.identities is not None)
    _unless(len(data) - HEADER - CHECKSUM >= 40, "truncated")
    count, degree, graph_seed = struct.unpack_from("<II32s", data, HEADER)
    _unless(count <= MOST_CLIENTS and count * terms.largest_weight <= 2**24 - 1, "limit")
    body = _body(data, 40 + count * entry)
    _unless(count >= terms.threshold, "too_few")
    _unless(degree == 0 or (degree % 2 == 0 and degree <= count - 2), "roster")
    _unless(degree != 0 or not any(graph_seed), "roster")
    entries = [body[at : at + entry] for at in range(40, len(body), entry)]
    ids = [int.from_bytes(each[:8], "little") for each in entries]
    _unless(ids[0] > 0 and all(a < b for a, b in pairwise(ids)), "roster")
    own = place.record.sent["keys"][place.id][HEADER:-CHECKSUM]
    _unless(struct.pack("<Q", place.id) + own in entries, "own_key")
    public = [each[at : at + 32] for each in entries for at in (8, 40)]
    _unless(len(set(public)) == len(public), "public_key")
    for id, each in zip(ids, entries, strict=True):
        _signed(place, id, each[8:])
    _unless((degree or count - 1) + 1 >= terms.threshold, "too_few")
    for other in neighbours(ids, degree, graph_seed, place.id):
        for key in public[2 * ids.index(other) : 2 * ids.index(other) + 2]:
            _point(key)


def _boxes(place: Place, data: bytes) -> None:
    others = place.neighbours
    there = [id for id, bit in zip(others, _bits(data, len(others)), strict=True) if bit]
    begin = (len(others) + 7) // 8
    body = _body(data, begin + 48 * len(there))
    _unless(len(there) + 1 >= place.record.terms.threshold, "too_few")
    for k, sender in enumerate(there):
        box = body[begin + 48 * k : begin + 48 * (k + 1)]
        try:
            opened(place.record, sender, place.id, box)
        except SecAggError:
            raise Refused("box") from None


def opened(record: Record, sender: int, receiver: int, box: bytes) -> bytes:
    """The shares in a box from one client of a round to another."""
    return keys.open_box(*_box_key(record, sender, receiver), sender, receiver, box)


def closed(record: Record, sender: int, receiver: int, content: bytes) -> bytes:
    """A box from one client of a round to another."""
    return keys.close_box(*_box_key(record, sender, receiver), sender, receiver, content)


def _box_key(record: Record, sender: int, receiver: int) -> tuple[bytes, bytes]:
    """The product of the box keys, and the digest of the roster."""
    digest = hashlib.sha256(b"fedmrn secagg 1 roster\0" + record.answers["keys"][:-CHECKSUM]).digest()
    public = record.sent["keys"][sender][HEADER : HEADER + 32]
    return keys.agree(record.members[receiver].secrets[0], public, ""), digest


def _survivors(place: Place, data: bytes) -> None:
    ids, others = place.ids, place.neighbours
    alive = {id for id, bit in zip(ids, _bits(data, len(ids)), strict=True) if bit}
    _body(data, (len(ids) + 7) // 8)
    _unless(place.id in alive, "survivors")
    _unless(alive & set(others) <= place.record.sent["shares"].keys(), "survivors")
    _unless(len(alive & set(others)) + 1 >= place.record.terms.threshold, "too_few")


CHECKS = {
    "keys": _keys,
    "roster": _roster,
    "shares": lambda place, data: _body(data, 32 + 48 * len(place.neighbours)),
    "boxes": _boxes,
    "masked": lambda place, data: _body(data, layout_of(place.record, len(place.ids)).size),
    "survivors": _survivors,
    "reveal": lambda place, data: _body(
        data, 16 * (1 + len(set(place.neighbours) & place.record.sent["shares"].keys()))
    ),
}

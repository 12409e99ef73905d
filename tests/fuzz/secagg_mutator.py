"""Changes of the messages of secure aggregation: of their fields and parts, mostly with right lengths."""

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import fedmrn_codec as fm
from fedmrn_secagg import keys

from .mutator import any_bytes, number, with_number
from .secagg_judge import CHECKSUM, HEADER, Place, closed, opened
from .secagg_record import layout_of

LONGEST = 2**16
"""The bytes that a message grows by."""

POINTS = (
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    (2**256 - 1).to_bytes(32, "little"),
)
"""Public keys of X25519: those of small order, in their forms, and the largest number."""


class Parts(NamedTuple):
    """Header and parts of a body; the checksum is made anew."""

    head: bytes
    body: list[bytes]

    def write(self) -> bytes:
        """The message with a right checksum."""
        data = self.head + b"".join(self.body)
        return data + zlib.crc32(data).to_bytes(4, "little")


def sizes_of(place: Place) -> tuple[list[int], list[int]]:
    """The sizes of the first parts of a body, and those of the parts that repeat."""
    signature = [64] * (place.record.identities is not None)
    return {
        "keys": ([32, 32, *signature], []),
        "roster": ([4, 4, 32], [8, 32, 32, *signature]),
        "shares": ([32], [48]),
        "boxes": ([(len(place.neighbours) + 7) // 8], [48]),
        "masked": (list(layout_of(place.record, len(place.ids)).sizes), []),
        "survivors": ([], [1]),
        "reveal": ([], [16]),
    }[place.kind]


def split(place: Place, data: bytes) -> Parts:
    """The parts of any bytes, as far as they have parts."""
    body, at, out = data[:-CHECKSUM][HEADER:], 0, []
    first, then = sizes_of(place)
    for size in first:
        out.append(body[at : at + size])
        at += size
    while at < len(body):
        size = then[(len(out) - len(first)) % len(then)] if then else len(body)
        out.append(body[at : at + size])
        at += size
    return Parts(data[:-CHECKSUM][:HEADER], out)


Change = Callable[[random.Random, Place, Parts, Parts], Parts]
"""A change of a message, which may take parts of another one."""


def _field(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """Another number in a field of the header."""
    at = rng.choice(((0, 4), (4, 1), (5, 1), (5, 1), (6, 2), (8, 8), (16, 8), (40, 8)))
    return message._replace(head=with_number(rng, message.head, *at))


def _head(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """The header of another message, or some of its fields."""
    begin, end = rng.choice(((0, HEADER), (5, 6), (8, 16), (16, HEADER)))
    return message._replace(head=message.head[:begin] + other.head[begin:end] + message.head[end:])


def _at(rng: random.Random, message: Parts, change: Callable[[bytes], bytes]) -> Parts:
    """The message with one part changed."""
    if not message.body:
        return message
    body, i = list(message.body), rng.randrange(len(message.body))
    body[i] = change(body[i])
    return message._replace(body=body)


def _part(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """A part with a few bytes changed, or other bytes of its length."""
    how = rng.randrange(4)
    if how < 2:
        return _at(rng, message, lambda part: same_length(rng, part))
    fill = [rng.randbytes(LONGEST), bytes(LONGEST), b"\xff" * LONGEST][rng.randrange(3)]
    return _at(rng, message, lambda part: fill[: len(part)])


def same_length(rng: random.Random, part: bytes) -> bytes:
    """A part with a few bytes changed, and of the same length."""
    new = any_bytes(rng, part) if part else part
    return (new + bytes(len(part)))[: len(part)]


def _key(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """A key of small order, that of another client, or the same in another form."""

    def change(part: bytes) -> bytes:
        if len(part) != 32:
            return part
        own = part[:-1] + bytes([part[-1] ^ 0x80])
        theirs = [each for each in other.body if len(each) == 32] or [own]
        return rng.choice((own, rng.choice(theirs), rng.choice(POINTS)))

    return _at(rng, message, change)


def _swap(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """A part of another message, or another part of this one."""
    source = (other if rng.randrange(2) else message).body
    return _at(rng, message, lambda part: rng.choice(source)) if source else message


def _order(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """Two parts of equal length exchanged."""
    body = list(message.body)
    pairs = [(i, j) for i in range(len(body)) for j in range(i) if len(body[i]) == len(body[j])]
    if pairs:
        i, j = rng.choice(pairs)
        body[i], body[j] = body[j], body[i]
    return message._replace(body=body)


def _count(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """One of the parts that repeat, such as an entry of a roster, more or less."""
    first, then = sizes_of(place)
    width = len(then) or 1
    groups = range(len(first), len(message.body), width) if then else range(len(message.body))
    if not groups:
        return message
    body, at = list(message.body), rng.choice(groups)
    if rng.randrange(2):
        del body[at : at + width]
    else:
        source = [other.body[k : k + width] for k in range(len(first), len(other.body), width)]
        body[at:at] = rng.choice(source or [body[at : at + width]])
    return message._replace(body=body)


def _whole(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """The body of another message: of another round, client or step."""
    return message._replace(body=list(other.body))


def _bits(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """Another bit in a bitmap, and the box of its client put in or left out."""
    if place.kind not in ("boxes", "survivors") or not message.body:
        return message
    bits = bytearray(message.body[0])
    if not bits:
        return message
    size = len(place.neighbours if place.kind == "boxes" else place.ids)
    at = rng.randrange(size if rng.randrange(8) else 8 * len(bits))
    if at >= 8 * len(bits):
        return message
    before = sum(bits[k // 8] >> k % 8 & 1 for k in range(at))
    bits[at // 8] ^= 1 << at % 8
    body = [bytes(bits), *message.body[1:]]
    if place.kind == "boxes":
        if bits[at // 8] >> at % 8 & 1:
            body.insert(1 + before, rng.choice([*other.body[1:], bytes(48)]))
        else:
            del body[1 + before : 2 + before]
    return message._replace(body=body)


def _secret(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """What the owner of a key can do: a box with other shares in it, and other keys that are signed."""
    record, body = place.record, list(message.body)
    if place.kind == "keys" and record.identities is not None and len(body) == 3:
        identity = record.members[place.id].identity
        assert identity is not None
        body[2] = keys.sign(identity, message.head + body[0] + body[1])
    if place.kind == "shares":
        receivers = list(place.neighbours)
        at = rng.randrange(len(receivers))
        if len(body) == 1 + len(receivers) and len(body[1 + at]) == 48:
            body[1 + at] = _resealed(rng, place, place.id, receivers[at], body[1 + at])
    if place.kind == "boxes" and len(body) > 1:
        string = int.from_bytes(body[0], "little")
        senders = [id for k, id in enumerate(place.neighbours) if string >> k & 1]
        at = rng.randrange(len(body) - 1)
        if at < len(senders) and len(body[1 + at]) == 48:
            body[1 + at] = _resealed(rng, place, senders[at], place.id, body[1 + at])
    return message._replace(body=body)


def _resealed(rng: random.Random, place: Place, sender: int, receiver: int, box: bytes) -> bytes:
    try:
        content = opened(place.record, sender, receiver, box)
    except fm.CodecError:
        content = bytes(32)
    return closed(place.record, sender, receiver, same_length(rng, content))


def _long(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """Many bytes more, at an end or between two parts, or a message cut off."""
    body, at = list(message.body), rng.randrange(len(message.body) + 1)
    if rng.randrange(3) == 0:
        return message._replace(body=body[:at])
    size = rng.choice((1, 4, 16, 48, 64, 1000, LONGEST))
    body.insert(at, rng.randbytes(size) if rng.randrange(2) else bytes(size))
    return message._replace(body=body)


def _claim(rng: random.Random, place: Place, message: Parts, other: Parts) -> Parts:
    """Another number of clients or degree in a roster."""
    if place.kind != "roster" or len(message.body) < 3:
        return message
    body, at = list(message.body), rng.randrange(2)
    if len(body[at]) == 4:
        (old,) = struct.unpack("<I", body[at])
        new = rng.choice((number(rng, old, 4), 0, 2, 4, len(place.ids), len(place.ids) - 2, 2**31))
        body[at] = struct.pack("<I", new % 2**32)
        if at == 1 and rng.randrange(2):
            body[2] = bytes(32) if new == 0 else rng.randbytes(32)
    return message._replace(body=body)


CHANGES: tuple[Change, ...] = (
    _field, _head, _part, _part, _part, _key, _key, _swap, _order, _count, _whole, _bits, _bits, _secret,
    _secret, _long, _claim,
)  # fmt: skip


def _repaired(rng: random.Random, place: Place, message: Parts) -> Parts:
    """Header, number of entries and their order made right, each with a probability."""
    head, body = message.head, list(message.body)
    if rng.random() < 0.85:
        head = place.right[:HEADER]
    _, then = sizes_of(place)
    if place.kind == "roster" and len(body) >= 3:
        entries = [body[at : at + len(then)] for at in range(3, len(body), len(then))]
        if rng.random() < 0.5:
            entries.sort(key=lambda entry: int.from_bytes(entry[0], "little"))
        if rng.random() < 0.9:
            body[0] = struct.pack("<I", len(entries))
        body = [*body[:3], *(part for entry in entries for part in entry)]
    return Parts(head, body)


def message(rng: random.Random, place: Place, data: bytes, other: bytes) -> bytes:
    """A message for a place with one to four changes, which may take parts of another one."""
    if rng.randrange(24) == 0:
        return any_bytes(rng, data)
    parts, its = split(place, data), split(place, other)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        parts = rng.choice(CHANGES)(rng, place, parts, its)
    out = _repaired(rng, place, parts).write()
    return any_bytes(rng, out) if rng.randrange(24) == 0 else out


def pool_of(place: Place) -> Sequence[bytes]:
    """The right messages of other places that a message can be exchanged with."""
    record = place.record
    own = [m for step in record.sent.values() for m in step.values()]
    return [*own, record.answers["keys"], *record.answers["shares"].values(), record.answers["masked"]]

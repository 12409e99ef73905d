"""Messages of secure aggregation that are refused, and by which check (SECAGG.md 10)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from fedmrn_codec.conformance import oracle as o
from vector_cases.basics import Case
from vector_cases.secagg import FOUR, SEVEN, four, seven
from vector_cases.secagg_round import finished

CODES = {  # of the checks of SECAGG.md 10
    "X-11": "truncated",
    "X-12": "magic",
    "X-13": "version",
    "X-14": "message_type",
    "X-15": "reserved",
    "X-16": "sender",
    "X-17": "digest",
    "X-18": "limit",
    "X-19": "padding",
    "X-20": "truncated",
    "X-21": "trailing",
    "X-22": "checksum",
    "X-24": "public_key",
    "X-25": "too_few",
    "X-26": "roster",
    "X-27": "own_key",
    "X-28": "public_key",
    "X-29": "signature",
    "X-30": "too_few",
    "X-31": "too_few",
    "X-32": "public_key",
    "X-33": "box",
    "X-34": "survivors",
    "X-35": "survivors",
    "X-36": "too_few",
}


def resealed(message: bytes, change: Callable[[bytearray], object]) -> bytes:
    """A message with something changed, and a checksum that is right again."""
    data = bytearray(message[:-4])
    change(data)
    return finished(bytes(data))


def put(offset: int, new: bytes) -> Callable[[bytearray], None]:
    """Replace bytes."""

    def change(data: bytearray) -> None:
        data[offset : offset + len(new)] = new

    return change


def bad(name: str, comment: str, message: bytes, step: str, reader: int, of: str = "four") -> Case:
    """A message that is refused by a server (reader 0), from the client `sender`, or by a client."""
    number = f"X-{name[1:3]}"
    case = {"id": name, "spec": [number], "comment": comment, "result": "invalid", "code": CODES[number]}
    return case | {
        "kind": "message",
        "round": f"secagg/round-{of}",
        "step": step,
        "reader": reader,
        "message": message.hex(),
    }


def header_cases() -> Iterator[Case]:
    """[X-11] to [X-17] and [X-20] to [X-22], with the survivors."""
    r, reader = four(), FOUR[0]
    right = r.survivors

    def case(name: str, comment: str, message: bytes) -> Case:
        return bad(name, comment, message, "survivors", reader)

    yield case("x11-empty", "no bytes", b"")
    yield case("x11-51", "a byte short of header and checksum", right[:51])
    yield case("x12-lower-case", "magic in lower case", resealed(right, put(0, b"fmrx")))
    yield case("x12-and-version", "the magic comes before the version", resealed(right, put(0, b"FMRN\2")))
    for version in (0, 2):
        yield case(f"x13-{version}", f"version {version}", resealed(right, put(4, bytes([version]))))
    for kind in (0, 2, 8):
        yield case(f"x14-{kind}", f"type {kind} in the place of 6", resealed(right, put(5, bytes([kind]))))
    yield case("x14-and-reserved", "the type comes before reserved bytes", resealed(right, put(5, b"\0\1")))
    for at in (6, 7):
        yield case(f"x15-{at}", f"byte {at} is not 0", resealed(right, put(at, b"\1")))
    yield case("x16-reader", "the id of the reader in a message to all", resealed(right, put(8, b"\3")))
    yield case("x16-and-digest", "the id comes before the digest", resealed(right, put(15, b"\1\0")))
    yield case(
        "x17-agreement",
        "the agreement in the place of the roster digest",
        resealed(right, put(16, r.agreement)),
    )
    yield case("x17-last", "another last bit", resealed(right, put(47, bytes([right[47] ^ 1]))))
    yield case("x19-bit-4", "a fifth client of four", resealed(right, put(48, bytes([right[48] | 16]))))
    yield case(
        "x19-and-length", "bits of the bitmap come before the length", finished(right[:48] + b"\x9d\0")
    )
    yield case("x20-bitmap", "the bitmap is missing", resealed(right, lambda d: d.pop()))
    yield case("x21-one", "a byte too many", resealed(right, lambda d: d.append(0)))
    yield case("x21-and-checksum", "the length comes before the checksum", right + b"\0")
    yield case("x22-body", "another client, and the old checksum", right[:48] + b"\x0f" + right[49:])
    yield case("x22-itself", "another checksum", right[:-1] + bytes([right[-1] ^ 128]))
    yield case(
        "x34-without-itself", "the client is not among the survivors", resealed(right, put(48, b"\x0e"))
    )
    yield case("x36-two", "two survivors, the threshold is 3", resealed(right, put(48, b"\x05")))


def roster_cases() -> Iterator[Case]:
    r, reader = four(), FOUR[0]
    right = r.roster
    entry = 72

    def at(position: int) -> int:
        return 88 + entry * position

    def case(name: str, comment: str, message: bytes) -> Case:
        return bad(name, comment, message, "roster", reader)

    yield case("x18-most", "2^24 clients", resealed(right, put(48, struct.pack("<I", 2**24))))
    yield case("x18-all-ones", "2^32 - 1 clients", resealed(right, put(48, b"\xff" * 4)))
    yield case("x20-head", "the graph seed is cut off", finished(right[:87]))
    yield case("x20-entry", "the last entry is missing", finished(right[: at(3)]))
    yield case("x21-entry", "an entry too many", resealed(right, lambda d: d.extend(bytes(entry))))
    few = right[:48] + struct.pack("<I", 2) + right[52 : at(2)]
    yield case("x25-two", "two clients, the threshold is 3", finished(few))
    yield case("x26-seed", "a graph seed of the complete graph", resealed(right, put(60, b"\1")))
    for degree in (1, 3, 4, 2**32 - 1):
        data = resealed(right, put(52, struct.pack("<I", degree)))
        yield case(f"x26-degree-{degree}", f"degree {degree} with four clients", data)
    twice = resealed(right, put(at(1), right[at(0) : at(0) + 8]))
    yield case("x26-twice", "an id twice", twice)
    swapped = right[: at(2)] + right[at(3) : at(4)] + right[at(2) : at(3)]
    yield case("x26-order", "two entries in the wrong order", finished(swapped))
    yield case("x26-zero", "the id 0", resealed(right, put(at(0), bytes(8))))
    yield case(
        "x27-missing", "another id in the place of the client's own", resealed(right, put(at(0), b"\2"))
    )
    yield case("x27-key", "another pad key", resealed(right, put(at(0) + 40, bytes(32))))
    same = resealed(right, put(at(2) + 8, right[at(1) + 8 : at(1) + 40]))
    yield case("x28-box-key", "two clients with one box key", same)
    own = resealed(right, put(at(2) + 40, right[at(0) + 8 : at(0) + 40]))
    yield case("x28-own-key", "the client's own box key as the pad key of another", own)
    yield case("x32-zero", "a box key of zeros", resealed(right, put(at(1) + 8, bytes(32))))
    yield case("x32-one", "a box key of order 4", resealed(right, put(at(1) + 8, b"\1" + bytes(31))))
    s, eve = seven(), SEVEN[2]
    wide = 136
    forged = bytearray(s.roster[:-4])
    forged[88 + wide * 5 + 8] ^= 1
    yield bad(
        "x29-key", "a key that its owner has not signed", finished(bytes(forged)), "roster", eve, "seven"
    )
    two, three = (s.roster[88 + wide * p + 8 : 88 + wide * (p + 1)] for p in (3, 4))
    moved = resealed(resealed(s.roster, put(88 + wide * 3 + 8, three)), put(88 + wide * 4 + 8, two))
    yield bad("x29-moved", "the keys of two clients exchanged", moved, "roster", eve, "seven")


def boxes_cases() -> Iterator[Case]:
    r, reader = four(), FOUR[0]
    right = r.boxes_for[reader]

    def case(name: str, comment: str, message: bytes) -> Case:
        return bad(name, comment, message, "boxes", reader)

    yield case("x16-boxes", "the boxes of another client", r.boxes_for[FOUR[2]])
    yield case("x19-boxes", "a fourth neighbour of three", resealed(right, put(48, b"\x0f")))
    yield case("x20-boxes", "the last byte of a box is missing", resealed(right, lambda d: d.pop()))
    yield case("x21-boxes", "a box more than the bitmap has bits", resealed(right, put(48, b"\x03")))
    one = finished(right[:48] + b"\x01" + right[49:97])
    yield case("x31-one", "one box, the threshold is 3", one)
    for place in (49, 81, 97 + 47):
        change = put(place, bytes([right[place] ^ 1]))
        yield case(f"x33-byte-{place}", f"another bit in byte {place}", resealed(right, change))
    swapped = right[:49] + right[97:145] + right[49:97] + right[145:-4]
    yield case("x33-exchanged", "two boxes exchanged", finished(swapped))
    back = r.boxes[reader, FOUR[1]]
    yield case("x33-reflected", "a box that the client itself has sent", resealed(right, put(49, back)))
    s, absent = seven(), SEVEN[0]
    near = next(i for i in s.u4 if absent in s.neighbours[i])
    bits = [i in s.u3 or i == absent for i in s.ids]
    revived = resealed(s.survivors, put(48, o.pack([int(bit) for bit in bits])))
    yield bad("x35-revived", "a survivor whose box never came", revived, "survivors", near, "seven")


def server_cases() -> Iterator[Case]:
    """What a server refuses; the sender is the reader's opposite, `sender`."""
    r, sender = four(), FOUR[1]
    keys, shares = r.keys[sender], r.shares[sender]

    def case(name: str, comment: str, message: bytes, step: str) -> Case:
        return bad(name, comment, message, step, 0) | {"sender": sender}

    yield case("x16-keys", "the keys of another client", r.keys[FOUR[0]], "keys")
    yield case("x17-keys", "other agreed values", resealed(keys, put(16, bytes(32))), "keys")
    yield case("x20-keys", "a byte short", resealed(keys, lambda d: d.pop()), "keys")
    yield case(
        "x21-keys",
        "a signature that was not asked for",
        resealed(keys, lambda d: d.extend(bytes(64))),
        "keys",
    )
    for offset in (48, 80):
        yield case(
            f"x24-zero-{offset}", "a public key of zeros", resealed(keys, put(offset, bytes(32))), "keys"
        )
    yield case("x24-twice", "one key for both uses", resealed(keys, put(80, keys[48:80])), "keys")
    other = resealed(keys, put(48, r.keys[FOUR[0]][48:80]))
    yield case("x24-other", "the box key of another client", other, "keys")
    yield case("x14-shares", "keys in the place of shares", keys, "shares")
    yield case("x20-shares", "a box short", finished(shares[:-52]), "shares")
    yield case("x21-shares", "a box too many", resealed(shares, lambda d: d.extend(bytes(48))), "shares")
    yield case(
        "x22-shares", "a bit of a box, and the old checksum", shares[:90] + b"\0" + shares[91:], "shares"
    )
    survivor = FOUR[0]
    sent = r.masked[survivor]
    short = bad("x20-masked", "a byte short", resealed(sent, lambda d: d.pop()), "masked", 0)
    yield short | {"sender": survivor}
    long = bad("x21-masked", "a byte too many", resealed(sent, lambda d: d.append(0)), "masked", 0)
    yield long | {"sender": survivor}
    told = resealed(r.reveal[survivor], put(16, r.r))
    yield bad("x17-reveal", "the roster digest", told, "reveal", 0) | {"sender": survivor}
    more = resealed(r.reveal[survivor], lambda d: d.extend(bytes(16)))
    yield bad("x21-reveal", "a share too many", more, "reveal", 0) | {"sender": survivor}


def message_cases() -> Iterator[Case]:
    yield from header_cases()
    yield from roster_cases()
    yield from boxes_cases()
    yield from server_cases()

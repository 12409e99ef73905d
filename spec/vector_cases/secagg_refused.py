"""More messages that are refused: what a reader can take for allowed (SECAGG.md 10)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vector_cases import ed25519
from vector_cases.basics import Case
from vector_cases.secagg import FOUR, GRAPH_SEED, SEVEN, four, seven
from vector_cases.secagg_edges import IDS, edges
from vector_cases.secagg_messages import bad, put, resealed
from vector_cases.secagg_round import KEYS, bitmap, finished, label, unsealed

ENTRY, SIGNED_ENTRY, ENTRIES = 72, 136, 88
NEUTRAL = ed25519.encoded(ed25519.NEUTRAL)
"""The neutral element as a public key: the signature `FORGED` is right for it, whatever is signed."""

FORGED = NEUTRAL + bytes(32)


def header_cases() -> Iterator[Case]:
    r, reader = four(), FOUR[0]
    boxes, roster = r.boxes_for[reader], r.roster
    yield bad("x16-boxes-zero", "boxes for all", resealed(boxes, put(8, bytes(8))), "boxes", reader)
    own = resealed(roster, put(8, struct.pack("<Q", reader)))
    yield bad("x16-roster", "the id of the reader in the roster", own, "roster", reader)
    keys = resealed(r.keys[FOUR[1]], put(8, bytes(8)))
    yield bad("x16-keys-zero", "keys of nobody", keys, "keys", 0) | {"sender": FOUR[1]}
    many = struct.pack("<I", -(-(2**24) // seven().agreed.largest_weight))
    data = resealed(seven().roster, put(48, many))
    yield bad("x18-weight", "clients whose weights can exceed 2^24 - 1", data, "roster", SEVEN[2], "seven")
    most = struct.pack("<I", (2**24 - 1) // seven().agreed.largest_weight)
    data = resealed(seven().roster, put(48, most))
    yield bad("x20-most", "the most clients that [X-18] allows", data, "roster", SEVEN[2], "seven")
    short = finished(roster[:48] + b"\xff" * 4 + roster[52:87])
    yield bad("x20-and-limit", "all fields must be there before n is read", short, "roster", reader)
    bare = finished(boxes[:48])
    assert bare[48] >> 3, "the checksum can be taken for a bitmap with padding"
    yield bad("x20-boxes-bitmap", "the bitmap is missing", bare, "boxes", reader)


def roster_cases() -> Iterator[Case]:
    r, reader = four(), FOUR[0]
    s, eve = seven(), SEVEN[2]
    data = resealed(s.roster, put(52, struct.pack("<I", len(SEVEN) - 1)))
    yield bad("x26-all-others", "the degree n - 1, which is even", data, "roster", eve, "seven")
    thin = resealed(edges().roster, put(52, struct.pack("<I", 2) + GRAPH_SEED))
    yield bad("x30-degree-2", "three holders, the threshold is 4", thin, "roster", IDS[0], "edges")
    for name, key in (("zero", bytes(32)), ("one", b"\1" + bytes(31))):
        data = resealed(r.roster, put(ENTRIES + ENTRY + 40, key))
        yield bad(f"x32-pad-{name}", f"a pad key of {name}", data, "roster", reader)
    far = resealed(r.roster, put(ENTRIES + 3 * ENTRY + 40, bytes(32)))
    yield bad(
        "x32-pad-last", "a pad key of zeros of the last client, which sends no vector", far, "roster", reader
    )


def identity_cases() -> Iterator[Case]:
    s, reader, other = seven(), SEVEN[2], SEVEN[5]
    unknown: Case = {"identities": {str(other): None}}
    case = bad("x29-unknown", "a client whose identity key is not known", s.roster, "roster", reader, "seven")
    yield case | unknown
    at = ENTRIES + SIGNED_ENTRY * SEVEN.index(other) + 72
    head = unsealed(KEYS, other, s.agreement, s.roster[at - 64 : at])
    assert len(head) == 112
    assert ed25519.verify(NEUTRAL, label("sign") + head, FORGED)
    weak: Case = {"identities": {str(other): NEUTRAL.hex()}}
    forged = resealed(s.roster, put(at, FORGED))
    comment = "an identity key of small order, for which anybody can sign"
    yield bad("x29-small-order", comment, forged, "roster", reader, "seven") | weak
    sender = {"sender": other}
    case = bad("x29-keys-unknown", "keys of a client without identity key", s.keys[other], "keys", 0, "seven")
    yield case | sender | unknown
    forged = resealed(s.keys[other], put(112, FORGED))
    yield bad("x29-keys-small-order", comment, forged, "keys", 0, "seven") | sender | weak
    data = resealed(s.keys[other], put(112, bytes(64)))
    yield bad("x29-keys", "a signature of zeros", data, "keys", 0, "seven") | sender
    twice = bytearray(s.keys[other][:-4])
    twice[80:112] = twice[48:80]
    yield (
        bad(
            "x29-and-twice", "the signature comes before the keys", finished(bytes(twice)), "keys", 0, "seven"
        )
        | sender
    )


def later_cases() -> Iterator[Case]:
    r, reader = edges(), IDS[0]
    right = r.boxes_for[reader]
    fewer = finished(right[:48] + b"\x03" + right[49 : 49 + 2 * 48])
    yield bad("x31-two", "two boxes, the threshold is 4", fewer, "boxes", reader, "edges")
    s = seven()
    near = next(i for i in s.u4 if len(set(s.neighbours[i]) & set(s.u3)) > 1)
    others = [i for i in s.ids if i != near and i not in s.neighbours[near]]
    left = {near, *others, next(i for i in s.neighbours[near] if i in s.u3)}
    assert len(left) > s.agreed.threshold > len(left & {near, *s.neighbours[near]})
    data = resealed(s.survivors, put(48, bitmap([i in left for i in s.ids])))
    yield bad(
        "x36-neighbours", "four survivors, of whom one is a neighbour", data, "survivors", near, "seven"
    )


def more_message_cases() -> Iterator[Case]:
    yield from header_cases()
    yield from roster_cases()
    yield from identity_cases()
    yield from later_cases()

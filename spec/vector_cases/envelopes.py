"""Envelopes, valid and to be refused (ENVELOPE.md), made with plain integers and the standard library."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fedmrn_codec.conformance import oracle as o
from vector_cases import ed25519
from vector_cases.basics import SMALL, Case

HMAC, ED25519 = 1, 2
LABELS = {HMAC: "hmac-sha256", ED25519: "ed25519"}
DOMAIN, ID_DOMAIN = b"fedmrn envelope 1\0", b"fedmrn key id 1\0"
TAG_BYTES = {HMAC: 32, ED25519: 64}
HEAD = 32
"""Bytes before the frame."""

FRAME = o.encode(SMALL)
CONTEXT = b"run 12, to the server"
CODES = {  # of the checks, in their order
    "V-01": "truncated",
    "V-02": "magic",
    "V-03": "version",
    "V-04": "unknown_algorithm",
    "V-05": "reserved",
    "V-06": "limit",
    "V-07": "truncated",
    "V-08": "trailing",
    "V-09": "unknown_key",
    "V-10": "key_algorithm",
    "V-11": "signature",
}


class Key(NamedTuple):
    """An algorithm, and the secret or private key."""

    algorithm: int
    secret: bytes

    @property
    def known(self) -> bytes:
        """What the receiver has of the key."""
        return self.secret if self.algorithm == HMAC else ed25519.public(self.secret)

    @property
    def id(self) -> bytes:
        """The key_id, section 3."""
        if self.algorithm == HMAC:
            return hmac.digest(self.secret, ID_DOMAIN, "sha256")[:16]
        return hashlib.sha256(ID_DOMAIN + self.known).digest()[:16]

    def sign(self, message: bytes) -> bytes:
        """The tag or signature of a message."""
        if self.algorithm == HMAC:
            return hmac.digest(self.secret, message, "sha256")
        return ed25519.sign(self.secret, message)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether a tag or signature is right."""
        if self.algorithm == HMAC:
            return hmac.compare_digest(signature, self.sign(message))
        return ed25519.verify(self.known, message, signature)


# The first private key of RFC 8032, section 7.1; the other keys count up.
ANN = Key(ED25519, bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
BOB = Key(HMAC, bytes(range(32)))
EVE = Key(ED25519, bytes(range(32, 64)))
EVE_TOO = Key(HMAC, bytes(range(64, 96)))


def head(key: Key, length: int, algorithm: int | None = None) -> bytes:
    """The bytes before the frame, section 1."""
    code = key.algorithm if algorithm is None else algorithm
    return b"FMRE" + struct.pack("<BBH16sQ", 1, code, 0, key.id, length)


def finished(start: bytes, key: Key, context: bytes = b"") -> bytes:
    """An envelope of these first bytes, with a signature that is right for them, section 2."""
    return start + key.sign(DOMAIN + bytes([len(context)]) + context + start)


def sealed(frame: bytes, key: Key, context: bytes = b"") -> bytes:
    """A valid envelope."""
    return finished(head(key, len(frame)) + frame, key, context)


def patched(data: bytes, offset: int, hexadecimal: str) -> bytes:
    """The bytes with some replaced."""
    new = bytes.fromhex(hexadecimal)
    return data[:offset] + new + data[offset + len(new) :]


def flipped(data: bytes, offset: int, bits: int) -> bytes:
    """The bytes with bits of one of them changed."""
    out = bytearray(data)
    out[offset] ^= bits
    return bytes(out)


def resigned(key: Key, offset: int, hexadecimal: str) -> bytes:
    """An envelope of FRAME with bytes replaced before it was signed."""
    return finished(patched(head(key, len(FRAME)) + FRAME, offset, hexadecimal), key)


def refusal(data: bytes, known: Sequence[Key], context: bytes, most: int | None) -> str | None:
    """The number of the first check that an envelope fails, section 4; None if it is valid."""
    if len(data) < HEAD:
        return "V-01"
    magic, version, algorithm, reserved, key_id, length = struct.unpack("<4sBBH16sQ", data[:HEAD])
    end = HEAD + length
    owners = [key for key in known if key.id == key_id]
    checks = {
        "V-02": lambda: magic == b"FMRE",
        "V-03": lambda: version == 1,
        "V-04": lambda: algorithm in LABELS,
        "V-05": lambda: reserved == 0,
        "V-06": lambda: most is None or length <= most,
        "V-07": lambda: len(data) >= end + TAG_BYTES[algorithm],
        "V-08": lambda: len(data) <= end + TAG_BYTES[algorithm],
        "V-09": lambda: len(owners) == 1,
        "V-10": lambda: owners[0].algorithm == algorithm,
        "V-11": lambda: owners[0].verifies(data[end:], DOMAIN + bytes([len(context)]) + context + data[:end]),
    }
    return next((number for number, passes in checks.items() if not passes()), None)


def fields(data: bytes, context: bytes, max_bytes: int | None) -> Case:
    keys = [{"sender": n, "algorithm": LABELS[k.algorithm], "key": k.known.hex()} for n, k in KNOWN.items()]
    options = {} if max_bytes is None else {"max_bytes": max_bytes}
    return {"keys": keys, "context": context.hex(), "options": options, "envelope": data.hex()}


KNOWN = {"ann": ANN, "bob": BOB}


def good(
    name: str, comment: str, frame: bytes, sender: str, context: bytes = b"", most: int | None = None
) -> Case:
    key = KNOWN[sender]
    data = sealed(frame, key, context)
    assert refusal(data, list(KNOWN.values()), context, most) is None, name
    case = {"id": name, "spec": ["1", "2", "3"], "comment": comment, "result": "valid"}
    case |= fields(data, context, most)
    return case | {"sender": sender, "secret": key.secret.hex(), "key_id": key.id.hex(), "frame": frame.hex()}


def bad(name: str, comment: str, data: bytes, context: bytes = b"", most: int | None = None) -> Case:
    number = f"V-{name[1:3]}"
    found = refusal(data, list(KNOWN.values()), context, most)
    assert found == number, (name, found)
    case = {"id": name, "spec": [number], "comment": comment, "result": "invalid", "code": CODES[number]}
    return case | fields(data, context, most)


def envelope_cases() -> Iterator[Case]:
    for sender in KNOWN:
        yield good(f"{sender}-frame", f"a frame with {LABELS[KNOWN[sender].algorithm]}", FRAME, sender)
        yield good(f"{sender}-context", "a context of 21 bytes", FRAME, sender, CONTEXT)
        yield good(f"{sender}-empty", "no bytes in the envelope", b"", sender)
    yield good("longest-context", "a context of 255 bytes", FRAME, "bob", bytes(range(255)))
    yield good("limit-reached", "as many bytes as the caller allows", FRAME, "bob", most=len(FRAME))
    partial = o.partial_to_bytes(o.partial_sum([SMALL], [3]))
    yield good("partial-sum", "a partial sum in the place of a frame", partial, "bob")
    yield from bad_forms()
    yield from bad_keys()
    yield from bad_signatures()


def bad_forms() -> Iterator[Case]:
    right = sealed(FRAME, BOB)
    yield bad("v01-empty", "no bytes", b"")
    yield bad("v01-31", "a byte short of the fields before the frame", right[:31])
    yield bad("v01-and-magic", "too short comes before wrong magic", FRAME[:31])
    yield bad("v02-frame", "a frame without an envelope", FRAME)
    yield bad("v02-lower-case", "magic in lower case", resigned(BOB, 0, b"fmre".hex()))
    yield bad("v02-and-version", "wrong magic comes before a wrong version", resigned(BOB, 0, "0000000002"))
    for version in (0, 2, 255):
        yield bad(f"v03-{version}", f"version {version}", resigned(BOB, 4, f"{version:02x}"))
    yield bad("v03-and-algorithm", "a version comes before its algorithms", resigned(BOB, 4, "0209"))
    for code in (0, 3, 255):
        yield bad(f"v04-{code}", f"algorithm {code}", resigned(BOB, 5, f"{code:02x}"))
    yield bad("v04-and-reserved", "the algorithm comes before reserved bytes", resigned(BOB, 5, "0301"))
    for label, value in (("low", "0100"), ("high", "0080")):
        yield bad(f"v05-{label}", f"reserved bytes {value}", resigned(BOB, 6, value))
    yield bad("v05-and-limit", "reserved bytes come before the limit", resigned(BOB, 6, "0100"), most=1)
    yield bad("v06-caller", "a byte more than allowed", right, most=len(FRAME) - 1)
    yield bad("v06-and-length", "the limit comes before the length", right + b"\0", most=len(FRAME) - 1)
    yield bad("v07-one", "a byte of the signature is missing", right[:-1])
    yield bad("v07-signature", "the signature is missing", right[:-32])
    yield bad("v07-most", "2^64 - 1 bytes", patched(right, 24, "ff" * 8))
    wraps = patched(right, 24, "f0" + "ff" * 7)
    yield bad("v07-wraps", "2^64 - 16 bytes: the sum of all parts is 48 modulo 2^64", wraps)
    yield bad("v07-ed25519", "the signature of Ed25519 has only 32 bytes", sealed(FRAME, ANN)[:-32])
    yield bad("v08-one", "a byte after the signature", right + b"\0")
    yield bad("v08-length", "a byte of the frame is not counted", patched(right, 24, f"{len(FRAME) - 1:02x}"))
    yield bad("v08-and-key", "a byte more comes before an unknown key", sealed(FRAME, EVE) + b"\0")


def bad_keys() -> Iterator[Case]:
    yield bad("v09-ed25519", "a right signature of an unknown key", sealed(FRAME, EVE))
    yield bad("v09-hmac", "a right tag of an unknown secret", sealed(FRAME, EVE_TOO))
    yield bad("v09-bit", "one bit of the key_id", resigned(BOB, 23, f"{BOB.id[15] ^ 1:02x}"))
    yield bad("v09-zeros", "a key_id of zeros", resigned(ANN, 8, "00" * 16))
    public = Key(HMAC, ANN.known)  # the attack on verifiers that let the message choose the algorithm
    start = head(ANN, len(FRAME), HMAC) + FRAME
    yield bad("v10-hmac", "HMAC with the public key of Ed25519 as its secret", finished(start, public))
    start = head(BOB, len(FRAME), ED25519) + FRAME
    yield bad("v10-ed25519", "Ed25519 with the key_id of a secret", finished(start, EVE))


def bad_signatures() -> Iterator[Case]:
    end = HEAD + len(FRAME)
    for sender, key in KNOWN.items():
        for label, comment, data in (
            ("frame", "one bit of the frame", flipped(sealed(FRAME, key), HEAD, 1)),
            ("first", "one bit of the signature", flipped(sealed(FRAME, key), end, 1)),
            ("last", "the top bit of the signature", flipped(sealed(FRAME, key), -1, 128)),
            ("zeros", "a signature of zeros", sealed(FRAME, key)[:end] + bytes(TAG_BYTES[key.algorithm])),
            ("no-context", "signed for a context, none stated", sealed(FRAME, key, CONTEXT)),
        ):
            yield bad(f"v11-{sender}-{label}", comment, data)
        other = sealed(FRAME, key, CONTEXT), CONTEXT + b"."
        yield bad(f"v11-{sender}-context", "signed for another context", *other)
        bare = head(key, len(FRAME)) + FRAME
        yield bad(f"v11-{sender}-domain", "signed without the text before it", bare + key.sign(bare))
        yield bad(f"v11-{sender}-frame-only", "the frame alone is signed", bare + key.sign(FRAME))
    moved = b"\1" + head(BOB, len(FRAME)) + FRAME
    unframed = moved[1:] + BOB.sign(DOMAIN + moved)
    yield bad("v11-unframed", "signed with a context that has no length before it", unframed, b"\1")
    others = head(ANN, len(FRAME)) + FRAME + sealed(FRAME, EVE)[-64:]
    yield bad("v11-other-key", "the signature of another key", others)
    right = sealed(FRAME, ANN)
    larger = (int.from_bytes(right[-32:], "little") + ed25519.L).to_bytes(32, "little")
    yield bad("v11-larger-s", "S plus the order of the group: another spelling", right[:-32] + larger)

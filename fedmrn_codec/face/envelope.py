"""Envelopes: a frame with the signature of its sender (spec/ENVELOPE.md)."""

from __future__ import annotations

import struct
from collections.abc import Hashable
from typing import Any, NamedTuple

from .. import errors
from ..format.frame import Buffer, as_view
from ..primitives.arguments import U64, unsigned
from .keys import CODES, ED25519_MODULE, HMAC, TAG_BYTES, Key, KeyRing, cryptography

MAGIC, VERSION = b"FMRE", 1
HEADER = struct.Struct("<4sBBH16sQ")
DOMAIN = b"fedmrn envelope 1\0"
MOST_CONTEXT = 255
"""Bytes of a context."""

ALGORITHMS = {code: name for name, code in CODES.items()}


class Unsealed(NamedTuple):
    """What an envelope holds, after all its checks.

    Attributes
    ----------
    sender : hashable
        Who has the key, as the `KeyRing` names it.
    frame : bytes
        Nothing of it has been checked but that the sender has signed it.
    key_id : bytes
    """

    sender: Hashable
    frame: bytes
    key_id: bytes


def seal(frame: Buffer, key: Key, *, context: bytes = b"") -> bytes:
    """The envelope of a frame, or of a partial sum: its bytes and a signature, [V-12].

    Parameters
    ----------
    frame : bytes-like
    key : Key
        An HMAC key or a private Ed25519 key.
    context : bytes
        At most 255 bytes that are signed but not sent, and that the receiver must state too: a name of the
        run and of the direction, so that the envelope is worth nothing in another one.

    Raises
    ------
    ArgumentError
        The key cannot sign, or an argument is of another type.
    BackendError
        The package `cryptography` is not installed.
    """
    view = as_view(frame)
    if not isinstance(key, Key) or not key.signs:
        raise errors.ArgumentError("key", "a Key that can sign", repr(key))
    head = HEADER.pack(MAGIC, VERSION, CODES[key.algorithm], 0, key.id, len(view))
    domain = _domain(context)
    signed = domain + head + view
    return signed[len(domain) :] + _sign(key, signed)


def unseal(data: Buffer, keys: KeyRing, *, context: bytes = b"", max_bytes: int | None = None) -> Unsealed:
    """Check the signature of an envelope, and take the frame out of it: [V-01] to [V-11].

    Replays are found by the checks of the frame: a `Policy` states round, base model and seeds, and an
    `Intake` accepts each client and each seed once.

    Parameters
    ----------
    data : bytes-like
    keys : KeyRing
    context : bytes
        As in `seal`.
    max_bytes : int, optional
        The longest frame.

    Raises
    ------
    FrameError
        A check fails: UnknownKeyError, KeyAlgorithmError or SignatureError for an envelope of the right form.
    ArgumentError
        An argument is of another type.
    BackendError
        The package `cryptography` is not installed.
    """
    view, domain = as_view(data), _domain(context)
    if not isinstance(keys, KeyRing):
        raise errors.ArgumentError("keys", "a KeyRing", type(keys).__name__)
    most = None if max_bytes is None else unsigned(max_bytes, U64, "max_bytes")
    algorithm, key_id, length = _parse(view, most)
    sender, key = keys.find(key_id)
    if key.algorithm != algorithm:
        raise errors.KeyAlgorithmError("algorithm", f"{key.algorithm}, that of the key", algorithm, 5)
    end = HEADER.size + length
    signed = domain + view[:end]
    if not _is_signed(key, signed, bytes(view[end:])):
        expected = f"that of key {key_id.hex()} for these bytes and the context {context!r}"
        raise errors.SignatureError("signature", expected, "another", end)
    return Unsealed(sender, signed[len(domain) + HEADER.size :], key_id)


def _parse(view: memoryview, max_bytes: int | None) -> tuple[str, bytes, int]:
    """Algorithm, key id, and length of the frame: [V-01] to [V-08]."""
    if len(view) < HEADER.size:
        raise errors.TruncatedError("envelope", f"at least {HEADER.size} bytes", len(view), 0)
    magic, version, code, reserved, key_id, length = HEADER.unpack_from(view)
    if magic != MAGIC:
        raise errors.MagicError("magic", repr(MAGIC), magic, 0)
    if version != VERSION:
        raise errors.VersionError("version", VERSION, version, 4)
    if code not in ALGORITHMS:
        expected = " or ".join(f"{code} ({name})" for code, name in ALGORITHMS.items())
        raise errors.UnknownAlgorithmError("algorithm", expected, code, 5)
    if reserved:
        raise errors.ReservedError("reserved", 0, reserved, 6)
    if max_bytes is not None and length > max_bytes:
        raise errors.LimitError("frame length", f"at most {max_bytes}", length, 24)
    algorithm = ALGORITHMS[code]
    needed = HEADER.size + length + TAG_BYTES[algorithm]
    if len(view) < needed:
        raise errors.TruncatedError("envelope", f"{needed} bytes for its parts", len(view), len(view))
    if len(view) > needed:
        raise errors.TrailingError("envelope", f"{needed} bytes for its parts", len(view), needed)
    return algorithm, key_id, length


def _domain(context: Any) -> bytes:
    """What is signed before the envelope: a text of this format, and the context with its length."""
    if not isinstance(context, bytes) or len(context) > MOST_CONTEXT:
        got = f"{len(context)} bytes" if isinstance(context, bytes) else type(context).__name__
        raise errors.ArgumentError("context", f"at most {MOST_CONTEXT} bytes", got)
    return DOMAIN + bytes([len(context)]) + context


def _sign(key: Key, signed: bytes) -> bytes:
    if key.algorithm == HMAC:
        tag: bytes = _hmac(key, signed).finalize()
        return tag
    private = cryptography(ED25519_MODULE).Ed25519PrivateKey.from_private_bytes(key.data)
    signature: bytes = private.sign(signed)
    return signature


def _is_signed(key: Key, signed: bytes, tag: bytes) -> bool:
    """Whether a tag or signature is that of the key; tags are compared in constant time."""
    try:
        if key.algorithm == HMAC:
            _hmac(key, signed).verify(tag)
        else:
            public = cryptography(ED25519_MODULE).Ed25519PublicKey.from_public_bytes(key.public.data)
            public.verify(tag, signed)
    except cryptography("exceptions").InvalidSignature:
        return False
    return True


def _hmac(key: Key, signed: bytes) -> Any:
    hashes = cryptography("hazmat.primitives.hashes")
    out = cryptography("hazmat.primitives.hmac").HMAC(key.data, hashes.SHA256())
    out.update(signed)
    return out

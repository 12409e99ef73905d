"""Keys: how they are drawn, agreed on and derived, and who signs them (spec/SECAGG.md 4); [X-01]."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import fedmrn_codec as fm

from . import errors
from .messages import label

KEY_BYTES, SIGNATURE_BYTES = 32, 64
NONCE = bytes(12)
"""Of a box; its key has one use."""

Identities = Mapping[int, fm.Key]
"""The public identity key of each client, by id."""


def number(id: int) -> bytes:
    """An id as a u64."""
    return struct.pack("<Q", id)


def derive(secret: bytes, salt: bytes, name: str, *ids: int) -> bytes:
    """A key of 32 bytes from a secret, by HKDF-SHA-256."""
    info = label(name) + b"".join(map(number, ids))
    key: bytes = HKDF(SHA256(), KEY_BYTES, salt, info).derive(secret)
    return key


def public(private: bytes) -> bytes:
    """The public key of an X25519 private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, its_public: bytes, whose: str) -> bytes:
    """The X25519 product; PublicKeyError if it is zero, [X-32]."""
    try:
        product: bytes = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(its_public)
        )
    except ValueError:  # so the package reports a product of zeros
        raise errors.PublicKeyError(f"public key of {whose}", "a point not of small order", "one") from None
    return product


def check_point(its_public: bytes) -> None:
    """Refuse a public key that gives zeros with a key of the server's, [X-24]."""
    agree(X25519PrivateKey.generate().private_bytes_raw(), its_public, "the client")


def pad_private(seed: bytes, agreement: bytes, id: int) -> bytes:
    """The private pad key of a client, from its key seed."""
    return derive(seed, agreement, "key", id)


def pair_key(private: bytes, its_public: bytes, roster: bytes, id: int, other: int) -> bytes:
    """The key of the pad that two clients share; `roster` is the digest."""
    product = agree(private, its_public, f"client {other}")
    return derive(product, roster, "pad", min(id, other), max(id, other))


def self_key(seed: bytes, roster: bytes, id: int) -> bytes:
    """The key of a client's self mask."""
    return derive(seed, roster, "self", id)


def commitment(seed: bytes, roster: bytes, id: int) -> bytes:
    """What a client publishes of its self seed, so that a restored one can be checked."""
    return hashlib.sha256(label("commit") + roster + number(id) + seed).digest()


def close_box(product: bytes, roster: bytes, sender: int, receiver: int, content: bytes) -> bytes:
    """The box of two shares from a client to another; `product` is that of their box keys."""
    key = derive(product, roster, "box", sender, receiver)
    return ChaCha20Poly1305(key).encrypt(NONCE, content, None)


def open_box(product: bytes, roster: bytes, sender: int, receiver: int, box: bytes) -> bytes:
    """The content of a box; BoxError if the key does not open it, [X-33]."""
    key = derive(product, roster, "box", sender, receiver)
    try:
        return ChaCha20Poly1305(key).decrypt(NONCE, box, None)
    except InvalidTag:
        raise errors.BoxError(f"box of client {sender}", "one that its key opens", "another") from None


def sign(identity: fm.Key, head: bytes) -> bytes:
    """The signature of header and keys of a message `keys`."""
    return Ed25519PrivateKey.from_private_bytes(identity.data).sign(label("sign") + head)


def verify(identities: Identities, id: int, head: bytes, signature: bytes) -> None:
    """Refuse keys that the owner of an id has not signed, [X-29]."""
    if id not in identities:
        raise errors.SignatureError(f"identity key of client {id}", "a known one", "none")
    try:
        Ed25519PublicKey.from_public_bytes(identities[id].public.data).verify(signature, label("sign") + head)
    except InvalidSignature:
        expected = "that of its identity key for these keys"
        raise errors.SignatureError(f"signature of client {id}", expected, "another") from None

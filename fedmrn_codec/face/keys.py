"""Keys that sign envelopes, and those that a receiver knows (spec/ENVELOPE.md 3)."""

from __future__ import annotations

import hashlib
import hmac
import importlib
import secrets
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Self

from .. import errors

HMAC, ED25519 = "hmac-sha256", "ed25519"
CODES = {HMAC: 1, ED25519: 2}
"""The algorithms, and their codes in an envelope."""

TAG_BYTES = {HMAC: 32, ED25519: 64}
KEY_BYTES, ID_BYTES = 32, 16
ED25519_MODULE = "hazmat.primitives.asymmetric.ed25519"
ID_DOMAIN = b"fedmrn key id 1\0"

PRIME = 2**255 - 19
Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = frozenset([0, 1, PRIME - 1, PRIME, PRIME + 1, Y8, PRIME - Y8])
"""The y coordinates of Edwards25519's points of small order, as public keys can write them."""


@dataclass(frozen=True, eq=False, repr=False)
class Key:
    """A key of envelopes, made by `generate`, `hmac`, `ed25519` or `ed25519_public`.

    Attributes
    ----------
    algorithm : {"hmac-sha256", "ed25519"}
    data : bytes
        The 32 bytes of the key, which are secret unless it is a public key.
    signs : bool
        Whether the key can sign; a public key can only verify.
    id : bytes
        The 16 bytes that name the key in an envelope. They reveal nothing of a secret that is random.
    """

    algorithm: str
    data: bytes
    signs: bool
    id: bytes
    _public: bytes | None = field(default=None)

    @classmethod
    def generate(cls, algorithm: str = ED25519) -> Self:
        """A new key, from the randomness of the operating system.

        Raises
        ------
        ArgumentError
            There is no such algorithm.
        BackendError
            The package `cryptography` is not installed.
        """
        if algorithm not in CODES:
            raise errors.ArgumentError("algorithm", f"one of {', '.join(CODES)}", repr(algorithm))
        data = secrets.token_bytes(KEY_BYTES)
        return cls.hmac(data) if algorithm == HMAC else cls.ed25519(data)

    @classmethod
    def hmac(cls, secret: bytes) -> Self:
        """A secret of 32 random bytes, which both sides have; so each can sign in the other's name.

        Raises
        ------
        ArgumentError
            `secret` is not 32 bytes.
        """
        data = _checked(secret, "secret")
        return cls(HMAC, data, True, hmac.digest(data, ID_DOMAIN, "sha256")[:ID_BYTES])

    @classmethod
    def ed25519(cls, private: bytes) -> Self:
        """A private key of RFC 8032: 32 random bytes.

        Raises
        ------
        ArgumentError
            `private` is not 32 bytes.
        BackendError
            The package `cryptography` is not installed.
        """
        data = _checked(private, "private key")
        private_key = cryptography(ED25519_MODULE).Ed25519PrivateKey.from_private_bytes(data)
        public = private_key.public_key().public_bytes_raw()
        return cls(ED25519, data, True, _id_of(public), public)

    @classmethod
    def ed25519_public(cls, public: bytes) -> Self:
        """A public key of RFC 8032, which only verifies.

        Raises
        ------
        ArgumentError
            `public` is not 32 bytes, or is a point of small order, for which anybody can sign.
        """
        data = _checked(public, "public key")
        if int.from_bytes(data, "little") % 2**255 in SMALL_ORDER:
            raise errors.ArgumentError("public key", "a point that is not of small order", data.hex())
        return cls(ED25519, data, False, _id_of(data), data)

    @property
    def public(self) -> Self:
        """The public key of an Ed25519 key, for those who verify.

        Raises
        ------
        ArgumentError
            It is an HMAC key, which has no public one.
        """
        if self._public is None:
            raise errors.ArgumentError("key", f"one of {ED25519}, to have a public key", self.algorithm)
        return type(self).ed25519_public(self._public)

    def __repr__(self) -> str:
        return f"Key(algorithm={self.algorithm!r}, id={self.id.hex()!r}, signs={self.signs})"


class KeyRing:
    """The keys that a receiver knows, by the client or server that signs with them; it does not change.

    Parameters
    ----------
    keys : mapping of sender to Key, or to a collection of Key
        A sender that changes its key has two for a while.

    Raises
    ------
    ArgumentError
        A value is no key, or two senders have the same one.
    """

    def __init__(self, keys: Mapping[Any, Key | Collection[Key]]) -> None:
        if not isinstance(keys, Mapping):
            raise errors.ArgumentError("keys", "a mapping of sender to Key", type(keys).__name__)
        self._keys: dict[bytes, tuple[Hashable, Key]] = {}
        for sender, given in keys.items():
            for key in given if isinstance(given, Collection) else (given,):
                if not isinstance(key, Key):
                    raise errors.ArgumentError(f"key of {sender!r}", "a Key", type(key).__name__)
                if key.id in self._keys:
                    raise errors.ArgumentError(f"key of {sender!r}", "one of no other sender", repr(key))
                self._keys[key.id] = sender, key

    def find(self, key_id: bytes) -> tuple[Hashable, Key]:
        """The sender and the key of this id; UnknownKeyError if there is none, [V-09]."""
        if key_id not in self._keys:
            raise errors.UnknownKeyError("key id", "that of a known key", key_id.hex(), 8)
        return self._keys[key_id]


def cryptography(module: str) -> ModuleType:
    """A module of the package `cryptography`, which is imported here; BackendError if it is not installed."""
    try:
        return importlib.import_module(f"cryptography.{module}")
    except ModuleNotFoundError as error:
        expected = "the package cryptography (pip install 'fedmrn-codec[envelope]')"
        raise errors.BackendError("envelope", expected, error) from None


def _checked(data: Any, what: str) -> bytes:
    """32 bytes; the message does not show them."""
    if not isinstance(data, bytes) or len(data) != KEY_BYTES:
        got = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise errors.ArgumentError(what, f"{KEY_BYTES} bytes", got)
    return data


def _id_of(public: bytes) -> bytes:
    return hashlib.sha256(ID_DOMAIN + public).digest()[:ID_BYTES]

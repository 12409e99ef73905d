"""Shamir's sharing of 16-byte secrets over GF(2^128), by PyCryptodome (spec/SECAGG.md 5); [X-03]."""

from __future__ import annotations

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

SECRET_BYTES = 16


def split(secret: bytes, threshold: int, holders: int) -> list[bytes]:
    """The shares of the indices 1 to `holders`, of 16 bytes; any `threshold` of them restore the secret."""
    return [share for _, share in Shamir.split(threshold, holders, secret, False)]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret that the first `threshold` of at least so many shares give, by their indices."""
    return Shamir.combine([(index, shares[index]) for index in sorted(shares)[:threshold]], False)

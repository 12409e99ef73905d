"""The primitives of SECAGG.md 4.1 and 5 in plain integers: slow, not in constant time, for vectors only."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping, Sequence

P25519 = 2**255 - 19
P1305 = 2**130 - 5
FIELD = 2**128 + 2**7 + 2**2 + 2 + 1
"""The polynomial of SECAGG.md 5.1."""


def x25519(private: bytes, public: bytes) -> bytes:
    """The function X25519 of RFC 7748, section 5."""
    k = int.from_bytes(private, "little") & ~7 & (2**255 - 1) | 2**254
    u = int.from_bytes(public, "little") % 2**255 % P25519
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap != bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        x3, z3 = (da + cb) ** 2 % P25519, u * (da - cb) ** 2 % P25519
        x2, z2 = aa * bb % P25519, (aa - bb) * (aa + 121665 * (aa - bb)) % P25519
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P25519 - 2, P25519) % P25519).to_bytes(32, "little")


BASE = (9).to_bytes(32, "little")


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes of HKDF-SHA-256 (RFC 5869): one block of the second step."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _quarter(s: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) % 2**32
        mixed = s[z] ^ s[x]
        s[z] = (mixed << turn | mixed >> (32 - turn)) % 2**32


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """A block of keystream (RFC 8439, 2.3)."""
    start = struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce)
    s = list(start)
    for _ in range(10):
        for i in range(4):
            _quarter(s, i, i + 4, i + 8, i + 12)
        for i in range(4):
            _quarter(s, i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12)
    return struct.pack("<16I", *((a + b) % 2**32 for a, b in zip(s, start, strict=True)))


def keystream(key: bytes, nonce: bytes, size: int, counter: int = 0) -> bytes:
    blocks = (chacha20_block(key, counter + i, nonce) for i in range(-(-size // 64)))
    return b"".join(blocks)[:size]


def poly1305(key: bytes, message: bytes) -> bytes:
    """The tag of RFC 8439, 2.5."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\x01", "little")) * r % P1305
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def seal(key: bytes, nonce: bytes, plain: bytes) -> bytes:
    """ChaCha20-Poly1305 without additional data (RFC 8439, 2.8)."""
    stream = keystream(key, nonce, len(plain), 1)
    cipher = bytes(a ^ b for a, b in zip(plain, stream, strict=True))
    filled = cipher + bytes(-len(cipher) % 16) + struct.pack("<QQ", 0, len(cipher))
    return cipher + poly1305(keystream(key, nonce, 32), filled)


def times(a: int, b: int) -> int:
    """The product in the field of SECAGG.md 5.1."""
    product = 0
    for m in range(128):
        if b >> m & 1:
            product ^= a << m
    for m in reversed(range(128, 255)):
        if product >> m & 1:
            product ^= FIELD << (m - 128)
    return product


def inverse(a: int) -> int:
    """a to the power of 2^128 - 2."""
    out = 1
    for _ in range(127):
        a = times(a, a)
        out = times(out, a)
    return out


def split(coefficients: Sequence[bytes], holders: int) -> list[bytes]:
    """The shares of the indices 1 to `holders`; the first coefficient is the secret (SECAGG.md 5.2)."""
    shares = []
    for x in range(1, holders + 1):
        y = 0
        for coefficient in reversed(coefficients):
            y = times(y, x) ^ int.from_bytes(coefficient, "big")
        shares.append(y.to_bytes(16, "big"))
    return shares


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret, from t shares by their indices (SECAGG.md 5.3)."""
    total = 0
    for x, share in shares.items():
        factor = 1
        for z in shares:
            if z != x:
                factor = times(factor, times(z, inverse(x ^ z)))
        total ^= times(int.from_bytes(share, "big"), factor)
    return total.to_bytes(16, "big")

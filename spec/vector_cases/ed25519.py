"""Ed25519 of RFC 8032, section 5.1, in plain integers: slow, not in constant time, for test vectors only."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)

Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    """The sum of two points of -x^2 + y^2 = 1 + d x^2 y^2."""
    t = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + t, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, -1, P)
    return x % P, y % P


def times(k: int, point: Point) -> Point:
    """The point added k times."""
    out = NEUTRAL
    while k:
        if k & 1:
            out = add(out, point)
        point, k = add(point, point), k >> 1
    return out


def with_y(y: int, odd: int) -> Point:
    """The point of this y, whose x has the given lowest bit; ValueError if there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and odd):
        raise ValueError("no point of the curve")
    return (x if x & 1 == odd else P - x), y


BASE = with_y(4 * pow(5, -1, P) % P, 0)


def encoded(point: Point) -> bytes:
    """The 32 bytes of a point: y, and the lowest bit of x."""
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def secret(private: bytes) -> tuple[int, bytes]:
    """The scalar and the prefix of a private key."""
    digest = hashlib.sha512(private).digest()
    scalar = int.from_bytes(digest[:32], "little") & (2**254 - 8) | 2**254
    return scalar, digest[32:]


def public(private: bytes) -> bytes:
    """The public key of a private one."""
    return encoded(times(secret(private)[0], BASE))


def number(*parts: bytes) -> int:
    """SHA-512 of the parts, modulo the order of the group."""
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % L


def sign(private: bytes, message: bytes) -> bytes:
    """The 64 bytes of a signature."""
    scalar, prefix = secret(private)
    r = number(prefix, message)
    first = encoded(times(r, BASE))
    s = (r + number(first, public(private), message) * scalar) % L
    return first + s.to_bytes(32, "little")


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature is right, without the cofactor, and with S below the order of the group."""
    s = int.from_bytes(signature[32:], "little")
    if s >= L:
        return False
    y = int.from_bytes(key, "little")
    point = with_y(y % 2**255, y >> 255)
    right = add(times(s, BASE), times(L - number(signature[:32], key, message), point))
    return encoded(right) == signature[:32]

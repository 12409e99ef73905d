"""Seeds that follow from a run's seed, one for each purpose, round and client."""

from __future__ import annotations

import hashlib


def derive(*parts: int | str) -> int:
    """An unsigned 63-bit integer that depends on all the parts and on nothing else.

    63 bits, so that every generator takes it. Different parts give different seeds but for hash collisions,
    about 1 in 2^63 for a pair.
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1

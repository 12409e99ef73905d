"""Seeds derived from the seed of a run, one for each purpose, round and client."""

from __future__ import annotations

import hashlib


def derive(*parts: int | str) -> int:
    """Hash the parts to an unsigned integer of 63 bits, a size that every generator accepts.

    Different parts give different seeds, except for hash collisions: about 1 in 2^63 for a pair.
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1

"""Who gets which seed: the server's policy, one for every node and round."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import fedmrn_codec as fm

U64 = 2**64

SeedPolicy = int | Callable[[int, int], int] | None
"""None: unpredictable. An integer: derived from it, the round and the node. Or a function of these two."""


def choose(policy: SeedPolicy, server_round: int, node: int) -> int:
    """The seed of a node in a round: unsigned 64-bit.

    Raises
    ------
    fedmrn_codec.ArgumentError
        A function of the caller's gave anything else.
    """
    if policy is None:
        return secrets.randbelow(U64)
    if callable(policy):
        seed = policy(server_round, node)
        if not isinstance(seed, int) or not 0 <= seed < U64:
            raise fm.ArgumentError("seed", repr(seed), "required: an integer from 0 to 2^64 - 1")
        return seed
    digest = hashlib.sha256(f"fedmrn_flower {policy} {server_round} {node}".encode()).digest()
    return int.from_bytes(digest[:8], "little")

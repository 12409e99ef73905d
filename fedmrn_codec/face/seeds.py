"""The server's choice of a different seed for every client and round (spec 11.5)."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection
from typing import Any

from .. import errors
from ..primitives.arguments import U64, unsigned

SeedPolicy = int | Callable[[int, Any], int] | None
"""How seeds are chosen: None, an integer, or a function of round and client; see `choose_seed`."""

LARGEST_SECRET = 4096
"""Bits of an integer from which seeds are derived."""


def choose_seed(policy: SeedPolicy, round: int, client: object, taken: Collection[int] = ()) -> int:
    """The seed of a client in a round.

    Parameters
    ----------
    policy : int or callable, optional
        None: a random number of the operating system, 64 bits. An integer: the first 8 bytes, little-endian,
        of the SHA-256 of "fedmrn POLICY ROUND CLIENT". A callable: what it returns for (round, client).
    round : int
    client : object
        A name of the client; for an integer policy, its `str` is used.
    taken : collection of int
        Seeds of other clients, which are not returned.

    Returns
    -------
    int
        Unsigned 64-bit.

    Raises
    ------
    ArgumentError
        The seed of a callable or integer policy is taken or out of range; or the policy is an integer of more
        than 4096 bits, or the round is 0, "not given", for which every round would have the same seeds.
    """
    if policy is None:
        while (seed := secrets.randbelow(U64)) in taken:
            continue
        return seed
    if callable(policy):
        seed = unsigned(policy(round, client), U64, "seed")
    elif not round:
        raise errors.ArgumentError("round", "at least 1, since the seeds are derived from it", round)
    elif isinstance(policy, int) and policy.bit_length() > LARGEST_SECRET:
        raise errors.ArgumentError("seeds", f"an integer of at most {LARGEST_SECRET} bits", policy)
    else:
        digest = hashlib.sha256(f"fedmrn {policy} {round} {client}".encode()).digest()
        seed = int.from_bytes(digest[:8], "little")
    if seed in taken:
        raise errors.ArgumentError("seed", "a seed that no other client of this round has", seed)
    return seed

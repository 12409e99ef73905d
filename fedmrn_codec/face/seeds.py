"""Who gets which seed: the server's policy, one for every client and round (spec 11.5)."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection
from typing import Any

from .. import errors
from ..primitives.arguments import U64, unsigned

SeedPolicy = int | Callable[[int, Any], int] | None
"""None: unpredictable. An integer: derived from it, the round and the client. Or a function of these two."""


def choose_seed(policy: SeedPolicy, round: int, client: object, taken: Collection[int] = ()) -> int:
    """The seed of a client in a round.

    Parameters
    ----------
    policy : int or callable, optional
        None: 64 bits of the operating system's random numbers. An integer: the first 8 bytes, little-endian,
        of SHA-256 of "fedmrn POLICY ROUND CLIENT". A callable is called with round and client.
    round : int
    client : object
        Any name of the client's; its `str` counts.
    taken : collection of int
        Seeds that other clients have.

    Returns
    -------
    int
        Unsigned 64-bit, not of `taken`.

    Raises
    ------
    ArgumentError
        The function gave no such number, or one that is taken; or the policy is an integer and the round 0,
        "not given": every round would have the same seeds.
    """
    if policy is None:
        while (seed := secrets.randbelow(U64)) in taken:
            continue
        return seed
    if callable(policy):
        seed = unsigned(policy(round, client), U64, "seed")
    elif not round:
        raise errors.ArgumentError(
            "round", "1 or more, since seeds are derived from a number and the round", "none"
        )
    else:
        digest = hashlib.sha256(f"fedmrn {policy} {round} {client}".encode()).digest()
        seed = int.from_bytes(digest[:8], "little")
    if seed in taken:
        raise errors.ArgumentError("seed", "a seed that no other client of this round has", seed)
    return seed

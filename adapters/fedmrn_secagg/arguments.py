"""Checks of arguments of both sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import U64, unsigned

from .messages import FOR_ALL


def checked_id(id: int) -> int:
    """An id: unsigned 64-bit and not 0."""
    value = unsigned(id, U64, "id")
    if value == FOR_ALL:
        raise fm.ArgumentError("id", "1 to 2^64 - 1", 0)
    return value


def checked_ids(ids: Iterable[int]) -> tuple[int, ...]:
    """Different ids, ascending."""
    out = sorted(map(checked_id, ids))
    for one, other in pairwise(out):
        if one == other:
            raise fm.ArgumentError("clients", "each id once", f"{one} twice")
    return tuple(out)


def checked_weight(weight: int, largest: int) -> int:
    """A weight from 1 to the largest."""
    value = unsigned(weight, U64, "weight")
    if not 1 <= value <= largest:
        raise fm.ArgumentError("weight", f"1 to {largest}", value)
    return value


def checked_key(key: Any, what: str, signs: bool) -> fm.Key:
    """An Ed25519 key, which must be able to sign if `signs`; the message does not show it."""
    if not isinstance(key, fm.Key) or key.algorithm != "ed25519" or (signs and not key.signs):
        raise fm.ArgumentError(what, f"an Ed25519 key{' that signs' * signs}", repr(key))
    return key


def checked_identities(identities: Any) -> dict[int, fm.Key]:
    """Public identity keys by id, without private parts."""
    if not isinstance(identities, Mapping):
        raise fm.ArgumentError("identities", "a mapping of id to Key", type(identities).__name__)
    return {
        checked_id(id): checked_key(key, f"identity of client {id}", signs=False).public
        for id, key in identities.items()
    }

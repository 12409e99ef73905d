"""What a client keeps between the steps of a round, and this as bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import fedmrn_codec as fm

from .roster import Roster

VERSION = 1
"""Of the bytes, which are for the same program on the same machine, and no part of the protocol."""


@dataclass(repr=False)
class Secrets:
    """What a client knows of a round, and nobody else may; emptied as it goes on, [X-08].

    `shares` has, by position, the shares of self seed and key seed that this client holds.
    """

    box_private: bytes = b""
    key_seed: bytes = b""
    self_seed: bytes = b""
    shares: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)


class State(NamedTuple):
    """A saved state; `roster` is the message."""

    id: int
    state: str
    agreement: bytes
    public: bytes
    roster: bytes | None
    clipped: int | None
    secrets: Secrets


def saved(
    id: int,
    state: str,
    agreement: bytes,
    public: bytes,
    roster: Roster | None,
    clipped: int | None,
    secrets: Secrets,
) -> bytes:
    """The bytes of a state."""
    entries = {
        "version": VERSION,
        "id": id,
        "state": state,
        "agreement": agreement.hex(),
        "public": public.hex(),
        "roster": None if roster is None else roster.data.hex(),
        "clipped": clipped,
        "box_private": secrets.box_private.hex(),
        "key_seed": secrets.key_seed.hex(),
        "self_seed": secrets.self_seed.hex(),
        "shares": [[place, *(share.hex() for share in pair)] for place, pair in secrets.shares.items()],
    }
    return json.dumps(entries).encode()


def restored(data: Any) -> State:
    """The state of bytes that `saved` has made; ArgumentError for others, without their content."""
    try:
        entries = json.loads(data)
        if entries["version"] != VERSION:
            raise ValueError("version")
        roster = entries["roster"]
        names = "box_private", "key_seed", "self_seed"
        box_private, key_seed, self_seed = (bytes.fromhex(entries[name]) for name in names)
        shares = {
            int(place): (bytes.fromhex(one), bytes.fromhex(other)) for place, one, other in entries["shares"]
        }
        return State(
            entries["id"],
            str(entries["state"]),
            bytes.fromhex(entries["agreement"]),
            bytes.fromhex(entries["public"]),
            None if roster is None else bytes.fromhex(roster),
            entries["clipped"],
            Secrets(box_private, key_seed, self_seed, shares),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise fm.ArgumentError("state", "bytes of Client.to_bytes", "others") from None

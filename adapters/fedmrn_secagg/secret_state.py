"""What a client keeps between the steps of a round, and this as bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import fedmrn_codec as fm

from . import sharing
from .keys import KEY_BYTES
from .messages import label
from .roster import Roster
from .terms import Terms

VERSION = 1
"""Of the bytes, which are for the same program on the same machine, and no part of the protocol."""

DIGEST_BYTES = 32
"""Of the SHA-256 at the beginning, which detects damage."""


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
    body = json.dumps(entries).encode()
    return _digest(body) + body


def restored(data: Any) -> State:
    """The state of bytes that `saved` has made; ArgumentError for others, without their content."""
    try:
        view = memoryview(data).cast("B")
        body = bytes(view[DIGEST_BYTES:])
        if view[:DIGEST_BYTES] != _digest(body):
            raise ValueError("digest")
        return _read(json.loads(body))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _no_state() from None


def check(state: State, roster: Roster | None, terms: Terms) -> None:
    """Refuse a state that no client has between two steps; ArgumentError, as in `restored`.

    Parameters
    ----------
    state : State
    roster : Roster or None
        That of the state.
    terms : Terms
        Those of the client.
    """
    secrets, name = state.secrets, state.state
    seeds = [len(secrets.box_private), len(secrets.key_seed), len(secrets.self_seed)]
    drawn = [KEY_BYTES, sharing.SECRET_BYTES, sharing.SECRET_BYTES]
    if not (
        name in ("new", "keyed", "shared", "masked")
        and seeds == (drawn if name in ("keyed", "shared") else [0, 0, 0])
        and len(state.public) == (0 if name == "new" else terms.keys_bytes)
        and (roster is not None) == (name in ("shared", "masked"))
        and (state.clipped is not None) == (name == "masked")
        and _are_held(state, roster)
    ):
        raise _no_state()


def _are_held(state: State, roster: Roster | None) -> bool:
    """Whether the shares are those of the client's own secrets, and after `masked` of neighbours too."""
    held = set(state.secrets.shares)
    if roster is None:
        return not held
    place = roster.places.get(state.id)
    if place is None or roster.bodies[place] != state.public:
        return False
    most = roster.holders(place) if state.state == "masked" else [place]
    return place in held and held <= set(most)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(label("state") + body).digest()


def _no_state() -> fm.ArgumentError:
    return fm.ArgumentError("state", "bytes of Client.to_bytes", "others")


def _read(entries: Any) -> State:
    """The entries of the JSON text; ValueError, TypeError or KeyError for others than those of `saved`."""
    if _integer(entries["version"]) != VERSION:
        raise ValueError("version")
    names = "box_private", "key_seed", "self_seed"
    box_private, key_seed, self_seed = (bytes.fromhex(entries[name]) for name in names)
    shares = {_integer(place): (_share(one), _share(other)) for place, one, other in entries["shares"]}
    roster, clipped = entries["roster"], entries["clipped"]
    return State(
        _integer(entries["id"]),
        entries["state"],
        bytes.fromhex(entries["agreement"]),
        bytes.fromhex(entries["public"]),
        None if roster is None else bytes.fromhex(roster),
        None if clipped is None else _integer(clipped),
        Secrets(box_private, key_seed, self_seed, shares),
    )


def _integer(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("integer")
    return value


def _share(text: Any) -> bytes:
    share = bytes.fromhex(text)
    if len(share) != sharing.SECRET_BYTES:
        raise ValueError("share")
    return share

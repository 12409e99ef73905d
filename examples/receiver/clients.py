"""The clients that the server knows, with their tokens and weights: put your own authentication here."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

MOST = 2**39 - 1
"""The largest sum of weights that a partial sum can have (spec 8)."""


class Clients:
    """A table of clients, read from a file `{NAME: {"token": SHA-256 of the token, "weight": SAMPLES}}`.

    The codec relies on the transport to say who sent a frame. A token in the header `Authorization: Bearer
    TOKEN` is the simplest way; it needs TLS, so that nobody else reads it. Client certificates need no token.
    The weight of a client is what the server's own records say: a client could claim any.

    Raises
    ------
    SystemExit
        The weights of all clients together are too large for one sum.
    """

    def __init__(self, path: Path) -> None:
        table = json.loads(path.read_text(encoding="utf-8"))
        self._names = {bytes.fromhex(entry["token"]): name for name, entry in table.items()}
        self._weights = {name: int(entry["weight"]) for name, entry in table.items()}
        if (total := sum(self._weights.values())) > MOST:
            raise SystemExit(f"{path}: expected weights with a sum of at most {MOST}, got {total}")

    def __len__(self) -> int:
        return len(self._weights)

    def name_of(self, authorization: str | None) -> str | None:
        """The client that a header `Authorization` belongs to; None if there is none."""
        kind, _, token = (authorization or "").partition(" ")
        digest = hashlib.sha256(
            token.encode()
        ).digest()  # so the time of the look-up tells nothing about tokens
        return self._names.get(digest) if kind.lower() == "bearer" else None

    def weight_of(self, name: str) -> int:
        """The weight of a client in the mean."""
        return self._weights[name]


def write_clients(folder: Path, weights: Mapping[str, int]) -> None:
    """Write clients.json, and for each client a file NAME.token with a new token, to be given to it.

    No other user of the machine can read the files.

    Parameters
    ----------
    folder : Path
        It exists.
    weights : mapping of str to int
        Of all clients, by name.

    Raises
    ------
    SystemExit
        There is a clients.json, whose tokens are in use.
    """
    tokens = {name: secrets.token_hex(16) for name in weights}
    table = {
        name: {"token": hashlib.sha256(token.encode()).hexdigest(), "weight": weights[name]}
        for name, token in tokens.items()
    }
    path = folder / "clients.json"
    if path.exists():
        raise SystemExit(f"{path}: expected none yet, since its tokens would become invalid")
    write_private(path, json.dumps(table, indent=1))
    for name, token in tokens.items():
        write_private(folder / f"{name}.token", token)


def write_private(path: Path, text: str) -> None:
    """Write a file that no other user of the machine can read."""
    path.touch(0o600)
    path.chmod(0o600)
    path.write_text(text, encoding="utf-8")


def shard_of(client: str, shards: int) -> int:
    """The number of the shard that a client belongs to, always the same one: so each client counts once."""
    return int.from_bytes(hashlib.sha256(client.encode()).digest()[:8]) % shards

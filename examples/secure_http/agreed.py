"""What the server and all clients have agreed on before the federation, in a file that each of them has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import fedmrn_codec as fm


def id_of(name: str) -> int:
    """The id of a client in the protocol: the first 8 bytes, little-endian, of the SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


@dataclass(frozen=True)
class Agreed:
    """The values that a client must not take from the server, since they protect it from the server.

    Parameters
    ----------
    clients : tuple of str
        The names of all clients that may take part.
    threshold : int
        The least number of clients in a sum; fewer colluding clients learn nothing.
    session : bytes
        At most 255, of this federation alone: all keys are bound to it.
    identities : mapping of int to fedmrn_codec.Key, optional
        The public Ed25519 key of each client, by its id.

    Raises
    ------
    SystemExit
        Two clients have the same id.
    """

    clients: tuple[str, ...]
    threshold: int
    session: bytes
    identities: Mapping[int, fm.Key] | None = None

    def __post_init__(self) -> None:
        if (found := len(set(map(id_of, self.clients)))) != len(self.clients):
            raise SystemExit(f"clients: expected {len(self.clients)} different ids of names, got {found}")

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of both `fedmrn_secagg.Server` and `fedmrn_secagg.Client`."""
        return {"threshold": self.threshold, "session": self.session, "identities": self.identities}

    @classmethod
    def read(cls, path: Path) -> Self:
        """The values in a file that `write` has made."""
        about = json.loads(path.read_text(encoding="utf-8"))
        keys = about["identities"]
        identities = keys and {
            id_of(name): fm.Key.ed25519_public(bytes.fromhex(key)) for name, key in keys.items()
        }
        session = bytes.fromhex(about["session"])
        return cls(tuple(about["clients"]), about["threshold"], session, identities)

    def write(self, path: Path) -> None:
        """Write the values into a file of JSON."""
        keys = self.identities
        about = {
            "clients": self.clients,
            "threshold": self.threshold,
            "session": self.session.hex(),
            "identities": keys and {name: keys[id_of(name)].data.hex() for name in self.clients},
        }
        path.write_text(json.dumps(about, indent=1), encoding="utf-8")

"""Makes the folder of a federation: `python prepare.py FOLDER CLIENT...`; each client gets its own files."""

import argparse
import secrets
from pathlib import Path

import digits
import numpy as np
import shared  # noqa: F401 - for the import of clients
import torch
from agreed import Agreed, id_of
from clients import write_clients, write_private

import fedmrn_codec as fm


def main() -> None:
    """Write start.npz, agreed.json, clients.json, and for each client its token and its identity key."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("clients", nargs="+")
    parser.add_argument("--threshold", type=int, help="default: more than half of the clients")
    parser.add_argument("--identities", action="store_true", help="give each client an identity key")
    parser.add_argument("--seed", type=int, default=0, help="of the first model (default 0)")
    given = parser.parse_args()
    folder, names = given.folder, tuple(given.clients)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given.seed)
    np.savez(folder / "start.npz", **digits.arrays_of(digits.build()))
    write_clients(folder, dict.fromkeys(names, 1))
    identities = {id_of(name): fm.Key.generate() for name in names} if given.identities else None
    for name in names if identities else ():
        write_private(folder / f"{name}.key", identities[id_of(name)].data.hex())
    public = identities and {id: key.public for id, key in identities.items()}
    threshold = given.threshold or len(names) // 2 + 1
    Agreed(names, threshold, secrets.token_bytes(16), public).write(folder / "agreed.json")


if __name__ == "__main__":
    main()

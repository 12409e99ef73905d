"""Makes the folder of a small federation: `python start.py FOLDER CLIENT...`; replace it by your own."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from clients import write_clients

import fedmrn_codec as fm

INPUTS, CLASSES, SAMPLES = 20, 4, 600


def main() -> None:
    """Write start.npz, policy.toml, clients.json, and a token for each client, to be given to it."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    model: dict[str, Any] = {"w": np.zeros((INPUTS, CLASSES), np.float32), "b": np.zeros(CLASSES, np.float32)}
    np.savez(folder / "start.npz", **model)
    policy = fm.Policy(
        schema=fm.schema_of(model),
        noise=fm.Uniform(0.5),
        mask="binary",
        round=0,  # this, the base model and the seeds are set anew in each round
        base_model=0,
        seeds=None,
        max_weight=10_000,
        max_value=10.0,
        codings=["raw", "float16"],
    )
    (folder / "policy.toml").write_text(policy.to_toml(), encoding="utf-8")
    write_clients(folder, dict.fromkeys(names, SAMPLES))


if __name__ == "__main__":
    main()

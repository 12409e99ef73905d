"""Measures the accuracy of examples/secure_http beside plain FedAvg: `make secure-http`."""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path

import digits
import numpy as np
import torch
from secure_http_cases import EXAMPLE, ended, lines_of, start, start_server

DOCUMENT = EXAMPLE / "README.md"
HEAD = (
    "seed of the first model",
    "FedAvg",
    "this example",
    "difference",
    "rounds lost",
    "bytes up",
    "bytes down",
)
LATEST = 900


def fedavg(rounds: int, clients: int, seed: int) -> float:
    """The accuracy after so many rounds of FedAvg, with the data, training and first model of the example."""
    torch.manual_seed(seed)
    arrays = digits.arrays_of(digits.build())
    for _ in range(rounds):
        trained = []
        for number in range(clients):
            model = digits.filled(arrays)
            digits.train(model, digits.part_of(number, clients))
            trained.append(digits.arrays_of(model))
        arrays = {name: np.mean([each[name] for each in trained], axis=0) for name in arrays}
    return digits.accuracy(arrays)


def secure(folder: Path, rounds: int, clients: int, seed: int) -> tuple[float, int, float, float]:
    """What the example gives with its defaults.

    Returns
    -------
    accuracy : float
    lost : int
        Rounds.
    up, down : float
        Bytes of the messages of the protocol, for a client and round.
    """
    names = [f"client-{number}" for number in range(clients)]
    with ended([]) as running:
        running.append(start(EXAMPLE / "prepare.py", folder, *names, "--seed", seed))
        assert running[0].wait(LATEST) == 0
        server, address = start_server(folder, rounds=rounds)
        running.append(server)
        for name in names:
            program = EXAMPLE / "secure_client.py"
            running.append(start(program, address, name, folder, stdout=subprocess.PIPE))
        outputs = [client.communicate(timeout=LATEST)[0] for client in running[2:]]
    (last,) = {re.findall(r"the last model: accuracy ([\d.]+)", output)[0] for output in outputs}
    lines = lines_of(folder)
    assert len(lines) == rounds
    up, down = (
        sum(sum(line[f"protocol_{way}_bytes"].values()) for line in lines) / rounds / clients
        for way in ("up", "down")
    )
    return float(last), sum(line["lost"] is not None for line in lines), up, down


def main() -> None:
    """Measure, and print the table or write it into the README of the example."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--document", action="store_true", help="write the table into the README of the example"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(given.seeds):
        plain = fedavg(given.rounds, given.clients, seed)
        with tempfile.TemporaryDirectory(prefix="fedmrn-secure-") as folder:
            found, lost, up, down = secure(Path(folder), given.rounds, given.clients, seed)
        row = (
            str(seed),
            f"{plain:.4f}",
            f"{found:.4f}",
            f"{found - plain:+.4f}",
            str(lost),
            f"{up:,.0f}",
            f"{down:,.0f}",
        )
        rows.append(row)
        print(dict(zip(HEAD, row, strict=True)), flush=True)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    machine = f"{os.cpu_count()} processors ({platform.machine()}), load {load:.1f}"
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    size = sum(array.nbytes for array in digits.arrays_of(digits.build()).values())
    about = f"{given.clients} clients, {given.rounds} rounds; a model of {size:,} bytes as float32; {machine}"
    text = "\n".join([about, "", *lines])
    if given.document:
        from reference_fl.report import insert

        insert(DOCUMENT, text, "accuracy")
    print(text)


if __name__ == "__main__":
    main()

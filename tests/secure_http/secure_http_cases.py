"""A small model without training, the folder of a federation, and its programs as processes."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import shared  # noqa: F401 - for the next imports
from agreed import Agreed, id_of
from clients import write_clients

import fedmrn_codec as fm

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples" / "secure_http"
LATEST = 300
STEPS = ("keys", "shares", "masked", "reveal")


def make_model():
    rng = np.random.default_rng(0)
    return {"w": rng.normal(0, 0.1, (8, 6)).astype(np.float32), "b": np.zeros(6, np.float32)}


def write_folder(folder, names, threshold, identities=False):
    """What the server and the clients read, for a model that needs no PyTorch."""
    np.savez(folder / "start.npz", **make_model())
    write_clients(folder, dict.fromkeys(names, 1))
    keys = {name: fm.Key.generate() for name in names} if identities else {}
    for name, key in keys.items():
        (folder / f"{name}.key").write_text(key.data.hex())
    public = {id_of(name): key.public for name, key in keys.items()} or None
    agreed = Agreed(tuple(names), threshold, b"test", public)
    agreed.write(folder / "agreed.json")
    return agreed


def token_of(folder, name):
    return (folder / f"{name}.token").read_text()


def identity_of(folder, name):
    path = folder / f"{name}.key"
    return fm.Key.ed25519(bytes.fromhex(path.read_text())) if path.exists() else None


def frame_of(request, seed):
    """A frame of a small random update, with dense values that lie on the default grid."""
    rng = np.random.default_rng(seed)
    update = {
        "w": rng.normal(0, 0.01, (8, 6)).astype(np.float32),
        "b": (rng.integers(-1000, 1000, 6) * 2.0**-18).astype(np.float32),
    }
    return request.encode(update, private_seed=seed + 1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def lines_of(folder):
    """What the server has written of each round."""
    path = folder / "rounds.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(done, *processes):
    end = time.monotonic() + LATEST
    while not done():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def ended(running):
    """Ends the processes in a list, however the block ends."""
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait(30)
            for pipe in filter(None, (process.stdin, process.stdout)):
                pipe.close()


def start(program, *arguments, **options):
    """A program of the example, or one beside this file; it finds the modules of the example."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLE)}
    command = [sys.executable, str(program), *map(str, arguments)]
    return subprocess.Popen(command, env=variables, text=True, **options)


def start_server(folder, **options):
    """The server of a folder, when it answers, and its address."""
    port = free_port()
    pairs = [part for name, value in options.items() for part in (f"--{name}", value)]
    server = start(EXAMPLE / "secure_server.py", folder, "--port", port, *pairs)
    address = f"http://127.0.0.1:{port}"

    def answers():
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=10) as reply:
                return reply.status == 200
        except OSError:
            return False

    try:
        wait_until(answers, server)
    except BaseException:
        server.kill()
        server.wait(30)
        raise
    return server, address

"""Harnesses with atheris, which sees the branches that an input takes; for readers that use NumPy alone."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from .harness import Finding, Result

NAMES = ("frames", "partials", "requests")
"""The harnesses that run with atheris too, as "NAME (atheris)"."""


def run(name: str, folder: Path, seconds: float, seed: int = 0) -> Result:
    """Run a harness with atheris in a process of its own, since libFuzzer ends the process."""
    label = f"{name} (atheris)"
    if importlib.util.find_spec("atheris") is None:
        return Result(label, skipped="atheris is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzz.guided_process", name, str(folder), str(seconds), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    state = folder / "state.json"
    if not state.exists():
        return Result(label, findings=[Finding(label, b"", done.stderr[-8000:])])
    about = json.loads(state.read_text())
    found = [Finding(label, bytes.fromhex(data), error) for data, error in about["findings"]]
    if done.returncode and not found:
        found.append(Finding(label, b"", done.stderr[-8000:]))
    new = [path.read_bytes() for path in sorted((folder / "grown").iterdir())]
    return Result(label, about["executions"], found, new)

"""A model with every sort of tensor, files of it, and two ways to run the shell."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import fedmrn_codec as fm
from fedmrn_codec.cli import tensors
from fedmrn_codec.cli.app import app
from fedmrn_codec.cli.dense import Dense
from fedmrn_codec.cli.tensors import Format, TensorFile

WARNINGS = "error,ignore::DeprecationWarning:typer"
"""Errors, as in pyproject.toml."""

Frame = Callable[..., bytes]
Invoke = Callable[..., Result]
Shell = Callable[..., subprocess.CompletedProcess[bytes]]


def make_model() -> TensorFile:
    rng = np.random.default_rng(1)
    small = rng.normal(0, 0.004, 300).astype(np.float32)
    return TensorFile(
        {
            "conv.weight": Dense("float32", small[:288].reshape(32, 1, 3, 3)),
            "größe/0": Dense("float32", small[:12].reshape(3, 4)),
            "bias": Dense("float32", small[:5]),
            "count": Dense("int64", np.array(2**40 + 3)),
            "half": Dense("float16", small[:3].astype(np.float16)),
            "bf": Dense("bfloat16", np.array([0x3F80, 0xBF81, 0x0001, 0x8000], np.uint16)),
            "wide": Dense("float64", np.array([[0.1, -1e300]])),
            "flag": Dense("bool", np.array([True, False, True])),
            "bytes": Dense("uint8", np.arange(7, dtype=np.uint8)),
            "empty": Dense("float32", np.zeros((0, 3), np.float32)),
            "no counts": Dense("uint64", np.zeros(0, np.uint64)),
        },
        Format.SAFETENSORS,
        {"format": "pt"},
    )


@pytest.fixture(scope="session")
def model() -> TensorFile:
    return make_model()


@pytest.fixture(scope="session")
def frame(model: TensorFile) -> Frame:
    """A frame of the model: `frame(seed, mask, **arguments_of_encode)`."""
    schema = fm.Schema(
        fm.Tensor(name, held.array.shape, held.dtype == "float32" and held.array.ndim >= 2, held.dtype)
        for name, held in sorted(model.tensors.items())
    )
    arrays = {name: held.array for name, held in model.tensors.items()}

    def make(seed: int, mask: str = "binary", **more: object) -> bytes:
        given = {"noise": fm.Uniform(0.01), "embed_schema": True, "private_seed": 1000 + seed} | more
        return fm.encode(arrays, schema, seed=seed, mask=mask, backend="numpy", **given)

    return make


@pytest.fixture
def folder(tmp_path: Path, model: TensorFile, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the model as update.safetensors, and three frames of it, all with the schema."""
    monkeypatch.chdir(tmp_path)
    tensors.save("update.safetensors", model)
    for name, seed, mask in (("a", 7, "binary"), ("b", 8, "signed"), ("c", 9, "binary")):
        Path(f"{name}.fmrn").write_bytes(frame(seed, mask))
    return tmp_path


@pytest.fixture(scope="session")
def invoke(runner: CliRunner) -> Invoke:
    """Run the shell in this process: `invoke(0, "verify", path)` asserts the exit code."""

    def run(code: int | None, *args: object, input: bytes | None = None) -> Result:
        result = runner.invoke(app, [str(a) for a in args], input=input)
        assert code is None or result.exit_code == code, (result.exit_code, result.stderr, result.exception)
        assert result.exit_code != 70, result.stderr
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def shell() -> Shell:
    """Run a command line of bash, where `fedmrn` is the real one."""
    environment = dict(os.environ) | {"PYTHONWARNINGS": WARNINGS, "PYTHON": sys.executable}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(line: str, input: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            input=input,
            capture_output=True,
            env=environment | variables,
            timeout=60,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    return run

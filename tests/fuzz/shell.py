"""The harness of the command `fedmrn`: its verbs, called in this process, on files of any content."""

import json
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from typer.testing import CliRunner

from fedmrn_codec.cli import tensors
from fedmrn_codec.cli.app import app
from fedmrn_codec.cli.dense import Dense
from fedmrn_codec.cli.problems import FILES, OK, REFUSED, USAGE

from . import seeds
from .harness import Harness, joined
from .mutator import any_bytes, documents, messages

ALLOWED = {OK, REFUSED, USAGE, FILES}
MAGIC = (b"FMRN", b"FMRS")


class Shell(Harness):
    """The verbs that read files: the exit code is one of 0 to 3, and never that of a fault of the program."""

    name = "shell"

    def __init__(self) -> None:
        self.runner, self.command = _runner(), typer.main.get_command(app)  # made once: that takes longest
        self.folder = tempfile.TemporaryDirectory(prefix="fedmrn-fuzz-")
        self.path = Path(self.folder.name)
        for number, schema in enumerate(seeds.schemas().values()):
            (self.path / f"schema{number}.json").write_text(json.dumps(schema.to_json()))
        self.numbers = {digest: number for number, digest in enumerate(seeds.schemas())}

    def seeds(self) -> Sequence[bytes]:
        texts = [json.dumps(schema.to_json()).encode() for schema in list(seeds.schemas().values())[:8]]
        return joined(seeds.frames(), seeds.partials(), texts, self._tensors(), seeds.finds(self.name))

    def _tensors(self) -> list[bytes]:
        """Files of tensors."""
        rng, out = np.random.default_rng(2), []
        arrays = {
            "w": Dense("float32", rng.normal(size=(4, 5)).astype(np.float32)),
            "n": Dense("int64", np.array(3)),
        }
        for format in tensors.Format:
            path = self.path / f"made.{format.value}"
            tensors.save(str(path), tensors.TensorFile(arrays, format), format)
            out.append(path.read_bytes())
        return out

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        data = rng.choice(pool)
        if data[:4] in MAGIC:
            return messages(rng, [data, rng.choice(pool)])
        return documents(rng, [data]) if data[:1] in (b"[", b"{") else any_bytes(rng, data)

    def check(self, data: bytes) -> object:
        (self.path / "input").write_bytes(data)
        for line in self._lines(data):
            result = super(CliRunner, self.runner).invoke(self.command, line)
            if result.exit_code not in ALLOWED or not isinstance(result.exception, SystemExit | None):
                raise AssertionError(
                    f"fedmrn {' '.join(line)}: exit code {result.exit_code}\n{result.stderr}"
                )
        return result.exit_code, result.stderr.rpartition("[")[2][:20]

    def _lines(self, data: bytes) -> list[list[str]]:
        """The command lines for an input: some verbs, which its bytes choose."""
        file, out = str(self.path / "input"), str(self.path / "out.npz")
        known = self.numbers.get(data[32:48])
        schema = [] if known is None else ["--schema", str(self.path / f"schema{known}.json")]
        as_json = ["--json"] * (sum(data[-4:]) % 2)
        if data[:4] not in MAGIC:
            read = [
                ["schema", file],
                ["encode", file, "-o", out, "--noise", "uniform:0.01"],
                ["inspect", file],
            ]
            return [*read, ["decode", str(self.path / "input"), "--schema", file, "-o", out]]
        return [
            ["inspect", file, *schema, *as_json],
            ["verify", file, *schema, *as_json],
            ["decode", file, "-o", out, *schema, *as_json],
            ["schema", file],
            ["aggregate", file, "-o", out, *schema, *as_json],
        ]

    def close(self) -> None:
        self.folder.cleanup()


def _runner() -> Any:
    """A runner with stderr apart from stdout, which older ones have to be told."""
    os.environ.setdefault("COLUMNS", "100")
    try:
        return CliRunner(mix_stderr=False)  # type: ignore[call-arg]
    except TypeError:
        return CliRunner()

"""Mutants of the decoders in C and JavaScript, run as programs that speak the kit's line protocol."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from source_mutants import SourceMutant, mutants

from fedmrn_codec.conformance import protocol
from fedmrn_codec.conformance.check import Check
from fedmrn_codec.conformance.program import CommandTarget
from fedmrn_codec.conformance.run import FAILED, run
from fedmrn_codec.conformance.target import Broken

DECODERS = Path(__file__).resolve().parents[2] / "spec" / "decoders"
SECONDS = 20.0
"""The longest time of an answer."""

LIMITS = ("sh", "-c", 'ulimit -t 120; exec "$0" "$@"')
"""A command that runs another one for at most two minutes of CPU time."""


NO_START = protocol.IDS[0]


class Program:
    """An implementation that is a program, made from a source of its own for each mutant."""

    source: Path
    errors: tuple[str, ...]

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = [*protocol.first(), *checks, *protocol.last()]
        self.kills: Counter[str] = Counter()
        text = self.source.read_bytes()
        self.digest = hashlib.sha256(text).hexdigest()[:16]

    def mutants(self) -> Iterator[SourceMutant]:
        """All mutants of the source."""
        return mutants(self.source.read_text(encoding="utf-8"), self.errors)

    def test(self, mutant: SourceMutant) -> tuple[str, str]:
        """Run the kit on a mutant: whether it is killed and by which check, alive, or invalid."""
        with tempfile.TemporaryDirectory() as folder:
            command = self.build(Path(folder), mutant.source)
            state, by = ("invalid", "") if command is None else self.judge(command)
            if by == NO_START and not self.parses(Path(folder)):
                return "invalid", ""
            return state, by

    def judge(self, command: Sequence[str]) -> tuple[str, str]:
        """Run the checks until one fails, those first that have killed most."""
        try:
            target = CommandTarget([*LIMITS, *command], SECONDS)
        except Broken:
            return "killed", NO_START
        try:
            ordered = sorted(self.checks, key=lambda check: -self.kills[check.id])
            for record in run(target, ordered, fail_fast=True):
                if record.status == FAILED:
                    self.kills[record.id] += 1
                    return "killed", record.id
        finally:
            target.close()
        return "alive", ""

    def build(self, folder: Path, source: str) -> list[str] | None:
        """Make the program in a folder; return its command, or None if the source does not compile."""
        raise NotImplementedError

    def parses(self, folder: Path) -> bool:
        """Whether the program in the folder, which does not start, is one at all."""
        return True


class C(Program):
    """The header in C99, in the program `conform`."""

    source = DECODERS / "c" / "fedmrn.h"
    errors = ("fedmrn__fail",)

    def build(self, folder: Path, source: str) -> list[str] | None:
        """Compile, without optimisation: most mutants run for a moment only."""
        for name in ("conform.c", "fedmrn_table.h"):
            shutil.copy(DECODERS / "c" / name, folder)
        (folder / "fedmrn.h").write_text(source, encoding="utf-8")
        flags = ("-std=c99", "-ffp-contract=off", "-O0", "-w")
        done = subprocess.run(
            ["cc", *flags, "-o", folder / "conform", folder / "conform.c"], capture_output=True, check=False
        )
        return [str(folder / "conform")] if done.returncode == 0 else None


class JavaScript(Program):
    """The module, in the program `conform.mjs`."""

    source = DECODERS / "js" / "fedmrn.mjs"
    errors = ("fail", "refuse", "RangeError", "TypeError", "checkExpected")

    def build(self, folder: Path, source: str) -> list[str] | None:
        """Copy the program beside the module."""
        for name in ("conform.mjs", "package.json"):
            shutil.copy(DECODERS / "js" / name, folder)
        (folder / "fedmrn.mjs").write_text(source, encoding="utf-8")
        return ["node", str(folder / "conform.mjs")]

    def parses(self, folder: Path) -> bool:
        """Whether Node can parse the module."""
        command = ["node", "--check", folder / "fedmrn.mjs"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

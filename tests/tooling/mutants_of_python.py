"""Mutants of the codec in Python with NumPy, each in a forked process with the mutated function in it."""

from __future__ import annotations

import functools
import gc
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutated_functions import install, is_ours, limit
from mutations import Mutant, mutants

from fedmrn_codec.conformance.check import Check
from fedmrn_codec.conformance.module import ModuleTarget
from fedmrn_codec.conformance.run import FAILED, run

PACKAGE = Path(__file__).resolve().parents[2] / "fedmrn_codec"
FOLDERS = ("face", "sums", "format", "primitives")
BACKENDS = ("numpy", "numpy_rans", "numpy_rans12", "numpy_rans14", "rans_parts")
CPU_SECONDS, MEMORY = 60, 4 * 2**30
"""What the checks of one mutant may use; a mutant that needs more counts as killed."""


@dataclass(frozen=True)
class InModule:
    """A mutant of a module, and the checks that call the mutated function."""

    path: Path
    mutant: Mutant
    checks: tuple[Check, ...]

    @property
    def key(self) -> str:
        """The module and the mutant."""
        return f"{self.path.relative_to(PACKAGE)}: {self.mutant.key}"


class Python:
    """The codec with its NumPy backend, as a module under test."""

    def __init__(self, checks: Sequence[Check]) -> None:
        backends = [PACKAGE / "backends" / f"{name}.py" for name in BACKENDS]
        self.files = [
            *(path for name in FOLDERS for path in sorted((PACKAGE / name).glob("*.py"))),
            *backends,
        ]
        self.digest = hashlib.sha256(b"".join(path.read_bytes() for path in self.files)).hexdigest()[:16]
        self.target = ModuleTarget("fedmrn_codec", "numpy")
        self.checks, self.kills = checks, Counter[str]()

    def mutants(self) -> Iterator[InModule]:
        """The mutants of all functions that the kit calls, without the arguments of errors."""
        callers, self.seconds = self.run_unchanged()
        for path in self.files:
            for mutant in mutants(path):
                its = callers.get(f"{path}:{mutant.where}")
                if its and not in_error(mutant.change):
                    yield InModule(path, mutant, tuple(its))

    def run_unchanged(self) -> tuple[dict[str, list[Check]], dict[str, float]]:
        """The checks that call each function of the codec, and the time of each check."""
        callers: dict[str, list[Check]] = {}
        seconds: dict[str, float] = {}
        names = {str(path) for path in self.files}
        caches = [c for c in gc.get_objects() if isinstance(c, functools._lru_cache_wrapper) and is_ours(c)]
        for check in self.checks:
            called: set[str] = set()

            def note(frame: object, event: str, _: object, called: set[str] = called) -> None:
                code = frame.f_code  # type: ignore[attr-defined]
                if event == "call" and code.co_filename in names:
                    called.add(f"{code.co_filename}:{code.co_qualname}")

            for cache in caches:
                cache.cache_clear()
            begin = time.process_time()
            sys.setprofile(note)
            (record,) = run(self.target, [check])
            sys.setprofile(None)
            assert record.status != FAILED, record
            seconds[check.id] = time.process_time() - begin
            for name in called:
                callers.setdefault(name, []).append(check)
        return callers, seconds

    def test(self, mutant: InModule) -> tuple[str, str]:
        """Run the checks on a mutant: whether it is killed and by which check, or alive."""
        order = sorted(mutant.checks, key=lambda c: self.seconds[c.id] / (1 + self.kills[c.id]))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            self.run_mutant(mutant, order, writer)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            killer = pipe.read()
        _, status = os.waitpid(child, 0)
        if status:
            killer = killer or "more than the time or memory that checks may use"
        self.kills[killer] += bool(killer)
        return ("killed", killer) if killer else ("alive", "")

    def run_mutant(self, mutant: InModule, order: Sequence[Check], writer: int) -> None:
        """In a process of its own: put the fault in, run the checks, write the id of the first that fails."""
        status = 1
        try:
            limit(CPU_SECONDS, MEMORY)
            install(str(mutant.path), mutant.mutant)
            for record in run(self.target, order, fail_fast=True):
                if record.status == FAILED:
                    os.write(writer, record.id.encode())
                    break
            status = 0
        finally:
            os._exit(status)


def in_error(change: str) -> bool:
    """Whether the fault is inside the arguments of an error, which the kit does not see."""
    return "`raise errors." in change.partition(" becomes ")[0] and not change.partition(" becomes ")[
        2
    ].startswith("`pass`")

"""Runs checks against a target, and keeps what came of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .check import Check, Failure
from .request import Request
from .target import Broken, Target, Unsupported
from .verdict import Finding

PASSED, FAILED, SKIPPED, EXPECTED = "passed", "failed", "skipped", "expected"


@dataclass(frozen=True)
class Record:
    """What came of one check.

    Attributes
    ----------
    status : {"passed", "failed", "skipped", "expected"}
        Expected: it failed, as the expected-failures file says.
    message : str
        Why it failed or was skipped.
    musts : tuple of str
        Those that are broken, if it failed; else those that it is about.
    request : Request or None
        That shows the failure.
    """

    id: str
    profile: str
    status: str
    seconds: float
    musts: tuple[str, ...]
    message: str = ""
    request: Request | None = None


@dataclass
class Report:
    """What came of a run."""

    name: str
    version: str
    profiles: tuple[str, ...]
    records: list[Record] = field(default_factory=list)

    def count(self, status: str) -> int:
        """How many checks came out so."""
        return sum(record.status == status for record in self.records)

    def of(self, status: str) -> list[Record]:
        """The checks that came out so."""
        return [record for record in self.records if record.status == status]

    @property
    def broken(self) -> dict[str, int]:
        """The MUSTs that failures cite first, with how many do; the one to mend first is the first."""
        return dict(Counter(record.musts[0] for record in self.of(FAILED)))

    @property
    def ok(self) -> bool:
        """Nothing failed, and something passed."""
        return not self.count(FAILED) and bool(self.count(PASSED) + self.count(EXPECTED))


def run(
    target: Target,
    checks: Iterable[Check],
    *,
    expected: Collection[str] = (),
    fail_fast: bool = False,
) -> Iterator[Record]:
    """Run checks one after the other, and say of each what came of it.

    Parameters
    ----------
    expected : collection of str
        Ids of checks that have to fail.
    fail_fast : bool
        Stop after the first failure that is not expected.
    """
    for check in checks:
        record = _run(target, check, check.id in expected)
        yield record
        if fail_fast and record.status == FAILED:
            return


def _run(target: Target, check: Check, expected: bool) -> Record:
    begin = time.perf_counter()
    try:
        failure = check.run(target)
    except Unsupported as why:
        return Record(check.id, check.profile, SKIPPED, time.perf_counter() - begin, check.musts, str(why))
    except Broken as broken:
        failure = Failure(Finding(check.musts, str(broken)))
    seconds = time.perf_counter() - begin
    if failure is None and expected:
        failure = Failure(Finding(check.musts, "passes, though the expected-failures file names it"))
        expected = False
    if failure is None:
        return Record(check.id, check.profile, PASSED, seconds, check.musts)
    status = EXPECTED if expected else FAILED
    finding, request = failure
    return Record(check.id, check.profile, status, seconds, finding.musts, str(finding), request)


def expected_failures(path: Path) -> frozenset[str]:
    """The ids in an expected-failures file: one a line; `#` begins a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(filter(None, (line.partition("#")[0].strip() for line in lines)))

"""Running checks against a target, and the records of their results."""

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
    """The result of one check.

    Attributes
    ----------
    status : {"passed", "failed", "skipped", "expected"}
        "expected" means that it failed and is listed in the expected-failures file.
    message : str
        The reason of a failure or a skip.
    musts : tuple of str
        Those that are violated, if it failed; else those that it tests.
    request : Request or None
        The request that shows the failure.
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
    """The results of a run."""

    name: str
    version: str
    profiles: tuple[str, ...]
    records: list[Record] = field(default_factory=list)

    def count(self, status: str) -> int:
        """The number of checks with this status."""
        return sum(record.status == status for record in self.records)

    def of(self, status: str) -> list[Record]:
        """The records with this status."""
        return [record for record in self.records if record.status == status]

    @property
    def broken(self) -> dict[str, int]:
        """The first MUST of each failure, with the number of failures; the first one is to be fixed first."""
        return dict(Counter(record.musts[0] for record in self.of(FAILED)))

    @property
    def ok(self) -> bool:
        """Whether no check failed and at least one passed."""
        return not self.count(FAILED) and bool(self.count(PASSED) + self.count(EXPECTED))


def run(
    target: Target,
    checks: Iterable[Check],
    *,
    expected: Collection[str] = (),
    fail_fast: bool = False,
) -> Iterator[Record]:
    """Run checks one after the other, and yield the record of each.

    Parameters
    ----------
    expected : collection of str
        Ids of checks that must fail.
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
        failure = Failure(Finding(check.musts, "expected a failure, as the file of these says, got a pass"))
        expected = False
    if failure is None:
        return Record(check.id, check.profile, PASSED, seconds, check.musts)
    status = EXPECTED if expected else FAILED
    finding, request = failure
    return Record(check.id, check.profile, status, seconds, finding.musts, str(finding), request)


def expected_failures(path: Path) -> frozenset[str]:
    """The ids in an expected-failures file: one on each line; `#` starts a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(filter(None, (line.partition("#")[0].strip() for line in lines)))

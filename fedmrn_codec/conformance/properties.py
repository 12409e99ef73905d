"""Generated cases, each compared with the oracle and shrunk when it fails. Needs Hypothesis."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from . import questions, tally_questions
from .check import Failure
from .reference import Reference
from .request import PROFILE_OF, Request
from .target import Broken, Target, TimedOut, Unsupported, outcome
from .verdict import Finding, verdict

CRASHES = 8
"""The number of examples without an answer after which shrinking stops, as each needs a restart."""

SHRINKING = 20.0
"""Seconds after the first failure at which shrinking stops."""

REFERENCE = Reference()


class _Found(Exception):
    """Carries a failure through Hypothesis."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.finding))
        self.failure = failure


@dataclass(frozen=True)
class Property:
    """A check over generated requests.

    Attributes
    ----------
    make : function
        Returns the strategy of the requests.
    examples : int
    seed : int
        The same seed gives the same examples.
    """

    id: str
    musts: tuple[str, ...]
    op: str
    make: Callable[[], SearchStrategy[Request]]
    examples: int
    seed: int = 0

    @property
    def profile(self) -> str:
        """The profile of the requests."""
        return PROFILE_OF[self.op]

    def run(self, target: Target) -> Failure | None:
        """Run the check; return the smallest failure that can be found, or None."""
        asker = _Asker(target, self.musts)
        test = given(self.make())(asker.ask)
        test = settings(
            max_examples=self.examples,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )(test)
        try:
            hypothesis.seed(self.seed)(test)()
        except _Found as found:
            return found.failure
        if asker.reasons and not asker.answered:
            raise Unsupported(asker.reasons[0])
        return None


class _Asker:
    """Sends each request once and keeps the verdict, so that Hypothesis sees the same result each time."""

    def __init__(self, target: Target, musts: tuple[str, ...]) -> None:
        self.target, self.musts = target, musts
        self.judged: dict[Request, Finding | None] = {}
        self.reasons: list[str] = []
        self.answered = self.crashes = 0
        self.until = math.inf

    def ask(self, request: Request) -> None:
        """Raise `_Found` if the answer is wrong."""
        if request not in self.judged:
            proceed = self.crashes < CRASHES and time.monotonic() < self.until
            self.judged[request] = self._judge(request) if proceed else None
        finding = self.judged[request]
        if finding:
            self.until = min(self.until, time.monotonic() + SHRINKING)
            raise _Found(Failure(finding, request))

    def _judge(self, request: Request) -> Finding | None:
        try:
            found = outcome(self.target, request)
        except Unsupported as why:
            self.reasons.append(str(why))
            return None
        except Broken as broken:
            self.crashes += CRASHES if isinstance(broken, TimedOut) else 1
            return Finding(self.musts, str(broken))
        self.answered += 1
        return verdict(request, outcome(REFERENCE, request), found)


ALL: tuple[tuple[str, tuple[str, ...], str, Callable[[], SearchStrategy[Request]]], ...] = (
    ("generated/words", ("N-02",), "words", questions.words),
    ("generated/noise", ("N-04",), "noise", questions.noise),
    ("generated/schemas", ("5.4", "7.3"), "digest", questions.digests),
    ("generated/frames", ("M-02",), "decode", questions.decodings),
    ("generated/hostile-frames", ("7.1",), "decode", questions.hostile),
    ("generated/coded-frames", ("6.8", "6.9", "6.11"), "decode", questions.coded),
    ("generated/hostile-codings", ("7.1",), "decode", questions.hostile_codings),
    ("generated/grid-frames", ("6.12", "6.14"), "decode", questions.grids),
    ("generated/hostile-grids", ("7.1",), "decode", questions.hostile_grids),
    ("generated/samples", ("M-04",), "sample", questions.samples),
    ("generated/encodings", ("E-01", "E-02"), "encode", questions.encodings),
    ("generated/codings", ("E-03", "6.8", "6.9", "6.11"), "encode", questions.codings),
    ("generated/grid-encodings", ("E-01", "E-02", "E-04"), "encode", questions.grid_encodings),
    ("generated/aggregates", ("A-03", "A-04"), "aggregate", questions.aggregates),
    ("generated/merges", ("A-06", "8.5"), "merge", questions.merges),
    ("generated/tallies", ("A-08", "8.6"), "tally", tally_questions.counts),
    ("generated/tally-merges", ("A-09", "8.6"), "merge_tallies", tally_questions.merges),
    ("generated/tally-sums", ("A-10", "8.6"), "add_tallies", tally_questions.additions),
)
"""Id, MUSTs, operation and strategy of each property."""


def properties(examples: int, seed: int = 0) -> dict[str, Property]:
    """The properties by id; none for 0 examples."""
    if not examples:
        return {}
    return {id: Property(id, musts, op, make, examples, seed) for id, musts, op, make in ALL}

"""One check: requests to an implementation, and the expected answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .request import PROFILE_OF, Request
from .target import Outcome, Target, outcome
from .verdict import Finding, verdict


class Failure(NamedTuple):
    """The finding of a failed check, and the request that shows it."""

    finding: Finding
    request: Request | None = None


class Check(Protocol):
    """A check that `run` can run.

    Attributes
    ----------
    id : str
        Unique and stable; the file of expected failures lists ids.
    musts : tuple of str
        The MUSTs and sections that it tests.
    profile : str
    """

    @property
    def id(self) -> str: ...  # noqa: D102

    @property
    def musts(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def profile(self) -> str: ...  # noqa: D102

    def run(self, target: Target) -> Failure | None:
        """Run the check; return the failure, or None. May raise `Unsupported` and `Broken`."""


@dataclass(frozen=True)
class Case:
    """A check of requests with known answers."""

    id: str
    musts: tuple[str, ...]
    steps: tuple[tuple[Request, Outcome], ...]

    @property
    def profile(self) -> str:
        """The profile of the first request."""
        return PROFILE_OF[self.steps[0][0].op]

    def run(self, target: Target) -> Failure | None:
        """Run the check; return the failure of the first wrong answer, or None."""
        for request, expected in self.steps:
            finding = verdict(request, expected, outcome(target, request))
            if finding:
                return Failure(finding, request)
        return None

"""One check: what is asked of an implementation, and what has to come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .request import PROFILE_OF, Request
from .target import Outcome, Target, outcome
from .verdict import Finding, verdict


class Failure(NamedTuple):
    """What a check found wrong, and the request that shows it."""

    finding: Finding
    request: Request | None = None


class Check(Protocol):
    """What the runner runs.

    Attributes
    ----------
    id : str
        Unique and stable; expected failures are named by it.
    musts : tuple of str
        The MUSTs and sections that it is about.
    profile : str
    """

    @property
    def id(self) -> str: ...  # noqa: D102

    @property
    def musts(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def profile(self) -> str: ...  # noqa: D102

    def run(self, target: Target) -> Failure | None:
        """The failure, or None; `Unsupported` and `Broken` are raised."""


@dataclass(frozen=True)
class Case:
    """A check with known answers."""

    id: str
    musts: tuple[str, ...]
    steps: tuple[tuple[Request, Outcome], ...]

    @property
    def profile(self) -> str:
        """The profile of the first request."""
        return PROFILE_OF[self.steps[0][0].op]

    def run(self, target: Target) -> Failure | None:
        """The first answer that is wrong."""
        for request, expected in self.steps:
            finding = verdict(request, expected, outcome(target, request))
            if finding:
                return Failure(finding, request)
        return None

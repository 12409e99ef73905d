"""Checks whose requests are large: they are made, and the oracle answers them, when they are run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from .check import Failure
from .reference import Reference
from .request import PROFILE_OF, Request
from .target import Outcome, Target, outcome
from .verdict import verdict


@dataclass(frozen=True)
class Computed:
    """A check of one request, whose answer must be that of the oracle.

    Attributes
    ----------
    name : str
        The id without the operation. Two checks of one name are the same check.
    make : function
        Returns the request.
    """

    name: str
    musts: tuple[str, ...]
    op: str
    make: Callable[[], Request] = field(compare=False)

    @property
    def id(self) -> str:
        """The id of this check, such as "many/words-64:words"."""
        return f"{self.name}:{self.op}"

    @property
    def profile(self) -> str:
        """The profile of the request."""
        return PROFILE_OF[self.op]

    def run(self, target: Target) -> Failure | None:
        """Run the check; return the failure, or None."""
        request, expected = _known(self)
        finding = verdict(request, expected, outcome(target, request))
        return Failure(finding, request) if finding else None


@functools.lru_cache(256)
def _known(check: Computed) -> tuple[Request, Outcome]:
    request = check.make()
    return request, outcome(Reference(), request)

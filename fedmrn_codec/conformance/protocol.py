"""The checks of how a program follows the line protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .check import Failure
from .program import CommandTarget
from .run import FAILED, Record
from .target import Broken, Target
from .verdict import Finding

PROFILE = "protocol"
SECTION = ("CONFORMANCE 3",)


@dataclass(frozen=True)
class ProtocolCheck:
    """A check of the protocol, for programs only."""

    id: str
    test: Callable[[CommandTarget], str | None]
    profile: str = PROFILE
    musts: tuple[str, ...] = SECTION

    def run(self, target: Target) -> Failure | None:
        """Run the check; return the failure, or None."""
        assert isinstance(target, CommandTarget)
        wrong = self.test(target)
        return Failure(Finding(self.musts, wrong)) if wrong else None


def _unknown(target: CommandTarget) -> str | None:
    answer = target.exchange("an operation of a later version", {})
    if "unsupported" in answer:
        return None
    return "unknown operation: expected `unsupported`, got another answer"


def _end(target: CommandTarget) -> str | None:
    target.finish()
    return None


def first() -> Iterator[ProtocolCheck]:
    """The checks that run before all others."""
    yield ProtocolCheck("protocol/unknown-operation", _unknown)


def last() -> Iterator[ProtocolCheck]:
    """The checks that run after all others: the program ends when its input ends."""
    yield ProtocolCheck("protocol/end", _end)


def no_hello(broken: Broken) -> Record:
    """The record of a failed start."""
    message = str(Finding(SECTION, f"hello: {broken}"))
    return Record("protocol/hello", PROFILE, FAILED, 0.0, SECTION, message)


IDS = ("protocol/hello", "protocol/unknown-operation", "protocol/end")

"""The implementation under test, behind one protocol: a Python module, a program, or the oracle."""

from __future__ import annotations

from typing import Protocol

from .request import Request, Result


class Refused(Exception):
    """The implementation refuses what it was given, with a code of the format.

    Attributes
    ----------
    code : str
        Of section 7, 8.1 or 8.5.
    number : str
        Of the check that failed; known where the oracle refuses, else empty.
    """

    def __init__(self, code: str, number: str = "") -> None:
        super().__init__(f"{code} [{number}]" if number else code)
        self.code, self.number = code, number


class Unsupported(Exception):
    """The implementation does not offer what was asked: the check is skipped, for this reason."""


class Broken(Exception):
    """The implementation gave no answer at all: it crashed, hung, or answered what nobody can read."""


class TimedOut(Broken):
    """The implementation gave no answer in time."""


class Target(Protocol):
    """An implementation under test.

    Attributes
    ----------
    name, version : str
    profiles : tuple of str
        Those that it offers.
    """

    name: str
    version: str
    profiles: tuple[str, ...]

    def ask(self, request: Request) -> Result:
        """The answer to a request.

        Raises
        ------
        Refused, Unsupported, Broken
        """

    def close(self) -> None:
        """Let go of what the target holds."""


Outcome = Result | Refused
"""What a request came to."""


def outcome(target: Target, request: Request) -> Outcome:
    """The answer or the refusal; `Unsupported` and `Broken` are raised."""
    try:
        return target.ask(request)
    except Refused as refusal:
        return refusal

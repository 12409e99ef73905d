"""The implementation under test, behind one protocol: a Python module, a program, or the oracle."""

from __future__ import annotations

from typing import Protocol

from .request import Request, Result


class Refused(Exception):
    """The implementation refuses its input, with a code of the format.

    Attributes
    ----------
    code : str
        A code of section 7, 8.1 or 8.5.
    number : str
        The number of the check that failed, if the oracle refuses; else empty.
    """

    def __init__(self, code: str, number: str = "") -> None:
        super().__init__(f"{code} [{number}]" if number else code)
        self.code, self.number = code, number


class Unsupported(Exception):
    """The implementation does not offer the operation; the check is skipped for this reason."""


class Broken(Exception):
    """The implementation crashed, hung, or gave a malformed answer."""


class TimedOut(Broken):
    """The implementation gave no answer in time."""


class Target(Protocol):
    """An implementation under test.

    Attributes
    ----------
    name, version : str
    profiles : tuple of str
        The profiles that it offers.
    """

    name: str
    version: str
    profiles: tuple[str, ...]

    def ask(self, request: Request) -> Result:
        """Answer a request.

        Raises
        ------
        Refused, Unsupported, Broken
        """

    def close(self) -> None:
        """Release what the target holds."""


Outcome = Result | Refused
"""The result of a request, or its refusal."""


def outcome(target: Target, request: Request) -> Outcome:
    """The answer or the refusal; may raise `Unsupported` and `Broken`."""
    try:
        return target.ask(request)
    except Refused as refusal:
        return refusal

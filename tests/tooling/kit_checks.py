"""The checks of the conformance kit in a form that runs quickly many times.

A generated check asks the oracle for every answer. Here it is asked once for each request, and the requests
with their answers are a check with known answers, which runs on every mutant.
"""

from __future__ import annotations

from fedmrn_codec.conformance import properties
from fedmrn_codec.conformance.check import Case, Check, Failure
from fedmrn_codec.conformance.reference import Reference
from fedmrn_codec.conformance.request import Request, Result
from fedmrn_codec.conformance.suite import checks
from fedmrn_codec.conformance.target import Outcome, Refused, Target, Unsupported, outcome
from fedmrn_codec.conformance.verdict import Finding


class Recorder:
    """Answers with the oracle, and keeps each request with its answer."""

    name, version, profiles = Reference.name, Reference.version, Reference.profiles

    def __init__(self) -> None:
        self.oracle, self.answers = Reference(), dict[Request, Outcome]()

    def ask(self, request: Request) -> Result:
        """Answer a request."""
        if request not in self.answers:
            self.answers[request] = outcome(self.oracle, request)
        answer = self.answers[request]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing to release."""


class Recorded:
    """The requests of a generated check; those that a target does not support are left out."""

    def __init__(self, check: Check, steps: tuple[tuple[Request, Outcome], ...]) -> None:
        self.id, self.musts, self.profile = check.id, check.musts, check.profile
        self.cases = [Case(check.id, check.musts, (step,)) for step in steps]

    def run(self, target: Target) -> Failure | None:
        """Run the check; return the failure of the first wrong answer, or None."""
        for case in self.cases:
            try:
                failure = case.run(target)
            except Unsupported:
                continue
            if failure is not None:
                return failure
        return None


class Answered:
    """A check for which every refusal that it does not expect is a failure."""

    def __init__(self, check: Check) -> None:
        self.check, self.id, self.musts, self.profile = check, check.id, check.musts, check.profile

    def run(self, target: Target) -> Failure | None:
        """Run the check; return its failure, or None."""
        try:
            return self.check.run(target)
        except Refused as refusal:
            return Failure(Finding(self.musts, f"expected an answer, got the refusal `{refusal.code}`"))


def kit_checks(examples: int) -> list[Check]:
    """All checks of the kit but those of the line protocol, with this many generated cases of a property."""
    return [
        recorded(check) if isinstance(check, properties.Property) else Answered(check)
        for check in checks(examples=examples)
    ]


def recorded(check: Check) -> Recorded:
    """A generated check with its requests and the oracle's answers."""
    recorder = Recorder()
    former, properties.REFERENCE = properties.REFERENCE, recorder  # type: ignore[assignment]
    try:
        failure = check.run(recorder)
    finally:
        properties.REFERENCE = former
    assert failure is None, failure
    return Recorded(check, tuple(recorder.answers.items()))

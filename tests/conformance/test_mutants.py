"""Every broken implementation is caught, by the vectors, and the requirement that it breaks is named."""

import pytest
from mutants import MUTANTS, Changed, Mutant, changed_oracle, without_check

from fedmrn_codec.conformance import oracle
from fedmrn_codec.conformance.check import Check
from fedmrn_codec.conformance.run import FAILED, PASSED, SKIPPED, run


def first_failure(target, suite):
    return next(record for record in run(target, suite) if record.status == FAILED)


def test_there_are_enough_of_them():
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_an_unchanged_copy_passes(vectors: list[Check]):
    records = list(run(Changed(changed_oracle()), vectors))
    assert {r.status for r in records} == {PASSED, SKIPPED}
    assert [r.id for r in records if r.status == SKIPPED] == ["state/refused-frames:aggregate"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught_and_what_it_breaks_is_named(mutant: Mutant, vectors: list[Check]):
    failure = first_failure(Changed(changed_oracle(mutant.old, mutant.new)), vectors)
    assert mutant.breaks in failure.musts[:1], failure.message
    assert failure.message.startswith(f"[{mutant.breaks}")


@pytest.mark.parametrize("number", oracle.CODES)
def test_an_implementation_without_one_check_is_caught(number: str, vectors: list[Check]):
    suite = [check for check in vectors if number in check.musts]
    failure = first_failure(Changed(without_check(number)), suite)
    assert number in failure.musts, failure.message

"""Generated cases find what is broken without the vectors, and shrink it."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS, Changed, changed_oracle

from fedmrn_codec.conformance.properties import ALL, CRASHES, Property, properties
from fedmrn_codec.conformance.reference import Reference
from fedmrn_codec.conformance.request import PROFILE_OF, PROFILES
from fedmrn_codec.conformance.run import FAILED, PASSED, SKIPPED, run
from fedmrn_codec.conformance.suite import checks
from fedmrn_codec.conformance.target import Broken, TimedOut, Unsupported

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


def failure_of(target, property_id, examples=150, **more):
    return properties(examples, **more)[f"generated/{property_id}"].run(target)


@pytest.mark.parametrize(
    ("name", "property_id", "examples"),
    [
        ("two lanes swapped", "words", 10),
        ("positions wrap at 2^34", "words", 60),
        ("fused multiply-add in the noise", "noise", 20),
        ("Bernoulli bits from the top", "noise", 20),
        ("digest over another order", "schemas", 60),
        ("-0.0 for dropped elements", "frames", 60),
        ("masks read most significant bit first", "frames", 60),
        ("r <= t", "samples", 60),
        ("an encoder that checks nothing", "encodings", 60),
        ("high plain bits first", "grid-encodings", 600),
        ("-0.0 for a 0 of a grid", "grid-frames", 60),
        ("the bounds of float32 for every dtype", "hostile-grids", 3000),
        ("the sums of a grid have no weight", "aggregates", 150),
        ("weights cut to 32 bits", "aggregates", 60),
        ("frames not counted in a merge", "merges", 60),
        ("rounding twice in the mean", "merges", 60),
        ("the mean of masked tensors rounded only once", "merges", 300),
        ("integer ties rounded up", "merges", 300),
        ("twice the count, without n", "tally-sums", 60),
        ("limbs added without the weight", "tally-sums", 60),
        ("the product in a double", "tally-sums", 600),
        ("the seed of frames not compared", "tallies", 150),
        ("counts most significant bit first", "tallies", 60),
        ("frames not counted in a merge of tallies", "tally-merges", 60),
    ],
)
def test_generated_cases_catch_mutants(name, property_id, examples):
    mutant = BY_NAME[name]
    failure = failure_of(Changed(changed_oracle(mutant.old, mutant.new)), property_id, examples)
    assert failure.finding.musts[0] == mutant.breaks


SMALL_FRAME = """
import sys
from mutants import Changed, without_check
from fedmrn_codec.conformance.properties import properties
from fedmrn_codec.conformance.request import Decode
failure = properties(600)["generated/hostile-frames"].run(Changed(without_check(sys.argv[1])))
assert sys.argv[1] in failure.finding.musts
assert isinstance(failure.request, Decode)
print(len(failure.request.frame))
"""

SMALL_SUM = """
from mutants import MUTANTS, Changed, changed_oracle
from fedmrn_codec.conformance.properties import properties
from fedmrn_codec.conformance.request import Aggregate
(mutant,) = [mutant for mutant in MUTANTS if mutant.name == "weights cut to 32 bits"]
target = Changed(changed_oracle(mutant.old, mutant.new))
request = properties(500)["generated/aggregates"].run(target).request
assert isinstance(request, Aggregate)
print(len(request.frames))
"""


def printed(program, *arguments):
    """What a program prints in a process that has loaded the kit alone, as its users' has.

    Where shrinking ends depends on what Hypothesis tries, and that on the numbers in the code of all modules
    that are loaded.
    """
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("number", ["F-17", "F-22", "F-27", "F-28"])
def test_a_hostile_frame_is_found_and_made_small(number):
    assert printed(SMALL_FRAME, number) <= 100  # header, one entry, a small payload, checksum


def test_a_failure_shrinks_to_a_small_sum():
    pytest.importorskip("hypothesis", "6.140", reason="older releases shrink less")
    assert printed(SMALL_SUM) <= 2


class Watched(Reference):
    """The oracle, and how often it was asked; `answer` may raise."""

    def __init__(self, answer=lambda request: None):
        super().__init__()
        self.asked, self.answer = [], answer

    def ask(self, request):
        self.asked.append(request)
        self.answer(request)
        return super().ask(request)


def test_examples_are_the_same_every_time_and_others_with_a_seed():
    runs = []
    for seed in (0, 0, 5, 5, 6):
        target = Watched()
        assert failure_of(target, "noise", 20, seed=seed) is None
        runs.append(target.asked)
    assert runs[0] == runs[1]
    assert runs[2] == runs[3]
    assert len({tuple(asked) for asked in runs}) == 3
    assert all(len(asked) == 20 for asked in runs)


def test_crashes_are_not_shrunk_for_ever():
    def answer(request):
        if len(request.frame) > 70:
            raise Broken("it was ended by SIGSEGV")

    target = Watched(answer)
    failure = failure_of(target, "frames")
    assert str(failure.finding) == "[M-02] it was ended by SIGSEGV"
    assert len(failure.request.frame) > 70
    assert sum(len(request.frame) > 70 for request in target.asked) <= CRASHES


def test_after_one_time_out_no_more_is_asked():
    def answer(request):
        raise TimedOut("no answer within 1 seconds")

    target = Watched(answer)
    assert failure_of(target, "words").finding.text == "no answer within 1 seconds"
    assert len(target.asked) == 1


def test_what_is_never_offered_is_skipped_and_what_is_at_times_is_not():
    def never(request):
        raise Unsupported("no")

    def at_times(request):
        if request.count > 5:
            raise Unsupported("no")

    (check,) = (c for c in checks(examples=10) if c.id == "generated/words")
    assert next(run(Watched(never), [check])).status == SKIPPED
    assert next(run(Watched(at_times), [check])).status == PASSED


def test_answers_that_differ_from_time_to_time_are_a_failure():
    target = Watched()
    complete = target.ask

    def ask(request):
        result = complete(request)
        return result if len(target.asked) % 7 else {"words": b""}

    target.ask = ask
    (check,) = (c for c in checks(examples=30) if c.id == "generated/words")
    assert next(run(target, [check])).status == FAILED


def test_every_operation_is_generated():
    assert {op for _, _, op, _ in ALL} == set(PROFILE_OF)
    assert {p.profile for p in properties(1).values()} == set(PROFILES)
    assert properties(0) == {}
    assert all(isinstance(p, Property) and dataclasses.is_dataclass(p) for p in properties(1).values())

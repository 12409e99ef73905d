"""Every broken implementation is caught, by the vectors, and the requirement that it breaks is named."""

import re

import pytest
from mutants import MUTANTS, OF_MANY, Changed, Mutant, Refuses, ShortWords, changed_oracle, without_check
from tally_mutants import TALLIES

from fedmrn_codec.conformance import oracle
from fedmrn_codec.conformance.check import Check
from fedmrn_codec.conformance.fields import partial_fields
from fedmrn_codec.conformance.layout import with_checksum
from fedmrn_codec.conformance.module import ModuleTarget
from fedmrn_codec.conformance.request import Aggregate, Decode, Request, Result
from fedmrn_codec.conformance.run import FAILED, PASSED, SKIPPED, run
from fedmrn_codec.conformance.suite import checks


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
    # Nothing but tallies uses their part of the oracle, and all other checks come before theirs.
    suite = [check for check in vectors if mutant not in TALLIES or check.profile == "tally"]
    failure = first_failure(Changed(changed_oracle(mutant.old, mutant.new)), suite)
    assert mutant.breaks in failure.musts[:1], failure.message
    assert failure.message.startswith(f"[{mutant.breaks}")


@pytest.mark.parametrize("number", oracle.CODES)
def test_an_implementation_without_one_check_is_caught(number: str, vectors: list[Check]):
    suite = [check for check in vectors if number in check.musts]
    failure = first_failure(Changed(without_check(number)), suite)
    assert number in failure.musts, failure.message


@pytest.mark.parametrize(("mutant", "only"), OF_MANY, ids=lambda value: getattr(value, "name", ""))
def test_a_mutant_that_only_large_requests_show_is_caught(mutant: Mutant, only: str):
    failure = first_failure(Changed(changed_oracle(mutant.old, mutant.new)), checks(only=[only]))
    assert mutant.breaks in failure.musts, failure.message


@pytest.mark.parametrize(
    ("only", "breaks"),
    [
        ("philox/*", "N-02"),
        ("noise/*", "N-04"),
        ("many/*:words", "N-02"),
        ("many/*:noise", "N-04"),
        ("many/*:sample", "M-04"),
    ],
)
def test_a_stream_that_loses_its_upper_half_from_64_words_on_is_caught(only: str, breaks: str):
    failures = [r for r in run(ShortWords(), checks(only=[only])) if r.status == FAILED]
    assert failures
    assert {failure.musts[0] for failure in failures} == {breaks}


def few(suite: list[Check]) -> list[Check]:
    """The first check of each kind of id, but for those that take long to compute."""
    kinds: dict[str, Check] = {}
    for check in suite:
        kinds.setdefault(re.sub(r"-[^:]*", "", check.id), check)
    return [
        check for id, check in kinds.items() if not id.startswith(("large/sum", "many/schema", "many/len"))
    ]


@pytest.mark.parametrize("code", ["coding", "request", "magic", "scale", "no code of the format"])
def test_refusals_everywhere_are_failures_of_what_is_valid(code: str):
    suite = few(checks(examples=1))
    if code == "coding":
        suite += checks(only=["large/uniform-binary-rans*:decode"])
    records = list(run(Refuses(code), suite))
    passed = {r.id for r in records if r.status == PASSED}
    assert not [id for id in passed if id.startswith(("frames/", "large/", "philox/", "noise/"))]
    for record in records:
        if record.id.startswith("large/") and record.id.endswith("rans:decode") and code == "coding":
            assert record.musts == ("6.8", "C-01", "C-02", "C-03", "C-04")
            assert "tensor 1, 'weight', coding 1, 70001 elements in 2 blocks" in record.message
        if record.id.startswith("philox/") or record.id.endswith(":words"):
            assert record.status == FAILED
            assert record.musts[:1] == (("CONFORMANCE 3",) if code == "request" else ("N-02",))


class Flips(ModuleTarget):
    """Decodes one bit of a coded mask wrongly."""

    def ask(self, request: Request) -> Result:
        result = super().ask(request)
        if isinstance(request, Decode) and len(request.frame) < 4000:
            *before, last = result["tensors"]
            assert isinstance(last, bytes)
            at = 4 * (65_536 + 1)
            return {"tensors": (*before, last[:at] + bytes([last[at] ^ 1]) + last[at + 1 :])}
        return result


def test_a_wrong_bit_of_a_large_mask_names_the_coding_its_checks_and_the_block():
    target = Flips("fedmrn_codec", "numpy")
    found = {r.id: r for r in run(target, checks(only=["large/*-rans*:decode"])) if r.status == FAILED}
    one = found["large/uniform-binary-rans:decode"]
    assert one.musts[:5] == ("6.8", "C-01", "C-02", "C-03", "C-04")
    assert "coding 1, 70001 elements in 2 blocks, block 1, element 65537 of 70001: expected" in one.message
    assert found["large/bernoulli-binary-rans12:decode"].musts[:2] == ("6.11", "C-05")
    assert one.request is not None


def test_a_wrong_bit_of_a_coded_mask_names_the_coding(vectors: list[Check]):
    mutant = Mutant("", "bits.append(int(s < p))", "bits.append(int(s < p) ^ (i == 7))", "6.8")
    blind = "require(probabilities(buckets, bits) == list(table),"
    module = changed_oracle(mutant.old, mutant.new, (blind, "require(True,"))
    suite = [check for check in vectors if check.id.startswith("frames/coded-") and ":decode" in check.id]
    failure = first_failure(Changed(module), suite)
    assert failure.musts[:3] == ("6.8", "C-03", "C-04")
    assert "the other bit; coding 1, block 0" in failure.message


class Cut(ModuleTarget):
    """Sums only the first 65536 elements of a tensor."""

    def ask(self, request: Request) -> Result:
        result = super().ask(request)
        if isinstance(request, Aggregate) and len(request.frames[0]) > 10_000:
            data = result["partial"]
            assert isinstance(data, bytes)
            field = next(
                f for f in partial_fields(data, oracle.parse_schema(request.schema)) if f.section == "8.2"
            )
            at = field.begin + 8 * 65_536
            return result | {"partial": with_checksum(data[:at] + bytes(field.end - at) + data[field.end :])}
        return result


def test_sums_of_many_elements_are_looked_at_to_the_end():
    (record,) = run(Cut("fedmrn_codec", "numpy"), checks(only=["large/sum:aggregate"]))
    assert (record.status, record.musts) == (FAILED, ("A-03", "8.2"))
    assert "partial sum: sums of 'mask' at byte " in record.message

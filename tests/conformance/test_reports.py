"""Expected failures, counts, JUnit and JSON."""

import json
import re
from xml.etree import ElementTree

import pytest
from mutants import MUTANTS, Changed, changed_oracle

from fedmrn_codec.conformance import oracle, replay, report, tally_vectors
from fedmrn_codec.conformance.fields import UNREAD, frame_fields, partial_fields, schema_fields, tally_fields
from fedmrn_codec.conformance.places import ELEMENTS, known, needed, place
from fedmrn_codec.conformance.reference import Reference
from fedmrn_codec.conformance.request import (
    PROFILES,
    REQUESTS,
    Decode,
    from_wire,
    result_from_wire,
    result_to_wire,
    to_wire,
)
from fedmrn_codec.conformance.run import EXPECTED, FAILED, PASSED, SKIPPED, Report, expected_failures, run
from fedmrn_codec.conformance.suite import checks
from fedmrn_codec.conformance.target import Refused, Unsupported
from fedmrn_codec.conformance.vector_files import FILES, folder, load

BAD = next(mutant for mutant in MUTANTS if mutant.name == "-0.0 for dropped elements")


def ran(**more) -> Report:
    """The run of a broken implementation that cannot merge, over a part of the suite."""

    class Partly(Changed):
        def ask(self, request):
            if request.op == "merge":
                raise Unsupported("no merging \x1b[0m here")
            return super().ask(request)

    target = Partly(changed_oracle(BAD.old, BAD.new))
    out = Report("partly", "0.1", tuple(PROFILES))
    suite = checks(only=["bits/*:decode", "aggregate/merge-*", "philox/*"])
    out.records += run(target, suite, **more)
    return out


def test_counts_and_what_is_broken():
    out = ran()
    assert not out.ok
    counted = [out.count(status) for status in (PASSED, FAILED, SKIPPED, EXPECTED)]
    assert counted[0] > 30
    assert counted[1] == out.broken["M-02"] > 2
    assert counted[2] == 17
    assert counted[3] == 0
    text = "\n".join(report.summary(out, 7))
    assert f"partly 0.1: {counted[0]} passed, {counted[1]} failed, 17 skipped" in text
    assert "violated, the one to fix first in front: [M-02]" in text
    assert "skipped 17: no merging" in text


def test_a_failure_says_what_is_broken_and_shows_the_frame():
    failure = ran().of(FAILED)[0]
    lines = report.lines_of(failure)
    assert lines[0] == f"FAILED {failure.id}"
    assert re.search(r"\[M-02\] tensor 9, 'w', element \d+, bit 0 of a binary mask: ", lines[1])
    assert "expected 00000000, got 80000000: -0.0 instead of +0.0" in lines[1]
    assert isinstance(failure.request, Decode)
    assert f"  minimal frame: {failure.request.frame.hex()}" in lines
    (request,) = (line for line in lines if line.startswith("  request: "))
    message = json.loads(request.removeprefix("  request: "))
    assert from_wire(message["op"], message) == failure.request


def test_fail_fast_stops_at_the_first_failure():
    out = ran(fail_fast=True)
    assert out.count(FAILED) == 1
    assert out.records[-1].status == FAILED


def test_expected_failures_are_no_failures_and_unexpected_passes_are():
    ids = {record.id for record in ran().of(FAILED)}
    out = ran(expected=ids)
    assert out.ok
    assert {record.id for record in out.of(EXPECTED)} == ids
    assert ", 0 failed, 17 skipped, " in report.counts(out)
    assert report.counts(out).endswith(f"{len(ids)} failed as expected")

    out = ran(expected=ids | {"philox/first:words", "aggregate/merge-scales:merge"})
    (wrong,) = out.of(FAILED)
    assert wrong.id == "philox/first:words"
    assert wrong.message == "[N-02, 2.1, 2.2] expected a failure, as the file of these says, got a pass"


def test_the_file_of_expected_failures(tmp_path):
    file = tmp_path / "expected.txt"
    file.write_text("# all of it\n\n  frames/mixed:decode  # later\nphilox/first:words\n", encoding="utf-8")
    assert expected_failures(file) == {"frames/mixed:decode", "philox/first:words"}


def test_junit_says_the_same():
    out = ran(expected={ran().of(FAILED)[0].id})
    root = ElementTree.fromstring(report.junit(out))
    (suite,) = root
    assert root.tag == "testsuites"
    assert int(suite.get("tests")) == len(out.records) == len(suite.findall("testcase"))
    assert int(suite.get("failures")) == out.count(FAILED) == len(suite.findall("testcase/failure"))
    assert int(suite.get("skipped")) == out.count(SKIPPED) + 1 == len(suite.findall("testcase/skipped"))
    failure = suite.find("testcase/failure")
    assert failure.get("message").startswith("[M-02] ")
    assert "minimal frame: " in failure.text
    messages = [skipped.get("message") for skipped in suite.findall("testcase/skipped")]
    assert sum(message.startswith("expected failure: [M-02]") for message in messages) == 1
    assert "no merging \\x1b[0m here" in messages


def test_json_says_the_same():
    out = ran()
    document = json.loads(json.dumps(report.document(out)))
    assert document["ok"] is False
    assert document["failed"] == len([c for c in document["checks"] if c["status"] == "failed"])
    assert document["broken"] == out.broken
    assert {c["status"] for c in document["checks"]} == {"passed", "failed", "skipped"}
    assert len(document["checks"]) == len(out.records)


def test_a_run_of_nothing_is_not_ok():
    assert not Report("x", "1", ()).ok
    assert "no check was run" in report.summary(Report("x", "1", ()), 0)


# --- what the reports are made of -------------------------------------------------------------------


def test_ids_are_unique_and_every_vector_is_asked():
    ids = [check.id for check in checks(examples=1)]
    assert len(ids) == len(set(ids))
    asked = {id.partition(":")[0] for id in ids}
    assert {case["id"] for name in FILES for case in load(name)} <= asked
    assert {path.stem for path in folder().glob("*.json")} == {
        *FILES,
        "envelopes",
        "secagg",
    }  # no part of the format


def test_profiles_divide_the_checks():
    parts = [{check.id for check in checks([profile], examples=1)} for profile in PROFILES]
    assert sum(map(len, parts)) == len(checks(examples=1)) == len(set.union(*parts))


def test_requests_and_results_survive_the_wire():
    seen = set()
    for check in checks():
        for request, expected in getattr(check, "steps", ()):
            seen.add(request.op)
            assert from_wire(request.op, json.loads(json.dumps(to_wire(request)))) == request
            if not isinstance(expected, Refused):
                assert result_from_wire(request, json.loads(json.dumps(result_to_wire(expected)))) == expected
    assert seen == set(REQUESTS)


def test_fields_cover_all_bytes():
    for case in load("frames"):
        data, raw = bytes.fromhex(case["frame"]), bytes.fromhex(case["schema_bytes"])
        schema = oracle.parse_schema(raw)
        cover(frame_fields(data, schema), data)
        cover(schema_fields(raw), raw)
    for check in replay.means():
        for request, expected in check.steps:
            if not isinstance(expected, Refused):
                schema = oracle.parse_schema(request.schema)
                cover(partial_fields(expected["partial"], schema), expected["partial"])
    for check in tally_vectors.tallies():
        for request, expected in check.steps:
            if "tally" in getattr(expected, "keys", tuple)():
                schema = oracle.parse_schema(request.schema)
                cover(tally_fields(expected["tally"], schema), expected["tally"])


def cover(fields, data):
    assert [field.begin for field in fields] == [0, *(field.end for field in fields[:-1])]
    assert fields[-1].end == len(data)
    assert UNREAD not in {field.name for field in fields}


def test_every_word_of_the_vectors_has_a_place():
    assert set(needed()) == set(known())
    for word, (seed, stream, start) in known().items():
        assert start < ELEMENTS
        assert oracle.philox_word(seed, stream, start) == word
    found = place(0x12345678)  # not among them: searched for
    assert oracle.philox_word(*found) == 0x12345678


def test_the_reference_gives_no_code_to_an_encoder():
    (case,) = (case for case in checks(["encode"]) if case.id == "extra/e02-nan-float32:encode")
    ((request, _),) = case.steps
    with pytest.raises(Refused) as caught:
        Reference().ask(request)
    assert (caught.value.code, caught.value.number) == ("", "E-02")

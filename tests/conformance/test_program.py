"""A program under test may crash, hang and babble: each is a failure of the check that was asked."""

import sys
from pathlib import Path

import pytest

from fedmrn_codec.conformance import protocol, replay
from fedmrn_codec.conformance.program import HANGS, CommandTarget
from fedmrn_codec.conformance.request import Digest, Encode, Words
from fedmrn_codec.conformance.run import FAILED, PASSED, SKIPPED, run
from fedmrn_codec.conformance.target import Broken, TimedOut, Unsupported

WORDS = Words(seed=0, stream=0, start=0, count=4)
EMPTY = Encode(schema=bytes(4), seed=0, base_model=0, round=0, embed_schema=False, tensors=())


@pytest.fixture
def program():
    """Start `bad_program.py` in a mode; it is ended with the test."""
    started = []

    def start(mode, timeout=20.0):
        command = [sys.executable, str(Path(__file__).with_name("bad_program.py")), mode]
        started.append(CommandTarget(command, timeout))
        return started[-1]

    yield start
    for target in started:
        target.close()


def test_a_good_program_passes(program):
    target = program("good")
    checks = [*protocol.first(), *replay.words(), *replay.digests(), *protocol.last()]
    assert {record.status for record in run(target, checks)} == {PASSED}
    assert (target.name, target.version, target.profiles) == (
        "oracle",
        "1.0",
        ("decode", "encode", "aggregate", "tally"),
    )


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("crash", "no answer: it was ended by SIGABRT; its standard error ends: no such lane"),
        ("exit", "no answer: it ended with exit code 3; it wrote nothing to standard error"),
        ("garbage", "malformed answer: expected JSON, got '\\xff\\xfe lane 3: ok\\n'"),
        ("no-object", "malformed answer: expected a JSON object, got "),
        ("wrong-id", "malformed answer: `id`: expected 2, got 3"),
        ("two-outcomes", "malformed answer: expected exactly one of"),
        ("no-outcome", "malformed answer: expected exactly one of"),
        ("no-code", "malformed answer: `error`: expected a code, got "),
        ("unsupported-false", "malformed answer: `unsupported`: expected true, got "),
        ("no-base64", "malformed answer: string argument should contain only ASCII characters"),
        ("no-member", "malformed answer: `result`: expected a member `words`, got none"),
        ("result-list", "malformed answer: `result`: expected an object, got list"),
    ],
)
def test_a_malformed_answer_is_a_failure_with_its_reason(program, mode, message):
    target = program(mode)
    with pytest.raises(Broken) as caught:
        target.ask(WORDS)
    assert str(caught.value).startswith(message)


def test_after_a_crash_the_program_is_started_again(program):
    target = program("crash")
    records = list(run(target, list(replay.words())[:3]))
    assert [record.status for record in records] == [FAILED] * 3
    assert all("SIGABRT" in record.message and record.message.startswith("[N-02") for record in records)


def test_a_program_that_hangs_is_ended_and_later_left_alone(program):
    target = program("hang-on-digest")
    for _ in range(HANGS):
        assert target.ask(WORDS)["words"][:4] == bytes.fromhex("d5e82766")
        target.timeout = 0.2
        with pytest.raises(TimedOut, match=r"no answer within 0.2 seconds"):
            target.ask(Digest(schema=bytes(4)))
        target.timeout = 20.0
    with pytest.raises(Broken, match="request not sent: the program has timed out 3 times"):
        target.ask(WORDS)


def test_much_ado_on_standard_error_does_no_harm(program):
    target = program("complains")
    assert target.ask(WORDS) == target.ask(WORDS)


def test_a_line_too_many_is_found_with_the_next_answer(program):
    target = program("twice")
    target.ask(WORDS)
    with pytest.raises(Broken, match="`id`: expected 3, got 2"):
        target.ask(WORDS)


def test_what_is_not_offered_is_skipped(program):
    target = program("no-encode")
    with pytest.raises(Unsupported, match="`encode`"):
        target.ask(EMPTY)
    (record,) = run(target, [case for case in replay.encodings() if "worked-example:" in case.id])
    assert (record.status, record.message) == (SKIPPED, "the program answers `unsupported` to `encode`")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("hello-empty", r"`hello`: expected `name`, `version` and `profiles`, got \[\]"),
        ("hello-error", "`hello`: expected a result that is an object, got none"),
        (
            "hello-unknown-profile",
            "profiles of `hello`: expected some of decode, encode, aggregate, tally, got ",
        ),
    ],
)
def test_a_program_must_introduce_itself(program, mode, message):
    with pytest.raises(Broken, match=message):
        program(mode)


def test_a_program_may_offer_less(program):
    assert program("decode-only").profiles == ("decode",)


def test_a_program_that_does_not_exist():
    with pytest.raises(OSError, match="no-such-program"):
        CommandTarget("./no-such-program")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("exit-code-at-end", "end of input: expected exit code 0, got: it ended with exit code 4"),
        ("deaf-to-the-end", "still running 1 seconds after its input ended"),
    ],
)
def test_a_program_ends_with_its_input(program, mode, message):
    target = program(mode)
    target.timeout = 1.0
    (record,) = run(target, protocol.last())
    assert record.status == FAILED
    assert record.message.startswith(f"[CONFORMANCE 3] {message}")


@pytest.mark.parametrize(
    ("mode", "id", "message"),
    [
        ("answers-blank-lines", "blank-lines", "malformed answer: `id`: expected 2, got None"),
        ("dies-at-malformed", "no-requests", "no answer: it ended with exit code 1"),
        (
            "another-code-for-malformed",
            "no-requests",
            "a line with no JSON: expected the error `request`, got ",
        ),
        (
            "another-code-for-malformed",
            "malformed-members",
            "`words`, where `seed` is absent: expected the error",
        ),
        (
            "answers-beyond-the-range",
            "malformed-members",
            "`words`, where `seed` is absent: expected the error `request`, got another answer; `words`, ",
        ),
        ("refuses-more-members", "optional-members", "`decode` with a member that the table does not have: "),
        (
            "needs-codings",
            "optional-members",
            "`encode` with no coding: expected an answer, got the error `req",
        ),
    ],
)
def test_what_a_program_does_with_lines_that_are_no_requests(program, mode, id, message):
    (check,) = [check for check in protocol.first() if check.id == f"protocol/{id}"]
    (record,) = run(program(mode), [check])
    assert (record.status, record.musts) == (FAILED, ("CONFORMANCE 3",))
    assert record.message.startswith(f"[CONFORMANCE 3] {message}")


def test_members_that_are_out_of_range_together(program):
    """The sum of two members that are in range each; only a few of many findings are listed."""
    (check,) = [check for check in protocol.first() if check.id == "protocol/malformed-members"]
    (record,) = run(program("answers-beyond-the-range"), [check])
    assert record.message.endswith(" more")
    assert record.message.count("; ") == protocol.SHOWN
    found = list(protocol._wrongly_answered(program("answers-beyond-the-range")))
    assert sum("where start + count is" in text for text in found) == 4


def test_the_id_of_a_request_that_is_no_integer(program):
    target = program("good")
    assert target.exchange_line(b'{"id": 1.5, "op": "hello"}', None) == {"id": None, "error": "request"}


def test_an_unknown_operation_is_not_refused_but_unsupported(program):
    (record,) = run(program("error-for-unknown"), [next(protocol.first())])
    assert (record.status, record.musts) == (FAILED, ("CONFORMANCE 3",))

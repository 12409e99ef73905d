"""No program under test makes the kit crash or hang: the exit code is 1, and there is a report."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from fedmrn_codec.cli.app import app
from fedmrn_codec.conformance import program
from fedmrn_codec.conformance.program import RESTARTS_IN_A_ROW, CommandTarget
from fedmrn_codec.conformance.request import Words
from fedmrn_codec.conformance.run import FAILED, PASSED
from fedmrn_codec.conformance.target import Broken

FILE = Path(__file__).with_name("nonsense_program.py")
WORDS = Words(seed=0, stream=0, start=0, count=4)
ONE_OF_EACH = (
    *("protocol/*", "philox/first:*", "noise/uniform-one:*", "bits/pack-9:*", "bits/padding-9:*"),
    *("schema/empty:*", "frames/worked-example:*", "frames/coded:*", "frames/grid-mixed:*", "invalid/f0*"),
    *("extra/n03-zero-*", "extra/e02-nan-float32:*", "aggregate/mixed:*", "aggregate/coded:*"),
    *("partials_invalid/p02-*", "generated/words", "generated/hostile-frames", "generated/merges", "state/*"),
)


def report_of(runner, command, *more, timeout=20):
    """The report of a run over checks of every kind, as JSON; the exit code must be 1."""
    only = [part for pattern in ONE_OF_EACH for part in ("--only", pattern)]
    arguments = ["conformance", "--command", command, "--examples", "3", "--timeout", str(timeout), "--json"]
    done = runner.invoke(app, [*arguments, *only, *more])
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 1, (done.stdout[-2000:], done.stderr)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "mode",
    [
        *(
            "noise",
            "dies",
            "closes-its-output",
            "deep",
            "digits",
            "wrong-id",
            "id-of-another-type",
            "long-id",
        ),
        *(
            "long-code",
            "surrogate-code",
            "refuses",
            "refuses-coding",
            "empty-results",
            "empty-lists",
            "odd-bytes",
        ),
        *("dies-at-once", "hello-unhashable", "hello-long", "endless-lines"),
    ],
)
def test_nonsense_is_a_failure_with_a_report(runner, tmp_path, mode):
    junit = tmp_path / "junit.xml"
    report = report_of(runner, f"{sys.executable} {FILE} {mode}", "--junit", junit)
    assert report["failed"] > 0
    assert junit.read_bytes().startswith(b"<?xml")
    assert all(len(check["message"]) < 4000 for check in report["checks"])
    failed = [check for check in report["checks"] if check["status"] == FAILED]
    assert all(check["musts"] and check["message"] for check in failed)
    if mode in ("noise", "dies", "deep", "wrong-id"):
        sent = [check for check in failed if "request not sent" not in check["message"]]
        assert len(sent) <= RESTARTS_IN_A_ROW + 1
        assert f"had to be restarted {RESTARTS_IN_A_ROW} times in a row" in failed[-2]["message"]


def test_what_is_printed_cannot_control_a_terminal(runner):
    for mode in ("hello-surrogates", "surrogate-code", "noise"):
        command = f"{sys.executable} {FILE} {mode}"
        only = ("--only", "philox/first:*", "--examples", "0")
        done = runner.invoke(app, ["conformance", "--command", command, *only])
        assert done.exit_code == 1, (done.stderr, done.exception)
        assert "\x1b" not in done.stdout


@pytest.mark.parametrize("mode", ["slow-line", "closes-its-output"])
def test_time_outs_are_few(runner, mode):
    begin = time.monotonic()
    report = report_of(runner, f"{sys.executable} {FILE} {mode}", timeout=1)
    passed = [check["id"] for check in report["checks"] if check["status"] == PASSED]
    assert all(id.startswith("protocol/") for id in passed)
    messages = [check["message"] for check in report["checks"] if check["status"] == FAILED]
    assert any("request not sent" in message for message in messages)
    assert sum("no answer within 1 seconds" in message for message in messages) <= program.HANGS
    assert time.monotonic() - begin < 300


def test_an_endless_line_is_cut_off():
    target = CommandTarget([sys.executable, str(FILE), "endless-line"], 60.0)
    with pytest.raises(
        Broken, match="malformed answer: expected a line of at most 16777216 bytes, got 'AAAA"
    ):
        target.ask(WORDS)
    target.close()


def test_a_process_that_keeps_the_output_open_is_not_waited_for():
    target = CommandTarget([sys.executable, str(FILE), "leaves-a-process"], 2.0)
    begin = time.monotonic()
    with pytest.raises(Broken, match="no answer"):
        target.ask(WORDS)
    target.close()
    assert time.monotonic() - begin < 15  # its process lives for 20 seconds


def test_a_program_that_cannot_be_started_again(tmp_path):
    copy = tmp_path / "program"
    shutil.copy(FILE, copy)
    copy.write_text(f"#!{sys.executable}\n" + FILE.read_text(encoding="utf-8"), encoding="utf-8")
    copy.chmod(0o755)
    if os.name != "posix":
        pytest.skip("files that run by their first line are of POSIX")
    target = CommandTarget([str(copy), "deletes-itself", str(copy)], 20.0)
    with pytest.raises(Broken, match="it ended with exit code 3"):
        target.ask(WORDS)
    with pytest.raises(Broken, match="the program cannot be started again: "):
        target.ask(WORDS)


def test_no_more_is_sent_after_many_restarts(monkeypatch):
    monkeypatch.setattr(program, "RESTARTS", 4)
    target = CommandTarget([sys.executable, str(FILE), "dies"], 20.0)
    for again in range(4):
        if again:
            target.exchange("hello", {})  # a good answer: the restarts are not in a row
        with pytest.raises(Broken, match="exit code 3"):
            target.ask(WORDS)
    with pytest.raises(Broken, match="request not sent: the program had to be restarted 4 times in all"):
        target.ask(WORDS)


def test_all_operations_unsupported_is_a_run_of_nothing(runner):
    report = report_of(runner, f"{sys.executable} {FILE} unsupported")
    assert {check["status"] for check in report["checks"] if check["id"].startswith("philox/")} == {"skipped"}
    assert not [c for c in report["checks"] if c["status"] == PASSED and not c["id"].startswith("protocol/")]

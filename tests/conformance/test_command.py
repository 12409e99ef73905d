"""The verb `fedmrn conformance`."""

import json
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fedmrn_codec.cli.app import app
from fedmrn_codec.conformance.protocol import IDS
from fedmrn_codec.conformance.run import SKIPPED

PROGRAM = shlex.join([sys.executable, str(Path(__file__).with_name("bad_program.py"))])
SERVE = shlex.join([sys.executable, "-m", "fedmrn_codec.conformance.serve", "--backend", "numpy"])
NUMPY = ("--module", "fedmrn_codec", "--backend", "numpy")


@pytest.fixture(scope="module")
def invoke(runner):
    def run(code, *args):
        result = runner.invoke(app, ["conformance", *map(str, args)])
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    return run


def test_this_project_over_the_line_protocol(invoke, tmp_path):
    junit = tmp_path / "junit.xml"
    done = invoke(0, "--command", SERVE, "--examples", 3, "--junit", junit)
    assert "fedmrn_codec (numpy) 0.1.0: " in done.stdout
    assert " 0 failed, 7 skipped\n" in done.stdout
    (suite,) = ElementTree.parse(junit).getroot()
    assert int(suite.get("tests")) > 750
    names = {case.get("name") for case in suite}
    assert {"protocol/unknown-operation", "frames/mixed:encode", "generated/merges", "protocol/end"} <= names


def test_a_module_and_a_choice_of_checks(invoke):
    done = invoke(0, *NUMPY, "--only", "philox/*", "--only", "generated/noise", "--examples", 4, "--seed", 9)
    assert "skipped 2: `philox_words` has no words beyond 2^64" in done.stdout
    assert ": 27 passed, 0 failed, 2 skipped" in done.stdout


def test_a_profile(invoke):
    document = json.loads(invoke(0, *NUMPY, "--profile", "encode", "--examples", 0, "--json").stdout)
    assert document["profiles"] == ["encode"]
    assert document["passed"] > 90
    beside = ["frames/grid-mixed:encode", "frames/grid-mixed-embedded:encode"]  # not what encode_grid makes
    assert [check["id"] for check in document["checks"] if check["status"] == SKIPPED] == beside
    assert len(document["checks"]) == document["passed"] + len(beside)  # the passed ones are listed too
    assert all(check["request"] is None and not check["message"] for check in document["checks"][:5])


def test_the_checks_of_the_protocol_alone(invoke):
    done = invoke(0, "--command", SERVE, "--examples", 0, "--only", "protocol/*", "--json")
    document = json.loads(done.stdout)
    assert [check["id"] for check in document["checks"]] == [id for id in IDS if id != "protocol/hello"]
    assert document["passed"] == len(IDS) - 1
    only = ("--only", "protocol/blank-lines", "--only", "philox/first:*")
    assert ": 2 passed, 0 failed, 0 skipped" in invoke(0, "--command", SERVE, "--examples", 0, *only).stdout


def test_failures_are_shown_and_the_exit_code_is_1(invoke):
    done = invoke(1, "--command", f"{PROGRAM} no-member", "--examples", 0, "--only", "*:words")
    assert done.stdout.count("FAILED ") == 20
    assert "... and 28 more" in done.stdout
    assert (
        "FAILED philox/first:words\n  [N-02, 2.1, 2.2] malformed answer: `result`: expected a member"
        in done.stdout
    )
    assert "violated, the one to fix first in front: [N-02] 48" in done.stdout
    done = invoke(1, "--command", f"{PROGRAM} no-member", "--examples", 0, "--only", "*:words", "-x")
    assert ": 0 passed, 1 failed, 0 skipped" in done.stdout


def test_a_program_that_never_says_hello(invoke):
    done = invoke(1, "--command", f"{PROGRAM} hello-empty")
    assert "FAILED protocol/hello\n  [CONFORMANCE 3] hello: " in done.stdout


def test_expected_failures(invoke, tmp_path):
    file = tmp_path / "expected.txt"
    file.write_text("philox/first:words  # soon\n", encoding="utf-8")
    only = ("--examples", 0, "--only", "philox/first:words", "--expected-failures", file)
    assert "1 failed as expected" in invoke(0, "--command", f"{PROGRAM} no-member", *only).stdout
    assert "expected a failure, as the file of these says, got a pass" in invoke(1, *NUMPY, *only).stdout
    file.write_text("philox/frist:words\n", encoding="utf-8")
    assert "expected ids of checks, got philox/frist:words" in invoke(2, *NUMPY, *only).stderr


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("target: expected either --module or --command, got none", ()),
        ("target: expected either --module or --command, got both", (*NUMPY, "--command", "x")),
        (
            "--backend: expected together with --module, got --command",
            ("--command", "x", "--backend", "numpy"),
        ),
        (
            "--profile: expected some of decode, encode, aggregate, tally, got all",
            (*NUMPY, "--profile", "decode,all"),
        ),
        ("cannot be imported", ("--module", "no_such_module")),
        (
            "backend: expected one of numba, numpy, torch, onnx, got 'abacus'",
            ("--module", "fedmrn_codec", "--backend", "abacus"),
        ),
        ("cannot be started", ("--command", "./no-such-program")),
        ("cannot be started", ("--command", "'open")),
        ("cannot be started", ("--command", "")),
    ],
)
def test_wrong_usage(invoke, message, args):
    done = invoke(2, *args)
    assert message in " ".join(done.stderr.split())


def test_a_file_that_is_missing(invoke):
    invoke(3, *NUMPY, "--expected-failures", "no-such-file.txt")


def test_without_hypothesis_the_vectors_still_run(invoke, monkeypatch):
    monkeypatch.setattr("fedmrn_codec.cli.verbs.conformance.find_spec", lambda name: None)
    done = invoke(2, *NUMPY)
    assert "pip install 'fedmrn-codec[conformance]'" in " ".join(done.stderr.split())
    invoke(0, *NUMPY, "--examples", 0, "--only", "philox/first:*")

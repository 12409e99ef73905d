"""verify and aggregate with --policy: what it refuses, the exit codes, and what the options exclude."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import fedmrn_codec as fm


@pytest.fixture
def policy(folder):
    """The policy of a.fmrn and c.fmrn, in policy.toml; b.fmrn has a signed mask."""
    policy = fm.Policy(
        schema=fm.inspect(Path("a.fmrn").read_bytes()).schema,
        noise=fm.Uniform(0.01),
        round=0,
        base_model=0,
        seeds={"a": 7, "b": 8, "c": 9, "big": 10},
        max_weight=600,
        embedded=True,
    )
    Path("policy.toml").write_text(policy.to_toml(), encoding="utf-8")
    return policy


OPTION = ("--policy", "policy.toml")


def test_verify(policy, frame, invoke):
    shutil.copy("a.fmrn", "eve.fmrn")
    Path("big.fmrn").write_bytes(frame(10) + bytes(10**6))
    Path("again").mkdir()
    shutil.copy("a.fmrn", "again/a.fmrn")
    names = ("a.fmrn", "b.fmrn", "c.fmrn", "eve.fmrn", "big.fmrn", "again/a.fmrn")
    found = json.loads(invoke(1, "verify", *OPTION, *names, "--json").stdout)
    codes = [file.get("error", {}).get("code") for file in found["files"]]
    assert codes == [None, "reply", None, "unknown_client", "frame_length", "repeated"]
    assert {file["error"]["class"] for file in found["files"] if not file["ok"]} == {"refused"}
    assert invoke(0, "verify", *OPTION, "a.fmrn", "c.fmrn", "--all-backends").stdout.count("agree") == 2
    assert "the client is the file name without its suffix" in invoke(1, "verify", *OPTION, "eve.fmrn").stdout


def test_verify_refuses_partial_sums(policy, invoke):
    invoke(0, "aggregate", "a.fmrn", "--partial", "a.fmrs")
    assert "[frame_length]" in invoke(1, "verify", *OPTION, "a.fmrs").stdout
    longer = dataclasses.replace(policy, max_bytes=10**6)
    Path("policy.toml").write_text(longer.to_toml(), encoding="utf-8")
    assert "[magic]" in invoke(1, "verify", *OPTION, "a.fmrs").stdout


def test_no_more_of_a_file_is_read_than_shows_that_it_is_too_long(policy, invoke):
    with open("big.fmrn", "wb") as file:
        file.truncate(2**40)  # a sparse file, of more bytes than there is memory
    for verb in ("verify", "aggregate"):
        found = invoke(1, verb, *OPTION, "big.fmrn", *(("-o", "x.npz") if verb == "aggregate" else ()))
        assert "frame_length" in found.stdout + found.stderr


def test_aggregate(policy, invoke):
    found = json.loads(invoke(0, "aggregate", *OPTION, "a.fmrn", "c.fmrn", "-o", "x.npz", "--json").stdout)
    assert (found["frames"], found["skipped"]) == (2, [])
    invoke(0, "aggregate", "a.fmrn", "c.fmrn", "-o", "y.npz")
    with np.load("x.npz") as ours, np.load("y.npz") as plain:
        assert all(ours[name].tobytes() == plain[name].tobytes() for name in plain.files)


def test_aggregate_stops_or_leaves_out_what_is_refused(policy, invoke):
    invoke(0, "aggregate", "a.fmrn", "--partial", "sum.fmrs")
    shutil.copy("c.fmrn", "eve.fmrn")
    names = ("b.fmrn", "sum.fmrs", "a.fmrn", "c.fmrn", "eve.fmrn")
    assert "[reply]" in invoke(1, "aggregate", *OPTION, *names, "-o", "x.npz").stderr
    assert not Path("x.npz").exists()
    weights = ("--weights", "1,1,1,601,1")
    options = (*OPTION, *names, *weights, "-o", "x.npz", "--skip-bad", "--json")
    found = json.loads(invoke(0, "aggregate", *options).stdout)
    assert (found["frames"], found["weight"]) == (1, 1)
    skipped = [(problem["file"], problem["code"]) for problem in found["skipped"]]
    refused = [("b.fmrn", "reply"), ("sum.fmrs", "frame_length"), ("c.fmrn", "frame_weight")]
    assert skipped == [*refused, ("eve.fmrn", "unknown_client")]


def test_the_first_frame_states_nothing(policy, frame, invoke):
    """Under a policy, a frame with other noise is left out, also if it comes first."""
    Path("a.fmrn").write_bytes(frame(7, noise=fm.Uniform(0.5)))
    options = (*OPTION, "a.fmrn", "c.fmrn", "-o", "x.npz", "--skip-bad", "--json")
    found = json.loads(invoke(0, "aggregate", *options).stdout)
    assert [problem["code"] for problem in found["skipped"]] == ["reply"]


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("verify", ("--schema", "a.fmrn")),
        ("verify", ("--round", 0)),
        ("verify", ("--base-model", 0)),
        ("verify", ("--seed", 7)),
        ("aggregate", ("--schema", "a.fmrn")),
        ("aggregate", ("--round", 0)),
        ("aggregate", ("--base-model", 0)),
        ("aggregate", ("--noise", "uniform:0.01")),
        ("aggregate", ("--engine", "ray")),
    ],
)
def test_options_that_the_policy_excludes(policy, invoke, verb, options):
    assert f"{options[0]}" in invoke(2, verb, *OPTION, "a.fmrn", *options).stderr


def test_bad_policy_files(policy, invoke):
    for verb in ("verify", "aggregate"):
        assert "No such file" in invoke(3, verb, "a.fmrn", "--policy", "missing.toml").stderr
        for data in (b"\xff", b"round = ", b"[" * 10**5):
            Path("bad.toml").write_bytes(data)
            assert "not valid TOML" in invoke(3, verb, "a.fmrn", "--policy", "bad.toml").stderr
        Path("bad.toml").write_text(policy.to_toml().replace("max_weight", "max_wait"), encoding="utf-8")
        found = json.loads(invoke(2, verb, "a.fmrn", "--policy", "bad.toml", "--json").stderr)["error"]
        assert (found["file"], found["got"]) == ("bad.toml", "'max_wait'")
        Path("bad.toml").write_bytes(b"x=1")
        assert "keys of the policy" in invoke(2, verb, "a.fmrn", "--policy", "bad.toml").stderr


def test_each_seed_once(policy, invoke):
    loose = dataclasses.replace(policy, seeds=None)
    Path("policy.toml").write_text(loose.to_toml(), encoding="utf-8")
    shutil.copy("a.fmrn", "copy.fmrn")
    assert "[repeated]" in invoke(1, "verify", *OPTION, "a.fmrn", "copy.fmrn").stdout

"""replay: a journal in the shell."""

import json
from pathlib import Path

import journals
import numpy as np
import pytest

import fedmrn_codec as fm


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server whose journal of 3 rounds is in the folder j of the working directory."""
    monkeypatch.chdir(tmp_path)
    return journals.written("j")


def flip(name):
    path = Path("j", name)
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)


def test_replay(server, invoke):
    done = invoke(0, "replay", "j")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        *(f"round {n}: 2 frames, weight 201, model {server.ids[n]}" for n in (1, 2, 3)),
        f"j: 3 rounds, 6 frames, replayed to the bit; model {server.ids[3]}, digest {server.journal.digest}",
    ]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_replay_json_is_the_same_on_every_backend(server, invoke, backend):
    found = json.loads(invoke(0, "replay", "j", "--json", "--backend", backend).stdout)
    assert found["model_id"] == server.ids[3]
    assert found["digest"] == server.journal.digest
    assert found["frames"] == 6
    assert found["start"]["not_computed"] == ["w", "b"]
    assert [each["round"] for each in found["rounds"]] == [1, 2, 3]
    assert [each["model_id"] for each in found["rounds"]] == [server.ids[n] for n in (1, 2, 3)]
    assert [each["not_computed"] for each in found["rounds"]] == [[], [], []]
    first = found["rounds"][0]["clients"][0]
    assert (first["client"], first["weight"]) == ("client0", 100)
    assert first["seed"] >= 2**63
    sizes = [sum(client["bytes"] for client in each["clients"]) for each in found["rounds"]]
    assert all(0 < size < each["bytes"] for size, each in zip(sizes, found["rounds"], strict=True))


def test_a_step_of_the_server_s_own_is_named(tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)

    def halved(model, mean):
        new = fm.apply(model, mean)
        return new | {"b": new["b"] * np.float32(0.5)}

    journals.written("j", rounds=1, optimizer=halved)
    assert invoke(0, "replay", "j").stdout.splitlines()[0].endswith(", the server's own step for b")
    assert json.loads(invoke(0, "replay", "j", "--json").stdout)["rounds"][0]["not_computed"] == ["b"]


@pytest.mark.parametrize("name", ["round-000000.fmrj", "round-000002.fmrj", "head.json"])
def test_a_changed_byte(server, invoke, name):
    flip(name)
    done = invoke(1, "replay", "j")
    assert f"error: j/{name}: round " in done.stderr
    assert "[journal]" in done.stderr
    done = invoke(1, "replay", "j", "--json")
    assert done.stdout == ""
    problem = json.loads(done.stderr)["error"]
    assert (problem["code"], problem["class"], problem["file"]) == ("journal", "malformed", f"j/{name}")
    assert problem["field"].startswith("round ")


def test_a_cut_journal(server, invoke):
    Path("j", "round-000003.fmrj").unlink()
    done = invoke(1, "replay", "j")
    assert "error: j/round-000003.fmrj: round 3, file: expected one, since head.json names it" in done.stderr


def test_a_digest_that_was_noted(server, invoke):
    rounds = json.loads(invoke(0, "replay", "j", "--json").stdout)["rounds"]
    for each in rounds:
        invoke(0, "replay", "j", "--digest", each["digest"].upper())
    done = invoke(1, "replay", "j", "--digest", "0" * 64)
    assert (
        f"error: j: digest: expected {'0' * 64} in one of the 3 rounds, got others [journal]" in done.stderr
    )


def test_usage_and_files(server, invoke):
    assert "abacus" in invoke(2, "replay", "j", "--backend", "abacus").stderr
    assert "nowhere" in invoke(3, "replay", "nowhere").stderr
    assert "head.json" in invoke(1, "replay", ".").stderr
    Path("j", "round-000002.fmrj").unlink()
    Path("j", "round-000002.fmrj").mkdir()
    assert "j/round-000002.fmrj: Is a directory" in invoke(3, "replay", "j").stderr


def test_control_characters_are_not_printed(tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    server = journals.Server("j")
    accepted, total, model = server.ask(1)
    named = dict(zip(["a\x1b[2J", "b"], accepted.values(), strict=True))
    server.journal.append(named, total, model)
    server.journal.close()
    found = invoke(0, "replay", "j", "--json").stdout
    assert json.loads(found)["rounds"][0]["clients"][0]["client"] == "a\x1b[2J"
    assert "\x1b" not in found + invoke(0, "replay", "j").stdout

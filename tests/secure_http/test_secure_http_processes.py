"""The programs of the example as processes: whole runs, and clients and servers that are killed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from secure_http_cases import (
    EXAMPLE,
    HERE,
    LATEST,
    ended,
    free_port,
    lines_of,
    start,
    start_server,
    wait_until,
    write_folder,
)

SECONDS = 3
"""Of a step: long enough for clients on a busy machine, which have nothing to import any more."""


def start_clients(running, address, folder, names, last=None):
    """Clients without training, which begin together; `last` has the round and the step of those that end."""
    made = {}
    for name in names:
        arguments = (address, name, folder, *(last or {}).get(name, ()))
        made[name] = start(
            HERE / "fragile_client.py", *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        running.append(made[name])
    for client in made.values():
        assert client.stdout.readline() == "ready\n"
    for client in made.values():
        client.stdin.write("begin\n")
        client.stdin.flush()
    return made


def test_a_client_is_killed_in_each_step(tmp_path):
    last = {"dan": ("1", "keys"), "eve": ("1", "shares"), "fay": ("1", "masked"), "gus": ("1", "reveal")}
    steady = ("ann", "bob", "cyd")
    write_folder(tmp_path, [*steady, *last], 3, identities=True)
    with ended([]) as running:
        server, address = start_server(tmp_path, rounds=1, seconds=SECONDS, training=SECONDS)
        running.append(server)
        clients = start_clients(running, address, tmp_path, [*steady, *last], last)
        for name in steady:
            output, _ = clients[name].communicate(timeout=LATEST)
            assert output.startswith("the server answers 410")
            assert clients[name].returncode == 0
        assert {clients[name].wait(LATEST) for name in last} == {-9}
    (first,) = lines_of(tmp_path)
    assert first["dropouts"] == {name: step for name, (_, step) in last.items()}
    assert first["survivors"] == ["ann", "bob", "cyd", "gus"]
    assert (first["lost"], first["refused"]) == (None, {})


def test_a_lost_round_and_a_client_that_comes_back(tmp_path):
    """The model stays in the lost round; a client that is started again takes part in the next one."""
    write_folder(tmp_path, ("ann", "bob"), 2)
    with ended([]) as running:
        server, address = start_server(tmp_path, rounds=2, seconds=SECONDS, training=SECONDS)
        running.append(server)
        clients = start_clients(running, address, tmp_path, ("ann", "bob"), {"bob": ("1", "masked")})
        wait_until(lambda: len(lines_of(tmp_path)) == 1, server, clients["ann"])
        (first,) = lines_of(tmp_path)
        assert first["lost"] == "masked: clients with masked vectors: expected at least 2, got 1"
        assert first["survivors"] == []
        again = start_clients(running, address, tmp_path, ("bob",))
        output, _ = clients["ann"].communicate(timeout=LATEST)
        assert again["bob"].wait(LATEST) == 0
    assert "round 1 goes on without this client: masked: the server answers 409" in output
    _, second = lines_of(tmp_path)
    assert (second["lost"], second["survivors"]) == (None, ["ann", "bob"])
    assert second["model"] != first["model"]


@pytest.mark.slow
@pytest.mark.integration
def test_the_commands_of_the_readme(tmp_path):
    """Its programs, as a newcomer copies them, on another port and for fewer rounds."""
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(python .*?)^```", text, re.M | re.S)
    lines = block.replace("8000", str(free_port())).splitlines()
    assert len(lines) == 5
    prepare, server, *clients = (shlex.split(line.rstrip("& "), comments=True)[1:] for line in lines)
    with ended([]) as running:
        for arguments in (prepare, [*server, "--rounds", "3"], *clients):
            program = EXAMPLE.parents[1] / arguments[0]
            running.append(start(program, *arguments[1:], cwd=tmp_path, stdout=subprocess.PIPE))
            if program.name == "prepare.py":
                assert running[0].wait(LATEST) == 0
        for client in running[2:]:
            output, _ = client.communicate(timeout=LATEST)
            accuracies = [float(found) for found in re.findall(r"accuracy ([\d.]+)", output)]
            assert len(accuracies) == 4
            assert accuracies[-1] > 0.7 > accuracies[0]
    (folder,) = (tmp_path / "runs").iterdir()
    assert [len(line["survivors"]) for line in lines_of(folder)] == [3] * 3


def test_a_folder_without_agreed_values(tmp_path):
    command = [sys.executable, EXAMPLE / "secure_server.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LATEST)
    assert done.returncode != 0
    assert Path("agreed.json").name in done.stderr

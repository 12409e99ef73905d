"""The receiver as a program: killed and started again, with two workers, with slow and endless clients."""

import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import soak
import soak_check
from receiver_cases import NAMES, WEIGHTS, bearer, encode, make_model, make_policy, write_folder

import fedmrn_codec as fm

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "receiver"
LATEST = 120


class Program:
    """serve.py in a folder; ended at the end of the test."""

    def __init__(self, folder, workers=1, **options):
        self.folder, self.workers, self.port = folder, workers, soak.free_ports(workers)
        given = {"port": self.port, "workers": workers, "keep": 99} | options
        pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in given.items())
        self.command = [
            sys.executable,
            EXAMPLE / "serve.py",
            folder,
            *(part for pair in pairs for part in pair),
        ]
        self.start()

    def start(self):
        self.process = psutil.Popen(self.command)
        for number in range(self.workers):
            wait_until(
                lambda number=number: self.fetch("GET", "/health", worker=number)[0] == 200, self.process
            )

    def fetch(self, method, path, name=None, body=None, worker=0):
        """Status, headers and body of an answer; status 0 if there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port + worker, timeout=30)
        try:
            connection.request(method, path, body, bearer(name) if name else {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, {}, b""
        finally:
            connection.close()

    def request(self, name, worker=0):
        """The request of a client, when there is one."""
        found = []

        def asked():
            status, _, body = self.fetch("GET", "/round", name, worker=worker)
            found.append(body)
            return status == 200

        wait_until(asked, self.process)
        return fm.Request.from_dict(json.loads(found[-1]))

    def post(self, name, frame, worker=0):
        return self.fetch(
            "POST", f"/frames/{name.replace(' ', '%20').replace('é', '%C3%A9')}", name, frame, worker
        )[0]

    def round(self):
        return json.loads(self.fetch("GET", "/health")[2] or b'{"round": 0}')["round"]

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def end(self):
        family = [self.process, *self.process.children(recursive=True)] if self.process.poll() is None else []
        for each in family:
            each.kill()
        psutil.wait_procs(family, timeout=30)


def wait_until(done, process):
    end = time.monotonic() + LATEST
    while not done():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)


def is_closed_after(connection, more):
    """Whether the other side refuses more bytes."""
    try:
        connection.sendall(more)
    except ConnectionError:
        return True
    return False


@pytest.fixture
def program(tmp_path):
    """Starts a program; gives the function that does so."""
    started = []

    def start(**options):
        write_folder(tmp_path)
        started.append(Program(tmp_path, **options))
        return started[-1]

    yield start
    for each in started:
        each.end()


def check_serial(folder, acknowledged, rounds):
    """The model and the frames in the databases are those of a serial computation."""
    found, model = soak_check.stored(folder), make_model()
    assert soak_check.problems(found, acknowledged, WEIGHTS, rounds) == (0, 0, 0)
    own, _ = soak_check.serial(model, make_policy(model), acknowledged, WEIGHTS, rounds)
    assert soak_check.same(found.model, own)


def test_a_receiver_that_is_killed(program, tmp_path):
    made, acknowledged = program(wanted=3, rounds=2), {}
    for number in (1, 2):
        requests = {name: made.request(name) for name in NAMES}
        for seed, (name, request) in enumerate(requests.items()):
            frame = acknowledged[number, name] = encode(request, seed)
            assert made.post(name, frame) == 202
            if name == "ann":
                made.kill()
                made.start()
                assert made.post(name, frame) == 202  # as if the acknowledgement had been lost
                assert made.post(name, encode(request, 99)) == 409
        wait_until(lambda number=number: made.round() == number + 1, made.process)
    assert made.fetch("GET", "/round", "ann")[0] == 410
    made.process.terminate()
    assert made.process.wait(60) == 0
    check_serial(tmp_path, acknowledged, 2)


def test_two_workers(program, tmp_path):
    """Each client is sent to its worker; one worker is killed, and then the process that started them."""
    made, acknowledged, homes = program(workers=2, wanted=3, rounds=2), {}, {}
    for name in NAMES:
        status, headers, _ = made.fetch("GET", "/model", name)
        homes[name] = 0 if status == 200 else 1
        assert homes[name] == 0 or (status, headers["location"]) == (
            307,
            f"http://127.0.0.1:{made.port + 1}/model",
        )
    assert set(homes.values()) == {0, 1}
    for number in (1, 2):
        for seed, name in enumerate(NAMES):
            frame = acknowledged[number, name] = encode(made.request(name, homes[name]), seed)
            assert made.post(name, frame, homes[name]) == 202
            if name == "ann" and number == 1:
                victim = next(
                    each
                    for each in made.process.children()
                    if each.cmdline()[-2:] == ["--worker", str(homes[name])]
                )
                os.kill(victim.pid, signal.SIGKILL)
                wait_until(
                    lambda name=name, frame=frame: made.post(name, frame, homes[name]) == 202, made.process
                )
            if name == "bob" and number == 2:
                made.kill()
                made.start()
    wait_until(lambda: made.round() == 3, made.process)
    workers = made.process.children()
    made.process.terminate()
    assert made.process.wait(60) == 0
    assert not any(each.is_running() for each in workers)
    check_serial(tmp_path, acknowledged, 2)


def test_a_deadline_and_clients_that_are_slow_or_endless(program):
    made = program(wanted=3, seconds=1, upload_seconds=0.5)
    with socket.create_connection(("127.0.0.1", made.port), timeout=60) as slow:
        head = "POST /frames/bob HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n"
        slow.sendall(f"{head}Authorization: {bearer('bob')['Authorization']}\r\n\r\nabc".encode())
        answer = b"".join(iter(lambda: slow.recv(4096), b""))  # until the server closes the connection
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"slow"' in answer
    with socket.create_connection(("127.0.0.1", made.port), timeout=60) as endless:
        endless.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        with pytest.raises(ConnectionError):
            endless.sendall(b"X-Header: " + b"a" * 2**26)
    with socket.create_connection(("127.0.0.1", made.port), timeout=60) as cut:
        cut.sendall(f"{head}Authorization: {bearer('bob')['Authorization']}\r\n\r\nabc".encode())
    with socket.create_connection(("127.0.0.1", made.port), timeout=60) as stranger:  # without a token
        stranger.sendall(b"POST /frames/bob HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        wait_until(lambda: is_closed_after(stranger, b"1\r\nx\r\n"), made.process)
    assert made.post("ann", encode(made.request("ann"))) == 202
    wait_until(lambda: made.round() >= 2, made.process)  # at the deadline, with one of three frames


def test_the_commands_of_the_readme(tmp_path):
    """Its programs, as a newcomer copies them, on another port."""
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(python .*?)^```", text, re.M | re.S)
    port = str(soak.free_ports(1))
    lines = [shlex.split(line.replace("8000", port), comments=True) for line in block.splitlines()]
    assert [Path(line[1]).name for line in lines] == ["start.py", "serve.py", "client.py", "client.py"]
    running = []
    try:
        for line in lines:
            command = [
                sys.executable,
                EXAMPLE.parents[1] / line[1],
                *(part for part in line[2:] if part != "&"),
            ]
            program = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
            running.append(program)
            if "start.py" in line[1]:
                assert program.wait(60) == 0
        outputs = [program.communicate(timeout=LATEST)[0] for program in running[2:]]
        for output in outputs:
            assert "the server answers 410" in output
            accuracies = [float(found) for found in re.findall(r"accuracy ([\d.]+)", output)]
            assert len(accuracies) == 5
            assert accuracies[-1] > accuracies[0]
    finally:
        for program in running:
            program.kill()
            program.communicate()


def test_a_folder_without_a_policy(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLE / "serve.py", tmp_path], capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "policy.toml" in done.stderr
    wrong = ["--workers", "2", "--addresses", "http://a"]
    done = subprocess.run(
        [sys.executable, EXAMPLE / "serve.py", tmp_path, *wrong], capture_output=True, timeout=60
    )
    assert done.returncode == 2

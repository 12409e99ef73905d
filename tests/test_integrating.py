"""The programs of the pages integrating.md and auditing.md: server, clients, an attacker, the audit."""

import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fedmrn_codec as fm

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "integrating.md").read_text()
AUDITING = (ROOT / "docs" / "guides" / "auditing.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE + AUDITING, re.M | re.S)
FILES = {found[1]: text for text in PYTHON if (found := re.match(r"# (\w+\.py)\n", text))}
SHELL, SECURE_SHELL = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
ROUNDS, LATEST = 8, 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url, data=None):
    with urllib.request.urlopen(url, data, timeout=30) as reply:
        return reply.read()


def answer(url, frame):
    """The status and the text of an answer, which may be an error."""
    try:
        return 200, fetch(url, frame).decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def answer_to_announced(url, length):
    """The answer to a request whose header announces `length` bytes; none is sent."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    connection.putrequest("POST", f"{parts.path}?{parts.query}")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    response = connection.getresponse()
    out = response.status, response.read().decode()
    connection.close()
    return out


def wait_for(url, server):
    end = time.monotonic() + LATEST
    while True:
        assert server.poll() is None
        assert time.monotonic() < end
        try:
            return fetch(f"{url}/model?have=0")
        except urllib.error.URLError:
            time.sleep(0.05)


class Eve:
    """An attacker among the clients; `answers` holds the server's answer to each attack."""

    def __init__(self, url, folder):
        self.url, self.folder, self.answers = url, folder, {}

    def task(self):
        task = json.loads(fetch(f"{self.url}/round?client=eve"))
        return task if task == "over" else fm.Request.from_dict(task)

    def attack(self, name, frame):
        self.answers[name] = answer(f"{self.url}/update?client=eve", frame)

    def first_round(self):
        """The attacks before any other client has replied."""
        zeros = {t.name: np.zeros(t.shape, np.float32) for t in self.task().schema}
        self.attack("garbage", os.urandom(200))
        self.attack("absurd", self.task().encode({**zeros, "0.bias": np.full(50, 1e6, np.float32)}))
        self.attack("own seed", replace(self.task(), seed=1).encode(zeros))
        self.attack("louder", replace(self.task(), noise=fm.Uniform(1)).encode(zeros))
        self.answers["too long"] = answer_to_announced(f"{self.url}/update?client=eve", 2**40)

    def later(self):
        """Replay a frame of the first round until the federation is over."""
        end = time.monotonic() + LATEST
        while (request := self.task()) != "over":
            assert time.monotonic() < end
            if request.round > 1 and "replay" not in self.answers:
                first = next(state for state in fm.replay(self.folder / "journal") if state.round == 1)
                self.attack("replay", bytes(first.frames[0].frame.view))
            time.sleep(0.02)


def commands(folder, shell, port):
    """Write the programs of the page; the commands of a block of it, on this port."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    lines = [line.partition("#")[0].rstrip("& ").replace("8000", str(port)) for line in shell.splitlines()]
    return [[sys.executable, *shlex.split(line)[1:]] for line in lines]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """The folder after all rounds, and Eve."""
    folder, port = tmp_path_factory.mktemp("http"), free_port()
    prepare, serve, *clients = commands(folder, SHELL, port)
    options = {"cwd": folder, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    subprocess.run(prepare, check=True, timeout=LATEST, **options)
    running = [subprocess.Popen(serve, stdout=subprocess.DEVNULL, **options)]
    try:
        eve = Eve(f"http://127.0.0.1:{port}", folder)
        wait_for(eve.url, running[0])
        eve.first_round()
        running += [subprocess.Popen(client, **options) for client in clients]
        eve.later()
        assert [client.wait(LATEST) for client in running[1:]] == [0, 0]
        eve.answers["stranger"] = answer(f"{eve.url}/round?client=mallory", None)
        # refused before its body is read
        eve.answers["stranger's frame"] = answer_to_announced(f"{eve.url}/update?client=mallory", 9)
    finally:
        for process in running:
            process.kill()
            process.wait(10)
    return folder, eve


@pytest.fixture(scope="module")
def states(federation):
    """What a replay gives, by round."""
    return list(fm.replay(federation[0] / "journal", backend="numpy"))


def audit(folder):
    command = [sys.executable, "audit.py", "journal"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LATEST)


def test_the_pages_have_all_programs():
    assert set(FILES) == {
        "net.py",
        "server.py",
        "client.py",
        "audit.py",
        "secure_server.py",
        "secure_client.py",
    }


def test_the_federation_learns(federation, states, monkeypatch):
    monkeypatch.syspath_prepend(str(federation[0]))
    import net

    start = states[0].model
    assert accuracy(net, start) < 0.7
    plain = fedavg(net, start, {"ann": 0.6, "bob": 0.4})
    assert accuracy(net, states[ROUNDS].held) > accuracy(net, plain) - 0.01


def accuracy(net, arrays):
    """The share of labels that a model of these arrays gets right, on data of nobody."""
    x, y = net.data("nobody", 5000)
    trained = net.build()
    trained.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return (trained(x).argmax(1) == y).float().mean().item()


def fedavg(net, arrays, weights):
    """The model after as many rounds of FedAvg with these clients, at half the learning rate of the page."""
    for _ in range(ROUNDS):
        mean = {name: np.zeros_like(array) for name, array in arrays.items()}
        for client, weight in weights.items():
            trained, (x, y) = net.build(), net.data(client)
            trained.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
            optimizer = torch.optim.SGD(trained.parameters(), lr=0.3)
            for inputs, labels in list(zip(x.split(60), y.split(60), strict=True)) * 5:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(trained(inputs), labels).backward()
                optimizer.step()
            for name, tensor in trained.state_dict().items():
                mean[name] += np.float32(weight) * tensor.numpy()
        arrays = mean
    return arrays


@contextmanager
def secure_server(command, url, folder):
    """A running server: a function that runs clients to their end, and a list that gets its output."""
    options = {"cwd": folder, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    running, output = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)], []

    def run_all(clients):
        running.extend(subprocess.Popen(client, **options) for client in clients)
        assert [client.wait(LATEST) for client in running[1:]] == [0] * len(clients)

    try:
        wait_for(url, running[0])
        yield run_all, output
    finally:
        for process in running:
            process.kill()
        output.append(running[0].communicate(timeout=10)[0])
        for process in running[1:]:
            process.wait(10)


def test_the_secure_federation_learns(tmp_path, monkeypatch):
    """The programs of the section on sums; the page's own data for each client, which weigh the same."""
    pytest.importorskip("cryptography")
    pytest.importorskip("Crypto")
    port = free_port()
    serve, *clients = commands(tmp_path, SECURE_SHELL, port)
    monkeypatch.syspath_prepend(str(tmp_path))
    import net

    start = {name: tensor.numpy() for name, tensor in net.build().state_dict().items()}
    np.savez(tmp_path / "start.npz", **start)
    url = f"http://127.0.0.1:{port}"
    with secure_server(serve, url, tmp_path) as (run_all, output):
        assert answer_to_announced(f"{url}/exchange?client=ann&round=1&step=keys", 2**40) == (
            413,
            "message too long",
        )
        assert answer(f"{url}/exchange?client=ann&round=1&step=masked", b"x") == (409, "not in this step")
        stranger = f"{url}/exchange?client=mallory&round=1&step=keys"
        assert answer_to_announced(stranger, 1) == (403, "unknown client")  # before its body is read
        run_all(clients)
        held = fm.Replica(fm.schema_of(start)).apply(fetch(f"{url}/model?have=0"))
    assert output == [f"listening on {port}\n"]
    plain = fedavg(net, start, dict.fromkeys(("ann", "bob", "eve"), 1 / 3))
    assert accuracy(net, held) > accuracy(net, plain) - 0.01  # as the page says


def test_a_secure_round_that_nobody_goes_on_with_is_lost(tmp_path):
    """Two clients stop after the keys; the third sends shares without keys. The next round has all three."""
    fedmrn_secagg = pytest.importorskip("fedmrn_secagg", exc_type=ImportError)
    port = free_port()
    prepare = commands(tmp_path, SHELL, port)[0]
    serve, *clients = commands(tmp_path, SECURE_SHELL, port)
    program = FILES["secure_server.py"].replace("ROUNDS, SECONDS = 8, 30", "ROUNDS, SECONDS = 2, 2")
    assert program != FILES["secure_server.py"]
    (tmp_path / "secure_server.py").write_text(program)
    subprocess.run(prepare, check=True, timeout=LATEST, cwd=tmp_path)
    url = f"http://127.0.0.1:{port}"
    with secure_server(serve, url, tmp_path) as (run_all, output):
        request = fm.Request.from_dict(json.loads(fetch(f"{url}/round?client=ann")))

        def keys(name, id):
            message = fedmrn_secagg.Client(id, request, threshold=2).keys()
            return fetch(f"{url}/exchange?client={name}&round=1&step=keys", message)

        with ThreadPoolExecutor() as pool:
            assert len(set(pool.map(keys, ("ann", "bob"), (1, 2)))) == 1  # the roster
        stray = answer(f"{url}/exchange?client=eve&round=1&step=shares", b"x")
        assert stray == (409, "not in this step")
        run_all(clients)
    assert "round 1 is lost: clients with shares: expected at least 2, got 0" in output[0]


@pytest.mark.parametrize(
    ("attack", "status", "reason"),
    [
        ("garbage", 400, "magic: magic, byte 0: expected "),
        ("absurd", 400, "value_bound: tensor '0.bias': expected "),
        ("own seed", 400, "seed: seed, byte 8: expected "),
        ("louder", 400, "reply: tensor '0.weight': expected binary mask of Bernoulli(scale="),
        ("too long", 413, "frame too long"),
        ("replay", 400, "round: round, byte 24: expected "),
        ("stranger", 403, "unknown client"),
        ("stranger's frame", 403, "unknown client"),
    ],
)
def test_attacks_are_refused(federation, attack, status, reason):
    _, eve = federation
    assert eve.answers[attack][0] == status
    assert eve.answers[attack][1].startswith(reason)


def test_the_attacker_changes_no_bit(federation, states):
    """Each round is computed once more, without `fm.replay`, from the frames, the rule and the weights."""
    folder, _ = federation
    model = dict(np.load(folder / "start.npz"))
    schema = fm.schema_of(model)
    rule, down = fm.AdaptiveNoise(schema, model), fm.Downlink(schema, model)
    assert [state.round for state in states] == list(range(ROUNDS + 1))
    for number, state in enumerate(states[1:], 1):
        assert sorted((each.client, each.weight) for each in state.frames) == [("ann", 600), ("bob", 400)]
        sums = fm.Aggregator(schema, noise=rule.noise, round=number, base_model=down.model_id)
        for each in state.frames:
            sums.add(bytes(each.frame.view), each.weight)
        rule.observe(sums)
        mean = sums.mean()
        model = {name: array + mean[name] for name, array in model.items()}
        assert {n: a.tobytes() for n, a in state.model.items()} == {n: a.tobytes() for n, a in model.items()}
        assert down.advance(model) == state.model_id
        assert state.given == ()


def test_all_rounds_are_replayed(federation):
    done = audit(federation[0])
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == ROUNDS + 2
    assert lines[1].startswith("round 1: 2 frames, model ")
    assert lines[-1] == f"{ROUNDS} rounds replayed, to the bit"


def flipped(journal):
    path = journal / "round-000003.fmrj"
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def cut(journal):
    (journal / f"round-{ROUNDS:06}.fmrj").unlink()


def without_one(journal):
    (journal / "round-000003.fmrj").unlink()


def swapped(journal):
    first, second = journal / "round-000003.fmrj", journal / "round-000004.fmrj"
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (flipped, "error: round-000003.fmrj, round 3, digest: expected "),
        (cut, f"error: round-{ROUNDS:06}.fmrj, round {ROUNDS}, file: expected "),
        (without_one, "error: round-000004.fmrj, round 4, digest of the round before: expected "),
        (swapped, "error: round-000003.fmrj, round 3, first line: expected "),
    ],
)
def test_the_audit_finds_changes(federation, change, reason, tmp_path):
    folder = shutil.copytree(federation[0], tmp_path / "copy")
    change(folder / "journal")
    done = audit(folder)
    assert done.returncode == 1
    assert reason in done.stderr

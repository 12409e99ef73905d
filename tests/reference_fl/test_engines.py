"""Engines: the rounds have the same bits wherever, and in whatever order, the clients run."""

import json
from dataclasses import replace

import pytest
from run_lines import run

from fedmrn_codec.cli.app import app
from reference_fl import data, engines, methods
from reference_fl.engines import Assignment, ClientError
from reference_fl.engines.clients import Clients
from reference_fl.engines.local import Local
from reference_fl.record import METRICS, STATE, read
from reference_fl.settings import MASKS, defaults

SMALL = {"clients": 3, "clients_per_round": 2, "epochs": 1, "rounds": 2, "threads": 1}
KINDS = [
    *((name, None, {}) for name in sorted(methods.METHODS) if name not in MASKS),
    *((name, mask, {}) for name in MASKS for mask in ("binary", "signed")),
    ("topk", None, {"error_feedback": True}),
    ("fedpm", None, {"reset_every": 3}),
    ("fedavg", None, {"server_momentum": 0.9}),
    ("fedmrn", "signed", {"per_layer": True, "schedule": "cosine"}),
]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def settings_of(method="fedavg", mask=None, options=None, **more):
    fixed = {"noise": "uniform:0.005"} if "schedule" in (options or {}) else {}
    return defaults("digits", method, mask, options=options or {}, **(SMALL | fixed | more))


class Scattered(Local):
    """Runs each client with a new `Clients` object; the last client replies first."""

    name = "scattered"

    def __init__(self, settings, digits):
        super().__init__(settings, digits)
        self.settings, self.data = settings, digits

    def replies(self, broadcast, assignments):
        for each in reversed(assignments):
            yield Clients(self.settings, self.data).answer(broadcast, each)


class Forgetful(Scattered):
    """Drops the states of the clients."""

    def replies(self, broadcast, assignments):
        return super().replies(broadcast, [replace(each, memory={}) for each in assignments])


class Failing(Scattered):
    """Its second round ends after one reply."""

    def replies(self, broadcast, assignments):
        replies = super().replies(broadcast, assignments)
        yield next(replies)
        if assignments[0].round == 2:
            raise ClientError("round 2: client 1 failed: as asked")
        yield from replies


@pytest.mark.parametrize(("method", "mask", "options"), KINDS, ids=str)
def test_the_engine_changes_no_bit(method, mask, options, digits, tmp_path):
    settings = settings_of(method, mask, options)
    want = run(settings, digits, tmp_path / "local")
    got = run(settings, digits, tmp_path / "scattered", engine=Scattered(settings, digits))
    assert got == want
    assert (tmp_path / "scattered" / STATE).read_bytes() == (tmp_path / "local" / STATE).read_bytes()


REPLACING = ("fedpm", "fedsparsify")
"""The methods that refuse a grid download."""


@pytest.mark.parametrize(
    ("method", "mask", "options"), [kind for kind in KINDS if kind[0] not in REPLACING], ids=str
)
def test_the_engine_changes_no_bit_of_a_grid_download(method, mask, options, digits, tmp_path):
    """With `per_layer`, server and clients derive the noise from the same rounded model."""
    settings = settings_of(method, mask, options, downlink="grid")
    want = run(settings, digits, tmp_path / "local")
    got = run(settings, digits, tmp_path / "scattered", engine=Scattered(settings, digits))
    assert got == want
    assert (tmp_path / "scattered" / STATE).read_bytes() == (tmp_path / "local" / STATE).read_bytes()


def test_an_engine_that_drops_states_changes_the_result(digits, tmp_path):
    """The test above can fail."""
    settings = settings_of("topk", None, {"error_feedback": True})
    want = run(settings, digits, tmp_path / "local")
    assert run(settings, digits, tmp_path / "other", engine=Forgetful(settings, digits)) != want


def test_a_failed_client_fails_its_round_and_no_other(digits, tmp_path):
    settings = settings_of("topk", None, {"error_feedback": True}, rounds=3)
    want = run(settings, digits, tmp_path / "whole")
    with pytest.raises(ClientError, match="as asked"):
        run(settings, digits, tmp_path / "parts", engine=Failing(settings, digits))
    ((_, kept),) = read(tmp_path / "parts" / METRICS)
    assert len(kept) == 1
    assert run(settings, digits, tmp_path / "parts") == want
    assert (tmp_path / "parts" / STATE).read_bytes() == (tmp_path / "whole" / STATE).read_bytes()


def engines_of(folder):
    ((header, _),) = read(folder / METRICS)
    return header["engines"]


def test_the_record_lists_the_engines(digits, tmp_path):
    one, two = settings_of(rounds=1), settings_of(rounds=2)
    run(one, digits, tmp_path)
    assert engines_of(tmp_path) == ["local"]
    header, line = (tmp_path / METRICS).read_text().splitlines()
    older = {key: value for key, value in json.loads(header).items() if key != "engines"}
    (tmp_path / METRICS).write_text(f"{json.dumps(older)}\n{line}\n")
    run(one, digits, tmp_path, engine=Scattered(one, digits))  # nothing is left to do
    assert engines_of(tmp_path) == ["local"]
    for _ in range(2):
        run(two, digits, tmp_path, engine=Scattered(two, digits))
        assert engines_of(tmp_path) == ["local", "scattered"]


def test_an_engine_is_started_only_for_rounds_that_are_left(digits, tmp_path):
    class Counting(Local):
        entered = left = 0

        def __enter__(self):
            self.entered += 1
            return self

        def __exit__(self, *_):
            self.left += 1

    settings = settings_of(rounds=1)
    first, second = Counting(settings, digits), Counting(settings, digits)
    run(settings, digits, tmp_path, engine=first)
    run(settings, digits, tmp_path, engine=second)
    assert (first.entered, first.left, second.entered, second.left) == (1, 1, 0, 0)


def test_a_method_refuses_a_state_of_another_method(digits, tmp_path):
    settings = settings_of("topk")
    with pytest.raises(
        ValueError,
        match="state of topk: expected only names that begin with 'server velocity/', got '3/conv'",
    ):
        methods.build(settings).load_state({"3/conv": digits.train_x})


# --- the shell -----------------------------------------------------------------------------------------

TINY = ["--clients=3", "--clients-per-round=2", "--epochs=1", "--rounds=3", "--threads=1"]


def fedmrn(capsys, *arguments):
    """Exit code and stderr of `fedmrn train` in this process."""
    with pytest.raises(SystemExit) as left:
        app(["train", *TINY, *map(str, arguments)], prog_name="fedmrn")
    return left.value.code, capsys.readouterr().err


def test_a_failed_client_is_a_message_and_an_exit_code(capsys, tmp_path, monkeypatch):
    pytest.importorskip("flwr")
    monkeypatch.setattr(engines, "on_flower", lambda settings, digits, **_: Failing(settings, digits))
    code, message = fedmrn(capsys, "--engine=flower", "--out", tmp_path)
    assert code == 4
    assert "fedmrn train: round 2: client 1 failed: as asked; the finished rounds are kept" in message
    ((_, kept),) = read(tmp_path / METRICS)
    assert len(kept) == 1
    assert fedmrn(capsys, "--out", tmp_path)[0] == 0
    assert engines_of(tmp_path) == ["scattered", "local"]


@pytest.mark.parametrize("package", ["flwr", "ray"])
def test_a_missing_package_is_named(package, capsys, tmp_path, monkeypatch):
    pytest.importorskip("flwr")
    real = engines.on_flower

    def without(name):
        if name == package:
            raise ModuleNotFoundError(f"No package metadata for {name}", name=name)
        return "1"

    def on_flower(*args, **kwargs):
        from reference_fl.engines import flower

        monkeypatch.setattr(flower, "version", without)
        return real(*args, **kwargs)

    monkeypatch.setattr(engines, "on_flower", on_flower)
    code, message = fedmrn(capsys, "--engine=flower", "--out", tmp_path / "run")
    assert code == 2
    install = "pip install 'fedmrn-codec[reference,simulation]'"
    expected = f"the package {package}, which `{install}` installs"
    assert f"--engine flower: expected {expected}, got none" in message
    assert not (tmp_path / "run").exists()


def test_a_ray_address_needs_the_flower_engine(capsys, tmp_path):
    code, message = fedmrn(capsys, "--ray-address=127.0.0.1:1", "--out", tmp_path)
    assert code == 2
    assert "--engine: expected flower with --ray-address, got local" in message


# --- Flower's app, without Flower's engine ------------------------------------------------------------


def reply_of_app(settings, digits, broadcast, assignment, **changed):
    """The reply of the app to the engine's message."""
    flower = pytest.importorskip("flwr.app")
    from flwr.supercore.task_identity import TaskIdentity

    from reference_fl.engines import flower_app

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    context = flower.Context(
        run_id=1,
        node_id=2,
        node_config={},
        state=flower.RecordDict(),
        run_config=flower_app.run_config(settings, digits, None) | changed,
    )
    flower_app.save_memory(context, assignment.memory)
    reply = flower_app.app(flower_app.question(broadcast, assignment, 2), context)
    return reply, (None if reply.has_error() else flower_app.answer(assignment.client, reply, context))


class Kept(Local):
    """Keeps the broadcasts, the assignments and the replies."""

    def replies(self, broadcast, assignments):
        self.kept = [(broadcast, each, self._clients.answer(broadcast, each)) for each in assignments]
        return (reply for _, _, reply in self.kept)


@pytest.fixture(scope="module")
def second_round(digits, tmp_path_factory):
    """Settings; and broadcast, assignment and reply of a client that has a state."""
    settings = settings_of("topk", None, {"error_feedback": True})
    engine = Kept(settings, digits)
    run(settings, digits, tmp_path_factory.mktemp("run"), engine=engine)
    broadcast, assignment, reply = next(each for each in engine.kept if each[1].memory)
    return settings, broadcast, assignment, reply


def test_the_app_replies_as_the_clients_do(digits, second_round):
    settings, broadcast, assignment, want = second_round
    _, got = reply_of_app(settings, digits, broadcast, assignment)
    assert (got.client, got.message) == (want.client, want.message)
    assert {n: t.numpy().tobytes() for n, t in got.memory.items()} == {
        n: t.numpy().tobytes() for n, t in want.memory.items()
    }
    largest = replace(assignment, base_model=2**64 - 1, memory={})
    assert reply_of_app(settings, digits, broadcast, largest)[1].message != want.message


@pytest.mark.parametrize("what", ["torch", "training data"])
def test_the_app_refuses_other_data_or_packages(what, digits, second_round):
    pytest.importorskip("flwr")
    from reference_fl.engines import flower_app

    settings, broadcast, assignment, _ = second_round
    expected = flower_app.identity(digits) | {what: "another"}
    reply, _ = reply_of_app(settings, digits, broadcast, assignment, expected=json.dumps(expected))
    assert reply.error.reason.startswith(f"ValueError: {what} of a worker on ")
    assert f": expected another, got {flower_app.identity(digits)[what]}" in reply.error.reason


def test_the_app_reports_what_a_client_raised(digits, second_round):
    settings, _, assignment, _ = second_round
    reply, _ = reply_of_app(settings, digits, b"no tensors", assignment)
    assert "SafetensorError" in reply.error.reason
    assert isinstance(assignment, Assignment)

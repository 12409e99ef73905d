"""Every method in the loop: it learns, reports the bytes of its messages, and continues after a kill."""

import numpy as np
import pytest
import torch
import typer
from run_lines import run, run_killed_within_a_round

import fedmrn_codec as fm
from reference_fl import cli, data, loop, methods, models
from reference_fl.methods.packed import PackedMethod
from reference_fl.record import METRICS, STATE, read
from reference_fl.server import Server
from reference_fl.settings import LEARNING_RATE, MASKS, defaults

TINY = {"clients": 8, "clients_per_round": 2, "epochs": 2, "rounds": 3, "threads": 1}
NAMES = sorted(methods.METHODS)

# Methods that need other settings to learn in so few rounds, with the reason.
OTHER = {
    "topk": {"learning_rate": 0.1, "rounds": 8},  # each round sends only a fortieth of the update
    "postmask": {"learning_rate": 0.01},  # updates within the range of the noise
}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def settings_of(method, mask=None, options=None, **given):
    return defaults(
        "digits", method, mask, options=options or {}, **{**TINY, **OTHER.get(method, {}), **given}
    )


def listened(method, monkeypatch):
    """The messages that the clients of a method will send."""
    sent = []
    original = methods.METHODS[method].client

    def client(self, model, task):
        sent.append((original(self, model, task), task.seed))
        return sent[-1][0]

    monkeypatch.setattr(methods.METHODS[method], "client", client)
    return sent


def sum_of(lines, kind):
    return sum(line[f"uplink_{kind}_bytes"] for line in lines)


VARIANTS = [
    *((name, None, {}) for name in NAMES),
    ("postmask", "signed", {}),
    ("signsgd", None, {"noise": "gaussian"}),
    ("topk", None, {"error_feedback": True}),
    ("drive", None, {"scale": "least-squares"}),
    ("fedmrn", None, {"stochastic": False}),
    ("fedsparsify", None, {"over": 4, "vote": False}),
]


@pytest.mark.parametrize(("method", "mask", "options"), VARIANTS, ids=str)
def test_it_learns_and_reports_the_bytes_of_its_messages(
    method, mask, options, digits, tmp_path, monkeypatch
):
    settings = settings_of(method, mask, options)
    sent = listened(method, monkeypatch)
    lines = run(settings, digits, tmp_path)
    assert lines[-1]["accuracy"] > 0.3, [line["accuracy"] for line in lines]  # chance is 0.1
    assert sum(sum_of(lines, kind) for kind in ("mask", "dense", "header")) == sum(len(m) for m, _ in sent)
    assert len(sent) == settings.rounds * TINY["clients_per_round"]
    other = methods.build(settings)
    schema = other.schema(models.build("cnn2", digits.in_shape, 10, 0))
    dense = sum(t.payload_bytes for t in schema if not t.masked)
    for message, seed in sent:
        server = fm.Aggregator(schema) if method == "fedmrn" else other.server(schema, 0, 0)
        sizes = server.add(message, 1, seed=seed)
        assert sizes.frame_bytes == len(message) == sizes.mask_bytes + sizes.dense_bytes + sizes.header_bytes
        assert sizes.dense_bytes == dense
        assert all(np.isfinite(array).all() for array in server.mean().values())


def test_dense_tensors_cost_the_same_in_every_method(digits):
    """Every method sends BatchNorm in float32; only FedAvg also sends the other weights dense."""
    model = models.build("cnn2", digits.in_shape, 10, 0)
    schemas = {name: methods.build(settings_of(name)).schema(model) for name in NAMES}
    dense = {name: sum(t.payload_bytes for t in s if not t.masked) for name, s in schemas.items()}
    assert dense.pop("fedavg") == 8 * 2 + 4 * 4 * (32 + 64) + 4 * (32 * 9 + 64 * 32 * 9 + 10 * 256)
    assert set(dense.values()) == {8 * 2 + 4 * 4 * (32 + 64)}


def test_drive_and_eden_agree_at_one_bit(digits, tmp_path):
    """EDEN generalises DRIVE with the unbiased scale; at one bit the two estimators are equal."""
    short = {"rounds": 1, "epochs": 1}
    drive, eden = (run(settings_of(m, **short), digits, tmp_path / m) for m in ("drive", "eden"))
    assert drive[0]["loss"] == pytest.approx(eden[0]["loss"], rel=1e-3)


REMEMBERING = [
    ("topk", {"error_feedback": True}),
    ("fedpm", {}),
    ("fedpm", {"reset_every": 3}),
    ("fedsparsify", {"over": 3}),
    ("fedbat", {}),
]


@pytest.mark.parametrize(("method", "options"), REMEMBERING, ids=str)
def test_a_run_killed_within_a_round_resumes_equal(method, options, digits, tmp_path):
    settings = settings_of(method, None, options, rounds=3, epochs=1, clients=20)
    want = run(settings, digits, tmp_path / "whole")
    assert run_killed_within_a_round(settings, digits, tmp_path / "parts") == want
    assert (tmp_path / "parts" / STATE).read_bytes() == (tmp_path / "whole" / STATE).read_bytes()


def test_the_state_of_a_method_changes_the_result(digits, tmp_path, monkeypatch):
    """The test above can fail: without the saved states, a resumed run gives another result."""
    settings = settings_of("topk", None, {"error_feedback": True}, rounds=3, epochs=1, clients=4)
    want = run(settings, digits, tmp_path / "whole")
    steps = loop.run(settings, digits, tmp_path / "parts")
    next(steps)
    steps.close()
    real = Server.restore

    def forgetful(self, state):
        real(self, state)
        self.memories.clear()

    monkeypatch.setattr(Server, "restore", forgetful)
    assert run(settings, digits, tmp_path / "parts") != want


@pytest.mark.parametrize("name", NAMES)
def test_refused_messages_change_nothing(name, digits):
    """A damaged message raises FrameError, as a frame does, and does not change the collector."""
    settings = settings_of(name, clients=30, epochs=1, rounds=1)
    method = methods.build(settings)
    model = models.build("cnn2", digits.in_shape, 10, 0)
    method.start(model)
    schema = method.schema(model)
    told = method.instructions()
    task = methods.Task(digits.train_x[:32], digits.train_y[:32], 1, 77, 5, 6, 7, instructions=told)
    message = method.client(model, task)
    server = method.server(schema, 1, 77)
    server.add(message, 3, seed=5)
    before = {key: array.tobytes() for key, array in server.mean().items()}
    damaged = [message[:-1], message + b"\0", message[:20], b"", *(_flipped(message, at) for at in (0, 4, 9))]
    damaged += [_flipped(message, len(message) // 2), _flipped(message, len(message) - 1)]
    for bad in damaged:
        with pytest.raises(fm.FrameError, match=r"^[^:]+, byte \d+: expected .+, got "):
            server.add(bad, 3, seed=5)
    for other, words in (
        ((2, 77), "round, byte [0-9]+: expected 2, got 1"),
        ((1, 78), "expected 78, got 77"),
    ):
        with pytest.raises(fm.FrameError, match=words):
            method.server(schema, *other).add(message, 3, seed=5)
    if name != "fedpm":  # there the seed is that of the run
        with pytest.raises(fm.FrameError, match=r"seed, byte [0-9]+: expected 8, got 5"):
            server.add(message, 3, seed=8)
    with pytest.raises(fm.AggregateError, match="weight: expected a positive integer, got 0"):
        server.add(message, 0, seed=5)
    assert {key: array.tobytes() for key, array in server.mean().items()} == before
    other = next(cls for n, cls in methods.METHODS.items() if n != name and issubclass(cls, PackedMethod))
    if issubclass(methods.METHODS[name], PackedMethod):
        foreign = other(settings_of(next(n for n in NAMES if methods.METHODS[n] is other)))
        with pytest.raises(fm.FrameError, match=r"method, byte 5: expected [0-9], got [0-9]"):
            foreign.server(schema, 1, 77).add(message, 3, seed=5)


def _flipped(message, at):
    return message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]


@pytest.mark.parametrize("name", NAMES)
def test_a_diverged_client_is_an_error_not_a_message(name, digits):
    rate = {} if name == "fedpm" else {"learning_rate": 1e30}  # FedPM's scores stay finite at any rate
    method = methods.build(settings_of(name, epochs=1, **rate))
    model = models.build("cnn2", digits.in_shape, 10, 0)
    method.start(model)
    told = method.instructions()
    x = digits.train_x[:32] * (float("nan") if name == "fedpm" else 1)
    with pytest.raises(fm.UpdateError):
        method.client(model, methods.Task(x, digits.train_y[:32], 1, 77, 5, 6, 7, instructions=told))


@pytest.mark.parametrize(
    ("arguments", "label"),
    [
        (["--method", "eden"], "eden"),
        (["--method", "fedpm"], "fedpm"),
        (["--method", "postmask", "--mask", "signed"], "postmask-signed"),
    ],
)
def test_the_train_verb_knows_every_method(arguments, label, runner, tmp_path):
    app = typer.Typer()
    app.command()(cli.train)
    tiny = "--rounds 1 --clients 20 --clients-per-round 2 --epochs 1 --threads 1 --verify --json"
    done = runner.invoke(app, [*arguments, *tiny.split(), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    ((header, rounds),) = read(tmp_path / METRICS)
    assert header["settings"]["method"] == label.partition("-")[0]
    assert len(rounds) == 1


def test_every_method_has_its_defaults():
    assert sorted(LEARNING_RATE) == NAMES
    for name in NAMES:
        settings = defaults("fashion-mnist", name, None)
        assert (settings.mask is not None) == (settings.noise is not None) == (name in MASKS)
        assert methods.build(settings).options == options_of(name)


def options_of(name):
    return {**methods.METHODS[name].OPTIONS, **methods.METHODS[name].SERVER_OPTIONS}


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused(name):
    known = f"only {', '.join(sorted(options_of(name)))}"
    with pytest.raises(ValueError, match=f"options of {name}: expected {known}, got colour"):
        methods.build(defaults("digits", name, None, options={"colour": 1}))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("topk", {"fraction": 0}, "above 0"),
        ("topk", {"fraction": 1.5}, "above 0"),
        ("topk", {"error_feedback": 1}, "bool"),
        ("terngrad", {"clip": -1.0}, "at least 0"),
        ("terngrad", {"clip": "2.5"}, "float"),
        ("drive", {"scale": "best"}, "one of unbiased"),
        ("signsgd", {"noise": "cauchy"}, "none, gaussian or uniform"),
        ("signsgd", {"sigma": 0.0}, "above 0"),
        ("fedpm", {"aggregate": "median"}, "bayes or mean"),
        ("fedpm", {"reset_every": 0}, "at least 1"),
        ("fedsparsify", {"sparsity": 1.0}, "below 1"),
        ("fedsparsify", {"over": 0}, "at least 1"),
        ("fedbat", {"warmup": 2.0}, "0 to 1"),
        ("fedbat", {"least": 1.0}, "at most"),
        ("fedmrn", {"stochastic": "no"}, "bool"),
    ],
)
def test_options_out_of_range_are_refused(name, options, words):
    (option,) = options
    with pytest.raises(
        ValueError, match=f"option {option} of {name}: expected .*{words}.*, got {options[option]!r}"
    ):
        methods.build(defaults("digits", name, None, options=options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"coding": "zip"}, "^coding: expected one of raw, rans, rans12, got 'zip'"),
        ({"dense_coding": "rans"}, "^dense_coding: expected one of raw, float16, bfloat16, got 'rans'"),
    ],
)
def test_unknown_codings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        methods.build(defaults("digits", "fedmrn", None, options=options))


def test_unknown_masks_and_methods_are_refused():
    with pytest.raises(ValueError, match="mask: expected none for the method eden, got 'binary'"):
        defaults("digits", "eden", "binary")
    with pytest.raises(ValueError, match="mask: expected binary or signed, got 'ternary'"):
        defaults("digits", "postmask", "ternary")
    with pytest.raises(ValueError, match=r"method: expected one of drive, .*, got 'telepathy'"):
        defaults("digits", "telepathy", None)


def test_the_ablations_reach_psm(digits, monkeypatch):
    """Each option changes the message, and reaches PSM under its name."""
    import fedmrn_torch

    asked = []
    original = fedmrn_torch.PSM

    def psm(*args, **kwargs):
        asked.append((kwargs["stochastic"], kwargs["progressive"]))
        return original(*args, **kwargs)

    monkeypatch.setattr(fedmrn_torch, "PSM", psm)
    model = models.build("cnn2", digits.in_shape, 10, 0)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    messages = set()
    switches = [(s, p) for s in (True, False) for p in (True, False)]
    for stochastic, progressive in switches:
        options = {"stochastic": stochastic, "progressive": progressive}
        method = methods.build(settings_of("fedmrn", "signed", options, epochs=1))
        model.load_state_dict(state)
        method.start(model)
        told = method.instructions()
        task = methods.Task(digits.train_x[:64], digits.train_y[:64], 1, 77, 5, 6, 7, instructions=told)
        messages.add(method.client(model, task))
    assert asked == switches
    assert len(messages) == 4


def test_nothing_random_is_global(digits, tmp_path):
    for name in ("fedpm", "fedbat", "terngrad", "signsgd"):
        options = {"noise": "gaussian"} if name == "signsgd" else {}
        before = torch.get_rng_state(), np.random.get_state()[1].tobytes()  # noqa: NPY002
        run(settings_of(name, None, options, rounds=1, epochs=1, clients=30), digits, tmp_path / name)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tobytes() == before[1]  # noqa: NPY002

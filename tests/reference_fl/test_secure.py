"""Secure aggregation in the reference experiment: the model of frames with one seed, from sums alone."""

import json
import sys

import numpy as np
import pytest
from run_lines import run, run_killed_within_a_round

import fedmrn_codec as fm
import fedmrn_secagg
from fedmrn_codec.cli.app import app
from reference_fl import (
    beside,
    data,
    methods,
    models,
    partition,
    presets,
    report,
    secure,
    sweep_runs,
    traffic,
)
from reference_fl.engines import Reply
from reference_fl.engines.local import Local
from reference_fl.methods.fedmrn import with_rounded_dense
from reference_fl.record import METRICS, STATE, read
from reference_fl.settings import defaults

TINY = {"clients": 6, "clients_per_round": 3, "epochs": 1, "rounds": 3, "threads": 1}
PLAIN = {"shared_seed": True, "largest_weight": 1, "fraction_bits": 18}
"""The options with which the method gives the same model without secure aggregation."""

UP, DOWN = ("keys", "shares", "masked", "reveal"), ("roster", "boxes", "survivors")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def settings_of(options=None, mask=None, **given):
    return defaults("digits", "fedmrn", mask, options=options or {}, **{**TINY, **given})


def beside_of(folder, name):
    return beside.read(beside.path(folder / METRICS, name))


def learnt(lines):
    return [(line["accuracy"], line["loss"]) for line in lines]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"mask": "signed"},
        {"noise": "bernoulli:0.02"},
        {"mask": "signed", "noise": "bernoulli:0.02"},
        {"downlink": "grid"},
        {"options": {"server_momentum": 0.5}},
    ],
    ids=str,
)
def test_it_gives_the_model_of_frames_with_one_seed_and_equal_weights(given, digits, tmp_path):
    other = given.get("options", {})
    sums = run(settings_of(secure=True, **given), digits, tmp_path / "sums")
    plain = run(settings_of(**{**given, "options": {**other, **PLAIN}}), digits, tmp_path / "plain")
    assert (tmp_path / "sums" / STATE).read_bytes() == (tmp_path / "plain" / STATE).read_bytes()
    assert learnt(sums) == learnt(plain)
    assert beside_of(tmp_path / "sums", "layers") == beside_of(tmp_path / "plain", "layers")
    assert all(line["clipped"] == 0 for line in beside_of(tmp_path / "sums", "secure"))
    assert not (tmp_path / "plain" / "secure.jsonl").exists()


@pytest.mark.parametrize("missing", PLAIN)
def test_each_option_of_the_plain_method_is_needed(missing, digits, tmp_path):
    """The test above can fail."""
    uneven = {"partition": "dirichlet:0.3", "rounds": 1}
    run(settings_of(secure=True, **uneven), digits, tmp_path / "sums")
    options = {name: value for name, value in PLAIN.items() if name != missing}
    run(settings_of(options, **uneven), digits, tmp_path / "plain")
    assert (tmp_path / "sums" / STATE).read_bytes() != (tmp_path / "plain" / STATE).read_bytes()


def test_small_integer_weights(digits, tmp_path):
    weights = {"largest_weight": 4, "examples": 100}
    uneven = {"partition": "dirichlet:0.3", "noise": "bernoulli:0.02", "rounds": 2}
    run(settings_of(weights, secure=True, **uneven), digits, tmp_path / "sums")
    run(settings_of({**PLAIN, **weights}, **uneven), digits, tmp_path / "plain")
    run(settings_of(secure=True, **uneven), digits, tmp_path / "equal")
    states = [(tmp_path / name / STATE).read_bytes() for name in ("sums", "plain", "equal")]
    assert states[0] == states[1] != states[2]
    layers = [beside_of(tmp_path / name, "layers") for name in ("sums", "plain")]
    frames = [[t["frames"] for line in lines for t in line["tensors"].values()] for lines in layers]
    assert max(frames[0]) > max(frames[1]) == TINY["clients_per_round"], "a weight of w counts as w frames"


def test_the_weight_of_a_client():
    method = methods.build(settings_of({"largest_weight": 4, "examples": 100}))
    assert [method.weight(n) for n in (1, 149, 150, 350, 449, 9000)] == [1, 1, 2, 4, 4, 4]
    assert methods.build(settings_of()).weight(149) == 149
    assert methods.build(settings_of({"largest_weight": 1})).weight(149) == 1
    assert methods.build(settings_of(secure=True)).weight(149) == 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clients_of_fashion_mnist_have_equal_sizes_but_not_in_dirichlet_partitions(seed):
    """As docs/results.md says of the weights; the labels of Fashion-MNIST are 6,000 times each of ten."""
    labels = np.repeat(np.arange(10), 6000)
    for parts in (partition.iid(labels, 100, seed), partition.labels_per_client(labels, 100, seed, k=3)):
        assert {len(part) for part in parts} == {600}
    assert len({len(part) for part in partition.dirichlet(labels, 100, seed, alpha=0.3)}) > 50


class Reversed(Local):
    """Replies in another order than that of the assignments."""

    def replies(self, broadcast, assignments):
        return super().replies(broadcast, assignments[::-1])


def test_the_order_of_the_replies_changes_nothing(digits, tmp_path):
    settings = settings_of(secure=True, rounds=1)
    want = run(settings, digits, tmp_path / "one")
    assert run(settings, digits, tmp_path / "two", engine=Reversed(settings, digits), verify=True) == want
    assert (tmp_path / "one" / STATE).read_bytes() == (tmp_path / "two" / STATE).read_bytes()


def test_a_run_killed_within_a_round_resumes_equal(digits, tmp_path):
    settings = settings_of(secure=True, downlink="grid")
    want = run(settings, digits, tmp_path / "whole")
    assert run_killed_within_a_round(settings, digits, tmp_path / "parts") == want
    for name in (STATE, "layers.jsonl", "traffic.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    steps = [
        [
            {key: value for key, value in line.items() if key != "seconds"}
            for line in beside_of(folder, "secure")
        ]
        for folder in (tmp_path / "parts", tmp_path / "whole")
    ]
    assert steps[0] == steps[1]


@pytest.fixture
def heard(monkeypatch):
    """All messages of all rounds: a list of name, the clients' ids and the bytes."""
    messages = []
    originals = {verb: getattr(fedmrn_secagg.Server, verb) for verb in UP}
    for verb, answer in zip(UP, (*DOWN, None), strict=True):

        def method(self, given, verb=verb, answer=answer):
            messages.extend((verb, id, bytes(message)) for id, message in given.items())
            out = originals[verb](self, given)
            if answer is not None:
                each = out if isinstance(out, dict) else dict.fromkeys(given, out)
                messages.extend((answer, id, bytes(message)) for id, message in each.items())
            return out

        monkeypatch.setattr(fedmrn_secagg.Server, verb, method)
    return messages


def test_the_bytes_are_those_of_all_messages_of_both_directions(digits, tmp_path, heard):
    settings = settings_of(secure=True)
    lines = run(settings, digits, tmp_path)
    total = {name: sum(len(m) for n, _, m in heard if n == name) for name in (*UP, *DOWN)}
    assert all(total.values())
    assert sum(map(report.uplink, lines)) == sum(total[name] for name in UP)
    steps = beside_of(tmp_path, "secure")
    assert {name: sum(line["up"][name] for line in steps) for name in UP} == {n: total[n] for n in UP}
    assert {name: sum(line["down"][name] for line in steps) for name in DOWN} == {n: total[n] for n in DOWN}
    model = models.build("cnn2", digits.in_shape, 10, 0)
    schema = methods.build(settings).schema(model)
    kept = traffic.read(beside.path(tmp_path / METRICS, "traffic"))
    for line, each in zip(lines, kept, strict=True):
        assert sum(each["up"]) == report.uplink(line)
        assert sum(each["down"]) == line["downlink_bytes"]
        # spec/SECAGG.md 13: two bits an element for three clients, four bytes for a dense float
        masked = sum(-(-t.size // 8) for t in schema if t.masked)
        assert line["uplink_mask_bytes"] == 3 * 2 * masked
        dense = sum(t.size * (4 if t.type.is_float else 8) for t in schema if not t.masked)
        assert line["uplink_dense_bytes"] == 3 * dense
        rest = 116 + (84 + 48 * 2) + (52 + 4) + (52 + 16 * 3)
        assert line["uplink_header_bytes"] == 3 * rest
    ids = {id for _, id, _ in heard}
    assert ids == {client + 1 for each in kept for client in each["clients"]}
    settings = settings_of(PLAIN)
    plain = run(settings, digits, tmp_path / "plain")
    for line, other, step in zip(lines, plain, steps, strict=True):
        assert line["downlink_bytes"] == other["downlink_bytes"] + sum(step["down"].values())


def test_the_server_receives_no_frame(digits, tmp_path, heard, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a frame reached an aggregator")

    for verb in ("add", "add_many", "add_arrays"):
        monkeypatch.setattr(fm.Aggregator, verb, refuse)
    lines = run(settings_of(secure=True, rounds=1), digits, tmp_path)
    assert lines[0]["clients"] == 3
    with pytest.raises(AssertionError, match="a frame reached an aggregator"):
        run(settings_of(PLAIN, rounds=1), digits, tmp_path / "plain")
    assert {name for name, _, _ in heard} == {*UP, *DOWN}


def test_the_threshold_is_a_share_of_the_clients(digits, tmp_path):
    assert [secure.Terms(0.7, 1, 1.0).threshold(n) for n in (2, 3, 10, 100)] == [2, 3, 7, 70]
    assert secure.Terms(0.51, 1, 1.0).threshold(2) == 2
    for share, threshold in ((0.7, 3), (0.6, 2)):
        folder = tmp_path / str(share)
        run(settings_of({"threshold": share}, secure=True, rounds=1), digits, folder)
        assert [line["threshold"] for line in beside_of(folder, "secure")] == [threshold]


SCHEMA = fm.Schema(
    [fm.Tensor("w", (3, 5), masked=True), fm.Tensor("b", (4,)), fm.Tensor("n", (), dtype="int64")]
)


def test_dense_floats_beyond_their_grid_are_counted():
    request = fm.Request(5, fm.Bernoulli(0.5), "signed", 1, 9, SCHEMA)
    exchange = secure.Exchange(request, {0: 1, 7: 1}, secure.Terms(0.7, 1, 2.0**-18))
    update = {"w": np.zeros((3, 5), np.float32), "b": np.float32([1, 1e9, -1e9, 2]), "n": np.int64(3)}
    exchange.open()
    frame = request.encode(update)
    for reply in exchange.replies(Reply(client, frame, {}) for client in (7, 0)):
        assert frame not in reply.message
        exchange.add(reply.client, reply.message)
    mean = exchange.close().mean()
    assert exchange.clipped == 4
    most = (2**24 - 1) * 2.0**-18
    assert mean["b"].tolist() == np.float32([1, most, -most, 2]).tolist()
    assert mean["n"] == 3
    assert exchange.seconds > 0


def test_rounding_dense_floats_keeps_the_masks():
    update = {"w": np.ones((3, 5), np.float32) * 0.1, "b": np.float32([0.1, -0.3, 2.5, 0]), "n": np.int64(3)}
    request = fm.Request(5, fm.Bernoulli(0.5), "signed", 1, 9, SCHEMA)
    frame = request.encode(update)
    rounded = with_rounded_dense(frame, SCHEMA, 0.25, "raw")
    got, want = fm.decode(rounded, SCHEMA), fm.decode(frame, SCHEMA)
    assert got["w"].tobytes() == want["w"].tobytes()
    assert got["n"] == want["n"]
    assert got["b"].tolist() == [0, -0.25, 2.5, 0]
    summary = request.check(rounded)
    assert (summary.round, summary.base_model, summary.seed) == (1, 9, 5)


@pytest.mark.parametrize(
    ("label", "given", "words"),
    [
        (("fedavg", None), {}, "method: expected fedmrn with secure aggregation, got 'fedavg'"),
        (("postmask", "signed"), {}, "method: expected fedmrn with secure aggregation, got 'postmask'"),
        (("fedmrn", "signed"), {"noise": "uniform:0.01"}, "noise: expected adaptive or bernoulli:SCALE with"),
        (
            ("fedmrn", "signed"),
            {"clients_per_round": 1},
            "clients per round: expected at least 2 with secure",
        ),
        (("fedmrn", "signed"), {"secure": "yes"}, "secure: expected true or false, got 'yes'"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(label, given, words):
    with pytest.raises(ValueError, match=words):
        defaults("digits", *label, **{"secure": True, **given})


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        (
            {"distribution": "uniform"},
            {},
            "distribution of fedmrn: expected 'bernoulli', the default, with secure",
        ),
        ({"coding": "raw"}, {}, "coding of fedmrn: expected 'rans12', the default, with secure aggregation"),
        (
            {"dense_coding": "float16"},
            {},
            "dense_coding of fedmrn: expected 'raw' with fraction bits or secure",
        ),
        ({"threshold": 0.5}, {}, "threshold of fedmrn: expected above 0.5 and at most 1, got 0.5"),
        (
            {"threshold": 0.9},
            {"secure": False},
            "threshold of fedmrn: expected 0.7 without secure aggregation",
        ),
        ({"largest_weight": -1}, {}, "largest_weight of fedmrn: expected at least 0, got -1"),
        (
            {"largest_weight": 2, "examples": 9},
            {},
            "largest_weight of fedmrn: expected at most 1 with secure",
        ),
        (
            {"largest_weight": 2},
            {},
            "examples of fedmrn: expected at least 1 with a largest weight of 2, got 0",
        ),
        ({"examples": 9}, {}, "examples of fedmrn: expected 0 with a largest weight of 0, got 9"),
        ({"fraction_bits": 25}, {}, "fraction_bits of fedmrn: expected 0 to 24, got 25"),
        ({"bits": 0.5}, {}, "bits of fedmrn: expected 0.0, the default, with secure aggregation, got 0.5"),
        ({"bits": 0.5}, {"noise": "bernoulli:0.1"}, "bits of fedmrn: expected 0.0 with fixed noise, got 0.5"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options, given, words):
    with pytest.raises(ValueError, match=words):
        methods.build(settings_of(options, **{"secure": True, **given}))


def test_a_missing_package_is_named(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "Crypto.Protocol.SecretSharing", None)
    with pytest.raises(
        ValueError, match=r"secure aggregation: expected the packages cryptography and pycrypto"
    ):
        run(settings_of(secure=True), digits, tmp_path)
    run(settings_of(rounds=1), digits, tmp_path)


def test_the_rule_needs_squares_of_weights_that_a_sum_does_not_show():
    """Why adaptive noise goes with equal weights only: the sum has no statistics if the weights differ."""
    request = fm.Request(5, fm.Bernoulli(0.5), "signed", 1, 0, SCHEMA)
    update = {"w": np.zeros((3, 5), np.float32), "b": np.zeros(4, np.float32), "n": np.int64(0)}
    weights, direct = {0: 1, 1: 3}, request.aggregator()
    exchange = secure.Exchange(request, weights, secure.Terms(0.7, 3, 2.0**-18))
    exchange.open()
    frames = {client: request.encode(update) for client in weights}
    for client, weight in weights.items():
        direct.add(frames[client], weight)
    for reply in exchange.replies(Reply(client, frame, {}) for client, frame in frames.items()):
        exchange.add(reply.client, reply.message)
    total = exchange.close()
    assert total.mean()["w"].tobytes() == direct.mean()["w"].tobytes()
    assert direct.statistics()["w"].square_weights == (1 + 9) / 16
    with pytest.raises(fm.AggregateError):
        total.statistics()


def test_the_setting_in_the_shell_in_presets_and_in_sweeps(capsys, tmp_path):
    tiny = ["--clients=4", "--clients-per-round=3", "--epochs=1", "--rounds=1", "--threads=1"]
    for mask, more in (("binary", []), ("signed", ["--mask=signed"])):
        with pytest.raises(SystemExit) as left:
            app(["train", *tiny, "--secure", *more, "--out", str(tmp_path / mask)], prog_name="fedmrn")
        assert left.value.code == 0
        assert f"fedmrn {mask}, secure" in capsys.readouterr().out
        ((header, _),) = read(tmp_path / mask / METRICS)
        assert (header["settings"]["secure"], header["settings"]["mask"]) == (True, mask)
    entries = ["fedmrn", "fedmrn+secure=true", "fedmrn+secure=true+threshold=0.9"]
    plain, sums, higher = sweep_runs.runs(["digits"], entries, [0], {})
    assert (plain.settings.secure, sums.settings.secure) == (False, True)
    assert higher.settings.options == {"threshold": 0.9}
    assert len({plain.name, sums.name, higher.name}) == 3
    (tmp_path / "mine.toml").write_text('dataset = "digits"\nsecure = true\nlearning_rate = 0.5\n')
    mine = presets.load(str(tmp_path / "mine.toml"))
    assert presets.settings(mine, "fedmrn", None).secure
    assert not presets.settings(mine, "fedmrn", None, secure=False).secure
    labels = presets.load("fmnist-labels")
    for mask, rate in ((None, 0.06), ("signed", 0.03)):
        assert presets.settings(labels, "fedmrn", mask, secure=True).learning_rate == rate


def test_a_run_from_before_this_setting_continues(digits, tmp_path):
    settings = settings_of(rounds=1)
    want = run(settings, digits, tmp_path)
    header, line = (tmp_path / METRICS).read_text().splitlines()
    older = json.loads(header)
    del older["settings"]["secure"]
    (tmp_path / METRICS).write_text(f"{json.dumps(older)}\n{line}\n")
    assert run(settings, digits, tmp_path) == want
    with pytest.raises(ValueError, match="secure expected True, got False"):
        run(settings_of(rounds=1, secure=True), digits, tmp_path)

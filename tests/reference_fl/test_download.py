"""The download: real frames to clients that hold different versions, and what is kept between rounds."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from run_lines import run

import fedmrn_codec as fm
from fedmrn_codec.cli.app import app
from reference_fl import beside, data, download, methods, models, server, sweep_runs, traffic
from reference_fl.engines.local import Local
from reference_fl.mask_counts import MaskCounts
from reference_fl.record import METRICS, STATE, read
from reference_fl.settings import defaults, split
from reference_fl.traffic import Traffic
from reference_fl.train import evaluate

TINY = {"clients": 5, "clients_per_round": 2, "epochs": 1, "rounds": 6, "threads": 1, "downlink": "grid"}
KINDS = [("fedavg", None), ("eden", None), ("fedmrn", "binary")]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


class Kept(Local):
    """Keeps what each client of each round is given."""

    def __init__(self, settings, digits):
        super().__init__(settings, digits)
        self.rounds = []

    def replies(self, broadcast, assignments):
        self.rounds.append((safetensors.torch.load(broadcast), assignments))
        return super().replies(broadcast, assignments)


def recorded(monkeypatch):
    """The messages to the clients of each round, by client."""
    sent, original = [], download.Grid.send

    def send(self, clients):
        sent.append(original(self, clients))
        return sent[-1]

    monkeypatch.setattr(download.Grid, "send", send)
    return sent


@pytest.mark.parametrize(("method", "mask"), KINDS)
def test_a_client_that_follows_its_frames_holds_what_it_trains_from(
    method, mask, digits, tmp_path, monkeypatch
):
    settings = defaults("digits", method, mask, **TINY)
    engine, sent = Kept(settings, digits), recorded(monkeypatch)
    lines = run(settings, digits, tmp_path, engine=engine)
    schema = methods.build(settings).schema(models.build("cnn2", digits.in_shape, 10, 0))
    replicas = [fm.Replica(schema) for _ in range(settings.clients)]
    seen, missed = {}, 0
    for number, (line, each, (broadcast, assignments)) in enumerate(
        zip(lines, sent, engine.rounds, strict=True), 1
    ):
        told = sum(len(json.dumps(a.instructions)) for a in assignments if a.instructions)
        assert line["downlink_bytes"] == sum(map(len, each.messages.values())) + told
        assert sorted(each.messages) == sorted(a.client for a in assignments)
        for a in assignments:
            replica, frame = replicas[a.client], each.messages[a.client]
            assert fm.inspect(frame).base_model == replica.model_id, "0 for a client that holds nothing"
            got = replica.apply(frame, a.base_model)
            assert set(got) == set(broadcast)
            assert all(broadcast[name].numpy().tobytes() == got[name].tobytes() for name in got)
            missed += number - seen.get(a.client, number) > 1
            seen[a.client] = number
    assert missed > 0, "no client has missed a round"


def test_the_bytes_of_every_client_are_beside_the_metrics(digits, tmp_path, monkeypatch):
    settings = defaults("digits", "fedmrn", "binary", **TINY)
    sent = recorded(monkeypatch)
    lines = run(settings, digits, tmp_path, engine=(engine := Kept(settings, digits)))
    kept = traffic.read(beside.path(tmp_path / METRICS, "traffic"))
    assert [each["round"] for each in kept] == [1, 2, 3, 4, 5, 6]
    for line, each, its, (_, assignments) in zip(lines, kept, sent, engine.rounds, strict=True):
        told = len(json.dumps(assignments[0].instructions))
        assert each["clients"] == sorted(its.messages)
        assert each["down"] == [len(its.messages[client]) + told for client in each["clients"]]
        assert sum(each["down"]) == line["downlink_bytes"]
        assert sum(each["up"]) == sum(line[f"uplink_{kind}_bytes"] for kind in ("mask", "dense", "header"))
    assert len(set(kept[-1]["down"])) > 1 or len(set(kept[-2]["down"])) > 1, "versions differ"


def test_a_grid_download_is_smaller(digits, tmp_path):
    down = {}
    for way in ("raw", "grid"):
        settings = defaults("digits", "fedavg", None, **{**TINY, "downlink": way, "rounds": 2})
        down[way] = [line["downlink_bytes"] for line in run(settings, digits, tmp_path / way)]
    assert all(4 * grid < raw for raw, grid in zip(down["raw"], down["grid"], strict=True))


def one_round(settings, digits):
    """The server after a round, the mean update of which is returned too."""
    ours = server.Server(settings, digits, [len(part) for part in split(settings, digits)])
    before, means = download.arrays(ours.model), []
    before = {name: array.copy() for name, array in before.items()}
    original = ours.method.apply_
    ours.method.apply_ = lambda model, mean, number: (means.append(mean), original(model, mean, number))
    with Local(settings, digits) as engine:
        line = ours.round(1, engine, MaskCounts(), Traffic(), False, lambda *_: None)
    return ours, before, means[0], line


def test_the_server_adds_the_mean_to_its_own_model_and_rounds_anew(digits):
    ours, before, mean, _ = one_round(defaults("digits", "fedavg", None, **TINY), digits)
    own, held = download.arrays(ours.model), download.arrays(ours.download.model)
    steps = ours.download.down.steps
    assert set(steps) < set(own)
    for name, array in own.items():
        assert array.tobytes() == (before[name] + mean[name]).astype(array.dtype).tobytes()
        if name in steps:
            assert np.abs(array - held[name]).max() <= steps[name] / 2
            assert not (held[name] % steps[name]).any()
        else:
            assert array.tobytes() == held[name].tobytes()
    assert (own["linear.weight"] != held["linear.weight"]).any()


def test_the_model_that_clients_will_hold_is_evaluated(digits):
    ours, _, _, line = one_round(defaults("digits", "fedavg", None, **TINY), digits)
    held = evaluate(ours.download.model, digits.test_x, digits.test_y)
    assert (line["accuracy"], line["loss"]) == held
    assert evaluate(ours.model, digits.test_x, digits.test_y) != held


@pytest.mark.parametrize(("method", "mask"), KINDS)
def test_a_resumed_run_equals_an_unbroken_one(method, mask, digits, tmp_path):
    settings = defaults("digits", method, mask, **TINY)
    want = run(settings, digits, tmp_path / "whole")
    for rounds in (1, 4):
        run(defaults("digits", method, mask, **{**TINY, "rounds": rounds}), digits, tmp_path / "parts")
    assert run(settings, digits, tmp_path / "parts") == want
    for name in (STATE, "traffic.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_state_holds_the_versions_of_the_clients(digits, tmp_path):
    """Without them a resumed run would send whole models: the test above can fail."""
    settings = defaults("digits", "fedavg", None, **{**TINY, "rounds": 2})
    run(settings, digits, tmp_path)
    state = safetensors.torch.load_file(tmp_path / STATE)
    name = server.DOWNLOAD + download.VERSIONS
    versions = dict(json.loads(state[name].numpy().tobytes()))
    assert set(versions) == {c for number in (1, 2) for c in server.choose(settings, number)}
    ours = server.Server(settings, digits, [1] * settings.clients)
    ours.restore(state)
    assert ours.download.versions == versions
    state[name] = torch.tensor(list(b"[]"), dtype=torch.uint8)
    forgetful = server.Server(settings, digits, [1] * settings.clients)
    forgetful.restore(state)
    (client, *_) = versions
    assert len(forgetful.download.send([client]).messages[client]) > len(
        ours.download.send([client]).messages[client]
    )


def test_frames_to_clients_are_compared_between_backends(digits, tmp_path, monkeypatch):
    settings = defaults("digits", "fedavg", None, **{**TINY, "rounds": 2})
    sent, compared = recorded(monkeypatch), []
    monkeypatch.setattr(server, "compare_backends", lambda message, schema: compared.append(message))
    run(settings, digits, tmp_path, verify=True)
    assert {message for each in sent for message in each.messages.values()} < set(compared)


def test_a_run_from_before_this_setting_continues_with_a_raw_download(digits, tmp_path):
    settings = defaults("digits", "fedavg", None, **{**TINY, "downlink": "raw", "rounds": 1})
    want = run(settings, digits, tmp_path)
    header, line = (tmp_path / METRICS).read_text().splitlines()
    older = json.loads(header)
    del older["settings"]["downlink"]
    (tmp_path / METRICS).write_text(f"{json.dumps(older)}\n{line}\n")
    (tmp_path / "traffic.jsonl").unlink()
    assert run(settings, digits, tmp_path) == want
    with pytest.raises(ValueError, match="downlink expected 'grid', got 'raw'"):
        run(defaults("digits", "fedavg", None, **{**TINY, "rounds": 1}), digits, tmp_path)


@pytest.mark.parametrize("method", ["fedpm", "fedsparsify"])
def test_a_method_that_replaces_the_model_is_refused(method):
    with pytest.raises(ValueError, match=f"downlink of {method}: expected raw, since .*, got 'grid'"):
        methods.build(defaults("digits", method, None, downlink="grid"))
    methods.build(defaults("digits", method, None))


def test_the_setting_in_the_shell_and_in_sweeps(capsys, tmp_path):
    for words, given in [
        ("downlink: expected raw or grid, got 'tin'", ["--downlink=tin"]),
        ("downlink of fedpm: expected raw", ["--method=fedpm", "--downlink=grid"]),
    ]:
        with pytest.raises(SystemExit) as left:
            app(["train", *given, "--out", str(tmp_path / "refused")], prog_name="fedmrn")
        assert left.value.code == 2
        assert words in capsys.readouterr().err
    tiny = ["--clients=3", "--clients-per-round=2", "--epochs=1", "--rounds=1", "--threads=1"]
    with pytest.raises(SystemExit) as left:
        app(["train", *tiny, "--downlink=grid", "--out", str(tmp_path / "run")], prog_name="fedmrn")
    assert left.value.code == 0
    ((header, _),) = read(tmp_path / "run" / METRICS)
    assert header["settings"]["downlink"] == "grid"
    raw, grid = sweep_runs.runs(["digits"], ["fedavg", "fedavg+downlink=grid"], [0], {})
    assert (raw.settings.downlink, grid.settings.downlink) == ("raw", "grid")
    assert grid.settings.options == {}
    assert raw.name != grid.name


@pytest.mark.parametrize("line", ['"up": [1]', '"up": [], "down": []', '"up": [1, 2], "down": [1]'])
def test_damaged_traffic_is_refused(line, tmp_path):
    (tmp_path / "traffic.jsonl").write_text(f'{{"round": 1, {line}}}\n')
    with pytest.raises(ValueError, match=r"traffic.jsonl, round 1: expected lists up and down"):
        traffic.read(tmp_path / "traffic.jsonl")

"""FromFrame without a noise: the rule sets it from round to round, and survives a restart of the server."""

import json

import numpy as np
import pytest
from nvflare.apis.dxo import from_shareable
from nvflare_cases import MODEL, Context, Federation

import fedmrn_codec as fm
from fedmrn_nvflare import FromFrame, Request

CLIENTS = ("site-1", "site-2")
UPDATE = {
    name: np.full_like(array, 0.002) if array.dtype.kind == "f" else np.array(1)
    for name, array in MODEL.items()
}


def play(federation, rounds, start=0):
    """Rounds in which every client replies; the scales of each."""
    scales = []
    for number in range(start, start + rounds):
        model, requests = {name: array.copy() for name, array in MODEL.items()}, []
        for client in CLIENTS:
            task = federation.send(client, model, f"task-{number}", number)
            requests.append(Request.of(dxo_meta(task)))
            result = federation.reply(UPDATE, client)
            federation.server.process(result, Context(client, f"task-{number}"))
        assert requests[0].noise == requests[1].noise
        scales.append({name: noise.scale for name, noise in requests[0].noise.items()})
    return scales


def dxo_meta(task):
    return from_shareable(task).meta


def test_the_noise_starts_with_the_spread_and_falls_towards_the_updates():
    scales = play(Federation(None, "binary", seed=1), 4)
    for name in ("conv.weight", "linear.weight"):
        assert scales[0][name] == pytest.approx(float(np.std(MODEL[name])), rel=1e-6)
        assert scales[3][name] < scales[2][name] < scales[1][name] < scales[0][name]


def test_a_restarted_server_continues_from_the_file(tmp_path):
    state = tmp_path / "noise.json"
    play(Federation(None, "binary", seed=1, state=str(state)), 3)
    (saved,) = json.loads(state.read_text()).values()
    continued = play(Federation(None, "binary", seed=1, state=str(state)), 1, 2)
    assert continued[0] == {name: entry["scale"] for name, entry in saved["tensors"].items()}
    assert saved["rounds"] == 2  # it sees a round when the next one begins


def test_the_frames_are_entropy_coded_unless_the_noise_is_fixed():
    for noise, coding in ((None, "rans12"), ("uniform:0.01", "raw")):
        assert Request.of(dxo_meta(Federation(noise, "binary").send())).coding == coding
    assert Request.of(dxo_meta(Federation(None, "binary", coding="raw").send())).coding == "raw"


def test_bad_settings_are_refused():
    with pytest.raises(fm.ArgumentError, match="bits: expected none beside a noise"):
        FromFrame("uniform:0.01", bits=0.5)
    with pytest.raises(fm.ArgumentError, match="bits: expected none for signed masks"):
        FromFrame(mask="signed", bits=0.5)


def test_a_result_that_is_sent_again_counts_once():
    """NVFlare drops it only after the filters."""
    federation = Federation(None, "binary", seed=1)
    for number in range(2):
        for client in CLIENTS:
            federation.send(client, MODEL, f"task-{number}", number)
        for client, times in zip(CLIENTS, (20, 1), strict=True):
            result = federation.reply(UPDATE, client)
            for _ in range(times):
                federation.server.process(result, Context(client, f"task-{number}"))
        assert federation.server._sum.frames == 2


def test_several_models_in_a_round_are_one_round_of_the_rule():
    """A workflow that sends each client a model of its own, or copies of one."""
    federation = Federation(None, "binary", seed=1)
    one, other = MODEL, {name: np.asarray(array + 1, array.dtype) for name, array in MODEL.items()}
    requests = {}
    for number in range(2):
        for client, model in zip((*CLIENTS, "site-3"), (one, other, one), strict=True):
            task = federation.send(client, model, f"task-{number}", number)
            requests[client] = Request.of(dxo_meta(task))
            result = federation.reply(UPDATE, client)
            federation.server.process(result, Context(client, f"task-{number}"))
        assert len({str(request.noise) for request in requests.values()}) == 1
        assert requests["site-1"].base_model == requests["site-3"].base_model
        assert requests["site-1"].base_model != requests["site-2"].base_model
        assert federation.server._sum.frames == 3
    (rule,) = federation.server._noise._rules.values()
    assert rule.rounds == 1  # the second ends when a third begins


def copied(model=MODEL):
    return {name: array.copy() for name, array in model.items()}


def test_late_results_are_accepted_and_not_in_another_sum():
    """A workflow without numbers, whose models may be those of any round; and two models in round 0."""
    federation = Federation(None, "binary", seed=None)
    for client in ("a", "b"):
        federation.send(client, copied(), f"task-{client}", None)
    federation.receive(federation.reply(UPDATE, "b"), "b", "task-b")
    federation.send("c", copied(), "task-c", None)
    federation.receive(federation.reply(UPDATE, "a"), "a", "task-a")
    federation.receive(federation.reply(UPDATE, "c"), "c", "task-c")
    assert federation.server._sum.frames == 1
    federation = Federation(None, "binary", seed=1)
    more = copied() | {"more": np.ones((2, 2), np.float32)}
    federation.send("a", MODEL, "task-a")
    federation.send("b", more, "task-b")
    federation.receive(federation.reply(UPDATE, "a"), "a", "task-a")
    update = UPDATE | {"more": np.full((2, 2), 0.1, np.float32)}
    federation.receive(federation.reply(update, "b"), "b", "task-b")
    assert federation.server._sum.frames == 1

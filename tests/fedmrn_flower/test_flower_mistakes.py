"""Mistakes that would pass silently: no FedMRN on the server, wrong orders, scales that do not fit."""

import re

import numpy as np
import pytest
import torch
from flower_cases import MODEL, Grid, honest, messages_of, record, through, trained, with_frame
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
)

import fedmrn_codec as fm
import fedmrn_flower
from fedmrn_flower import FedMRN, Request, client, mod

NODES = [11, 12]


@pytest.fixture(autouse=True)
def logged(monkeypatch):
    """The texts that the adapter logs; no warning counts as given."""
    texts = []
    monkeypatch.setattr(client, "_warned", set())
    for module in ("client", "strategy"):
        monkeypatch.setattr(
            f"fedmrn_flower.{module}.log", lambda level, text, *args: texts.append(text % args)
        )
    return texts


def plain(base=FedAvg):
    return base(min_available_nodes=1, min_train_nodes=1)


def message(kind="train"):
    return Message(
        RecordDict({"arrays": record(), "config": ConfigRecord({})}), dst_node_id=1, message_type=kind
    )


# --- a server without FedMRN ---------------------------------------------------------------------------


def test_a_server_that_asks_for_no_frame_is_reported_once(logged):
    for _ in range(2):
        reply = through(honest, message())
        assert list(reply.content["arrays"]) == list(MODEL)
        assert dict(reply.content["metrics"]) == {"num-examples": 10, "loss": 0.5}
    assert logged == [
        "fedmrn: the server does not ask for a frame, so the reply holds the whole model; wrap the server's "
        "strategy: FedMRN(strategy)"
    ]


def test_evaluation_needs_no_request(logged):
    app = ClientApp(mods=[mod])
    app.evaluate()(lambda msg, _: Message(RecordDict({"m": MetricRecord({"num-examples": 1})}), reply_to=msg))
    context = type("Context", (), {"run_id": 1})()
    assert not app(message("evaluate"), context).has_error()
    assert logged == []


# --- the order of strategies ---------------------------------------------------------------------------

SERVER_SIDE = [
    lambda inner: DifferentialPrivacyServerSideFixedClipping(inner, 1.0, 1.0, 2),
    lambda inner: DifferentialPrivacyServerSideAdaptiveClipping(inner, 0.01, 2),
]
CLIENT_SIDE = [
    lambda inner: DifferentialPrivacyClientSideFixedClipping(inner, 1.0, 1.0, 2),
    lambda inner: DifferentialPrivacyClientSideAdaptiveClipping(inner, 0.01, 2),
]


@pytest.mark.parametrize("wrap", SERVER_SIDE)
def test_a_privacy_wrapper_around_fedmrn_is_refused_before_training(wrap):
    outer = wrap(FedMRN(plain()))
    name = type(outer).__name__
    expected = f"order of the strategies: expected FedMRN({name}(...)), got {name}(FedMRN(...))"
    with pytest.raises(fm.ArgumentError, match=f"^{re.escape(expected)}$"):
        outer.configure_train(1, record(), ConfigRecord({}), Grid(NODES))
    FedMRN(wrap(plain())).configure_train(1, record(), ConfigRecord({}), Grid(NODES))


@pytest.mark.parametrize("wrap", [lambda inner: inner, *SERVER_SIDE])
def test_two_fedmrn_are_refused(wrap):
    expected = "strategy: expected one FedMRN, around the other strategies, got a second FedMRN inside"
    with pytest.raises(fm.ArgumentError, match=f"^{expected}$"):
        FedMRN(wrap(FedMRN(plain())))


@pytest.mark.parametrize("wrap", CLIENT_SIDE)
@pytest.mark.parametrize("inside", [True, False])
def test_clipping_on_clients_bounds_no_decoded_frame(wrap, inside, logged):
    strategy = FedMRN(wrap(plain())) if inside else wrap(FedMRN(plain()))
    for number in (1, 2):
        list(strategy.configure_train(number, record(), ConfigRecord({}), Grid(NODES)))
    (text,) = logged
    assert re.match(r"fedmrn: DifferentialPrivacyClientSide\w+ takes the clipping norm for a bound", text)
    assert re.search(r"FedMRN\(DifferentialPrivacyServerSide\w+\(...\)\) clips what it adds.$", text)


# --- the order of mods ---------------------------------------------------------------------------------

CLIPPING = [fixedclipping_mod, adaptiveclipping_mod, LocalDpMod(1.0, 1.0, 1.0, 1e-5)]


def assigned(**options):
    (found,) = messages_of(FedMRN(plain(), **options), [1])
    found.content["config"]["clipping_norm"] = 1.0
    return found


@pytest.mark.parametrize("clipping", CLIPPING)
def test_a_clipping_mod_around_ours_is_an_error_reply(clipping):
    reply = through(honest, assigned(), mods=(clipping, mod))
    name = getattr(clipping, "__name__", "LocalDpMod")
    assert reply.error.code == ErrorCode.MOD_FAILED_PRECONDITION
    expected = f"expected [fedmrn_flower.mod, {name}], got {name} around a frame"
    assert reply.error.reason == f"fedmrn: order of the mods: {expected}"
    assert not through(honest, assigned(), mods=(mod, clipping)).has_error()


@pytest.mark.parametrize("clipping", CLIPPING)
@pytest.mark.parametrize("mods", [(), (mod,)])
def test_a_clipping_mod_around_a_psm_is_an_error(clipping, mods):
    name = getattr(clipping, "__name__", "LocalDpMod")

    def train(msg):
        return fedmrn_flower.psm(torch.nn.Linear(2, 2), msg, steps=1)

    expected = (
        f"order of the mods: expected no {name}, since the reply of a PSM is a frame .*, got {name} around"
    )
    with pytest.raises(fm.ArgumentError, match=f"^{expected}"):
        through(train, assigned(), mods=(*mods, clipping))


# --- the scale -----------------------------------------------------------------------------------------


def play(server, rounds=1, report=True, mods=(mod,)):
    """Rounds of clients, of which the second reports nothing unless `report`; the metrics of the last."""
    arrays, metrics = record(), {}
    for number in range(1, rounds + 1):
        replies = [through(honest, each, mods) for each in messages_of(server, NODES, number, arrays)]
        if not report:
            del replies[1].content["metrics"]["fedmrn.clipped"]
        arrays, metrics = server.aggregate_train(number, replies)
    return metrics


@pytest.mark.parametrize("base", [FedAvg, FedMedian])
@pytest.mark.parametrize("report", [True, False])
def test_the_shares_are_metrics_of_the_round(base, report):
    for noise, clipped in ((fm.Bernoulli(0.01), 0.0), (fm.Bernoulli(0.001), 1.0), (None, 0.0)):
        metrics = play(FedMRN(plain(base), noise=noise), report=report)
        assert metrics["fedmrn.clipped"] == clipped
        assert metrics["fedmrn.refused"] == 0
        assert {key for key in metrics if key.startswith("fedmrn.density.")} == {
            "fedmrn.density.conv.weight",
            "fedmrn.density.linear.weight",
        }
        if clipped:
            assert 0.3 < metrics["fedmrn.density.conv.weight"] < 0.7


@pytest.mark.parametrize("mask", ["binary", "signed"])
def test_a_fixed_scale_that_does_not_fit_is_reported_by_both_sides_once(mask, logged):
    play(FedMRN(plain(), noise=fm.Uniform(1e-4), mask=mask), rounds=2)
    found = (
        "about 100 % of the update's masked elements are larger than the scale of the noise and are clipped"
    )
    assert logged == [
        f"fedmrn: {found}; use a larger scale in the server's FedMRN, or no noise, so that a rule sets it",
        f"fedmrn: {found}; use a larger scale, or give no noise, so that a rule sets it",
    ]


def test_the_first_rounds_of_a_rule_are_not_reported(logged):
    play(FedMRN(plain()), rounds=3)
    assert logged == []


@pytest.mark.parametrize("share", [-0.1, 1.5, [0.5], float("nan")])
def test_a_bad_share_is_refused(share, logged):
    server = FedMRN(plain(), noise=fm.Uniform(0.01), downlink="raw")
    first, second = messages_of(server, NODES)
    frame = Request.of(second).encode(
        fm.difference(trained(second), arrays_of(second), Request.of(second).schema)
    )
    bad = with_frame(second, frame, **{"fedmrn.clipped": share})
    _, metrics = server.aggregate_train(1, [through(honest, first), bad])
    assert metrics["fedmrn.refused"] == 1
    assert "metric 'fedmrn.clipped': expected a number from 0 to 1, got" in logged[0]


def arrays_of(message):
    return {name: np.asarray(array.numpy()) for name, array in message.content["arrays"].items()}


def test_a_psm_reports_its_share_in_the_clients_own_metrics():
    def train(msg):
        model = torch.nn.Linear(4, 4)
        model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        psm = fedmrn_flower.psm(model, msg, steps=1)
        model(torch.rand(3, 4)).square().sum().backward()
        torch.optim.SGD(model.parameters(), lr=1e-3).step(), psm.step()
        arrays = fedmrn_flower.arrays(psm)
        numbers = MetricRecord({"num-examples": 3, "fedmrn.clipped": psm.clipped})
        return Message(RecordDict({"arrays": arrays, "metrics": numbers}), reply_to=msg)

    server = FedMRN(plain())
    start = ArrayRecord(torch.nn.Linear(4, 4).state_dict())
    replies = [through(train, each) for each in messages_of(server, NODES, arrays=start)]
    _, metrics = server.aggregate_train(1, replies)
    assert metrics["fedmrn.clipped"] == 0

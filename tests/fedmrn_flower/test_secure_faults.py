"""Secure aggregation in Flower: hostile replies, nodes that forget, servers and nodes that do not agree."""

import json
import subprocess
import sys

import numpy as np
import pytest
from flower_cases import honest, record
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    Krum,
    QFedAvg,
)

import fedmrn_codec as fm
from fedmrn_flower import FedMRN, SecAgg

pytest.importorskip("cryptography")
pytest.importorskip("Crypto")

from secure_cases import (
    NODES,
    STEPS,
    SecureGrid,
    expected,
    on_grid,
    played,
    request_of,
    same,
    step_of,
    strategy,
)

RECORD = "fedmrn.secagg"


def holding(content):
    return lambda message, reply: Message(RecordDict(content), reply_to=message)


def changed(change):
    """The honest answer with other bytes as the message of the protocol."""

    def fault(message, reply):
        if step_of(message) == "masked":
            data = change(reply.content["arrays"]["fedmrn.masked"].data)
            array = Array("uint8", (len(data),), "fedmrn-secagg/1", data)
            reply.content["arrays"] = ArrayRecord({"fedmrn.masked": array})
        else:
            reply.content[RECORD] = ConfigRecord({"message": change(reply.content[RECORD]["message"])})
        return reply

    return fault


def flipped(data):
    return data[:60] + bytes([data[60] ^ 1]) + data[61:]


HOSTILE = {
    "nothing": (holding({}), "reply"),
    "no bytes": (holding({RECORD: ConfigRecord({"message": 7})}), "reply"),
    "other records": (holding({"metrics": MetricRecord({"num-examples": 10})}), "reply"),
    "an empty message": (changed(lambda data: b""), "truncated"),
    "random bytes": (changed(lambda data: bytes(range(256))), "magic"),
    "cut short": (changed(lambda data: data[:-1]), "truncated"),
    "longer": (changed(lambda data: data + b"\0"), "trailing"),
    "a flipped bit": (changed(flipped), "checksum"),
    "another client's": (changed(lambda data: data[:8] + (33).to_bytes(8, "little") + data[16:]), "sender"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_reply_in_each_step(step, name, caplog):
    fault, code = HOSTILE[name]
    grid = SecureGrid(faults={(step, 22): fault})
    request, new, metrics = played(strategy(threshold=3), grid)
    inside = NODES if step == "reveal" else [11, 33, 44]
    assert same(new, expected(record(), request, {node: grid.frames[node] for node in inside}))
    assert metrics["fedmrn.survivors"] == len(inside)
    assert metrics["fedmrn.refused"] == 1
    assert metrics["fedmrn.refused-nodes"] == [22]
    assert metrics["fedmrn.failed"] == 0
    assert f"refused the reply of node 22 ({code}): " in caplog.text


def metrics_of(**metrics):
    def fault(message, reply):
        reply.content["metrics"] = MetricRecord({**dict(reply.content["metrics"]), **metrics})
        return reply

    return fault


def frame_in_the_clear(message, reply):
    reply.content["arrays"] = record()
    return reply


@pytest.mark.parametrize(
    "fault",
    [
        metrics_of(loss=float("nan")),
        metrics_of(**{"num-examples": 0}),
        metrics_of(**{"num-examples": 1.5}),
        metrics_of(**{"fedmrn.secure-clipped": -1}),
        metrics_of(**{"fedmrn.secure-clipped": 0.5}),
        metrics_of(accuracy=1.0),
        frame_in_the_clear,
    ],
)
def test_a_refused_reply_to_the_training_is_not_in_the_sum(fault):
    grid = SecureGrid(faults={("masked", 22): fault})
    request, new, metrics = played(strategy(threshold=3), grid)
    inside = {node: grid.frames[node] for node in (11, 33, 44)}
    assert same(new, expected(record(), request, inside))
    assert metrics["fedmrn.refused-nodes"] == [22]
    assert metrics["loss"] == 0.5


def test_two_replies_and_replies_of_strangers():
    class Doubles(SecureGrid):
        def send_and_receive(self, messages, *, timeout=None):
            out = super().send_and_receive(messages, timeout=timeout)
            stranger = Message(RecordDict(), dst_node_id=99, message_type="train")
            return [out[0], *out, Message(RecordDict(), reply_to=stranger)]

    grid = Doubles()
    request, new, metrics = played(strategy(threshold=4), grid)
    assert same(new, expected(record(), request, grid.frames))
    assert metrics["fedmrn.survivors"] == 4
    assert metrics["fedmrn.refused"] == 2 * len(STEPS)


def test_a_reply_to_the_training_of_a_node_that_has_dropped_out():
    grid, server = SecureGrid(faults={("shares", 22): None}), strategy(threshold=3)
    messages = server.configure_train(1, record(), ConfigRecord(), grid)
    assert 22 not in [message.metadata.dst_node_id for message in messages]
    request, late = request_of(server), server._round.assignments[22].message
    replies = grid.send_and_receive(messages)
    content = RecordDict(dict(replies[0].content))
    new, metrics = server.aggregate_train(1, [Message(content, reply_to=late), *replies])
    assert same(new, expected(record(), request, grid.frames))
    assert metrics["fedmrn.refused-nodes"] == [22]
    assert metrics["fedmrn.survivors"] == 3


@pytest.mark.parametrize("step", STEPS)
def test_error_replies_of_the_superlink_are_those_of_the_node_that_stopped(step, caplog):
    """The SuperLink answers in its own name, with the id of the message that the node did not answer."""

    def of_superlink(message, reply):
        error = Message(Error(2, "the node stopped"), reply_to=message)
        error.metadata.__dict__["_src_node_id"] = 1
        return error

    class WithIds(SecureGrid):
        def one(self, message):
            message.metadata.__dict__["_message_id"] = f"id {len(self.asked)}"
            return super().one(message)

    grid = WithIds(faults={(step, 22): of_superlink})
    request, new, metrics = played(strategy(threshold=3), grid)
    inside = NODES if step == "reveal" else [11, 33, 44]
    assert same(new, expected(record(), request, {node: grid.frames[node] for node in inside}))
    assert metrics["fedmrn.failed-nodes"] == [22]
    assert f"node 22 failed in `{step}`: the node stopped" in caplog.text
    assert "did not answer" not in caplog.text
    assert "1 failures" not in caplog.text or step != "reveal"  # a survivor is no failure for the strategy


def test_wrong_shares_lose_the_round(caplog):
    def wrong(data):
        from binascii import crc32

        body = data[:48] + bytes([data[48] ^ 1]) + data[49:-4]
        return body + crc32(body).to_bytes(4, "little")

    grid = SecureGrid(faults={("reveal", 11): changed(wrong)})
    server = strategy(threshold=4)
    _, new, metrics = played(server, grid)
    assert new is None
    assert (metrics["fedmrn.lost-rounds"], metrics["fedmrn.lost-step"]) == (1, 4)
    assert "round 1 is lost" in caplog.text


# Nodes.


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_node_that_has_lost_its_state_drops_out(step, caplog):
    """As a SuperNode that is restarted between two steps: its mod says so, and the app is not called."""
    grid = SecureGrid()
    ask = grid.send_and_receive

    def send_and_receive(messages, *, timeout=None):
        messages = list(messages)
        if step_of(messages[0]) == step:
            grid.states[33] = RecordDict()
        return ask(messages, timeout=timeout)

    grid.send_and_receive = send_and_receive
    request, new, metrics = played(strategy(threshold=3), grid)
    inside = NODES if step == "reveal" else [11, 22, 44]
    assert same(new, expected(record(), request, {node: grid.frames[node] for node in inside}))
    assert [node for node, _ in grid.called].count(33) == (step == "reveal")
    assert metrics["fedmrn.failed-nodes"] == [33]
    assert "secrets of the node: expected those of round 1, got none" in caplog.text


def test_each_message_is_answered_once():
    """A server that repeats a message, or shows other survivors, gets an error."""
    seen, again = {}, {}

    def keep(message, reply):
        seen[step_of(message)] = message
        return reply

    grid = SecureGrid(faults={(step, 22): keep for step in STEPS})
    played(strategy(), grid)
    grid.faults.clear()
    for step in STEPS[1:]:
        again[step] = grid.one(seen[step])
    assert all(reply.has_error() for reply in again.values())
    assert [node for node, _ in grid.called].count(22) == 1

    grid = SecureGrid(faults={("masked", 22): keep})
    server = strategy()
    messages = server.configure_train(1, record(), ConfigRecord(), grid)
    (message,) = (m for m in messages if m.metadata.dst_node_id == 22)
    assert not grid.one(message).has_error()
    reply = grid.one(message)  # an update is masked once
    assert "training: expected after `shares`, once in a round, got state 'masked'" in reply.error.reason
    assert len(grid.called) == 1


def without(name):
    return lambda entries: {key: value for key, value in entries.items() if key != name}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *((without(name), f"'{name}' in fedmrn.secagg") for name in ("threshold", "session", "signed")),
        (lambda entries: entries | {"step": "more"}, "one of keys, shares, masked, reveal, got 'more'"),
        (lambda entries: entries | {"threshold": 2.5}, "expected int, got 2.5"),
        (lambda entries: entries | {"threshold": True}, "expected int, got True"),
        (lambda entries: entries | {"threshold": 1}, "threshold: expected at least 2, got 1"),
        (lambda entries: entries | {"grid-step": 3.0}, "step"),
        (lambda entries: entries | {"step": "shares"}, "'message' in fedmrn.secagg"),
    ],
)
def test_a_damaged_message_of_the_server(change, reason):
    """Here for a node that has sent its keys."""
    seen = []
    grid = SecureGrid(faults={("keys", 22): lambda message, reply: seen.append(message) or reply})
    strategy().configure_train(1, record(), ConfigRecord(), grid)
    grid.faults.clear()
    (message,) = seen
    grid.one(message)
    state = bytes(grid.states[22][RECORD]["state"])
    message.content[RECORD] = ConfigRecord(change(dict(message.content[RECORD])))
    reply = grid.one(message)
    assert reply.error.reason.startswith("fedmrn: ")
    assert reason in reply.error.reason
    assert bytes(grid.states[22][RECORD]["state"]) == state
    assert grid.called == []


def test_secrets_of_another_round_are_forgotten():
    grid, server = SecureGrid(faults={("reveal", 22): None}), strategy()
    _, new, _ = played(server, grid)
    assert RECORD in grid.states[22]
    plain = FedMRN(FedAvg(min_available_nodes=1, min_train_nodes=1), noise=fm.Bernoulli(0.01))
    grid.send_and_receive(plain.configure_train(2, new, ConfigRecord(), grid))
    assert RECORD not in grid.states[22]


def test_a_frame_that_the_app_has_made_is_masked_too():
    """As with fedmrn_flower.arrays(psm): here the test's mod makes the frames; without it the mod does."""
    with_frames, without = SecureGrid(), SecureGrid()
    without.keep_frame = lambda msg, context, call_next: call_next(msg, context)
    one, other = (played(strategy(), grid)[1] for grid in (with_frames, without))
    for name in ("conv.bias", "bn.num_batches_tracked"):  # masks are drawn at random
        assert one[name].numpy().tobytes() == other[name].numpy().tobytes()
    assert with_frames.frames
    assert not without.frames


def test_an_update_that_cannot_be_encoded_is_an_error_reply():
    def train(message):
        reply = on_grid(message)
        if message.metadata.dst_node_id == 22:
            arrays = {name: array.numpy() for name, array in reply.content["arrays"].items()}
            reply.content["arrays"] = record(arrays | {"conv.bias": np.full(8, np.nan, np.float32)})
        return reply

    grid = SecureGrid(train=train)
    grid.keep_frame = lambda msg, context, call_next: call_next(msg, context)
    _, _, metrics = played(strategy(), grid)
    assert metrics["fedmrn.failed-nodes"] == [22]
    assert metrics["fedmrn.survivors"] == 3


# Without the mod.


def test_without_the_mod_the_round_is_lost(caplog):
    def train(message):
        numbers = MetricRecord({"num-examples": 10, "loss": 0.5})
        return Message(RecordDict({"metrics": numbers}), reply_to=message)

    for answers in (train, honest):  # the second fails, since there are no arrays in the message
        grid = SecureGrid(train=answers, mods=())
        grid.keep_frame = lambda msg, context, call_next: call_next(msg, context)
        _, new, metrics = played(strategy(), grid)
        assert new is None
        assert metrics["fedmrn.lost-step"] == 1
        assert metrics["fedmrn.refused"] + metrics["fedmrn.failed"] == 4
    assert "(is fedmrn_flower.mod among the client's mods?)" in caplog.text


# Demands of nodes.


def test_a_node_may_demand_secure_sums():
    """Its owner states a least threshold; a server that asks for less, or for a frame, gets nothing."""
    demand = {"fedmrn-threshold": dict.fromkeys(NODES, 3) | {22: 4}}
    grid = SecureGrid(**demand)
    _, _, metrics = played(strategy(threshold=3), grid)
    assert metrics["fedmrn.survivors"] == 3
    assert metrics["fedmrn.failed-nodes"] == [22]
    for server in (
        FedMRN(FedAvg(min_available_nodes=1, min_train_nodes=1), noise=fm.Bernoulli(0.01)),
        FedAvg(min_available_nodes=1, min_train_nodes=1),
    ):
        replies = grid.send_and_receive(server.configure_train(1, record(), ConfigRecord(), grid))
        assert len(replies) == 4
        for reply in replies:
            assert reply.has_error()
            least = 4 if reply.metadata.src_node_id == 22 else 3
            assert f"threshold of the server: expected at least {least}" in reply.error.reason


@pytest.fixture
def identities(tmp_path):
    """Node configurations with identity keys, and the public keys for the server."""
    own = {node: fm.Key.generate() for node in NODES}
    public = {node: key.public for node, key in own.items()}
    everyone = tmp_path / "public.json"
    everyone.write_text(json.dumps({str(node): key.data.hex() for node, key in public.items()}))
    for node, key in own.items():
        (tmp_path / f"{node}.key").write_text(key.data.hex() + "\n")
    config = {
        "fedmrn-identity": {node: str(tmp_path / f"{node}.key") for node in NODES},
        "fedmrn-identities": dict.fromkeys(NODES, str(everyone)),
    }
    return config, public, tmp_path


def test_identity_keys(identities):
    config, public, folder = identities
    grid = SecureGrid(**config)
    request, new, metrics = played(strategy(secure=SecAgg(threshold=3, identities=public)), grid)
    assert same(new, expected(record(), request, grid.frames))
    assert metrics["fedmrn.survivors"] == 4

    (folder / "22.key").write_text(fm.Key.generate().data.hex())  # another identity
    _, _, metrics = played(strategy(secure=SecAgg(threshold=3, identities=public)), SecureGrid(**config))
    assert metrics["fedmrn.refused-nodes"] == [22]
    (folder / "22.key").write_text("no key")
    _, _, metrics = played(strategy(secure=SecAgg(threshold=3, identities=public)), SecureGrid(**config))
    assert metrics["fedmrn.failed-nodes"] == [22]


def test_a_node_with_an_identity_refuses_a_server_without(identities, caplog):
    config, public, _ = identities
    _, new, metrics = played(strategy(), SecureGrid(**config))
    assert new is None
    assert metrics["fedmrn.lost-step"] == 1
    assert "expected signed keys, as this node has an identity, got none" in caplog.text
    _, new, _ = played(strategy(secure=SecAgg(threshold=2, identities=public)), SecureGrid())
    assert new is None
    assert "expected both fedmrn-identity and fedmrn-identities" in caplog.text


# Settings.


def a_dp_wrapper(cls):
    return cls(FedAvg(), noise_multiplier=0.1, clipping_norm=1.0, num_sampled_clients=4)


@pytest.mark.parametrize(
    ("inner", "name"),
    [
        (FedMedian(), "FedMedian"),
        (Krum(), "Krum"),
        (QFedAvg(client_learning_rate=0.1), "QFedAvg"),
        (
            a_dp_wrapper(DifferentialPrivacyServerSideFixedClipping),
            "DifferentialPrivacyServerSideFixedClipping",
        ),
        (
            a_dp_wrapper(DifferentialPrivacyClientSideFixedClipping),
            "DifferentialPrivacyClientSideFixedClipping",
        ),
    ],
)
def test_strategies_that_need_single_replies_are_refused(inner, name):
    expected = (
        rf"^strategy with secure: expected one that uses nothing but the mean .* got {name}, each=True$"
    )
    with pytest.raises(fm.ArgumentError, match=expected):
        FedMRN(inner, secure=SecAgg(threshold=2))
    with pytest.raises(fm.ArgumentError, match=r"got FedAvg, each=True$"):
        FedMRN(FedAvg(), each=True, secure=SecAgg(threshold=2))
    FedMRN(FedMedian(), each=False, secure=SecAgg(threshold=2))  # the caller says so
    with pytest.raises(fm.ArgumentError, match=r"^secure: expected a SecAgg, got int$"):
        FedMRN(FedAvg(), secure=3)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"threshold": 1}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"threshold": 0.5}, "threshold"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": "3"}, "threshold"),
        ({"threshold": 3, "largest_weight": 0}, "largest_weight"),
        ({"threshold": 3, "largest_weight": 2}, "examples"),
        ({"threshold": 3, "examples": 10}, "examples"),
        ({"threshold": 3, "largest_weight": 2, "examples": 0}, "examples"),
        ({"threshold": 3, "degree": 3}, "degree"),
        ({"threshold": 3, "degree": 0}, "degree"),
        ({"threshold": 3, "session": "run"}, "session"),
        ({"threshold": 3, "session": bytes(256)}, "session"),
    ],
)
def test_settings_out_of_range(options, field):
    with pytest.raises(fm.ArgumentError, match=rf"^{field}: expected "):
        SecAgg(**options)


@pytest.mark.parametrize("adaptive", [None, fm.AdaptiveNoise(fm.Schema([]), {})])
def test_weights_beside_the_noise_of_a_rule(adaptive):
    secure = SecAgg(threshold=3, largest_weight=2, examples=10)
    with pytest.raises(fm.ArgumentError, match=r"^largest_weight: expected 1 with the noise of a rule"):
        FedMRN(FedAvg(), secure=secure, noise=adaptive)
    FedMRN(FedAvg(), secure=secure, noise=fm.Bernoulli(0.01))


def test_bits_beside_secure_aggregation():
    with pytest.raises(fm.ArgumentError, match=r"^bits: expected none with secure, where .*, got 0\.5$"):
        FedMRN(FedAvg(), secure=SecAgg(threshold=3), bits=0.5)


def test_a_step_that_does_not_fit_the_schema():
    server = strategy(secure=SecAgg(threshold=2, step={"conv.weight": 0.5}))
    with pytest.raises(fm.CodecError, match=r"conv\.weight"):
        server.configure_train(1, record(), ConfigRecord(), SecureGrid())


@pytest.mark.parametrize("step", [2.0**-12, {"conv.bias": 2.0**-10}])
def test_steps_reach_the_nodes(step):
    def train(message):
        reply = honest(message)
        arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
        arrays["conv.bias"] = arrays["conv.bias"] + np.float32(2.0**-10)
        reply.content["arrays"] = record(arrays | {"bn.num_batches_tracked": np.array(5)})
        return reply

    grid = SecureGrid(train=train)
    request, new, metrics = played(strategy(secure=SecAgg(threshold=2, step=step, session=b"mine")), grid)
    assert same(new, expected(record(), request, grid.frames))
    assert metrics["fedmrn.survivors"] == 4


def test_without_the_packages_the_error_names_the_extra():
    """`import fedmrn_flower` imports no secure aggregation, nor does a server without it."""
    code = (
        "import sys, fedmrn_codec, fedmrn_flower\n"
        "from flwr.serverapp.strategy import FedAvg\n"
        "fedmrn_flower.FedMRN(FedAvg())\n"
        "print('fedmrn_secagg' in sys.modules)\n"
        "sys.modules['Crypto.Protocol.SecretSharing'] = None\n"  # flwr itself needs other parts
        "try:\n    fedmrn_flower.SecAgg(threshold=2)\n"
        "except fedmrn_codec.ArgumentError as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = "BackendError SecAgg: expected the packages cryptography and pycryptodome"
    assert done.stdout.startswith(f"False\n{expected} (pip install 'fedmrn-codec[secagg]'), got ")

"""The FedMRN strategy: its requests, its refusals, and what it passes to the wrapped strategy."""

import dataclasses
import zlib

import numpy as np
import pytest
from flower_cases import (
    MODEL,
    bytes_of,
    frame_of,
    honest,
    messages_of,
    record,
    through,
    with_frame,
    without_mod,
)
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedYogi,
    Krum,
    QFedAvg,
)

import fedmrn_codec as fm
from fedmrn_codec.format import checked
from fedmrn_codec.format.parsing import parse
from fedmrn_flower import FedMRN, Request, Uniform
from fedmrn_flower.records import from_frame

NODES = [11, 22, 33]


def wrapped(strategy=None, **options):
    options = {"noise": Uniform(0.01), "mask": "signed", "seed": 5} | options
    return FedMRN(strategy or FedAvg(min_available_nodes=1, min_train_nodes=1), **options)


def update(value=0.001):
    return {
        name: np.full(array.shape, value if array.dtype.kind == "f" else 1, array.dtype)
        for name, array in MODEL.items()
    }


def frame(message, arrays=None, **changes):
    """A frame for a message, with a request that may be changed."""
    return dataclasses.replace(Request.of(message), **changes).encode(update() | (arrays or {}))


# Requests.


@pytest.mark.parametrize("seed", [None, 5])
def test_every_node_and_round_gets_a_different_seed(seed):
    strategy = wrapped(seed=seed)
    seeds = [Request.of(m).seed for n in (1, 2, 3) for m in messages_of(strategy, NODES, n)]
    assert len(set(seeds)) == 9
    assert sum(seed > 2**32 for seed in seeds) == 9  # all 64 bits are used


def test_seeds_are_derived_from_the_integer_given():
    first, second = ([Request.of(m).seed for m in messages_of(wrapped(seed=5), NODES)] for _ in range(2))
    other = [Request.of(m).seed for m in messages_of(wrapped(seed=6), NODES)]
    assert first == second
    assert not set(first) & set(other)


def test_seeds_from_a_function():
    messages = messages_of(wrapped(seed=lambda number, node: 1000 * number + node), NODES, 2)
    assert [Request.of(m).seed for m in messages] == [2011, 2022, 2033]
    with pytest.raises(
        fm.ArgumentError, match=r"^seed: expected a seed that no other client of this round has, got 1$"
    ):
        messages_of(wrapped(seed=lambda number, node: number), NODES)
    with pytest.raises(fm.ArgumentError, match=r"^seed: expected 0 to 2\^64 - 1, got -1$"):
        messages_of(wrapped(seed=lambda number, node: -1), NODES)


def test_the_callers_config_and_arrays_are_not_changed():
    config, arrays = ConfigRecord({"lr": 0.1}), record()
    before = bytes_of(arrays)

    class Grid:
        def get_node_ids(self):
            return NODES

    for downlink in ("raw", "grid"):
        first, second, _ = wrapped(downlink=downlink).configure_train(1, arrays, config, Grid())
        assert set(config) == {"lr", "server-round"}  # FedAvg adds the second entry
        assert (first.content["arrays"] is arrays) == (downlink == "raw")
        assert first.content["arrays"] is second.content["arrays"]  # shared by all nodes
    assert bytes_of(arrays) == before


@pytest.mark.parametrize("configs", [[], ["one", "two"]])
def test_messages_without_exactly_one_config_get_another(configs):
    content = RecordDict({"arrays": record(), **{name: ConfigRecord({name: 1}) for name in configs}})
    request = Request.of(messages_of(wrapped(), NODES)[0])
    extended = request.add_to(content)
    assert list(extended) == ["arrays", *configs, "fedmrn"]
    assert Request.find(Message(extended, dst_node_id=1, message_type="train")) == request
    assert "fedmrn" not in content


def test_equal_models_have_equal_ids():
    one, same, other = (
        Request.of(messages_of(wrapped(), NODES, arrays=record(MODEL | extra))[0]).base_model
        for extra in ({}, {}, {"conv.bias": np.zeros(8, np.float32)})
    )
    assert one == same != other


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"noise": 0.01}, "noise: expected Uniform, Gaussian or Bernoulli, got 0.01"),
        ({"mask": "unary"}, "mask: expected one of binary, signed, got 'unary'"),
    ],
)
def test_bad_settings(options, reason):
    with pytest.raises(fm.ArgumentError, match=reason):
        wrapped(**options)


# The mean.


def test_the_mean_is_exact_in_any_order():
    results = []
    messages = messages_of(wrapped(), NODES)
    replies = [through(lambda m, w=w: honest(m, w), m) for m, w in zip(messages, (3, 100, 7), strict=True)]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        strategy = wrapped()
        messages_of(strategy, NODES)
        arrays, metrics = strategy.aggregate_train(1, [replies[i] for i in order])
        results.append(bytes_of(arrays))
        assert metrics["loss"] == pytest.approx(0.5)
    assert results[0] == results[1] == results[2]

    schema = Request.of(messages[0]).schema
    aggregator = fm.Aggregator(schema)
    for reply, weight in zip(replies, (3, 100, 7), strict=True):
        aggregator.add(frame_of(reply), weight)
    for name, mean in aggregator.mean().items():
        assert arrays[name].numpy().tobytes() == np.asarray(MODEL[name] + mean).tobytes(), name


@pytest.mark.parametrize("strategy", [FedAdam, FedYogi, FedAvgM, FedProx])
def test_strategies_of_the_mean_get_the_exact_mean(strategy):
    options = (
        {"proximal_mu": 0.1}
        if strategy is FedProx
        else {"server_momentum": 0.5}
        if strategy is FedAvgM
        else {}
    )
    fedmrn = wrapped(strategy(min_available_nodes=1, min_train_nodes=1, **options))
    assert not fedmrn.each
    replies = [through(honest, m) for m in messages_of(fedmrn, NODES)]
    got, _ = fedmrn.aggregate_train(1, replies)

    fedavg = wrapped()
    messages_of(fedavg, NODES)
    mean, _ = fedavg.aggregate_train(1, replies)
    alone = strategy(min_available_nodes=1, min_train_nodes=1, **options)
    (message,) = alone.configure_train(
        1, record(), ConfigRecord(), type("Grid", (), {"get_node_ids": lambda _: [1]})()
    )
    content = RecordDict({"a": mean, "m": MetricRecord({"num-examples": 30})})
    expected, _ = alone.aggregate_train(1, [Message(content, reply_to=message)])
    for name in MODEL:
        assert got[name].dtype == str(MODEL[name].dtype)
        np.testing.assert_array_equal(got[name].numpy(), expected[name].numpy().astype(MODEL[name].dtype))


def test_metrics_are_aggregated_by_the_strategys_function():
    seen = []

    def largest(contents, key):
        seen.append(len(contents))
        return MetricRecord({"worst": max(c["metrics"]["loss"] for c in contents)})

    def sees_client_keys(contents, key):
        return largest(contents, key)

    strategy = wrapped(
        FedAvg(min_available_nodes=1, min_train_nodes=1, train_metrics_aggr_fn=sees_client_keys)
    )
    losses = dict(zip(NODES, (0.25, 4.0, 1.0), strict=True))
    replies = [
        through(lambda m: honest(m, loss=losses[m.metadata.dst_node_id]), m)
        for m in messages_of(strategy, NODES)
    ]
    _, metrics = strategy.aggregate_train(1, replies)
    assert metrics["worst"] == 4.0
    assert seen[-1] == 3


def test_bytes_are_in_the_metrics():
    strategy = wrapped()
    replies = [through(honest, m) for m in messages_of(strategy, NODES)]
    _, metrics = strategy.aggregate_train(1, replies)
    lengths = [len(frame_of(reply)) for reply in replies]
    assert metrics["fedmrn.client-bytes"] == lengths
    assert metrics["fedmrn.client-nodes"] == NODES
    assert metrics["fedmrn.uplink-bytes"] == sum(lengths)
    parts = [metrics[f"fedmrn.uplink-{part}-bytes"] for part in ("mask", "dense", "header")]
    assert parts[:2] == [3 * (27 + 5), 3 * (32 + 8)]
    assert sum(parts) == sum(lengths)


# Refusals. Each case turns a message into a bad reply, which the last node sends.


def flipped(message):
    data = bytearray(frame(message))
    data[-10] ^= 1
    return with_frame(message, bytes(data))


def nan_dense(message):
    """A NaN, which the library does not encode, with a matching checksum."""
    data = frame(message, {"conv.bias": np.full(8, 0.25, np.float32)})
    body = data[:-4].replace(np.float32(0.25).tobytes(), np.float32(np.nan).tobytes())
    assert body != data[:-4]
    return with_frame(message, body + zlib.crc32(body).to_bytes(4, "little"))


def other_shape(message):
    """An array of shape (1,), which would broadcast to (8,)."""
    small = MODEL | {"conv.bias": np.ones(1, np.float32)}
    schema = fm.Schema(
        fm.Tensor(name, a.shape, masked=a.ndim >= 2, dtype=a.dtype.name) for name, a in small.items()
    )
    data = dataclasses.replace(Request.of(message), schema=schema)
    changes = update() | {"conv.bias": np.ones(1, np.float32)}
    return with_frame(message, data.encode(changes))


def replayed(message):
    """The honest frame of an earlier round."""
    strategy = wrapped()
    (old,) = (
        m for m in messages_of(strategy, NODES, 7) if m.metadata.dst_node_id == message.metadata.dst_node_id
    )
    return with_frame(message, frame(old))


def of_another_node(message):
    strategy = wrapped()
    (other, *_) = messages_of(strategy, NODES)
    return with_frame(message, frame(other))


def metrics_of(**metrics):
    return lambda message: with_frame(message, frame(message), **metrics)


def weight_of(weight):
    return lambda message: with_frame(message, frame(message), weight=weight)


def without_metrics(message):
    return Message(RecordDict({"arrays": from_frame(frame(message))}), reply_to=message)


def two_records(message):
    reply = with_frame(message, frame(message))
    reply.content["more"] = from_frame(frame(message))
    return reply


def empty_record(message):
    numbers = MetricRecord({"num-examples": 10, "loss": 0.5})
    return Message(RecordDict({"arrays": ArrayRecord(), "metrics": numbers}), reply_to=message)


def without_weight(message):
    reply = with_frame(message, frame(message))
    del reply.content["metrics"]["num-examples"]
    return reply


BAD = {
    "random bytes": (lambda m: with_frame(m, bytes(range(256)) * 4), "magic"),
    "no bytes": (lambda m: with_frame(m, b""), "truncated"),
    "cut short": (lambda m: with_frame(m, frame(m)[:-1]), "truncated"),
    "longer": (lambda m: with_frame(m, frame(m) + b"\0"), "trailing"),
    "a flipped bit": (flipped, "checksum"),
    "its own seed": (lambda m: with_frame(m, frame(m, seed=123)), "seed"),
    "another node's frame": (of_another_node, "seed"),
    "an old frame": (replayed, "round"),
    "an old frame under this round": (lambda m: with_frame(m, frame(m, base_model=9)), "base_model"),
    "no round": (lambda m: with_frame(m, frame(m, round=0)), "round"),
    "no base model": (lambda m: with_frame(m, frame(m, base_model=0)), "base_model"),
    "louder noise": (lambda m: with_frame(m, frame(m, noise=Uniform(1000))), "reply"),
    "another distribution": (lambda m: with_frame(m, frame(m, noise=fm.Gaussian(0.01))), "reply"),
    "another mask": (lambda m: with_frame(m, frame(m, mask="binary")), "reply"),
    "shape (1,) for (8,)": (other_shape, "schema_mismatch"),
    "NaN": (nan_dense, "non_finite"),
    "plain arrays": (without_mod, "reply"),
    "no arrays": (empty_record, "reply"),
    "two ArrayRecords": (two_records, "reply"),
    "no metrics": (without_metrics, "reply"),
    "no weight": (without_weight, "reply"),
    "weight 0": (weight_of(0), "reply"),
    "weight -10": (weight_of(-10), "reply"),
    "weight 10.0": (weight_of(10.0), "reply"),
    "weight NaN": (weight_of(float("nan")), "reply"),
    "weight list": (weight_of([10]), "reply"),
    "weight 2^40": (weight_of(2**40), "reply"),
    "loss NaN": (metrics_of(loss=float("nan")), "reply"),
    "loss infinite": (metrics_of(loss=[0.5, float("inf")]), "reply"),
    "another metric": (metrics_of(accuracy=1.0), "reply"),
    "a list for a number": (metrics_of(loss=[0.5, 0.5]), "reply"),
}


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_reply_changes_no_bit(name, each, caplog):
    make, code = BAD[name]
    without, attacked = wrapped(each=each), wrapped(each=each)
    messages = messages_of(without, NODES)
    messages_of(attacked, NODES)
    good = [through(honest, m) for m in messages[:2]]
    expected, clean = without.aggregate_train(1, good)
    for place in (0, 2):  # first, and last
        messages_of(attacked, NODES)
        with caplog.at_level("WARNING", "flwr"):
            got, metrics = attacked.aggregate_train(1, [*good[:place], make(messages[2]), *good[place:]])
        assert bytes_of(got) == bytes_of(expected)
        assert metrics["fedmrn.refused"] == 1
        assert metrics["fedmrn.refused-nodes"] == [33]
        assert metrics["fedmrn.client-nodes"] == [11, 22]
        assert metrics["loss"] == clean["loss"]
        assert f"refused the reply of node 33 ({code})" in caplog.text
        caplog.clear()


def test_refusals_are_logged_and_reported_as_failures(monkeypatch):
    seen, logged = [], []

    class Spy(FedAvg):
        def aggregate_train(self, server_round, replies):
            seen.extend(replies)
            return super().aggregate_train(server_round, seen)

    monkeypatch.setattr("fedmrn_flower.strategy.log", lambda level, text, *args: logged.append(text % args))
    strategy = wrapped(Spy(min_available_nodes=1, min_train_nodes=1), each=False)
    messages = messages_of(strategy, NODES)
    failed = Message(Error(5, "gone"), reply_to=messages[1])
    strategy.aggregate_train(1, [through(honest, messages[0]), failed, BAD["its own seed"][0](messages[2])])
    result, gone, refused = seen
    assert result.content["metrics"]["num-examples"] == 10
    assert gone is failed
    assert refused.metadata.src_node_id == 33
    sent = Request.of(messages[2]).seed
    error = f"seed, byte 8: expected {sent}, got 123"
    assert refused.error.reason == f"fedmrn: seed: {error}"
    assert logged == [f"fedmrn: refused the reply of node 33 (seed): {error}"]


def test_the_order_of_replies_decides_neither_who_is_refused_nor_which_metrics_are_kept():
    kept = []
    for order in (NODES[:2], NODES[1::-1]):
        strategy = wrapped()
        messages = {m.metadata.dst_node_id: m for m in messages_of(strategy, NODES[:2])}
        replies = {
            node: through(lambda m, k=key: with_frame(m, frame(m), **{k: 0.5}), messages[node])
            for node, key in zip(NODES, ("loss", "lose"), strict=False)
        }
        _, metrics = strategy.aggregate_train(1, [replies[node] for node in order])
        nodes = sorted(metrics["fedmrn.client-nodes"])
        kept.append((nodes, {name for name in metrics if not name.startswith("fedmrn.")}))
    assert kept == [(NODES[:2], {"loss"})] * 2


def test_a_reply_of_a_node_without_a_message_is_refused():
    strategy = wrapped()
    messages = messages_of(strategy, NODES)
    stranger = Message(messages[2].content, dst_node_id=44, message_type="train")
    good, bad = through(honest, messages[0]), through(honest, stranger)
    _, metrics = strategy.aggregate_train(1, [bad, good])
    assert metrics["fedmrn.refused-nodes"] == [44]
    assert metrics["fedmrn.clients"] == 1


def test_a_second_reply_of_one_node_is_refused():
    strategy, alone = wrapped(), wrapped()
    messages = messages_of(strategy, NODES)
    messages_of(alone, NODES)
    good = through(honest, messages[0])
    arrays, metrics = strategy.aggregate_train(1, [good, good])
    assert metrics["fedmrn.refused"] == 1
    assert bytes_of(arrays) == bytes_of(alone.aggregate_train(1, [good])[0])


def test_an_update_that_makes_the_model_infinite_is_refused():
    arrays = record(MODEL | {"conv.bias": np.full(8, 3e38, np.float32)})
    strategy = wrapped()
    messages = messages_of(strategy, NODES, arrays=arrays)
    large = with_frame(messages[0], frame(messages[0], {"conv.bias": np.full(8, 3e38, np.float32)}))
    result, metrics = strategy.aggregate_train(1, [large, through(honest, messages[1])])
    assert metrics["fedmrn.refused-nodes"] == [11]
    assert np.isfinite(result["conv.bias"].numpy()).all()


def test_a_reply_that_would_overflow_the_sum_of_weights_is_refused():
    strategy = wrapped(max_weight=2**39 - 1)
    messages = messages_of(strategy, NODES)
    full = with_frame(messages[0], frame(messages[0]), weight=2**39 - 1)
    arrays, metrics = strategy.aggregate_train(1, [full, through(honest, messages[1])])
    assert metrics["fedmrn.client-nodes"] == [11]
    assert metrics["fedmrn.refused-nodes"] == [22]
    assert arrays is not None


def test_limits_are_those_of_the_frames_that_clients_send():
    strategy = wrapped(limits=fm.Limits(max_schema_bytes=10))
    messages = messages_of(strategy, NODES)
    embedding = with_frame(messages[0], Request.of(messages[0]).encode(update(), embed_schema=True))
    _, metrics = strategy.aggregate_train(1, [embedding, through(honest, messages[1])])
    assert metrics["fedmrn.refused-nodes"] == [11]
    assert metrics["fedmrn.client-nodes"] == [22]


@pytest.mark.parametrize(
    "options", [{"max_weight": "9"}, {"max_weight": -1}, {"limits": 3}, {"limits": None}], ids=str
)
def test_settings_of_the_wrong_type(options):
    with pytest.raises(fm.ArgumentError, match=f"^{next(iter(options))}: expected "):
        wrapped(**options)


def test_what_is_logged_of_a_reply_is_short(caplog):
    strategy = wrapped()
    messages = messages_of(strategy, NODES)
    replies = [through(honest, m) for m in messages[:2]]
    replies.append(with_frame(messages[2], frame(messages[2]), **{"x" * 100_000: 1.0}))
    with caplog.at_level("WARNING", "flwr"):
        assert strategy.aggregate_train(1, replies)[1]["fedmrn.refused-nodes"] == [33]
    assert "refused the reply of node 33" in caplog.text
    assert len(caplog.text) < 2500


def test_a_round_of_bad_replies_returns_no_model():
    strategy = wrapped()
    messages = messages_of(strategy, NODES)
    arrays, metrics = strategy.aggregate_train(1, [BAD["random bytes"][0](m) for m in messages])
    assert arrays is None
    assert (metrics["fedmrn.clients"], metrics["fedmrn.refused"]) == (0, 3)
    assert messages_of(strategy, NODES, 2)


def test_a_round_without_replies():
    strategy = wrapped()
    messages_of(strategy, NODES)
    assert strategy.aggregate_train(1, [])[0] is None


@pytest.mark.parametrize("each", [False, True])
def test_each_frame_is_parsed_once(each, monkeypatch):
    parsed = []
    monkeypatch.setattr(checked, "parse", lambda *args: parsed.append(args) or parse(*args))
    strategy = wrapped(each=each)
    replies = [through(honest, message) for message in messages_of(strategy, NODES)]
    parsed.clear()  # clients parse the frame of the model
    assert strategy.aggregate_train(1, replies)[1]["fedmrn.clients"] == len(NODES)
    assert len(parsed) == len(NODES)


def test_a_round_is_aggregated_once():
    strategy = wrapped()
    (message, *_) = messages_of(strategy, NODES)
    reply = through(honest, message)
    strategy.aggregate_train(1, [reply])
    with pytest.raises(RuntimeError, match="round of the last configure_train: expected round 1, got none"):
        strategy.aggregate_train(1, [reply])
    messages_of(strategy, NODES, 2)
    with pytest.raises(
        RuntimeError, match="round of the last configure_train: expected round 1, got round 2"
    ):
        strategy.aggregate_train(1, [reply])


# Replies that pass all checks, but of which strategies would not make a mean.


def renamed(message, arrays="a", metrics="m"):
    reply = through(honest, message)
    reply.content = RecordDict({metrics: reply.content["metrics"], arrays: reply.content["arrays"]})
    return reply


def quiet(strategy):
    return strategy(min_available_nodes=1, min_train_nodes=1)


@pytest.mark.parametrize("base", [FedAvg, FedMedian, Krum])
@pytest.mark.parametrize("names", [("a", "metrics"), ("arrays", "m"), ("metrics", "arrays"), ("model", "x")])
@pytest.mark.parametrize("place", [0, 2])
def test_records_of_other_names_end_no_round(base, names, place):
    plain, attacked = wrapped(quiet(base)), wrapped(quiet(base))
    expected, _ = plain.aggregate_train(1, [through(honest, m) for m in messages_of(plain, NODES)])
    messages = messages_of(attacked, NODES)
    replies = [through(honest, m) for m in messages]
    replies[place] = renamed(messages[place], *names)
    arrays, metrics = attacked.aggregate_train(1, replies)
    assert metrics["fedmrn.clients"] == 3
    assert metrics["loss"] == pytest.approx(0.5)
    assert {n: a.shape for n, a in arrays.items()} == {n: a.shape for n, a in expected.items()}


def test_a_reply_keeps_its_other_records_under_another_name():
    seen = []

    class Spy(FedMedian):
        def aggregate_train(self, server_round, replies):
            seen.extend(replies)
            return super().aggregate_train(server_round, seen)

    strategy = wrapped(quiet(Spy))
    messages = messages_of(strategy, NODES)
    replies = [through(honest, m) for m in messages[:2]] + [renamed(messages[2])]
    replies[2].content["state"] = ConfigRecord({"epochs": 3})
    strategy.aggregate_train(1, replies)
    assert [set(reply.content) for reply in seen] == [{"arrays", "metrics"}] * 2 + [
        {"arrays", "metrics", "state"}
    ]


@pytest.mark.parametrize("base", [FedAvg, FedMedian])
@pytest.mark.parametrize(
    "others", [{"zzz": 1.0}, {"aaa": 1.0}, {"loss": [0.5, 0.5]}, {"aaa": 1.0, "loss": [0.1]}]
)
@pytest.mark.parametrize("place", [0, 1])
def test_one_of_two_clients_cannot_have_the_other_refused(base, others, place):
    strategy = wrapped(quiet(base))
    messages = messages_of(strategy, NODES[:2])
    replies = [through(honest, m) for m in messages]
    replies[place] = with_frame(messages[place], frame(messages[place]), **others)
    arrays, metrics = strategy.aggregate_train(1, replies)
    assert metrics["fedmrn.client-nodes"] == NODES[:2]
    assert metrics["fedmrn.refused"] == 0
    shared = {"loss"} if not isinstance(others.get("loss", 0.5), list) else set()
    assert {name for name in metrics if not name.startswith(("fedmrn.", "num"))} == shared
    assert arrays is not None


def test_the_rule_does_not_end_a_round_whose_weights_are_too_large():
    strategy = FedMRN(quiet(FedMedian), max_weight=2**39 - 1)
    messages = messages_of(strategy, NODES)
    replies = [
        through(lambda m: honest(m, 2**39 - 1), messages[0]),
        *(through(honest, m) for m in messages[1:]),
    ]
    arrays, metrics = strategy.aggregate_train(1, replies)
    assert metrics["fedmrn.client-nodes"] == [11]
    assert metrics["fedmrn.refused-nodes"] == [22, 33]
    assert arrays is not None


# Strategies that need every reply.


def test_which_strategies_get_every_reply():
    for strategy in (FedMedian(), Krum(), QFedAvg(client_learning_rate=0.1)):
        assert wrapped(strategy).each
    assert wrapped(DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 3)).each
    assert not wrapped(FedAvg()).each

    class Own(FedAvg):
        def aggregate_train(self, server_round, replies):
            return super().aggregate_train(server_round, replies)

    assert wrapped(Own()).each
    assert not wrapped(Own(), each=False).each


def test_a_median_of_full_arrays():
    strategy = wrapped(FedMedian(min_available_nodes=1, min_train_nodes=1))
    messages = messages_of(strategy, NODES)
    replies = [through(honest, m) for m in messages]
    arrays, _ = strategy.aggregate_train(1, replies)
    schema = Request.of(messages[0]).schema
    decoded = [fm.decode(frame_of(reply), schema) for reply in replies]
    for name, base in MODEL.items():
        expected = np.median([base + update[name] for update in decoded], axis=0).astype(base.dtype)
        assert arrays[name].numpy().tobytes() == expected.tobytes(), name


def test_a_differential_privacy_wrapper_inside():
    inner = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(min_available_nodes=1, min_train_nodes=1), 0.0, 1e-3, 3
    )
    floats = {name: array for name, array in MODEL.items() if array.dtype.kind == "f"}
    strategy = wrapped(inner)
    replies = [through(honest, m) for m in messages_of(strategy, NODES, arrays=record(floats))]
    arrays, metrics = strategy.aggregate_train(1, replies)
    moved = [arrays[name].numpy() - array for name, array in floats.items()]
    assert 0 < np.sqrt(sum((m.astype(float) ** 2).sum() for m in moved)) < 1.1e-3
    assert metrics["fedmrn.clients"] == 3


# Other schemas.


def test_a_schema_given_by_the_caller():
    schema = fm.Schema(
        [fm.Tensor("linear.weight", (5, 8)), fm.Tensor("conv.weight", (8, 3, 3, 3), masked=True)]
    )
    strategy = wrapped(schema=schema)
    replies = [through(honest, m) for m in messages_of(strategy, NODES)]
    arrays, _ = strategy.aggregate_train(1, replies)
    for name in ("conv.bias", "bn.num_batches_tracked"):  # not in the schema
        assert arrays[name].numpy().tobytes() == MODEL[name].tobytes()
    np.testing.assert_allclose(arrays["linear.weight"].numpy(), MODEL["linear.weight"] + 0.002, rtol=1e-6)


def test_tied_arrays_stay_equal():
    tied = MODEL | {"decoder.weight": MODEL["linear.weight"]}
    strategy = wrapped(tied={"decoder.weight": "linear.weight"})
    messages = messages_of(strategy, NODES, arrays=record(tied))
    assert [t.name for t in Request.of(messages[0]).schema] == list(MODEL)
    arrays, _ = strategy.aggregate_train(1, [through(honest, m) for m in messages])
    assert arrays["decoder.weight"].data == arrays["linear.weight"].data != record(tied)["linear.weight"].data


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"schema": fm.Schema([fm.Tensor("other", (3,))])},
            r"^schema: expected names of the model's arrays, got 'other'$",
        ),
        (
            {"schema": fm.Schema([fm.Tensor("conv.bias", (1,))])},
            r"^schema: expected float32\[8\], as in the model, got 'conv.bias' float32\[1\]$",
        ),
        (
            {"schema": fm.Schema([fm.Tensor("conv.bias", (8,), dtype="float64")])},
            r"^schema: expected float32\[8\], as in the model, got 'conv.bias' float64\[8\]$",
        ),
        (
            {"tied": {"conv.bias": "nothing"}},
            "^tied: expected an array outside the schema, tied to one in the schema, "
            "got 'conv.bias': 'nothing'$",
        ),
    ],
)
def test_schemas_of_another_model_are_refused(options, reason):
    with pytest.raises(fm.SchemaError, match=reason):
        messages_of(wrapped(**options), NODES)


class Personal(FedAvg):
    """Sends every node a different model."""

    def configure_train(self, server_round, arrays, config, grid):
        for message in super().configure_train(server_round, arrays, config, grid):
            own = MODEL | {"conv.bias": np.full(8, message.metadata.dst_node_id, np.float32)}
            message.content = RecordDict({"arrays": record(own), "config": ConfigRecord({"lr": 0.1})})
            yield message


def test_different_models_for_different_nodes_need_each():
    with pytest.raises(
        fm.ArgumentError, match=r"^number of models sent: expected 1 \(or FedMRN\(..., each=True\)\), got 3$"
    ):
        messages_of(wrapped(Personal(min_available_nodes=1, min_train_nodes=1)), NODES)
    strategy = wrapped(Personal(min_available_nodes=1, min_train_nodes=1), each=True)
    arrays, _ = strategy.aggregate_train(1, [through(honest, m) for m in messages_of(strategy, NODES)])
    np.testing.assert_allclose(arrays["conv.bias"].numpy(), np.mean(NODES) + 0.002, rtol=1e-6)


def test_nodes_that_stopped_or_were_silent_are_named():
    """The SuperLink answers for a node that has stopped, in its own name."""
    strategy = FedMRN(FedAvg(min_available_nodes=1, min_train_nodes=1), seed=5)
    messages = messages_of(strategy, [11, 22, 33])
    for number, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = f"id {number}"
    stopped = Message(Error(2, "the node stopped"), reply_to=messages[1])
    stopped.metadata.__dict__["_src_node_id"] = 1
    _, metrics = strategy.aggregate_train(1, [stopped, through(honest, messages[0])])
    assert metrics["fedmrn.client-nodes"] == [11]
    assert (metrics["fedmrn.failed"], metrics["fedmrn.failed-nodes"]) == (1, [22])
    assert (metrics["fedmrn.silent"], metrics["fedmrn.silent-nodes"]) == (1, [33])

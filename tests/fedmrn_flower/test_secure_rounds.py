"""FedMRN(strategy, secure=SecAgg(...)): the sum of a round, with clients that drop out in each step."""

import numpy as np
import pytest
from flower_cases import bytes_of, network, record, train_with_psm
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedAvgM, FedProx

import fedmrn_codec as fm
from fedmrn_flower import Request, SecAgg
from fedmrn_flower.records import is_model_frame, restored, to_frame

pytest.importorskip("cryptography")
pytest.importorskip("Crypto")

from secure_cases import (
    NODES,
    STEPS,
    SecureGrid,
    crash,
    expected,
    on_grid,
    played,
    same,
    step_of,
    strategy,
)

RECORD = "fedmrn.secagg"


def secrets(grid):
    """The nodes that keep secrets of a round."""
    return [node for node, state in grid.states.items() if RECORD in state]


@pytest.mark.parametrize("downlink", ["raw", "grid"])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("mask", ["binary", "signed"])
def test_the_model_is_that_of_the_plain_mean(downlink, adaptive, mask):
    grid = SecureGrid()
    server = strategy(downlink=downlink, mask=mask, **({"noise": None} if adaptive else {}))
    arrays = record()
    for number in (1, 2, 3):
        grid.frames.clear()
        request, new, metrics = played(server, grid, number, arrays)
        assert (request.mask, request.coding) == (mask, "raw")
        assert all(
            isinstance(noise, fm.Bernoulli)
            for noise in (request.noise.values() if adaptive else [request.noise])
        )
        assert sorted(grid.frames) == NODES
        assert same(new, expected(arrays, request, grid.frames))
        assert (metrics["fedmrn.survivors"], metrics["fedmrn.clients"]) == (4, 4)
        assert (metrics["fedmrn.lost-rounds"], metrics["fedmrn.lost-step"]) == (0, 0)
        assert metrics["loss"] == 0.5
        assert metrics["fedmrn.secure-clipped"] == 0
        arrays = new
    assert secrets(grid) == []


def test_the_rule_moves_as_after_a_plain_round():
    model = {"w": np.random.default_rng(0).normal(0, 0.05, (64, 100)).astype(np.float32)}

    def train(message):
        arrays = {"w": message.content["arrays"]["w"].numpy() + np.float32(0.02)}
        numbers = MetricRecord({"num-examples": 10})
        return Message(RecordDict({"arrays": record(arrays), "metrics": numbers}), reply_to=message)

    grid, server, arrays = SecureGrid(train=train), strategy(noise=None), record(model)
    rule, scales = None, []
    for number in (1, 2, 3):
        request, arrays, metrics = played(server, grid, number, arrays)
        rule = rule or fm.AdaptiveNoise(request.schema, model)
        assert request.noise == rule.noise
        scales.append(metrics["fedmrn.scale.w"])
        assert scales[-1] == rule.noise["w"].scale
        aggregator = request.aggregator()
        for frame in grid.frames.values():
            aggregator.add(frame, 1)
        rule.observe(aggregator)
    assert len(set(scales)) > 1


def test_all_nodes_have_one_seed_of_the_round():
    seeds = []
    for number in (1, 2):
        server, grid = strategy(seed=5), SecureGrid()
        messages = server.configure_train(number, record(), ConfigRecord(), grid)
        found = {Request.of(message).seed for message in messages}
        assert found == {fm.choose_seed(5, number, 0)}
        seeds += found
    assert len(set(seeds)) == 2
    server = strategy(seed=lambda number, node: 1000 * number + node)
    assert played(server, SecureGrid(), 7)[0].seed == 7000


def test_what_crosses_the_line():
    """No frame and no array leaves a node; the app sees neither the protocol nor its other messages."""
    seen, metrics = [], []

    def spy(message, reply):
        metrics.append(dict(reply.content.get("metrics", {})))
        seen.append((step_of(message), list(reply.content), message, reply))
        return reply

    grid = SecureGrid(faults={(step, node): spy for step in STEPS for node in NODES})
    _, _, result = played(strategy(), grid)
    assert [step for step, *_ in seen] == [step for step in STEPS for _ in NODES]
    assert {tuple(content) for step, content, *_ in seen if step != "masked"} == {(RECORD,)}
    assert {tuple(content) for step, content, *_ in seen if step == "masked"} == {("arrays", "metrics")}
    for step, _, message, reply in seen:
        assert ("arrays" in message.content) == (step == "masked")
        if step == "masked":
            assert is_model_frame(message.content["arrays"])
            assert [array.stype for array in reply.content["arrays"].values()] == ["fedmrn-secagg/1"]
    told = {"num-examples", "loss", "fedmrn.held", "fedmrn.secure-clipped"}
    assert [set(found) for found in metrics] == [set()] * 8 + [told] * 4 + [set()] * 4
    assert sorted(grid.called) == [(node, ["arrays", "config"]) for node in NODES]

    def size(step):
        return sum(
            len(reply.content["arrays"]["fedmrn.masked"].data)
            if step == "masked"
            else len(reply.content[RECORD]["message"])
            for its, _, _, reply in seen
            if its == step
        )

    assert [result[f"fedmrn.uplink-{step}-bytes"] for step in STEPS] == [size(step) for step in STEPS]
    assert result["fedmrn.uplink-bytes"] == sum(map(size, STEPS)) == sum(result["fedmrn.client-bytes"])
    assert result["fedmrn.client-nodes"] == NODES
    down = sum(len(m.content[RECORD].get("message", b"")) for _, _, m, _ in seen)
    models = sum(
        len(array.data)
        for step, _, message, _ in seen
        if step == "masked"
        for array in message.content["arrays"].values()
    )
    assert result["fedmrn.downlink-protocol-bytes"] == down > 0
    assert result["fedmrn.downlink-bytes"] == down + models
    assert result["fedmrn.downlink-bytes-per-client"] == (down + models) / 4


@pytest.mark.parametrize("fault", [None, crash], ids=["silent", "error"])
@pytest.mark.parametrize("step", STEPS)
def test_a_dropout_in_each_step(step, fault, caplog):
    grid = SecureGrid(faults={(step, 22): fault})
    server = strategy(threshold=3)
    request, new, metrics = played(server, grid)
    inside = NODES if step == "reveal" else [11, 33, 44]
    frames = {node: frame for node, frame in grid.frames.items() if node in inside}
    assert sorted(frames) == inside
    assert same(new, expected(record(), request, frames))
    assert metrics["fedmrn.client-nodes"] == inside
    assert metrics["fedmrn.survivors"] == len(inside)
    assert metrics["fedmrn.failed"] == (fault is crash)
    assert metrics["fedmrn.silent"] == (fault is None)
    assert metrics["fedmrn.refused"] == metrics["fedmrn.lost-rounds"] == 0
    text = caplog.text
    assert (f"nodes [22] did not answer in `{step}`" in text) == (fault is None)
    assert (f"node 22 failed in `{step}`" in text) == (fault is crash)
    later = STEPS[STEPS.index(step) + 1 :]
    assert not any(its in later and node == 22 for its, node in grid.asked)
    grid.faults.clear()
    request, again, metrics = played(server, grid, 2, new)  # the secrets that the node still has do no harm
    assert metrics["fedmrn.survivors"] == 4
    assert same(again, expected(new, request, grid.frames))
    assert secrets(grid) == []


@pytest.mark.parametrize("step", STEPS)
def test_too_few_clients_lose_the_round_alone(step, caplog):
    grid = SecureGrid(faults={(step, node): crash for node in (22, 33)})
    server = strategy(noise=None, threshold=3)
    _, new, metrics = played(server, grid)
    assert new is None
    assert metrics["fedmrn.lost-rounds"] == 1
    assert metrics["fedmrn.lost-step"] == STEPS.index(step) + 1
    assert metrics["fedmrn.survivors"] == metrics["fedmrn.clients"] == 0
    assert metrics["fedmrn.failed"] == 2
    assert "loss" not in metrics
    assert "round 1 is lost, and the model stays as it is" in caplog.text
    assert "expected at least 3, got 2" in caplog.text
    assert not any(name.startswith("fedmrn.scale") for name in metrics)
    grid.faults.clear()
    before = request_of_a_new_round(strategy(noise=None, threshold=3))
    request, new, metrics = played(server, grid, 2)
    assert request.noise == before.noise  # the rule has not moved
    assert same(new, expected(record(), request, grid.frames))
    assert (metrics["fedmrn.lost-rounds"], metrics["fedmrn.lost-step"]) == (1, 0)


def request_of_a_new_round(server):
    return played(server, SecureGrid())[0]


def test_too_few_sampled_nodes():
    grid, server = SecureGrid(nodes=[11, 22]), strategy(threshold=3)
    assert list(server.configure_train(1, record(), ConfigRecord(), grid)) == []
    arrays, metrics = server.aggregate_train(1, [])
    assert arrays is None
    assert (metrics["fedmrn.lost-rounds"], metrics["fedmrn.lost-step"]) == (1, 1)
    assert grid.asked == []


def test_a_share_of_the_sampled_clients_is_the_threshold():
    for share, least in ((0.51, 3), (0.75, 3), (1.0, 4)):
        _, _, metrics = played(strategy(threshold=share), SecureGrid())
        assert metrics["fedmrn.threshold"] == least
    assert SecAgg(threshold=0.55).least(20) == 11
    assert SecAgg(threshold=0.6).least(1) == 2


def test_a_whole_run_with_a_lost_round():
    """Flower's own loop: the model of a lost round stays, and every exchange has the timeout of the run."""
    timeouts, models = [], []

    class Timed(SecureGrid):
        def send_and_receive(self, messages, *, timeout=None):
            messages = list(messages)
            if messages:
                timeouts.append((step_of(messages[0]), timeout))
            return super().send_and_receive(messages, timeout=timeout)

    grid = Timed(faults={("masked", node): crash for node in (11, 22, 33)})

    def evaluate(number, arrays):
        models.append(bytes_of(arrays))
        if number == 1:
            grid.faults.clear()

    inner = FedAvg(min_available_nodes=1, min_train_nodes=1, fraction_evaluate=0.0)
    server = strategy(inner, threshold=2)
    result = server.start(grid, record(), num_rounds=2, timeout=5.0, evaluate_fn=evaluate)
    assert models[0] == models[1] != models[2]
    assert bytes_of(result.arrays) == models[2]
    lost = [result.train_metrics_clientapp[number]["fedmrn.lost-step"] for number in (1, 2)]
    assert lost == [3, 0]
    steps = [*STEPS[:3], *STEPS]  # nobody is asked to reveal in the lost round
    assert timeouts == [(step, 5.0) for step in steps]


def test_weights_in_units_of_examples():
    examples = {11: 10, 22: 44, 33: 46, 44: 10_000}
    grid = SecureGrid(train=lambda m: on_grid(m, examples[m.metadata.dst_node_id], acc=1.0))
    secure = SecAgg(threshold=2, largest_weight=7, examples=30)
    request, new, metrics = played(strategy(secure=secure), grid)
    weights = {11: 1, 22: 1, 33: 2, 44: 7}
    assert same(new, expected(record(), request, grid.frames, weights))
    assert metrics["acc"] == pytest.approx(1.0)


def test_masks_trained_with_psm():
    """The app replies with frames of its own, and reports what was clipped, which does not leave the node."""
    told, start = [], ArrayRecord(network().state_dict())

    def train(message):
        reply = train_with_psm(message)
        reply.content["m"]["fedmrn.clipped"] = 0.25
        return reply

    def tell(message, reply):
        told.append(dict(reply.content["m"]))
        return reply

    def keep(msg, context, call_next):
        reply = call_next(msg, context)
        grid.frames[context.node_id] = to_frame(reply.content["a"])
        return reply

    grid = SecureGrid(train=train, faults={("masked", node): tell for node in NODES})
    grid.keep_frame = keep
    secure = SecAgg(threshold=2, step={"1.weight": 2.0**-20})
    request, new, metrics = played(strategy(secure=secure), grid, arrays=start)
    assert metrics["fedmrn.survivors"] == 4
    assert "fedmrn.clipped" not in metrics
    assert not any("fedmrn.clipped" in each for each in told)
    mean = fm.Aggregator(request.schema)
    for frame in grid.frames.values():
        mean.add(frame, 1)
    wanted = mean.mean()
    for tensor in request.schema:
        name = tensor.name
        if tensor.masked or not tensor.type.is_float:
            exact = np.asarray(start[name].numpy() + wanted[name])
            assert new[name].numpy().tobytes() == exact.tobytes(), name
        else:  # the updates of dense floats are rounded to the grid
            got = new[name].numpy() - start[name].numpy()
            np.testing.assert_allclose(got, wanted[name], rtol=0, atol=2.0**-18, err_msg=name)


def test_metrics_are_means_over_the_survivors():
    loss = dict(zip(NODES, (1.0, 100.0, 3.0, 5.0), strict=True))
    grid = SecureGrid(
        train=lambda m: on_grid(m, loss=loss[m.metadata.dst_node_id]), faults={("masked", 22): None}
    )
    seen = []

    class Sees(FedAvg):
        def _check_and_log_replies(self, replies, **options):
            replies = list(replies)
            seen.extend(reply.content["metrics"]["num-examples"] for reply in replies)
            return super()._check_and_log_replies(replies, **options)

    _, _, metrics = played(strategy(Sees(min_available_nodes=1, min_train_nodes=1)), grid)
    assert metrics["loss"] == pytest.approx(3.0)
    assert seen == [3]  # one reply, whose weight is the number of survivors


@pytest.mark.parametrize("inner", [FedProx, FedAvgM])
def test_strategies_of_the_mean(inner):
    options = {"proximal_mu": 0.1} if inner is FedProx else {"server_momentum": 0.5}
    grid = SecureGrid()
    server = strategy(inner(min_available_nodes=1, min_train_nodes=1, **options))
    alone = inner(min_available_nodes=1, min_train_nodes=1, **options)
    arrays, theirs = record(), record()
    for number in (1, 2):
        request, new, _ = played(server, grid, number, arrays)
        aggregator = request.aggregator()
        for frame in grid.frames.values():
            aggregator.add(frame, 1)
        mean = aggregator.mean()
        near = record({name: np.asarray(array.numpy() + mean[name]) for name, array in theirs.items()})
        (message, *_) = alone.configure_train(number, theirs, ConfigRecord(), grid)
        content = RecordDict({"a": near, "m": MetricRecord({"num-examples": 4})})
        wanted, _ = alone.aggregate_train(number, [Message(content, reply_to=message)])
        theirs = restored(wanted, theirs)
        assert bytes_of(new) == bytes_of(theirs)
        arrays = new


def test_a_node_that_lost_the_model_gets_it_again_with_its_boxes():
    grid, server = SecureGrid(), strategy()
    _, new, _ = played(server, grid)
    grid.states[33].pop("fedmrn.held")
    grid.frames.clear()
    request, again, metrics = played(server, grid, 2, new)
    assert metrics["fedmrn.survivors"] == 4
    assert metrics["fedmrn.downlink-whole"] == 1
    assert same(again, expected(new, request, grid.frames))


def test_many_clients_on_a_sparse_graph():
    nodes = list(range(101, 113))
    grid = SecureGrid(nodes=nodes, faults={("masked", 105): crash, ("shares", 110): None})
    server = strategy(secure=SecAgg(threshold=3, degree=6))
    request, new, metrics = played(server, grid)
    inside = {node: frame for node, frame in grid.frames.items() if node not in (105, 110)}
    assert metrics["fedmrn.survivors"] == 10
    assert same(new, expected(record(), request, inside))


def test_dense_floats_beyond_their_grid_are_counted():
    def far(message):
        reply = on_grid(message)
        arrays = {name: array.numpy() for name, array in reply.content["arrays"].items()}
        arrays["conv.bias"] = arrays["conv.bias"] + np.float32(200)
        reply.content["arrays"] = record(arrays)
        return reply

    _, _, metrics = played(strategy(), SecureGrid(train=far))
    assert metrics["fedmrn.secure-clipped"] == 4 * 8


def test_without_training_nothing_is_exchanged():
    grid = SecureGrid()
    server = strategy(FedAvg(fraction_train=0.0, min_available_nodes=1))
    assert list(server.configure_train(1, record(), ConfigRecord(), grid)) == []
    arrays, metrics = server.aggregate_train(1, [])
    assert arrays is None
    assert "fedmrn.lost-rounds" not in metrics
    assert grid.asked == []

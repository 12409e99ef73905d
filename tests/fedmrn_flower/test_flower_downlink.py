"""The model on its way to the clients: frames in the messages, arrays in the apps."""

import numpy as np
import pytest
from flower_cases import MODEL, STATES, bytes_of, honest, messages_of, record, through, trained, with_frame
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedMedian
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

import fedmrn_codec as fm
from fedmrn_flower import FedMRN, Request, Uniform, client, mod, replica
from fedmrn_flower.records import is_model_frame, to_model_frame

NODES = [11, 22, 33]
DENSE = fm.schema_of(MODEL, masked=())


@pytest.fixture(autouse=True)
def logged(monkeypatch):
    """The texts that the adapter logs; no warning counts as given."""
    texts = []
    monkeypatch.setattr(client, "_warned", set())
    for module in ("client", "strategy", "downlink"):
        monkeypatch.setattr(
            f"fedmrn_flower.{module}.log", lambda level, text, *args: texts.append(text % args)
        )
    return texts


def server(base=FedAvg, downlink="grid", **options):
    settings = {"noise": Uniform(0.01), "mask": "signed", "seed": 5} | options
    return FedMRN(base(min_available_nodes=1, min_train_nodes=1), downlink=downlink, **settings)


class Network:
    """Flower's Grid in memory: it has the nodes, and gives each message to a client app, in order."""

    def __init__(self, nodes=NODES, train=honest):
        self.nodes, self.train, self.sent, self.timeouts = nodes, train, [], []

    def get_node_ids(self):
        return self.nodes

    def send_and_receive(self, messages, *, timeout=None):
        messages = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        self.sent.append([message.content for message in messages])
        self.timeouts.append(timeout)
        return [through(self.train, message) for message in messages]


def play(strategy, number, arrays, network=None):
    """One round: its arrays and metrics, and the contents that were sent."""
    network = network or Network()
    messages = strategy.configure_train(number, arrays, ConfigRecord({"lr": 0.1}), network)
    replies = network.send_and_receive(messages)
    return (*strategy.aggregate_train(number, replies), network.sent)


def evaluate(strategy, number, arrays, app=None):
    """One evaluation: its metrics, and the contents that were sent."""

    def answer(message):
        if app is not None:
            app(message)
        numbers = MetricRecord({"num-examples": 1, "loss": 0.25})
        return Message(RecordDict({"metrics": numbers}), reply_to=message)

    network = Network(train=answer)
    messages = strategy.configure_evaluate(number, arrays, ConfigRecord({"k": 1}), network)
    return strategy.aggregate_evaluate(number, network.send_and_receive(messages)), network.sent


def frames(contents):
    """The frame and the schema of each content."""
    return [to_model_frame(content["arrays"]) for content in contents]


# --- what the apps see ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_apps_see_the_arrays_of_the_model(number):
    seen, strategy, arrays = [], server(), record()

    def train(message):
        seen.append(message)
        return honest(message)

    for each in range(1, number + 1):
        seen.clear()
        start = arrays
        arrays, _, _ = play(strategy, each, start, Network(train=train))
    (plain, *_) = messages_of(server(downlink="raw"), NODES, number, start)
    first = seen[0]
    assert list(first.content) == list(plain.content)
    configs = [dict(message.content["config"]) for message in (first, plain)]
    for config in configs:
        del config["fedmrn.base_model"], config["fedmrn.seed"]
    assert configs[0] == configs[1]
    got = first.content["arrays"]
    assert [(n, a.dtype, a.shape, a.stype) for n, a in got.items()] == [
        (n, a.dtype, a.shape, a.stype) for n, a in start.items()
    ]
    received = {name: array.numpy() for name, array in got.items()}
    assert fm.model_id(received) == Request.of(first).base_model
    assert received["bn.num_batches_tracked"] == start["bn.num_batches_tracked"].numpy()
    for name in ("conv.weight", "conv.bias", "linear.weight"):
        error = np.abs(received[name] - start[name].numpy())
        assert error.max() < (0.1 * np.std(MODEL[name]) if name.endswith("weight") else 1e-6)
        assert name == "conv.bias" or error.any()
        received[name][...] = 0  # the app's own


def test_other_mods_see_arrays():
    seen = []

    def second(msg, context, call_next):
        seen.append(list(msg.content["arrays"]))
        return call_next(msg, context)

    (message, *_) = messages_of(server(), NODES)
    assert not through(honest, message, mods=(mod, second)).has_error()
    assert seen == [list(MODEL)]


def test_a_client_without_the_mod_is_told_to_add_it():
    (message, *_) = messages_of(server(), NODES)
    with pytest.raises(TypeError, match=r"ClientApp\(mods=\[fedmrn_flower.mod\]\) decodes"):
        through(honest, message, mods=())
    with pytest.raises(TypeError, match=r"FedMRN\(..., downlink='raw'\)"):
        message.content["arrays"].to_numpy_ndarrays()


# --- what is sent --------------------------------------------------------------------------------------


def test_nodes_get_what_has_changed_since_the_version_they_hold():
    strategy, arrays, sizes = server(), record(), []
    for number in (1, 2, 3):
        nodes = NODES if number == 2 else NODES[:2]  # one is away in rounds 1 and 3
        arrays, metrics, (contents,) = play(strategy, number, arrays, Network(nodes))
        sent = frames(contents)
        whole = [schema is not None for _, schema in sent]
        assert whole == {1: [True, True], 2: [False, False, True], 3: [False, False]}[number]
        assert metrics["fedmrn.downlink-whole"] == sum(whole)
        total = sum(len(frame) + len(schema or b"") for frame, schema in sent)
        assert metrics["fedmrn.downlink-bytes"] == total
        assert metrics["fedmrn.downlink-bytes-per-client"] == total / len(nodes)
        assert metrics["fedmrn.refused"] == metrics["fedmrn.failed"] == 0
        assert "fedmrn.held" not in metrics
        sizes.append(len(sent[0][0]))
    assert sizes[1] < 0.8 * sizes[0]
    arrays, metrics, (contents,) = play(strategy, 4, arrays)
    assert [schema is None for _, schema in frames(contents)] == [True] * 3  # the third was away for a round
    assert frames(contents)[0] == frames(contents)[1] != frames(contents)[2]
    assert metrics["fedmrn.clients"] == 3


def test_messages_to_nodes_of_one_version_share_their_frame():
    strategy = server()
    first, second, third = messages_of(strategy, NODES)
    assert first.content["arrays"] is second.content["arrays"] is third.content["arrays"]


def test_the_bytes_of_a_server_without_frames_are_counted_too():
    _, metrics, _ = play(server(downlink="raw"), 1, record())
    size = sum(len(array.data) for array in record().values())
    assert metrics["fedmrn.downlink-bytes"] == 3 * size
    assert metrics["fedmrn.downlink-bytes-per-client"] == size
    assert metrics["fedmrn.downlink-whole"] == 0


def test_a_message_survives_flowers_serialisation():
    (message, *_) = messages_of(server(), NODES)
    contents = {key: each.deflate() for key, each in get_all_nested_objects(message).items()}
    arrived = inflate_object_from_contents(message.object_id, contents)
    assert is_model_frame(arrived.content["arrays"])
    reply = through(honest, arrived)
    contents = {key: each.deflate() for key, each in get_all_nested_objects(reply).items()}
    arrived = inflate_object_from_contents(reply.object_id, contents)
    assert arrived.content["metrics"]["fedmrn.held"] == Request.of(message).base_model


def test_a_new_server_sends_the_whole_model():
    arrays, _, _ = play(server(), 1, record())
    _, metrics, _ = play(server(), 2, arrays)
    assert (metrics["fedmrn.downlink-whole"], metrics["fedmrn.clients"]) == (3, 3)


def test_a_node_whose_app_failed_gets_the_whole_model():
    strategy = server()

    def fails(message):
        if message.metadata.dst_node_id == 22:
            return Message(Error(2, "no data"), reply_to=message)
        return honest(message)

    arrays, metrics, _ = play(strategy, 1, record(), Network(train=fails))
    assert metrics["fedmrn.failed-nodes"] == [22]
    _, metrics, (contents,) = play(strategy, 2, arrays)
    assert [schema is not None for _, schema in frames(contents)] == [False, True, False]
    assert metrics["fedmrn.clients"] == 3


@pytest.mark.parametrize("held", [1, 0, 0.5, [7], 2**64 - 1])
def test_a_node_that_claims_another_version_gets_the_whole_model(held):
    strategy = server()

    messages = messages_of(strategy, NODES)
    replies = [through(honest, message) for message in messages]
    replies[1].content["metrics"]["fedmrn.held"] = held
    arrays, metrics = strategy.aggregate_train(1, replies)
    assert metrics["fedmrn.clients"] == 3
    assert "fedmrn.held" not in metrics
    _, metrics, (contents,) = play(strategy, 2, arrays)
    assert [schema is not None for _, schema in frames(contents)] == [False, True, False]


# --- the server's own model ----------------------------------------------------------------------------


def results(base, downlink, rounds=6, **options):
    """The models of a server whose clients send the same masks, far below the step of the grid."""
    strategy, arrays, out = server(base, downlink, **options), record(), []

    def train(message):
        update = {
            name: np.full(a.shape, 1e-4 if a.dtype.kind == "f" else 1, a.dtype) for name, a in MODEL.items()
        }
        return with_frame(message, Request.of(message).encode(update, private_seed=9))

    for number in range(1, rounds + 1):
        arrays, metrics, _ = play(strategy, number, arrays, Network(train=train))
        assert metrics["fedmrn.clients"] == 3
        out.append(bytes_of(arrays))
    return out


@pytest.mark.parametrize("base", [FedAvg, FedAvgM, FedAdam, FedMedian])
def test_strategies_compute_as_if_nothing_had_been_rounded(base):
    """The same bits, so no error of the rounding is in the server's model, however small the updates."""
    assert results(base, "grid") == results(base, "raw")


def test_what_clients_hold_stays_within_a_step_of_the_servers_model():
    strategy, arrays, far = server(), record(), []

    def train(message):
        received = message.content["arrays"]["conv.weight"].numpy()
        far.append(np.abs(received - start["conv.weight"].numpy()).max())
        return honest(message)

    for number in range(1, 12):
        start = arrays
        arrays, _, _ = play(strategy, number, arrays, Network([11], train))
    assert max(far) < 0.125 * np.std(MODEL["conv.weight"])


# --- nodes that have lost the model --------------------------------------------------------------------


def test_a_node_that_has_lost_the_model_gets_it_in_the_same_round(logged):
    strategy, called = server(), []
    arrays, _, _ = play(strategy, 1, record())
    del STATES[22]

    def train(message):
        called.append(message.metadata.dst_node_id)
        return honest(message)

    network = Network(train=train)
    _, metrics, _ = play(strategy, 2, arrays, network)
    first, again = network.sent
    assert [schema is None for _, schema in frames(first)] == [True] * 3
    ((frame, schema),) = frames(again)
    assert schema is not None
    assert network.timeouts == [None, 3600]
    assert sorted(called) == NODES  # the app of node 22 is called once
    assert metrics["fedmrn.clients"] == 3
    assert metrics["fedmrn.failed"] == metrics["fedmrn.refused"] == 0
    assert metrics["fedmrn.downlink-whole"] == 1
    total = sum(len(frame) for frame, _ in frames(first)) + len(frame) + len(schema)
    assert metrics["fedmrn.downlink-bytes"] == total
    assert logged == ["fedmrn: 1 nodes had lost the model, and are sent all of it"]


def test_a_node_that_does_not_answer_again_is_no_failure():
    class Deaf(Network):
        def send_and_receive(self, messages, *, timeout=None):
            return [] if self.sent else super().send_and_receive(messages, timeout=timeout)

    strategy = server()
    arrays, _, _ = play(strategy, 1, record())
    del STATES[22]
    arrays, metrics, _ = play(strategy, 2, arrays, Deaf())
    assert metrics["fedmrn.client-nodes"] == [11, 33]
    assert metrics["fedmrn.failed"] == metrics["fedmrn.refused"] == 0
    assert metrics["fedmrn.silent-nodes"] == [22]
    _, metrics, (contents,) = play(strategy, 3, arrays)
    assert [schema is not None for _, schema in frames(contents)] == [False, True, False]
    assert metrics["fedmrn.clients"] == 3


def test_a_node_that_loses_it_twice_in_a_round_has_failed():
    def loses(message):
        return Message(Error(6, f"{replica.LOST}again"), reply_to=message)

    network, strategy = Network(), server()
    messages = messages_of(strategy, NODES)
    strategy._grid = network
    network.train = loses
    _, metrics = strategy.aggregate_train(1, [through(loses, message) for message in messages])
    assert len(network.sent) == 1
    assert metrics["fedmrn.failed-nodes"] == NODES


def test_a_node_is_sent_the_model_again_only_once():
    network, strategy = Network(), server()
    strategy._grid = network
    (message, *_) = messages_of(strategy, NODES)
    asks = Message(Error(6, f"{replica.LOST}x"), reply_to=message)
    strategy._sender.receive([asks, asks], network, 1)
    ((only,),) = network.sent
    assert is_model_frame(only["arrays"])


def test_a_model_is_rounded_once(monkeypatch):
    advanced, advance = [], fm.Downlink.advance
    monkeypatch.setattr(fm.Downlink, "advance", lambda *args: advanced.append(args) or advance(*args))
    strategy = server()
    arrays, _, _ = play(strategy, 1, record())
    evaluate(strategy, 1, arrays)
    play(strategy, 2, ArrayRecord(dict(arrays.items())))
    assert len(advanced) == 1


def test_the_timeout_of_a_run_holds_for_models_that_are_sent_again():
    strategy, network = server(), Network()

    class Forgetful(Network):
        def send_and_receive(self, messages, *, timeout=None):
            if len(self.sent) == 1:
                STATES.clear()
            return super().send_and_receive(list(messages), timeout=timeout)

    strategy.strategy.fraction_evaluate = 0.0
    network = Forgetful()
    result = strategy.start(network, record(), num_rounds=2, timeout=77)
    assert network.timeouts.count(77) == len(network.timeouts)
    assert result.train_metrics_clientapp[2]["fedmrn.clients"] == 3
    assert result.train_metrics_clientapp[2]["fedmrn.downlink-whole"] == 3


def second_message(strategy=None):
    """The message of a second round to node 11, which holds the model of the first."""
    strategy = strategy or server()
    arrays, _, _ = play(strategy, 1, record())
    (message, *_) = messages_of(strategy, NODES, 2, arrays)
    return message


def reason_of(message, **node_config):
    reply = through(lambda _: pytest.fail("the app was called"), message, **node_config)
    assert reply.error.code == ErrorCode.MOD_FAILED_PRECONDITION
    assert replica.is_lost(reply)
    return reply.error.reason.removeprefix("fedmrn: the node needs the whole model: ")


def test_a_node_without_a_model_says_so():
    message = second_message()
    STATES.clear()
    expected = "model that the node holds: expected one, for a frame of differences, got none"
    assert reason_of(message) == expected


def test_a_node_with_another_model_says_so():
    message = second_message()
    STATES[11] = RecordDict()
    through(
        honest, messages_of(server(), NODES, arrays=record(MODEL | {"conv.bias": MODEL["conv.bias"] * 2}))[0]
    )
    assert reason_of(message).startswith("base_model, byte 16: expected")


def test_a_new_model_with_another_id_is_refused():
    message = second_message()
    message.content["config"]["fedmrn.base_model"] ^= 1
    assert reason_of(message).startswith("id of the new model, byte 16: expected")


@pytest.mark.parametrize("entry", ["frame", "schema", "fedmrn.held"])
def test_a_damaged_state_is_a_lost_model(entry):
    message = second_message()
    kept = STATES[11]["fedmrn.held"]
    kept[entry] = kept[entry][:-1] if entry != "fedmrn.held" else kept[entry] ^ 1
    assert reason_of(message)
    del kept[entry]
    assert reason_of(message)


def test_a_damaged_frame_is_not_kept():
    message = second_message()
    before = dict(STATES[11]["fedmrn.held"])
    frame, _ = to_model_frame(message.content["arrays"])
    array = message.content["arrays"]["fedmrn.frame"]
    array.data = frame[:-1] + bytes([frame[-1] ^ 1])
    assert reason_of(message).startswith("checksum")
    assert dict(STATES[11]["fedmrn.held"]) == before


# --- where nodes keep the model ------------------------------------------------------------------------


def test_long_frames_are_kept_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(replica, "IN_STATE", 100)
    strategy, arrays = server(), record()
    for number in (1, 2, 3):
        messages = messages_of(strategy, NODES, number, arrays)
        replies = [through(honest, message, **{"fedmrn-folder": str(tmp_path)}) for message in messages]
        arrays, metrics = strategy.aggregate_train(number, replies)
        assert metrics["fedmrn.clients"] == 3
        assert metrics["fedmrn.downlink-whole"] == (3 if number == 1 else 0)
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"fedmrn-1-{n}.frame" for n in NODES]
        assert "frame" not in STATES[11]["fedmrn.held"]
    (tmp_path / "fedmrn-1-11.frame").unlink()
    (message, *_) = messages_of(strategy, NODES, 4, arrays)
    assert reason_of(message).startswith("model that the node holds")


def test_a_file_that_cannot_be_written_costs_bytes_alone(tmp_path, monkeypatch, logged):
    monkeypatch.setattr(replica, "IN_STATE", 100)
    strategy, arrays = server(), record()
    for number in (1, 2):
        messages = messages_of(strategy, NODES[:1], number, arrays)
        replies = [through(honest, m, **{"fedmrn-folder": str(tmp_path / "none")}) for m in messages]
        arrays, metrics = strategy.aggregate_train(number, replies)
        assert metrics["fedmrn.clients"] == metrics["fedmrn.downlink-whole"] == 1
    (text,) = logged
    assert text.startswith("fedmrn: the model is not kept, and the server will send all of it again: ")


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "kept"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(replica.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        replica._replace(path, b"new")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("kept", b"old")]


def test_a_model_that_has_not_changed_is_not_written_again(tmp_path, monkeypatch):
    strategy = server()
    for message in messages_of(strategy, [11]):
        strategy.aggregate_train(1, [through(honest, message)])
    kept = STATES[11]["fedmrn.held"]["frame"]
    monkeypatch.setattr(fm.Replica, "to_bytes", lambda _: pytest.fail("encoded again"))
    (message,) = messages_of(strategy, [11], 2)  # the model of round 1 once more
    assert not through(honest, message).has_error()
    assert STATES[11]["fedmrn.held"]["frame"] is kept


# --- evaluation, and messages that pass ----------------------------------------------------------------


def test_evaluation_gets_the_model_and_training_goes_on_from_it():
    strategy, seen = server(), []
    arrays, _, (first,) = play(strategy, 1, record())
    schema = fm.Schema.from_bytes(frames(first)[0][1])
    metrics, (evaluated,) = evaluate(strategy, 1, arrays, lambda message: seen.append(message.content))
    assert [list(content) for content in seen] == [["arrays", "config"]] * 3
    assert [(n, a.dtype, a.shape) for n, a in seen[0]["arrays"].items()] == [
        (n, a.dtype, a.shape) for n, a in arrays.items()
    ]
    assert metrics["loss"] == 0.25
    assert "fedmrn.held" not in metrics
    assert metrics["fedmrn.downlink-bytes"] > 0
    assert metrics["fedmrn.downlink-whole"] == 0
    _, trained_metrics, (again,) = play(strategy, 2, arrays)
    assert trained_metrics["fedmrn.clients"] == 3
    for contents, changes in ((evaluated, True), (again, False)):  # nothing is new after the evaluation
        for frame, _ in frames(contents):
            assert any(array.any() for array in fm.decode(frame, schema).values()) == changes
    assert trained_metrics["fedmrn.downlink-bytes"] < metrics["fedmrn.downlink-bytes"]


def test_a_node_that_has_lost_the_model_is_evaluated_all_the_same():
    strategy, called = server(), []
    arrays, _, _ = play(strategy, 1, record())
    del STATES[22]
    metrics, (first, again) = evaluate(
        strategy, 1, arrays, lambda message: called.append(message.metadata.dst_node_id)
    )
    assert [schema is None for _, schema in frames(first)] == [True] * 3
    assert [schema is None for _, schema in frames(again)] == [False]
    assert sorted(called) == NODES
    assert metrics["fedmrn.downlink-whole"] == 1


def test_evaluation_without_arrays_passes(logged):
    class Bare(FedAvg):
        def configure_evaluate(self, server_round, arrays, config, grid):
            content = RecordDict({"config": config})
            return [Message(content, dst_node_id=node, message_type="evaluate") for node in NODES]

    strategy = server(Bare)
    for number in (1, 2):
        arrays, metrics, _ = play(strategy, number, record())
        assert metrics["fedmrn.clients"] == 3
        metrics, (contents,) = evaluate(strategy, number, arrays)
        assert [list(content) for content in contents] == [["config"]] * 3
        assert metrics["fedmrn.downlink-bytes"] == 0
    assert logged == [
        "fedmrn: the server's arrays are sent as they are, without frames: number of ArrayRecords in the "
        "message to node 11: expected 1, got 0"
    ]


def test_a_round_without_evaluation_has_no_metrics_of_it():
    strategy = server()
    strategy.strategy.fraction_evaluate = 0.0
    assert evaluate(strategy, 1, record()) == (None, [[]])


def own(node):
    return record(MODEL | {"conv.bias": np.full(8, node, np.float32)})


class Personal(FedAvg):
    """Sends every node a different model."""

    def configure_train(self, server_round, arrays, config, grid):
        for message in super().configure_train(server_round, arrays, config, grid):
            message.content = RecordDict({"arrays": own(message.metadata.dst_node_id), "config": config})
            yield message


def test_several_models_are_sent_as_they_are(logged):
    strategy = server(Personal, each=True)
    for number in (1, 2):
        messages = messages_of(strategy, NODES, number)
        for message, node in zip(messages, NODES, strict=True):
            assert bytes_of(message.content["arrays"]) == bytes_of(own(node))
        replies = [through(honest, message) for message in messages]
        _, metrics = strategy.aggregate_train(number, replies)
        assert metrics["fedmrn.clients"] == 3
    (line,) = logged
    assert line.endswith("models in the messages: expected the same for all nodes, got several")


def test_equal_models_in_different_records_are_one_model():
    class Copies(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            for message in super().configure_train(server_round, arrays, config, grid):
                copy = ArrayRecord(dict(arrays.items()))
                message.content = RecordDict({"arrays": copy, "config": config})
                yield message

    messages = messages_of(server(Copies), NODES)
    assert all(is_model_frame(message.content["arrays"]) for message in messages)


@pytest.mark.parametrize("odd", [np.full(3, np.nan, np.float32), np.full(3, 2, ">f4")])
def test_arrays_that_no_frame_represents_are_sent_as_they_are(odd, logged):
    arrays = record(MODEL | {"odd": odd})
    messages = messages_of(server(schema=DENSE), NODES, arrays=arrays)
    assert all(message.content["arrays"] is arrays for message in messages)
    assert len(logged) == 1


def test_a_model_of_other_shapes_begins_anew():
    strategy = server()
    play(strategy, 1, record())
    other = {"w": np.linspace(-1, 1, 64, dtype=np.float16).reshape(8, 8), "n": np.arange(3, dtype=np.uint8)}
    arrays, metrics, _ = play(strategy, 2, record(other))
    assert (metrics["fedmrn.clients"], metrics["fedmrn.downlink-whole"]) == (3, 3)
    assert arrays["w"].dtype == "float16"


def test_every_dtype_arrives():
    arrays = record(
        {
            "half": np.linspace(-2, 2, 60, dtype=np.float16).reshape(6, 10),
            "double": np.linspace(-2, 2, 60).reshape(6, 10),
            "scalar": np.array(2, np.float32),
            "empty": np.zeros((0, 4), np.float32),
            "bytes": np.full((2, 2), 255, np.uint8),
            "int64": np.array(2**40),
            "bool": np.array([True, False]),
        }
    )
    strategy = server()
    for number in (1, 2):
        messages = messages_of(strategy, NODES, number, arrays)
        assert is_model_frame(messages[0].content["arrays"])
        replies = [through(honest, message) for message in messages]
        got = {name: array.numpy() for name, array in messages[0].content["arrays"].items()}
        for name, array in arrays.items():
            want = array.numpy()
            assert (got[name].dtype, got[name].shape) == (want.dtype, want.shape), name
            if want.dtype.kind != "f":
                assert got[name].tobytes() == want.tobytes(), name
            elif want.size > 1:
                assert np.abs(got[name] - want).max() < 0.2
        arrays, metrics = strategy.aggregate_train(number, replies)
        assert metrics["fedmrn.clients"] == 3


def test_the_option_has_two_values():
    with pytest.raises(fm.ArgumentError, match=r"^downlink: expected one of grid, raw, got 'float8'$"):
        server(downlink="float8")


def test_frozen_and_tied_arrays_reach_the_clients():
    tied = MODEL | {"decoder.weight": MODEL["linear.weight"], "frozen": np.ones(5, np.float32)}
    schema = fm.schema_of(MODEL)
    strategy = server(schema=schema, tied={"decoder.weight": "linear.weight"})
    arrays = record(tied)
    for number in (1, 2):
        messages = messages_of(strategy, NODES, number, arrays)
        replies = [through(lambda m: honest_part(m), message) for message in messages]
        got = {name: array.numpy() for name, array in messages[0].content["arrays"].items()}
        assert list(got) == list(tied)
        assert got["decoder.weight"].tobytes() == got["linear.weight"].tobytes()
        assert got["frozen"].tobytes() == tied["frozen"].tobytes()
        arrays, metrics = strategy.aggregate_train(number, replies)
        assert metrics["fedmrn.clients"] == 3


def honest_part(message):
    return Message(
        RecordDict({"arrays": record(trained(message)), "metrics": MetricRecord({"num-examples": 1})}),
        reply_to=message,
    )

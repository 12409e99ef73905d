"""Bytes up as Flower serialises them, and the server's memory."""

from pathlib import Path

import numpy as np
import pytest
from flower_cases import frame_of, messages_of, record, with_frame
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from benchmarks import memory, servers
from fedmrn_flower import FedMRN, Request, Uniform, mod
from reference_fl import models

README = Path(__file__).parents[2] / "adapters" / "fedmrn_flower" / "README.md"


def flower_bytes(message):
    """What flwr pushes for a message: the message, its records, its arrays, their chunks."""
    return sum(len(each.deflate()) for each in get_all_nested_objects(message).values())


def wrapped(nodes):
    return FedMRN(FedAvg(min_available_nodes=nodes, min_train_nodes=nodes), noise=Uniform(0.01))


def test_cnn4_replies_are_27_times_smaller():
    model = models.build("cnn4", (1, 28, 28), 10, 0)
    (message,) = messages_of(wrapped(1), [1], arrays=ArrayRecord(model.state_dict()))

    def train(msg, _):
        trained = ArrayRecord(models.build("cnn4", (1, 28, 28), 10, 1).state_dict())
        metrics = MetricRecord({"train-loss": 0.5, "num-examples": 600})
        return Message(RecordDict({"arrays": trained, "metrics": metrics}), reply_to=msg)

    plain = flower_bytes(train(message, None))
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    masked = flower_bytes(mod(message, context, train))
    assert plain > 1_567_392  # no less than the float32 parameters
    assert plain / masked >= 27
    line = f"{plain:,} bytes plain, {masked:,} with a frame, {plain / masked:.1f} times fewer"
    assert line in README.read_text(), line


@pytest.mark.slow
@pytest.mark.integration
def test_more_than_100_million_parameters():
    model = {"w": np.ones((10_400, 10_000), np.float32)}
    strategy = wrapped(1)
    (message,) = messages_of(strategy, [1], arrays=record(model))
    frame = Request.of(message).encode({"w": np.full((10_400, 10_000), 0.001, np.float32)})
    reply = with_frame(message, frame)
    objects = get_all_nested_objects(reply)
    assert sum(type(each).__name__ == "ArrayChunk" for each in objects.values()) > 1
    contents = {key: each.deflate() for key, each in objects.items()}
    arrived = inflate_object_from_contents(reply.object_id, contents)
    assert frame_of(arrived) == frame
    arrays, metrics = strategy.aggregate_train(1, [arrived])
    assert metrics["fedmrn.client-bytes"] == [len(frame)]
    assert 0 < arrays["w"].numpy().mean() - 1 < 0.001  # half of the noise has the other sign


@pytest.mark.parametrize("server", servers.SERVERS)
def test_the_measured_rounds_run(server):
    held, beyond = servers.measured(server, 3, 10_000)
    assert 0 <= held < memory.MIB
    assert beyond < 8 * memory.MIB


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("server", ["Flower, FedMRN(FedAvg)", "NVFlare, ExactMean"])
def test_memory_does_not_grow_with_the_replies(server):
    few, many = (
        memory.peaks_of(server, str(count), "10000000", module="benchmarks.servers") for count in (10, 100)
    )
    assert 90 * 1_250_000 < many[0] - few[0] < 1.01 * 90 * 1_250_212 or (few[0], many[0]) == (0, 0)
    assert many[1] - few[1] < 2 * memory.MIB
    assert few[1] > 8 * 10_000_000  # the sums: it does measure

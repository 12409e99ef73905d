"""Bytes up as Flower serialises them, and the server's memory."""

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from flower_cases import messages_of, record, with_frame
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

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
    masked = flower_bytes(mod(message, None, train))
    assert plain > 1_567_392  # no less than the float32 parameters
    assert plain / masked >= 27
    line = f"{plain:,} bytes plain, {masked:,} with a frame, {plain / masked:.1f} times fewer"
    assert line in README.read_text(), line


ELEMENTS = 10_000_000


def frames(message_of, count):
    """`count` replies with frames that differ in seed alone, made without encoding each."""
    messages = list(message_of)
    first = Request.of(messages[0]).encode({"w": np.full((1000, ELEMENTS // 1000), 0.001, np.float32)})
    for message in messages[:count]:
        data = bytearray(first[:-4])
        data[8:16] = struct.pack("<Q", Request.of(message).seed)
        yield with_frame(message, bytes(data) + struct.pack("<I", zlib.crc32(data)))


def peak(count):
    """The most that aggregating so many replies takes on top of the replies themselves."""
    strategy = wrapped(count)
    arrays = record({"w": np.zeros((1000, ELEMENTS // 1000), np.float32)})
    messages = messages_of(strategy, list(range(1, count + 1)), arrays=arrays)
    replies = list(frames(messages, count))
    tracemalloc.start()
    result, metrics = strategy.aggregate_train(1, replies)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert metrics["fedmrn.clients"] == count
    assert result is not None
    return most


@pytest.mark.slow
@pytest.mark.integration
def test_memory_does_not_grow_with_the_replies():
    few, many = peak(10), peak(100)
    print(f"10 replies: {few / 2**20:.0f} MiB; 100 replies: {many / 2**20:.0f} MiB")
    assert many - few < 90 * ELEMENTS / 8 / 10  # a tenth of what the further frames themselves take

"""A small model, clients that train it, and one round of a strategy, all in memory."""

from collections.abc import Callable

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import fedmrn_flower
from fedmrn_flower import FedMRN, mod

MODEL = {
    "conv.weight": np.linspace(-1, 1, 8 * 3 * 3 * 3, dtype=np.float32).reshape(8, 3, 3, 3),
    "conv.bias": np.linspace(1, 2, 8, dtype=np.float32),
    "bn.num_batches_tracked": np.array(3),
    "linear.weight": np.linspace(-2, 2, 40, dtype=np.float32).reshape(5, 8),
}


def record(arrays=MODEL):
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def bytes_of(arrays):
    """Name, dtype, shape and bytes of the arrays of an ArrayRecord."""
    return [(name, a.dtype, a.shape, a.data) for name, a in arrays.items()]


class Grid:
    """The part of Flower's Grid that `configure_train` uses."""

    def __init__(self, nodes):
        self.nodes = nodes

    def get_node_ids(self):
        return self.nodes


def trained(message, step=0.002):
    """The arrays after a client's training, which adds `step` to every float and 7 to every integer."""
    out = {}
    for name, array in message.content["arrays"].items():
        values = array.numpy()
        out[name] = np.asarray(values + values.dtype.type(step if values.dtype.kind == "f" else 7))
    return out


def honest(message, weight=10, **metrics):
    """A plain client's reply, before any mod."""
    numbers = MetricRecord({"num-examples": weight, **({"loss": 0.5} | metrics)})
    return Message(RecordDict({"arrays": record(trained(message)), "metrics": numbers}), reply_to=message)


STATES: dict[int, RecordDict] = {}
"""The state of each node, which Flower keeps between messages; the fixture `states` empties it."""


def through(train: Callable[[Message], Message], message, mods=(mod,), **node_config):
    """The reply of a ClientApp with these mods."""
    app = ClientApp(mods=list(mods))
    app.train()(lambda msg, _: train(msg))
    app.evaluate()(lambda msg, _: train(msg))
    node = message.metadata.dst_node_id
    state = STATES.setdefault(node, RecordDict())
    context = Context(run_id=1, node_id=node, node_config=node_config, state=state, run_config={})
    return app(message, context)


def without_mod(message):
    """What a client without the mod replies: whole arrays, from whichever model."""
    numbers = MetricRecord({"num-examples": 10, "loss": 0.5})
    return Message(RecordDict({"arrays": record(), "metrics": numbers}), reply_to=message)


def messages_of(strategy: FedMRN, nodes, server_round=1, arrays=None):
    """The messages of `configure_train`, in the order of `nodes`."""
    arrays = record() if arrays is None else arrays
    found = strategy.configure_train(server_round, arrays, ConfigRecord({"lr": 0.1}), Grid(nodes))
    return sorted(found, key=lambda message: nodes.index(message.metadata.dst_node_id))


def with_frame(message, frame, weight=10, **metrics):
    """A reply that holds these bytes as its frame."""
    from fedmrn_flower.records import from_frame

    numbers = MetricRecord({"num-examples": weight, **({"loss": 0.5} | metrics)})
    return Message(RecordDict({"arrays": from_frame(frame), "metrics": numbers}), reply_to=message)


def frame_of(reply):
    (array,) = reply.content["arrays"].values()
    return array.data


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))


def train_with_psm(message):
    model = network()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    psm = fedmrn_flower.psm(model, message, steps=3)
    for _ in range(3):
        x = torch.ones(6, 4)
        torch.nn.functional.cross_entropy(model(x), torch.zeros(6, dtype=torch.long)).backward()
        optimizer.step(), optimizer.zero_grad(), psm.step()
    arrays = fedmrn_flower.arrays(psm)
    return Message(RecordDict({"a": arrays, "m": MetricRecord({"num-examples": 6})}), reply_to=message)

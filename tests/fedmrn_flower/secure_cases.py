"""A grid of nodes in memory that answer all messages of a round with secure aggregation."""

import numpy as np
from flower_cases import Grid, honest, record
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.serverapp.strategy import FedAvg

import fedmrn_codec as fm
from fedmrn_flower import FedMRN, Request, SecAgg, mod
from fedmrn_flower.records import Loaded, from_frame, to_frame

NODES = [11, 22, 33, 44]
STEPS = ("keys", "shares", "masked", "reveal")
STEP = 2.0**-18
"""Of the grid on which the dense floats of all updates lie."""


def on_grid(message, weight=10, **metrics):
    """An honest reply whose dense update lies on the default grid, and is another one for each node."""
    node = message.metadata.dst_node_id
    arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
    reply = honest(message, weight, **metrics)
    rng = np.random.default_rng(node)
    trained = {}
    for name, array in arrays.items():
        if array.ndim >= 2:
            trained[name] = (array + rng.normal(0, 0.01, array.shape)).astype(array.dtype)
        elif array.dtype.kind == "f":
            trained[name] = array + (rng.integers(-500, 500, array.shape) * STEP).astype(array.dtype)
        else:
            trained[name] = np.asarray(array + rng.integers(0, 9))
    reply.content["arrays"] = record(trained)
    return reply


def step_of(message):
    """The step of the protocol that a message belongs to."""
    found = message.content.config_records.get("fedmrn.secagg")
    return None if found is None else found["step"]


class SecureGrid(Grid):
    """Nodes whose state goes through Flower's serialisation between any two messages.

    `faults` maps (step, node) to what happens to its answer: None for silence, or a function of the message
    and of the honest reply that returns another reply. The frames that the nodes have made stay in `frames`.
    """

    def __init__(self, nodes=NODES, train=on_grid, faults=None, mods=(mod,), **node_config):
        super().__init__(list(nodes))
        self.train, self.faults, self.node_config = train, dict(faults or {}), node_config
        self.states = {node: RecordDict() for node in nodes}
        self.mods, self.frames, self.asked, self.called = mods, {}, [], []

    def app(self):
        app = ClientApp(mods=[*self.mods, self.keep_frame])
        app.train()(self.call)
        app.evaluate()(self.call)
        return app

    def keep_frame(self, msg, context, call_next):
        """A mod inside of fedmrn_flower.mod that encodes the frame itself, so that the test knows it."""
        reply = call_next(msg, context)
        request = Request.find(msg)
        if request is not None and not reply.has_error():
            update = fm.difference(
                Loaded(reply.content["arrays"]), Loaded(msg.content["arrays"]), request.schema
            )
            reply.content["arrays"] = from_frame(request.encode(update))
            self.frames[context.node_id] = to_frame(reply.content["arrays"])
        return reply

    def call(self, msg, _):
        self.called.append((msg.metadata.dst_node_id, list(msg.content)))
        return self.train(msg)

    def one(self, message):
        """A node's reply, or None."""
        node, step = message.metadata.dst_node_id, step_of(message)
        self.asked.append((step, node))
        config = {name: value[node] for name, value in self.node_config.items()}
        state = recorddict_from_proto(recorddict_to_proto(self.states[node]))
        context = Context(run_id=1, node_id=node, node_config=config, state=state, run_config={})
        fault = self.faults.get((step, node), unchanged)
        if fault is None:
            return None
        copy = recorddict_from_proto(recorddict_to_proto(message.content))
        try:
            reply = self.app()(Message(content=copy, metadata=message.metadata), context)
        except Exception as error:  # as the process of a client app does
            reply = Message(Error(1, str(error)), reply_to=message)
        self.states[node] = context.state
        return fault(message, reply)

    def send_and_receive(self, messages, *, timeout=None):
        """The replies of all nodes that answer."""
        return [reply for reply in map(self.one, messages) if reply is not None]


def unchanged(message, reply):
    return reply


def crash(message, reply):
    """The error reply of Flower for a node that has stopped."""
    return Message(Error(2, "the node stopped"), reply_to=message)


def strategy(inner=None, threshold=2, **options):
    secure = options.pop("secure", None) or SecAgg(threshold=threshold)
    return FedMRN(
        inner or FedAvg(min_available_nodes=1, min_train_nodes=1),
        secure=secure,
        **{"seed": 5, "noise": fm.Bernoulli(0.01)} | options,
    )


def request_of(server):
    """The request of the round that is under way."""
    return next(iter(server._round.assignments.values())).request


def played(server, grid, number=1, arrays=None):
    """One round: request, new arrays, metrics."""
    arrays = record() if arrays is None else arrays
    messages = server.configure_train(number, arrays, ConfigRecord({"lr": 0.1}), grid)
    request = request_of(server)
    new, metrics = server.aggregate_train(number, grid.send_and_receive(messages))
    return request, new, metrics


def expected(server_arrays, request, frames, weights=None):
    """The arrays plus the mean that a plain aggregator gives for these frames."""
    aggregator = request.aggregator()
    for node, frame in frames.items():
        aggregator.add(frame, (weights or {}).get(node, 1))
    mean = aggregator.mean()
    return {name: np.asarray(array.numpy() + mean[name]).tobytes() for name, array in server_arrays.items()}


def same(arrays, wanted):
    return {name: array.numpy().tobytes() for name, array in arrays.items()} == wanted

"""A round of Flower's SecAgg+, with Flower's own mod, workflow and serialisation of messages, in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common.recorddict_compat import arrayrecord_to_parameters, parameters_to_arrayrecord
from flwr.server import LegacyContext, SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from .secagg_ledger import STAGES, Ledger

FROM = dict(zip(STAGES, (Stage.SHARE_KEYS, Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK), strict=True))
WEIGHT = 600
ERROR = 1e-5
"""Of an element of the mean, at most: a parameter is rounded to 2^-18 / (WEIGHT / 1000), less than that."""

Arrays = list[np.ndarray]


class Trainer(NumPyClient):
    """A client whose training adds an update."""

    def __init__(self, update: Arrays) -> None:
        self.update = update

    def fit(self, parameters: Arrays, config: object) -> tuple[Arrays, int, dict[str, float]]:
        """The trained model, the number of examples, and no metrics."""
        return [a + b for a, b in zip(parameters, self.update, strict=True)], WEIGHT, {}


class Nodes:
    """Nodes in memory: the part of a Grid that the workflow uses.

    Parameters
    ----------
    updates : mapping of int to list of numpy.ndarray
        By the id of the node.
    ledger : Ledger
    silent : mapping of int to str
        The first of `STAGES` in which a node does not answer.
    """

    def __init__(self, updates: Mapping[int, Arrays], ledger: Ledger, silent: Mapping[int, str]) -> None:
        self.ledger = ledger
        self.silent = {id: Stage.all().index(FROM[stage]) for id, stage in silent.items()}
        trainer = {id: Trainer(update).to_client() for id, update in updates.items()}

        def client_fn(context: Context) -> object:
            return trainer[context.node_id]

        self.app = ClientApp(client_fn, mods=[secaggplus_mod])
        self.contexts = {id: context_of(id) for id in updates}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies of the nodes that answer."""
        return [reply for reply in map(self._one, messages) if reply is not None]

    def _one(self, message: Message) -> Message | None:
        id = message.metadata.dst_node_id
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        if Stage.all().index(stage) >= self.silent.get(id, len(Stage.all())):
            return None
        request = deflated(message)
        self.ledger.down[id] += bytes_of(request)
        with self.ledger.of_client(id):
            arrived = inflated(request)
            try:
                reply = self.app(arrived, self.contexts[id])
            except Exception as error:  # a node replies so, whatever stops its app
                reply = Message(Error(1, str(error)), reply_to=arrived)
            answer = deflated(reply)
        self.ledger.up[id] += bytes_of(answer)
        return inflated(answer)


Deflated = tuple[str, dict[str, bytes]]
"""The id of a message, and the bytes of all objects that flwr pushes for it, by their ids."""


def deflated(message: Message) -> Deflated:
    """The message, its records, its arrays and their chunks, as flwr sends them."""
    with no_object_id_recompute():
        objects = get_all_nested_objects(message)
        return message.object_id, {id: each.deflate() for id, each in objects.items()}


def inflated(data: Deflated) -> Message:
    """The message of such bytes."""
    return inflate_object_from_contents(data[0], dict(data[1]))


def bytes_of(data: Deflated) -> int:
    """The bytes of all objects of a message."""
    return sum(map(len, data[1].values()))


def context_of(node: int) -> Context:
    """The context of a node before its first message."""
    return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})


def play(
    model: Arrays,
    updates: Mapping[int, Arrays],
    ledger: Ledger,
    silent: Mapping[int, str],
    threshold: float,
) -> bool:
    """Play a round; whether it gave a sum.

    Parameters
    ----------
    model : list of numpy.ndarray
    updates, ledger, silent
        As in `Nodes`.
    threshold : float
        The share of the clients that restore a secret.

    Raises
    ------
    AssertionError
        The mean is not that of the clients which have sent vectors.
    """
    with identity(), quiet():
        nodes = Nodes(updates, ledger, silent)
        context = server_context(model, list(updates), nodes)
        before = context.state.array_records[MAIN_PARAMS_RECORD]
        with ledger.of_server():
            SecAggPlusWorkflow(1.0, threshold)(nodes, context)
        after = context.state.array_records[MAIN_PARAMS_RECORD]
        if after is before:
            return False
        check(parameters_to_ndarrays(arrayrecord_to_parameters(after, True)), model, updates, silent)
        return True


def check(got: Arrays, model: Arrays, updates: Mapping[int, Arrays], silent: Mapping[int, str]) -> None:
    """Compare a mean with that of the trained models in float64."""
    there = [update for id, update in updates.items() if silent.get(id, STAGES[-1]) == STAGES[-1]]
    for array, base, *each in zip(got, model, *there, strict=True):
        wanted = base.astype(np.float64) + np.mean(each, axis=0, dtype=np.float64)
        if np.abs(array - wanted).max() > ERROR:
            raise AssertionError("the mean of SecAgg+ is not that of its clients")


def server_context(model: Arrays, ids: list[int], nodes: Nodes) -> LegacyContext:
    """The context of a server with plain FedAvg over all nodes."""
    count = len(ids)
    manager = SimpleClientManager()
    for id in ids:
        manager.register(GridClientProxy(id, nodes, 1))
    strategy = FedAvg(fraction_fit=1.0, min_fit_clients=count, min_available_clients=count)
    out = LegacyContext(context_of(1), strategy=strategy, client_manager=manager)
    out.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    parameters: Parameters = ndarrays_to_parameters(model)
    out.state.array_records[MAIN_PARAMS_RECORD] = parameters_to_arrayrecord(parameters, True)
    return out


@contextmanager
def identity() -> Iterator[None]:
    """The ids that flwr sets in its processes, and without which it makes no message."""
    names = ("_run_id", "_node_id", "_task_id")
    before = [getattr(TaskIdentity, name) for name in names]
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(TaskIdentity, name, value)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the workflow's log to itself."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)

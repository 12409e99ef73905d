"""One round of the server: the request to each node, and the checks of the replies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flwr.app import ArrayRecord, Message

import fedmrn_codec as fm
from fedmrn_codec import ReplyError
from fedmrn_codec.adapter_api import SeedPolicy, ServerNoise, check_schema

from .agreement import with_common_metrics, with_common_names
from .checks import CheckedReply, TrainReply, check, only
from .records import Loaded
from .request import Request

R = TypeVar("R", bound=TrainReply)

FOR_ALL = 0
"""What stands for the node where the one seed of a round with secure aggregation is chosen."""


@dataclass(frozen=True)
class Assignment:
    """The message to a node, the strategy's arrays in it, to which its update is added, and the request."""

    message: Message
    arrays: ArrayRecord
    request: Request


@dataclass(frozen=True)
class Model:
    """Id and schema of a model that nodes are sent, and the noise of its masked tensors."""

    id: int
    schema: fm.Schema
    noise: fm.Noise | Mapping[str, fm.Noise]


@dataclass
class Settings:
    """The settings that all rounds share: parameters of `FedMRN`, and the key of the weights."""

    noise: ServerNoise
    mask: str
    schema: fm.Schema | None
    tied: Mapping[str, str]
    seed: SeedPolicy
    weighted_by: str
    max_weight: int
    coding: str
    dense_coding: str
    limits: fm.Limits
    one_seed: bool = False


@dataclass
class Replies(Generic[R]):
    """The replies of a round.

    Attributes
    ----------
    checked : list of TrainReply
    failed : list of flwr.app.Message
        Error replies from the nodes or from Flower.
    refused : list of (flwr.app.Message, fedmrn_codec.CodecError)
    silent : list of int
        The nodes that did not answer in time.
    """

    checked: list[R] = field(default_factory=list)
    failed: list[Message] = field(default_factory=list)
    refused: list[tuple[Message, fm.CodecError]] = field(default_factory=list)
    silent: list[int] = field(default_factory=list)

    def heard(self) -> set[int]:
        """The nodes that answered, whatever the answer."""
        messages = [*self.failed, *(message for message, _ in self.refused)]
        return {message.metadata.src_node_id for message in messages} | {each.node for each in self.checked}


class Round:
    """The messages of one round, and the checks of the replies to them.

    Parameters
    ----------
    number : int
    messages : iterable of flwr.app.Message
        From the wrapped strategy. Their contents are replaced, not changed.
    settings : Settings
    base_model : int, optional
        The id of the model that all clients receive in place of that of the messages, rounded.

    Attributes
    ----------
    assignments : dict of int to Assignment
        By node.

    Raises
    ------
    fedmrn_codec.CodecError
        Two messages are for one node, a message does not hold exactly one ArrayRecord, the schema does not
        fit its arrays, or two nodes have the same seed.
    """

    def __init__(
        self, number: int, messages: Iterable[Message], settings: Settings, base_model: int | None = None
    ) -> None:
        self.number, self.settings, self._base_model = number, settings, base_model
        self.assignments: dict[int, Assignment] = {}
        self._seeds: set[int] = set()
        self._models: dict[int, Model] = {}
        for message in messages:
            self._assign(message)

    @property
    def messages(self) -> list[Message]:
        """The messages to send."""
        return [assignment.message for assignment in self.assignments.values()]

    def base_models(self) -> set[int]:
        """The ids of the models that were sent: one, unless the strategy sends nodes different models."""
        return {assignment.request.base_model for assignment in self.assignments.values()}

    def check(self, replies: Iterable[Message]) -> Replies[CheckedReply]:
        """Check every reply, one at a time; payloads are decoded only as far as the checks require."""
        weighted_by, most = self.settings.weighted_by, self.settings.max_weight
        out = self.sort(replies, lambda reply, its: check(reply, its.request, its.arrays, weighted_by, most))
        out.silent = sorted(self.assignments.keys() - out.heard())
        return out

    def sort(self, replies: Iterable[Message], read: Callable[[Message, Assignment], R]) -> Replies[R]:
        """The replies that `read` accepts and that agree on names and metrics, and the others."""
        out, seen = Replies[R](), set[int]()
        for reply in replies:
            if reply.has_error():
                out.failed.append(reply)
                continue
            try:
                out.checked.append(read(reply, self._assignment_of(reply, seen)))
            except fm.CodecError as error:
                out.refused.append((reply, error))
        out.checked, others = with_common_metrics(with_common_names(out.checked))
        out.refused += [(reply.message, error) for reply, error in others]
        return out

    def _assign(self, message: Message) -> None:
        node, settings = message.metadata.dst_node_id, self.settings
        if node in self.assignments:
            raise fm.ArgumentError("messages", "one per node in a round", f"two for node {node}")
        _, arrays = only(message.content.array_records, f"ArrayRecords in the message to node {node}")
        model = self._model(arrays)
        if not settings.one_seed:
            self._seeds.add(seed := fm.choose_seed(settings.seed, self.number, node, self._seeds))
        elif self._seeds:
            (seed,) = self._seeds
        else:
            self._seeds.add(seed := fm.choose_seed(settings.seed, self.number, FOR_ALL))
        rest = settings.coding, settings.dense_coding, settings.limits
        request = Request(seed, model.noise, settings.mask, self.number, model.id, model.schema, *rest)
        message.content = request.add_to(message.content)
        self.assignments[node] = Assignment(message, arrays, request)

    def _model(self, arrays: ArrayRecord) -> Model:
        """The model in a record, looked at once for all nodes that are sent the same object."""
        if id(arrays) not in self._models:
            model, tied = Loaded(arrays), self.settings.tied
            schema = self.settings.schema or fm.schema_of(model, leave_out=[n for n in tied if n in model])
            check_schema(schema, model)
            check_tied(tied, schema, model)
            noise = self.settings.noise.of(schema, model)
            self._models[id(arrays)] = Model(self._base_model or fm.model_id(model), schema, noise)
        return self._models[id(arrays)]

    def _assignment_of(self, reply: Message, seen: set[int]) -> Assignment:
        node = reply.metadata.src_node_id
        if node not in self.assignments:
            raise ReplyError("node", "a node that this round's messages were sent to", node)
        if node in seen:
            raise ReplyError("node", "a node that has not replied yet", node)
        seen.add(node)
        return self.assignments[node]


def named(replies: Iterable[Message], sent: Iterable[Message]) -> list[Message]:
    """The replies; the SuperLink's own error replies, for nodes that have stopped, as those of the nodes."""
    asked = {message.metadata.message_id: message for message in sent if message.metadata.message_id}
    out = []
    for reply in replies:
        message = asked.get(reply.metadata.reply_to_message_id)
        if reply.has_error() and message is not None:
            reply = Message(reply.error, reply_to=message)
        out.append(reply)
    return out


def check_tied(tied: Mapping[str, str], schema: fm.Schema, arrays: Loaded) -> None:
    """Check that each tied array is outside the schema and tied to one of it; else SchemaError."""
    names = {tensor.name for tensor in schema}
    for name, other in tied.items():
        if name not in arrays or name in names or other not in names:
            expected = "an array outside the schema, tied to one in the schema"
            raise fm.SchemaError("tied", expected, f"{name!r}: {other!r}")

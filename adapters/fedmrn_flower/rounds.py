"""One round of the server: what each node was asked for, and which of the replies are sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, Message

import fedmrn_codec as fm

from .checks import ReplyError, Sound, check, only
from .records import model_id, schema_of
from .request import Request
from .seeds import SeedPolicy, choose


@dataclass(frozen=True)
class Asked:
    """What a node was sent: the message, its arrays, and the request in it."""

    message: Message
    arrays: ArrayRecord
    request: Request


@dataclass
class Settings:
    """What all rounds have in common; the parameters of `FedMRN`."""

    noise: fm.Noise
    mask: str
    schema: fm.Schema | None
    tied: Mapping[str, str]
    seed: SeedPolicy
    weighted_by: str
    max_weight: int


@dataclass
class Sorted:
    """The replies of a round.

    Attributes
    ----------
    sound : list of Sound
    errors : list of flwr.app.Message
        That the nodes, or Flower, sent as errors.
    refused : list of (flwr.app.Message, fedmrn_codec.CodecError)
    """

    sound: list[Sound] = field(default_factory=list)
    errors: list[Message] = field(default_factory=list)
    refused: list[tuple[Message, fm.CodecError]] = field(default_factory=list)


class Round:
    """The messages of one round, and the checks of the replies to them.

    Parameters
    ----------
    number : int
    messages : iterable of flwr.app.Message
        From the wrapped strategy. Their contents are replaced, not changed.
    settings : Settings

    Raises
    ------
    fedmrn_codec.ArgumentError
        Two messages for one node, not one ArrayRecord in a message, a schema that is not its arrays', or a
        seed given twice.
    """

    def __init__(self, number: int, messages: Iterable[Message], settings: Settings) -> None:
        self.number, self.settings = number, settings
        self.asked: dict[int, Asked] = {}
        self._seeds: set[int] = set()
        self._models: dict[int, tuple[int, fm.Schema]] = {}
        for message in messages:
            self._ask(message)

    @property
    def messages(self) -> list[Message]:
        """The messages to send."""
        return [asked.message for asked in self.asked.values()]

    def base_models(self) -> set[int]:
        """The ids of the models that were sent: one, unless the strategy sends nodes different models."""
        return {asked.request.base_model for asked in self.asked.values()}

    def sort(self, replies: Iterable[Message]) -> Sorted:
        """Check every reply; nothing is decoded but what the checks need, one reply at a time."""
        out, seen = Sorted(), set[int]()
        for reply in replies:
            if reply.has_error():
                out.errors.append(reply)
                continue
            try:
                out.sound.append(self._checked(reply, seen))
            except fm.CodecError as error:
                out.refused.append((reply, error))
        return self._of_one_signature(out)

    def _ask(self, message: Message) -> None:
        node, settings = message.metadata.dst_node_id, self.settings
        if node in self.asked:
            raise fm.ArgumentError("messages", f"two for node {node}", "required: one a node and round")
        _, arrays = only(message.content.array_records, f"ArrayRecord of the message to node {node}")
        base_model, schema = self._model(arrays)
        seed = choose(settings.seed, self.number, node)
        if seed in self._seeds:
            raise fm.ArgumentError("seed", seed, "which another node of this round has")
        self._seeds.add(seed)
        request = Request(seed, settings.noise, settings.mask, self.number, base_model, schema)
        message.content = request.add_to(message.content)
        self.asked[node] = Asked(message, arrays, request)

    def _model(self, arrays: ArrayRecord) -> tuple[int, fm.Schema]:
        """Id and schema of a model, worked out once for all nodes that are sent the same object."""
        if id(arrays) not in self._models:
            tied = self.settings.tied
            schema = self.settings.schema or schema_of(arrays, leave_out=tied)
            check_schema(schema, arrays, tied)
            self._models[id(arrays)] = model_id(arrays), schema
        return self._models[id(arrays)]

    def _checked(self, reply: Message, seen: set[int]) -> Sound:
        node = reply.metadata.src_node_id
        if node not in self.asked:
            raise ReplyError("node", node, "which was not asked in this round")
        if node in seen:
            raise ReplyError("node", node, "which has replied already")
        seen.add(node)
        asked, settings = self.asked[node], self.settings
        return check(reply, asked.request, asked.arrays, settings.weighted_by, settings.max_weight)

    def _of_one_signature(self, replies: Sorted) -> Sorted:
        """Refuse the replies whose metrics have other keys than most: strategies cannot average them."""
        counts = Counter(reply.signature for reply in replies.sound)
        if len(counts) > 1:
            ((usual, _),) = counts.most_common(1)
            for odd in [reply for reply in replies.sound if reply.signature != usual]:
                replies.sound.remove(odd)
                found, most = (sorted(name for name, _ in s) for s in (odd.signature, usual))
                replies.refused.append(
                    (odd.message, ReplyError("metrics", found, f"most replies have {most}"))
                )
        return replies


def check_schema(schema: fm.Schema, arrays: ArrayRecord, tied: Mapping[str, str]) -> None:
    """That the model has every tensor of the schema, of its shape, and of its dtype (any float if masked).

    Tied arrays must be none of them, and follow one of them.

    Raises
    ------
    fedmrn_codec.SchemaError
    """
    for tensor in schema:
        if tensor.name not in arrays:
            raise fm.SchemaError("schema", repr(tensor.name), "required: names of the model's arrays")
        array = arrays[tensor.name]
        dtype = np.dtype(array.dtype)
        fits = dtype.kind == "f" if tensor.masked else dtype.name == tensor.dtype
        if not fits or tuple(array.shape) != tensor.shape:
            raise fm.SchemaError("schema", str(tensor), f"the model has {dtype.name}{list(array.shape)}")
    names = {tensor.name for tensor in schema}
    for name, other in tied.items():
        if name not in arrays or name in names or other not in names:
            raise fm.SchemaError(
                "tied", f"{name!r}: {other!r}", "required: an array outside the schema, and one inside"
            )

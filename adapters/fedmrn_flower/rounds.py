"""One round of the server: what each node was asked for, and which of the replies are sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, Message

import fedmrn_codec as fm
from fedmrn_codec import ReplyError
from fedmrn_codec.adapter_api import SeedPolicy, check_schema

from .checks import Sound, check, only
from .records import Loaded
from .request import Request


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
    coding: str
    dense_coding: str


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
            raise fm.ArgumentError("messages", "one a node and round", f"two for node {node}")
        _, arrays = only(message.content.array_records, f"ArrayRecord of the message to node {node}")
        base_model, schema = self._model(arrays)
        seed = fm.choose_seed(settings.seed, self.number, node, self._seeds)
        self._seeds.add(seed)
        codings = settings.coding, settings.dense_coding
        request = Request(seed, settings.noise, settings.mask, self.number, base_model, schema, *codings)
        message.content = request.add_to(message.content)
        self.asked[node] = Asked(message, arrays, request)

    def _model(self, arrays: ArrayRecord) -> tuple[int, fm.Schema]:
        """Id and schema of a model, worked out once for all nodes that are sent the same object."""
        if id(arrays) not in self._models:
            model, tied = Loaded(arrays), self.settings.tied
            schema = self.settings.schema or fm.schema_of(model, leave_out=[n for n in tied if n in model])
            check_schema(schema, model)
            check_tied(tied, schema, model)
            self._models[id(arrays)] = fm.model_id(model), schema
        return self._models[id(arrays)]

    def _checked(self, reply: Message, seen: set[int]) -> Sound:
        node = reply.metadata.src_node_id
        if node not in self.asked:
            raise ReplyError("node", "a node that was asked in this round", node)
        if node in seen:
            raise ReplyError("node", "a node that has not replied yet", node)
        seen.add(node)
        asked, settings = self.asked[node], self.settings
        return check(reply, asked.request, asked.arrays, settings.weighted_by, settings.max_weight)

    def _of_one_signature(self, replies: Sorted) -> Sorted:
        """Refuse the replies whose metrics have other keys than most: strategies cannot average them."""
        counts = Counter(reply.signature for reply in replies.sound)
        if len(counts) > 1:
            usual = max(counts, key=lambda signature: (counts[signature], sorted(signature)))
            for odd in [reply for reply in replies.sound if reply.signature != usual]:
                replies.sound.remove(odd)
                found, most = (sorted(name for name, _ in s) for s in (odd.signature, usual))
                replies.refused.append(
                    (odd.message, ReplyError("metrics", f"{most}, as most replies have", found))
                )
        return replies


def check_tied(tied: Mapping[str, str], schema: fm.Schema, arrays: Loaded) -> None:
    """That tied arrays are none of the schema, and follow one of it.

    Raises
    ------
    fedmrn_codec.SchemaError
    """
    names = {tensor.name for tensor in schema}
    for name, other in tied.items():
        if name not in arrays or name in names or other not in names:
            raise fm.SchemaError(
                "tied", "an array outside the schema, and one inside", f"{name!r}: {other!r}"
            )

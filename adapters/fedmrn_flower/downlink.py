"""The server's model on its way to the nodes: frames of the differences between versions (spec 6.12)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from logging import INFO
from typing import NamedTuple

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import SType
from flwr.serverapp import Grid
from flwr.supercore import log

import fedmrn_codec as fm

from .checks import only
from .records import Loaded, from_model_frame
from .replica import HELD, is_lost
from .rounds import named

DOWNLINKS = ("grid", "raw")
"""The values of the option `downlink` of `FedMRN`."""


class Pack(NamedTuple):
    """What is sent to the nodes of one version, and whether it is the whole model."""

    record: ArrayRecord
    whole: bool


class Sender:
    """Sends the model of each round as frames, and knows which version each node holds.

    The version of a node is what its last reply says. A node that has not answered its last message, or has
    answered with an error, counts as one that holds nothing: its next frame has the whole model.

    Parameters
    ----------
    downlink : {"grid", "raw"}
        "raw": every message is sent as it is.
    schema : fedmrn_codec.Schema, optional
    tied : mapping of str to str, optional
        As in `FedMRN`. float32 arrays that clients send as masks are rounded to a grid; all others, such as
        biases, statistics and frozen arrays, have all the bits that a grid has.

    Attributes
    ----------
    bytes : int
        Of the arrays in the messages since the last `begin`, in frames or not.
    nodes : int
        The nodes that these messages were for.
    whole : int
        The frames among them that have the whole model.

    Raises
    ------
    fedmrn_codec.ArgumentError
        The option has another value.
    """

    def __init__(
        self, downlink: str, schema: fm.Schema | None = None, tied: Mapping[str, str] | None = None
    ) -> None:
        if downlink not in DOWNLINKS:
            raise fm.ArgumentError("downlink", f"one of {', '.join(DOWNLINKS)}", repr(downlink))
        self._raw, self._schema, self._tied = downlink == "raw", schema, dict(tied or {})
        self._down: fm.Downlink | None = None
        self._arrays: dict[str, Array] = {}
        self._packs: dict[int, Pack] = {}
        self._held: dict[int, int] = {}
        self._plain: dict[int, RecordDict] | None = None
        self._messages: dict[int, Message] = {}
        self._sent: list[Message] = []
        self._told = False
        self.bytes = self.nodes = self.whole = 0

    def begin(self, messages: Sequence[Message]) -> int | None:
        """Round the model in the messages of a strategy; a model that was rounded before is not looked at.

        Returns
        -------
        int or None
            The id of the rounded model. None: the messages are sent as they are, which is logged once, since
            they hold no model, or several, or one that no frame can represent.
        """
        self._plain, self._messages, self._sent = None, {}, []
        self.bytes = self.nodes = self.whole = 0
        if self._raw or not messages:
            return None
        try:
            down = self._advanced(_one_model(messages))
        except fm.CodecError as error:
            if not self._told:
                self._told = True
                log(INFO, "fedmrn: the server's arrays are sent as they are, without frames: %s", error)
            return None
        self._plain = {}
        return down.model_id

    def pack(self, messages: Iterable[Message]) -> list[Message]:
        """Replace the model in each message by a frame, if `begin` has returned an id; count bytes."""
        out = self._sent = list(messages)
        self.nodes = len({message.metadata.dst_node_id for message in out})
        for message in out:
            node = message.metadata.dst_node_id
            if self._plain is not None:
                self._plain[node], self._messages[node] = message.content, message
                message.content = self._packed(message.content, self._held.pop(node, 0))
            self._count(message)
        return out

    def receive(self, replies: Iterable[Message], grid: Grid | None, timeout: float) -> list[Message]:
        """Take from each reply what its node holds; send the whole model to nodes that have lost theirs.

        Parameters
        ----------
        replies : iterable of flwr.app.Message
        grid : flwr.serverapp.Grid or None
            None: nothing is sent again.
        timeout : float
            Seconds to wait for the replies to what is sent again.

        Returns
        -------
        list of flwr.app.Message
            The replies as the client apps gave them; those that only ask for the model are not among them.
            An error reply of the SuperLink for a node that has stopped is one of that node.
        """
        out, again = [], []
        for reply in named(replies, self._sent):
            if is_lost(reply) and reply.metadata.src_node_id in self._messages:
                again.append(self._again(reply.metadata.src_node_id))
            else:
                out.append(reply)
        if again and grid is not None:
            log(INFO, "fedmrn: %d nodes had lost the model, and are sent all of it", len(again))
            out += named(grid.send_and_receive(again, timeout=timeout), again)
        for reply in out:
            self._hear(reply)
        return out

    def _advanced(self, record: ArrayRecord) -> fm.Downlink:
        arrays = dict(record.items())
        if self._down is not None and arrays == self._arrays:
            return self._down
        if other := {array.stype for array in arrays.values()} - {SType.NUMPY}:
            raise fm.ArgumentError("serialisation of the arrays", SType.NUMPY, sorted(other))
        model = Loaded(record)
        schema = fm.schema_of(model, masked=self._masked(record))
        if self._down is None or self._down.schema != schema:
            self._down = fm.Downlink(schema, model)
        else:
            self._down.advance(model)
        self._arrays, self._packs = arrays, {}
        return self._down

    def _masked(self, record: ArrayRecord) -> list[str]:
        """The float32 arrays that clients send as masks, and those tied to one."""
        if self._schema is None:
            names = {
                name for name, array in record.items() if len(array.shape) >= 2 and name not in self._tied
            }
        else:
            names = {tensor.name for tensor in self._schema if tensor.masked}
        names |= {name for name, other in self._tied.items() if other in names}
        return [name for name, array in record.items() if name in names and array.dtype == "float32"]

    def _packed(self, content: RecordDict, held: int) -> RecordDict:
        assert self._down is not None
        if held != self._down.model_id and held not in self._down.versions:
            held = 0
        if held not in self._packs:
            frame, schema = self._down.frame(held), None if held else self._down.schema.data
            self._packs[held] = Pack(from_model_frame(frame, schema), fm.inspect(frame).base_model == 0)
        pack = self._packs[held]
        self.whole += pack.whole
        (key,) = content.array_records
        return RecordDict({**dict(content), key: pack.record})

    def _again(self, node: int) -> Message:
        """The message of a node once more, with the whole model; only once in a round."""
        assert self._plain is not None
        sent = self._messages.pop(node)
        about = sent.metadata
        content = self._packed(self._plain[node], 0)
        message = Message(content, node, about.message_type, ttl=about.ttl, group_id=about.group_id or None)
        self._count(message)
        return message

    def _count(self, message: Message) -> None:
        self.bytes += sum(len(a.data) for r in message.content.array_records.values() for a in r.values())

    def _hear(self, reply: Message) -> None:
        """Take the id of the model that the node holds out of the metrics of a reply."""
        if reply.has_error():
            return
        for key, metrics in reply.content.metric_records.items():
            held = metrics.get(HELD)
            if held is None:
                continue
            rest = MetricRecord({name: value for name, value in metrics.items() if name != HELD})
            reply.content = RecordDict({**dict(reply.content), key: rest})
            if isinstance(held, int):
                self._held[reply.metadata.src_node_id] = held


def _one_model(messages: Sequence[Message]) -> ArrayRecord:
    """The one ArrayRecord that all messages hold, each for another node; else an error that says why not."""
    models = []
    for message in messages:
        what = f"ArrayRecords in the message to node {message.metadata.dst_node_id}"
        models.append(only(message.content.array_records, what)[1])
    nodes = {message.metadata.dst_node_id for message in messages}
    if len(nodes) < len(messages):
        raise fm.ArgumentError(
            "messages", "one per node in a round", f"{len(messages)} for {len(nodes)} nodes"
        )
    if any(model is not models[0] and model != models[0] for model in models):
        raise fm.ArgumentError("models in the messages", "the same for all nodes", "several")
    return models[0]

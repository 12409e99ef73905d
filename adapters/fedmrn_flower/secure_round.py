"""The server's side of one round of secure aggregation, around the training (spec/SECAGG.md 9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import WARNING
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

import fedmrn_codec as fm
from fedmrn_codec import ReplyError
from fedmrn_codec.adapter_api import SecAgg, unsigned
from fedmrn_codec.adapter_api.secagg import KEYS, MASKED, REVEAL, SHARES, STEPS
from fedmrn_secagg import SecAggError, Server, advance
from fedmrn_secagg.errors import TooFewError

from .checks import CLIPPED, TrainReply, check_metrics, checked_weight, only, take
from .rounds import Assignment, Replies, Round, named
from .secagg import BEYOND, RECORD, answer_in, masked_in, to_config


@dataclass(frozen=True)
class MaskedReply(TrainReply):
    """A reply with a masked vector.

    Attributes
    ----------
    masked : bytes
        The message `masked`, not yet checked.
    beyond : int
        What the client reports as `BEYOND`, which is taken out of the message; else 0.
    """

    masked: bytes
    beyond: int


class LostError(Exception):
    """A round that gives no sum: the step in which it was lost, and why."""

    def __init__(self, step: str, why: fm.CodecError) -> None:
        super().__init__(f"{step}: {why}")
        self.step = step


class SecureRound:
    """The exchanges with the nodes of one round.

    `open` makes those before the training, `finish` takes the replies to it and makes the last one. A node
    that does not answer, or whose message is refused, takes no part in the rest of the round.

    Parameters
    ----------
    current : Round
        With one seed and one model for all nodes.
    settings : SecAgg
    grid : flwr.serverapp.Grid
    timeout : float
        Seconds to wait for the replies of each exchange.

    Attributes
    ----------
    lost : int
        0, or the number of the step, 1 to 4, in which the round was lost.
    up, down : collections.Counter
        Bytes of the messages of the protocol in each direction, by step; `down` has what is sent in it.
    node_up : collections.Counter
        Bytes from each node.

    Raises
    ------
    fedmrn_codec.ArgumentError
        The settings do not fit the schema or the number of nodes.
    """

    def __init__(self, current: Round, settings: SecAgg, grid: Grid, timeout: float) -> None:
        self._current, self._grid, self._timeout = current, grid, timeout
        nodes, first = list(current.assignments), next(iter(current.assignments.values()))
        session = f"fedmrn_flower run {first.message.metadata.run_id}".encode()
        self._agreed = settings.agreed(len(nodes), session, current.settings.weighted_by)
        self._out: Replies[MaskedReply] = Replies()
        self._boxes: dict[int, bytes] = {}
        self.lost = 0
        self.up, self.down, self.node_up = Counter[str](), Counter[str](), Counter[int]()
        if len(nodes) < self._agreed.threshold:
            error = TooFewError("sampled nodes", f"at least {self._agreed.threshold}", len(nodes))
            self._lose(LostError(KEYS, error))
            return
        rest: dict[str, Any] = {"degree": settings.degree, "identities": settings.identities}
        self._server = Server(first.request, clients=nodes, **self._agreed.options, **rest)

    @property
    def nodes(self) -> int:
        """The number of sampled nodes."""
        return len(self._current.assignments)

    @property
    def threshold(self) -> int:
        """The least number of clients in the sum of this round."""
        return self._agreed.threshold

    def open(self) -> list[Message]:
        """Exchange keys and shares; the messages of the training, each with the boxes for its node.

        Returns
        -------
        list of flwr.app.Message
            None for nodes that have dropped out; empty if the round is lost.
        """
        if self.lost:
            return []
        assignments = self._current.assignments
        try:
            roster = self._ask(KEYS, dict.fromkeys(assignments))
            boxes = self._ask(SHARES, dict.fromkeys(roster.nodes, roster.answer))
        except LostError as error:
            self._lose(error)
            return []
        self._boxes = boxes.answer
        for node, box in self._boxes.items():
            message = assignments[node].message
            record = self._record(MASKED, box)
            message.content = RecordDict({**dict(message.content), RECORD: record})
        return [assignments[node].message for node in assignments if node in self._boxes]

    def finish(self, replies: Iterable[Message]) -> tuple[Replies[MaskedReply], fm.Aggregator | None]:
        """Add the masked vectors of the replies, and take the pads away.

        Returns
        -------
        replies : Replies
            Those of the clients in the sum, none if the round is lost; and who has failed, was refused or
            was silent, in any step.
        aggregator : fedmrn_codec.Aggregator or None
            The sum. None: the round is lost.
        """
        if self.lost:
            return self._out, None
        sorted_ = self._current.sort(replies, self._read)
        self._note(MASKED, self._boxes, sorted_)
        own = {reply.node: reply for reply in sorted_.checked}
        try:
            survivors = self._call(MASKED, {n: r.masked for n, r in own.items()}, _messages(own))
            aggregator: fm.Aggregator = self._ask(
                REVEAL, dict.fromkeys(self._server.survivors, survivors)
            ).answer
        except LostError as error:
            self._lose(error)
            return self._out, None
        self._out.checked = [own[node] for node in self._server.survivors]
        return self._out, aggregator

    def _ask(self, step: str, given: Mapping[int, bytes | None]) -> _Answer:
        """Send a message of a step to nodes, and give their answers to the server of the protocol."""
        messages = []
        for node, payload in given.items():
            about = self._current.assignments[node].message
            content = RecordDict(dict(about.content.config_records))
            content[RECORD] = self._record(step, payload)
            kind, group = about.metadata.message_type, about.metadata.group_id or None
            messages.append(Message(content, node, kind, ttl=about.metadata.ttl, group_id=group))
        found: dict[int, bytes] = {}
        sources: dict[int, Message] = {}
        out: Replies[MaskedReply] = Replies()
        for reply in named(self._grid.send_and_receive(messages, timeout=self._timeout), messages):
            node = reply.metadata.src_node_id
            if reply.has_error():
                out.failed.append(reply)
                continue
            try:
                if node not in given or node in found:
                    raise ReplyError("node", f"one reply of each node that was sent `{step}`", node)
                found[node], sources[node] = self._count(step, node, answer_in(reply)), reply
            except fm.CodecError as error:
                out.refused.append((reply, error))
        self._note(step, given, out, found)
        return _Answer(self._call(step, found, sources), list(found))

    def _call(self, step: str, found: dict[int, bytes], sources: Mapping[int, Message]) -> Any:
        """Call a verb of the server, again without each message that it refuses, which is removed."""

        def refuse(node: int, error: SecAggError) -> None:
            self._out.refused.append((sources[node], error))

        try:
            return advance(self._server, step, found, refuse)
        except SecAggError as error:
            raise LostError(step, error) from None

    def _read(self, reply: Message, assignment: Assignment) -> MaskedReply:
        """Check the records and the metrics of a reply to the training."""
        node = assignment.message.metadata.dst_node_id
        if node not in self._boxes:
            raise ReplyError("node", "a node that this round's messages were sent to", node)
        key, masked = masked_in(reply)
        name, metrics = only(reply.content.metric_records, "MetricRecords in the reply")
        settings = self._current.settings
        weight = checked_weight(metrics, settings.weighted_by, settings.max_weight)
        beyond = metrics.get(BEYOND, 0)
        if not isinstance(beyond, int):
            raise ReplyError(f"metric {BEYOND!r}", "an integer", repr(beyond))
        unsigned(beyond, 2**63, BEYOND)
        take(reply, name, BEYOND)
        signature = check_metrics(take(reply, name, CLIPPED))
        return MaskedReply(reply, signature, key, weight, self._count(MASKED, node, masked), beyond)

    def _record(self, step: str, payload: bytes | None) -> ConfigRecord:
        self.down[step] += len(payload or b"")
        return to_config(self._agreed, step, payload)

    def _count(self, step: str, node: int, message: bytes) -> bytes:
        self.up[step] += len(message)
        self.node_up[node] += len(message)
        return message

    def _note(
        self,
        step: str,
        asked: Iterable[int],
        replies: Replies[MaskedReply],
        found: Iterable[int] = (),
    ) -> None:
        """Keep who has failed, was refused or was silent in a step, and log who failed or was silent."""
        self._out.failed += replies.failed
        self._out.refused += replies.refused
        for message in replies.failed:
            reason = message.error.reason
            log(WARNING, "fedmrn: node %d failed in `%s`: %s", message.metadata.src_node_id, step, reason)
        if silent := sorted(set(asked) - replies.heard() - set(found)):
            self._out.silent += silent
            log(WARNING, "fedmrn: nodes %s did not answer in `%s`", silent, step)

    def _lose(self, error: LostError) -> None:
        self.lost = STEPS.index(error.step) + 1
        log(
            WARNING, "fedmrn: round %d is lost, and the model stays as it is: %s", self._current.number, error
        )


@dataclass(frozen=True)
class _Answer:
    """What the server of the protocol answers in a step, and the nodes whose messages it has accepted."""

    answer: Any
    nodes: list[int]


def _messages(replies: Mapping[int, TrainReply]) -> dict[int, Message]:
    return {node: reply.message for node, reply in replies.items()}

"""What strategies require all replies of a round to share: the names of their records, and their metrics.

The replies have passed all checks, so a disagreement costs no reply its place unless more than half of the
replies agree: one client could otherwise have an honest one left out, or end the round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from logging import WARNING
from typing import TypeVar

from flwr.app import Message, MetricRecord, RecordDict
from flwr.supercore import log

from fedmrn_codec import CodecError, ReplyError

from .checks import MetricReply, TrainReply, check_evaluation, only

R = TypeVar("R", bound=MetricReply)

USUAL = ("arrays", "metrics")
"""The names of the records in Flower's own apps, which decide where two names are equally frequent."""


def with_common_names(replies: list[R]) -> list[R]:
    """The replies; their ArrayRecord, if any, and MetricRecord now have the names that most give them."""
    counts = Counter(_names(reply) for reply in replies)
    if len(counts) < 2:
        return replies
    names = max(counts, key=lambda names: (counts[names], names == USUAL[-len(names) :], names))
    return [reply if _names(reply) == names else _renamed(reply, names) for reply in replies]


def averaged(replies: Iterable[Message], weighted_by: str, max_weight: int) -> list[Message]:
    """The replies to an evaluation that can be averaged, and error replies; the others are logged."""
    passed: list[MetricReply] = []
    failed: list[Message] = []
    refused: list[tuple[Message, CodecError]] = []
    for reply in replies:
        if reply.has_error():
            failed.append(reply)
            continue
        try:
            passed.append(check_evaluation(reply, weighted_by, max_weight))
        except CodecError as error:
            refused.append((reply, error))
    agreed, others = with_common_metrics(with_common_names(passed))
    for message, why in [*refused, *((other.message, why) for other, why in others)]:
        node = message.metadata.src_node_id
        log(WARNING, "fedmrn: refused the evaluation of node %d (%s): %s", node, why.code, why)
    return [*(each.message for each in agreed), *failed]


def with_common_metrics(replies: list[R]) -> tuple[list[R], list[tuple[R, ReplyError]]]:
    """The replies whose metrics can be averaged, and the refused ones.

    If more than half of the replies have metrics of one `Signature`, the others are refused. If not, none is:
    the replies then keep the metrics that all have in common, among which the weight always is.
    """
    counts = Counter(reply.signature for reply in replies)
    if len(counts) < 2:
        return replies, []
    usual, count = counts.most_common(1)[0]
    if 2 * count > len(replies):
        most, others = _sort(replies, usual)
        return most, [(other, _refusal(other, usual)) for other in others]
    common = {name for name, _ in frozenset.intersection(*counts)}
    return [_with_metrics(reply, common) for reply in replies], []


def _names(reply: MetricReply) -> tuple[str, ...]:
    key, _ = only(reply.message.content.metric_records, "MetricRecords in the reply")
    return (reply.arrays_key, key) if isinstance(reply, TrainReply) else (key,)


def _renamed(reply: R, names: tuple[str, ...]) -> R:
    own, content = _names(reply), reply.message.content
    others = {key: record for key, record in content.items() if key not in {*own, *names}}
    records = {new: content[old] for old, new in zip(own, names, strict=True)}
    reply.message.content = RecordDict(records | others)
    return replace(reply, arrays_key=names[0]) if isinstance(reply, TrainReply) else reply


def _with_metrics(reply: R, common: set[str]) -> R:
    content = reply.message.content
    key, metrics = only(content.metric_records, "MetricRecords in the reply")
    kept = MetricRecord({name: value for name, value in metrics.items() if name in common})
    reply.message.content = RecordDict({**dict(content), key: kept})
    return reply


def _sort(replies: Iterable[R], usual: object) -> tuple[list[R], list[R]]:
    most: list[R] = []
    others: list[R] = []
    for reply in replies:
        (most if reply.signature == usual else others).append(reply)
    return most, others


def _refusal(other: MetricReply, usual: frozenset[tuple[str, int]]) -> ReplyError:
    found, most = (sorted(name for name, _ in s) for s in (other.signature, usual))
    return ReplyError("metrics", f"{most}, as most replies have", found)

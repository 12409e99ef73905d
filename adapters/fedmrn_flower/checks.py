"""The checks of one reply: its weight, its metrics and its frame."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

import fedmrn_codec as fm
from fedmrn_codec import ReplyError

from .records import Loaded, is_frame, to_frame
from .request import Request

T = TypeVar("T")

CLIPPED = "fedmrn.clipped"
"""Key in a client's MetricRecord of the share of masked elements beyond the scale of the noise."""

Signature = frozenset[tuple[str, int]]
"""Each key of a MetricRecord with the length of its list, -1 for a number.

Strategies can average the metrics of replies only if their signatures are equal.
"""


@dataclass(frozen=True)
class MetricReply:
    """A reply whose metrics have passed the checks.

    Attributes
    ----------
    message : flwr.app.Message
    signature : frozenset
        The keys of its MetricRecord, each with the length of its list, -1 for a number.
    """

    message: Message
    signature: Signature

    @property
    def node(self) -> int:
        """The id of the node that sent it."""
        return self.message.metadata.src_node_id


@dataclass(frozen=True)
class TrainReply(MetricReply):
    """A reply to training that has passed all checks.

    Attributes
    ----------
    arrays_key : str
        Key of its one ArrayRecord.
    weight : int
        Its weight in the mean; under secure aggregation that of its metrics alone.
    """

    arrays_key: str
    weight: int


@dataclass(frozen=True)
class CheckedReply(TrainReply):
    """A reply with a frame.

    Attributes
    ----------
    frame : fedmrn_codec.CheckedFrame
    clipped : float or None
        What the client reports as `CLIPPED`, which is taken out of the message.
    """

    frame: fm.CheckedFrame
    clipped: float | None


def check(
    reply: Message, request: Request, base: ArrayRecord, weighted_by: str, max_weight: int
) -> CheckedReply:
    """Check one reply; its frame is parsed here, once.

    Parameters
    ----------
    reply : flwr.app.Message
        Not an error: `has_error()` is false.
    request : Request
        The request that its node was sent.
    base : ArrayRecord
        The arrays that its node was sent.
    weighted_by : str
        Key of the weight in the MetricRecord.
    max_weight : int

    Raises
    ------
    fedmrn_codec.FrameError
        The frame fails a check; or, as ReplyError, the records, the weight or a metric.
    """
    key, record = only(reply.content.array_records, "ArrayRecords in the reply")
    if not is_frame(record):
        found = f"{len(record)} arrays, serialised as {sorted({a.stype for a in record.values()})}"
        raise ReplyError("arrays", "one frame (is fedmrn_flower.mod among the client's mods?)", found)
    name, metrics = only(reply.content.metric_records, "MetricRecords in the reply")
    weight = checked_weight(metrics, weighted_by, max_weight)
    frame = request.check(to_frame(record), Loaded(base))
    clipped = checked_clipped(metrics)
    metrics = take(reply, name, CLIPPED)  # clients that do not report it must not differ from those that do
    return CheckedReply(reply, check_metrics(metrics), key, weight, frame, clipped)


def check_evaluation(reply: Message, weighted_by: str, max_weight: int) -> MetricReply:
    """Check one reply to an evaluation: its weight, which may be a fraction, and its metrics.

    Raises
    ------
    fedmrn_codec.ReplyError
        The MetricRecord, the weight or a metric fails a check.
    """
    _, metrics = only(reply.content.metric_records, "MetricRecords in the reply")
    signature, weight = check_metrics(metrics), metrics.get(weighted_by)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight <= max_weight:
        raise ReplyError(f"metric {weighted_by!r}", f"above 0, at most {max_weight}", repr(weight))
    return MetricReply(reply, signature)


def take(reply: Message, name: str, metric: str) -> MetricRecord:
    """The MetricRecord of this name without a metric, which is taken out of the reply."""
    metrics = reply.content.metric_records[name]
    if metric in metrics:
        metrics = MetricRecord({key: value for key, value in metrics.items() if key != metric})
        reply.content = RecordDict({**dict(reply.content), name: metrics})
    return metrics


def only(records: Mapping[str, T], what: str) -> tuple[str, T]:
    """Key and value of the only record of a mapping; ReplyError about `what` unless it has exactly one."""
    if len(records) != 1:
        raise ReplyError(f"number of {what}", "1", len(records))
    return next(iter(records.items()))


def checked_weight(metrics: MetricRecord, weighted_by: str, max_weight: int) -> int:
    """The weight of a reply; ReplyError if it is missing or not an integer from 1 to `max_weight`."""
    weight = metrics.get(weighted_by)
    if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= max_weight:
        expected = f"an integer from 1 to {max_weight}"
        raise ReplyError(f"metric {weighted_by!r}", expected, repr(weight))
    return weight


def checked_clipped(metrics: MetricRecord) -> float | None:
    """The clipped share that a client reports, if any; ReplyError unless it is a number from 0 to 1."""
    share = metrics.get(CLIPPED)
    if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
        raise ReplyError(f"metric {CLIPPED!r}", "a number from 0 to 1", repr(share))
    return share


def check_metrics(metrics: MetricRecord) -> Signature:
    """Check that all numbers are finite, else ReplyError; return the signature (keys, lengths of lists)."""
    for name, value in metrics.items():
        for number in value if isinstance(value, list) else [value]:
            if not abs(number) <= sys.float_info.max:  # math.isfinite fails for integers that are larger
                raise ReplyError(f"metric {name!r}", "finite values", number)
    return frozenset((name, len(v) if isinstance(v, list) else -1) for name, v in metrics.items())

"""What makes a reply sound: its weight, its metrics and its frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import ArrayRecord, Message, MetricRecord

import fedmrn_codec as fm
from fedmrn_codec import ReplyError

from .records import Loaded, is_frame, to_frame
from .request import Request

T = TypeVar("T")

Signature = frozenset[tuple[str, int]]
"""Keys of a MetricRecord, each with its length: -1 for a number."""


@dataclass(frozen=True)
class Sound:
    """A reply that has passed all checks.

    Attributes
    ----------
    message : flwr.app.Message
    arrays_key : str
        Of its one ArrayRecord.
    weight : int
    seed : int
    frame : fedmrn_codec.CheckedFrame
    signature : frozenset
        Of its metrics.
    """

    message: Message
    arrays_key: str
    weight: int
    seed: int
    frame: fm.CheckedFrame
    signature: Signature

    @property
    def node(self) -> int:
        """The node that sent it."""
        return self.message.metadata.src_node_id


def check(reply: Message, request: Request, base: ArrayRecord, weighted_by: str, max_weight: int) -> Sound:
    """Make every check of one reply.

    Parameters
    ----------
    reply : flwr.app.Message
        With content.
    request : Request
        What its node was asked for.
    base : ArrayRecord
        The arrays that its node was sent.
    weighted_by : str
        Key of the weight in the MetricRecord.
    max_weight : int

    Raises
    ------
    fedmrn_codec.FrameError
        The first check that fails.
    """
    key, record = only(reply.content.array_records, "ArrayRecord")
    if not is_frame(record):
        found = f"{len(record)} arrays, serialised as {sorted({a.stype for a in record.values()})}"
        raise ReplyError("arrays", "one frame (is fedmrn_flower.mod among the client's mods?)", found)
    _, metrics = only(reply.content.metric_records, "MetricRecord")
    weight = checked_weight(metrics, weighted_by, max_weight)
    frame = request.check(to_frame(record), Loaded(base))
    return Sound(reply, key, weight, request.seed, frame, check_metrics(metrics))


def only(records: Mapping[str, T], what: str) -> tuple[str, T]:
    """Key and value of the one record there is."""
    if len(records) != 1:
        raise ReplyError(what, "exactly 1", f"{len(records)} of them")
    return next(iter(records.items()))


def checked_weight(metrics: MetricRecord, weighted_by: str, max_weight: int) -> int:
    """The weight, if it is a positive integer of at most `max_weight`."""
    weight = metrics.get(weighted_by)
    if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= max_weight:
        expected = f"an integer from 1 to {max_weight}"
        raise ReplyError(f"metric {weighted_by!r}", expected, repr(weight))
    return weight


def check_metrics(metrics: MetricRecord) -> Signature:
    """The signature of a MetricRecord whose numbers are all finite."""
    for name, value in metrics.items():
        for number in value if isinstance(value, list) else [value]:
            if not math.isfinite(number):
                raise ReplyError(f"metric {name!r}", "finite values", number)
    return frozenset((name, len(v) if isinstance(v, list) else -1) for name, v in metrics.items())

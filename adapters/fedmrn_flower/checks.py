"""What makes a reply sound: its weight, its metrics and its frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

import fedmrn_codec as fm

from .records import add, is_frame, to_frame
from .request import Request

T = TypeVar("T")

Signature = frozenset[tuple[str, int]]
"""Keys of a MetricRecord, each with its length: -1 for a number."""


class ReplyError(fm.RefusedError):
    """A reply that is not what the server asked for, apart from its frame."""

    code = "reply"


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
    info : fedmrn_codec.Info
        What its frame says of itself.
    signature : frozenset
        Of its metrics.
    """

    message: Message
    arrays_key: str
    weight: int
    seed: int
    info: fm.Info
    signature: Signature

    @property
    def node(self) -> int:
        """The node that sent it."""
        return self.message.metadata.src_node_id

    @property
    def frame(self) -> bytes:
        """Its frame."""
        return to_frame(self.message.content.array_records[self.arrays_key])


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
        raise ReplyError(
            "arrays", found, "required: one frame; is fedmrn_flower.mod among the client's mods?"
        )
    _, metrics = only(reply.content.metric_records, "MetricRecord")
    weight = checked_weight(metrics, weighted_by, max_weight)
    info = check_frame(to_frame(record), request, base)
    return Sound(reply, key, weight, request.seed, info, check_metrics(metrics))


def only(records: Mapping[str, T], what: str) -> tuple[str, T]:
    """Key and value of the one record there is."""
    if len(records) != 1:
        raise ReplyError(what, f"{len(records)} of them", "required: 1")
    return next(iter(records.items()))


def checked_weight(metrics: MetricRecord, weighted_by: str, max_weight: int) -> int:
    """The weight, if it is a positive integer of at most `max_weight`."""
    weight = metrics.get(weighted_by)
    if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= max_weight:
        required = f"required: an integer from 1 to {max_weight}"
        raise ReplyError(f"metric {weighted_by!r}", repr(weight), required)
    return weight


def check_metrics(metrics: MetricRecord) -> Signature:
    """The signature of a MetricRecord whose numbers are all finite."""
    for name, value in metrics.items():
        for number in value if isinstance(value, list) else [value]:
            if not math.isfinite(number):
                raise ReplyError(f"metric {name!r}", number, "required: finite")
    return frozenset((name, len(v) if isinstance(v, list) else -1) for name, v in metrics.items())


def check_frame(frame: bytes, request: Request, base: ArrayRecord) -> fm.Info:
    """Every check of a frame (spec 7), and that it is the one asked for and leaves the model finite."""
    expected: dict[str, Any] = {
        "round": request.round,
        "base_model": request.base_model,
        "seed": request.seed,
    }
    info = fm.verify(frame, request.schema, **expected)
    for tensor, entry in zip(request.schema, info.tensors, strict=True):
        if tensor.masked and (entry.kind, entry.noise) != (request.mask, request.noise):
            found = f"{entry.kind} mask over {entry.noise}"
            raise ReplyError(f"tensor {tensor.name!r}", found, f"asked for: {request.mask}, {request.noise}")
    dense = [t.name for t in request.schema if not t.masked and t.type.is_float]
    for name, update in fm.decode(frame, request.schema, names=dense, **expected).items():
        if not np.isfinite(add(base[name], update)).all():
            raise ReplyError(f"tensor {name!r}", "an update beyond its dtype", "required: a finite sum")
    return info

"""Secure aggregation: what the messages of its steps hold (spec/SECAGG.md)."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message

import fedmrn_codec as fm
from fedmrn_codec import ReplyError
from fedmrn_codec.adapter_api.secagg import Agreed, typed_entry

from .checks import only

RECORD = "fedmrn.secagg"
"""Key of the ConfigRecord that makes a message one of secure aggregation; also of a node's secrets."""

STEP, MESSAGE = "step", "message"
"""Keys in that record: the step of the protocol, and its message."""

STYPE = "fedmrn-secagg/1"
"""Serialisation type of an Array that holds a message `masked`; `Array.numpy()` refuses it."""

ARRAY = "fedmrn.masked"
"""The key of that Array in its ArrayRecord."""

BEYOND = "fedmrn.secure-clipped"
"""Key in a client's MetricRecord of the number of dense floats that were beyond the range of their grid."""

LEAST = "fedmrn-threshold"
"""Key in a node's configuration of the least threshold with which it takes part; it then sends no arrays
without secure aggregation."""


def to_config(agreed: Agreed, step: str, message: bytes | None = None) -> ConfigRecord:
    """The record of a message of a step; `message` is what the server has to say in it."""
    record = ConfigRecord({STEP: step, **agreed.to_dict()})
    if message is not None:
        record[MESSAGE] = message
    return record


def from_config(record: ConfigRecord) -> Agreed:
    """The agreed values in the record of a message; ArgumentError if one is missing or of another type."""
    return Agreed.from_dict(record, RECORD)


def record_of(message: Message) -> ConfigRecord | None:
    """The record of secure aggregation in a message, if it has one."""
    return message.content.config_records.get(RECORD)


def check_threshold(context: Context, threshold: int) -> None:
    """Refuse a threshold below the one that the node's configuration demands; 0 stands for no secure sum."""
    least = context.node_config.get(LEAST)
    if least is not None and not (isinstance(least, int) and threshold >= least):
        got = threshold or "a request for arrays without secure aggregation"
        raise fm.ArgumentError("threshold of the server", f"at least {least}, as {LEAST} says", got)


def forget_others(context: Context, number: int) -> None:
    """Remove the secrets of another round than this one from a node's state."""
    kept = context.state.config_records.get(RECORD)
    if kept is not None and kept.get("round") != number:
        del context.state[RECORD]


def answer(message: bytes) -> ConfigRecord:
    """The record of a node's reply."""
    return ConfigRecord({MESSAGE: message})


def message_in(record: ConfigRecord) -> bytes:
    """The message of the protocol in a record; ArgumentError if there is none."""
    return bytes(typed_entry(record, MESSAGE, bytes, RECORD))


def answer_in(reply: Message) -> bytes:
    """The message of the protocol in a node's reply; ReplyError if there is none."""
    record = record_of(reply)
    found = None if record is None else record.get(MESSAGE)
    if not isinstance(found, bytes):
        expected = "one of secure aggregation (is fedmrn_flower.mod among the client's mods?)"
        raise ReplyError("message", expected, type(found).__name__)
    return found


def from_masked(message: bytes) -> ArrayRecord:
    """An ArrayRecord of one Array, whose data are a message `masked`."""
    return ArrayRecord({ARRAY: Array("uint8", (len(message),), STYPE, message)})


def masked_in(reply: Message) -> tuple[str, bytes]:
    """The key of the only ArrayRecord of a reply, and the message `masked` in it; else ReplyError."""
    key, record = only(reply.content.array_records, "ArrayRecords in the reply")
    if [array.stype for array in record.values()] != [STYPE]:
        found = f"{len(record)} arrays, serialised as {sorted({a.stype for a in record.values()})}"
        raise ReplyError("arrays", "one masked vector (is fedmrn_flower.mod among the client's mods?)", found)
    (array,) = record.values()
    return key, array.data

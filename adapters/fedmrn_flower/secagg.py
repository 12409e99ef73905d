"""Secure aggregation: the server's settings, and what its messages hold (spec/SECAGG.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message

import fedmrn_codec as fm
from fedmrn_codec import ReplyError
from fedmrn_codec.adapter_api import U64, unsigned

from .checks import only

RECORD = "fedmrn.secagg"
"""Key of the ConfigRecord that makes a message one of secure aggregation; also of a node's secrets."""

STEP, MESSAGE = "step", "message"
"""Keys in that record: the step of the protocol, and its message."""

KEYS, SHARES, MASKED, REVEAL = STEPS = "keys", "shares", "masked", "reveal"
"""The steps of a round; in `MASKED` the client app trains, the mod answers the others alone."""

STYPE = "fedmrn-secagg/1"
"""Serialisation type of an Array that holds a message `masked`; `Array.numpy()` refuses it."""

ARRAY = "fedmrn.masked"
"""The key of that Array in its ArrayRecord."""

BEYOND = "fedmrn.secure-clipped"
"""Key in a client's MetricRecord of the number of dense floats that were beyond the range of their grid."""

LEAST = "fedmrn-threshold"
"""Key in a node's configuration of the least threshold with which it takes part; it then sends no arrays
without secure aggregation."""

MOST_SESSION = 255
"""Bytes."""


@dataclass(frozen=True)
class SecAgg:
    """Secure aggregation, so that the server learns the sum of the updates of a round, and no single one.

    Parameters
    ----------
    threshold : int or float
        The number of clients whose shares restore a secret, and the least number in a sum: an integer, at
        least 2, or a share of the sampled clients, above 0.5 and at most 1. Fewer colluding clients learn
        nothing. A round in which fewer clients are left is lost.
    largest_weight : int
        1: all updates weigh the same. More: the weight of a client is the number of its examples divided by
        `examples`, rounded, from 1 to this bound.
    examples : int, optional
        The examples that one unit of weight stands for; needed if `largest_weight` is above 1.
    step : float, or mapping of str to float, optional
        Of the grids of dense float arrays, as in `fedmrn_secagg.Server`.
    degree : int, optional
        The neighbours of each client, an even number; by default all others. For more than some 50 clients.
    session : bytes, optional
        At most 255, to which all keys are bound. By default made from the id of Flower's run.
    identities : mapping of int to fedmrn_codec.Key, optional
        The public Ed25519 key of each node, by its id. Nodes then sign their keys, and need keys of their own
        in their configuration ("fedmrn-identity", "fedmrn-identities").

    Raises
    ------
    fedmrn_codec.ArgumentError
        A value is of another type or out of range; or, as BackendError, a package of the extra `secagg` is
        not installed.
    """

    threshold: int | float
    largest_weight: int = 1
    examples: int | None = None
    step: float | Mapping[str, float] | None = None
    degree: int | None = None
    session: bytes | None = None
    identities: Mapping[int, fm.Key] | None = None

    def __post_init__(self) -> None:
        check_installed()
        _check_threshold(self.threshold)
        if unsigned(self.largest_weight, 2**24, "largest_weight") < 1:
            raise fm.ArgumentError("largest_weight", "at least 1", self.largest_weight)
        if (self.examples is None) != (self.largest_weight == 1):
            expected = "a number of examples if largest_weight is above 1, else none"
            raise fm.ArgumentError("examples", expected, repr(self.examples))
        if self.examples is not None and unsigned(self.examples, U64, "examples") < 1:
            raise fm.ArgumentError("examples", "at least 1", self.examples)
        degree = self.degree
        if degree is not None and (not isinstance(degree, int) or degree < 2 or degree % 2):
            raise fm.ArgumentError("degree", "an even number, at least 2", repr(degree))
        session = self.session
        if session is not None and (not isinstance(session, bytes) or len(session) > MOST_SESSION):
            raise fm.ArgumentError("session", f"at most {MOST_SESSION} bytes", repr(session))

    def least(self, nodes: int) -> int:
        """The threshold of a round for which so many nodes were sampled."""
        if isinstance(self.threshold, int):
            return self.threshold
        return max(2, math.ceil(round(self.threshold * nodes, 9)))

    def agreed(self, nodes: int, run_id: int, weighted_by: str) -> Agreed:
        """The agreed values of a round."""
        session = f"fedmrn_flower run {run_id}".encode() if self.session is None else self.session
        return Agreed(
            self.least(nodes),
            self.largest_weight,
            self.step,
            session,
            self.identities is not None,
            self.examples or 0,
            weighted_by,
        )


@dataclass(frozen=True)
class Agreed:
    """What server and nodes agree on in a round, beside the request (spec/SECAGG.md 2).

    `examples` and `weighted_by` tell a client its weight: the key of its number of examples, and how many of
    them count as 1; 0 stands for equal weights.
    """

    threshold: int
    largest_weight: int
    step: float | Mapping[str, float] | None
    session: bytes
    signed: bool
    examples: int
    weighted_by: str

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `fedmrn_secagg.Server` and `fedmrn_secagg.Client`."""
        return {
            "threshold": self.threshold,
            "largest_weight": self.largest_weight,
            "step": self.step,
            "session": self.session,
        }

    def to_config(self, step: str, message: bytes | None = None) -> ConfigRecord:
        """The record of a message of a step; `message` is what the server has to say in it."""
        record = ConfigRecord(
            {
                STEP: step,
                "threshold": self.threshold,
                "largest-weight": self.largest_weight,
                "session": self.session,
                "signed": self.signed,
                "examples": self.examples,
                "weighted-by": self.weighted_by,
            }
        )
        if isinstance(self.step, Mapping):
            record["grid-names"], record["grid-steps"] = list(self.step), [*map(float, self.step.values())]
        elif self.step is not None:
            record["grid-step"] = float(self.step)
        if message is not None:
            record[MESSAGE] = message
        return record

    @classmethod
    def from_config(cls, record: ConfigRecord) -> Self:
        """The inverse of `to_config`.

        Raises
        ------
        fedmrn_codec.ArgumentError
            An entry is missing or of another type.
        """
        step: float | dict[str, float] | None = None
        if "grid-names" in record:
            names, steps = _entry(record, "grid-names", list), _entry(record, "grid-steps", list)
            step = dict(zip(names, steps, strict=False))
        elif "grid-step" in record:
            step = _entry(record, "grid-step", float)
        return cls(
            _entry(record, "threshold", int),
            _entry(record, "largest-weight", int),
            step,
            _entry(record, "session", bytes),
            _entry(record, "signed", bool),
            _entry(record, "examples", int),
            _entry(record, "weighted-by", str),
        )

    def weight(self, examples: object) -> int:
        """The weight of a client that has trained on so many examples."""
        if not self.examples:
            return 1
        if not isinstance(examples, int) or isinstance(examples, bool) or examples < 1:
            raise ReplyError(f"metric {self.weighted_by!r}", "an integer, at least 1", repr(examples))
        return min(max((2 * examples + self.examples) // (2 * self.examples), 1), self.largest_weight)


def check_installed() -> None:
    """Import `fedmrn_secagg`; BackendError that names the extra if its packages are not installed."""
    try:
        import fedmrn_secagg  # noqa: F401
    except ModuleNotFoundError as error:
        expected = "the packages cryptography and pycryptodome (pip install 'fedmrn-codec[secagg]')"
        raise fm.errors.BackendError("SecAgg", expected, error) from None


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
    return bytes(_entry(record, MESSAGE, bytes))


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


def _check_threshold(threshold: object) -> None:
    whole = isinstance(threshold, int) and not isinstance(threshold, bool) and threshold >= 2
    if not whole and not (isinstance(threshold, float) and 0.5 < threshold <= 1):
        expected = "an integer, at least 2, or a share above 0.5 and at most 1.0"
        raise fm.ArgumentError("threshold", expected, repr(threshold))


def _entry(record: ConfigRecord, name: str, kind: type) -> Any:
    value = record.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise fm.ArgumentError(f"{name!r} in {RECORD}", kind.__name__, repr(value))
    return value

"""Secure aggregation in a framework: a server's settings, and what its messages tell the clients.

The protocol itself is in the package `fedmrn_secagg`, which adapters import when it is used.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from .. import errors
from ..face.keys import Key
from ..primitives.arguments import U64, unsigned

__all__ = [
    "KEYS",
    "MASKED",
    "REVEAL",
    "SHARES",
    "STEPS",
    "Agreed",
    "SecAgg",
    "check_installed",
    "threshold_of",
    "typed_entry",
    "weight_of",
]

KEYS = "keys"
"""The step in which clients send public keys."""

SHARES = "shares"
"""The step in which clients send shares of their secrets, sealed for the others."""

MASKED = "masked"
"""The step in which clients train, and send masked vectors."""

REVEAL = "reveal"
"""The step in which those that are left send the shares that take the pads out of the sum."""

STEPS = (KEYS, SHARES, MASKED, REVEAL)
"""The steps of a round, in their order."""

MOST_SESSION = 255
"""Bytes."""

MODULES = "cryptography.hazmat.primitives.asymmetric.x25519", "Crypto.Protocol.SecretSharing"
"""One module of each package that `fedmrn_secagg` needs."""


log = logging.getLogger("fedmrn_codec")


@dataclass(frozen=True)
class SecAgg:
    """Secure aggregation, so that the server learns the sum of the updates of a round, and no single one.

    Parameters
    ----------
    threshold : int or float
        The number of clients whose shares restore a secret, and the least number in a sum: an integer, at
        least 2, or a share of the sampled clients, above 0.5 and at most 1. Fewer colluding clients learn
        nothing, in the complete graph. A round in which fewer clients are left is lost.
    largest_weight : int
        1: all updates weigh the same. More: the weight of a client is the number of its examples divided by
        `examples`, rounded, from 1 to this bound. Single updates are then no longer hidden: who knows the
        weights, as the server does, can find most mask bits of single clients in the sum (spec/SECAGG.md,
        11.1).
    examples : int, optional
        The examples that one unit of weight stands for; needed if `largest_weight` is above 1. The noise is
        then a fixed one, see `check_noise`.
    step : float, or mapping of str to float, optional
        Of the grids of dense float arrays, as in `fedmrn_secagg.Server`.
    degree : int, optional
        The neighbours of each client, an even number; by default all others. For more than some 50 clients.
    session : bytes, optional
        At most 255, to which all keys are bound. By default made from the id of the framework's run or job.
    identities : mapping of client to fedmrn_codec.Key, optional
        The public Ed25519 key of each client, by its id in Flower; NVFlare refuses them. Clients then
        sign their keys, and need keys of their own, which the adapter's guide says how to configure.

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
    identities: Mapping[int, Key] | Mapping[str, Key] | None = None

    def __post_init__(self) -> None:
        check_installed()
        _check_threshold(self.threshold)
        if unsigned(self.largest_weight, 2**24, "largest_weight") < 1:
            raise errors.ArgumentError("largest_weight", "at least 1", self.largest_weight)
        if (self.examples is None) != (self.largest_weight == 1):
            expected = "a number of examples if largest_weight is above 1, else none"
            raise errors.ArgumentError("examples", expected, repr(self.examples))
        if self.largest_weight > 1:
            log.warning(
                "secure aggregation with weights: the server knows them, and can find single mask bits in "
                "the sum; with largest_weight=1 it cannot"
            )
        if self.examples is not None and unsigned(self.examples, U64, "examples") < 1:
            raise errors.ArgumentError("examples", "at least 1", self.examples)
        degree = self.degree
        if degree is not None and (not isinstance(degree, int) or degree < 2 or degree % 2):
            raise errors.ArgumentError("degree", "an even number, at least 2", repr(degree))
        session = self.session
        if session is not None and (not isinstance(session, bytes) or len(session) > MOST_SESSION):
            raise errors.ArgumentError("session", f"at most {MOST_SESSION} bytes", repr(session))

    def least(self, clients: int) -> int:
        """The threshold of a round for which so many clients were sampled."""
        if isinstance(self.threshold, int):
            return self.threshold
        return threshold_of(self.threshold, clients)

    def check_noise(self, adaptive: bool) -> None:
        """Refuse weights beside a noise that a rule sets.

        The rule estimates the error of the mean from the sum of the squares of the weights. Secure
        aggregation reveals the sum of the weights only.

        Raises
        ------
        fedmrn_codec.ArgumentError
        """
        if adaptive and self.largest_weight > 1:
            expected = "1 with the noise of a rule, which would need each weight; or a fixed noise"
            raise errors.ArgumentError("largest_weight", expected, self.largest_weight)

    def agreed(self, clients: int, session: bytes, weighted_by: str) -> Agreed:
        """The agreed values of a round; `session` is for settings that have none."""
        return Agreed(
            self.least(clients),
            self.largest_weight,
            self.step,
            session if self.session is None else self.session,
            self.identities is not None,
            self.examples or 0,
            weighted_by,
        )


@dataclass(frozen=True)
class Agreed:
    """What server and clients agree on in a round, beside the request (spec/SECAGG.md 2).

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

    def to_dict(self) -> dict[str, Any]:
        """The values as a flat dictionary of numbers, text, bytes and lists, for a message."""
        out: dict[str, Any] = {
            "threshold": self.threshold,
            "largest-weight": self.largest_weight,
            "session": self.session,
            "signed": self.signed,
            "examples": self.examples,
            "weighted-by": self.weighted_by,
        }
        if isinstance(self.step, Mapping):
            out["grid-names"], out["grid-steps"] = list(self.step), [*map(float, self.step.values())]
        elif self.step is not None:
            out["grid-step"] = float(self.step)
        return out

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any], where: str) -> Self:
        """The inverse of `to_dict`; `where` is what errors call the message.

        Raises
        ------
        ArgumentError
            An entry is missing or of another type.
        """

        def entry(name: str, kind: type) -> Any:
            return typed_entry(entries, name, kind, where)

        step: float | dict[str, float] | None = None
        if "grid-names" in entries:
            step = dict(zip(entry("grid-names", list), entry("grid-steps", list), strict=False))
        elif "grid-step" in entries:
            step = entry("grid-step", float)
        return cls(
            entry("threshold", int),
            entry("largest-weight", int),
            step,
            entry("session", bytes),
            entry("signed", bool),
            entry("examples", int),
            entry("weighted-by", str),
        )

    def weight(self, examples: object, field: str) -> int:
        """The weight of a client that has trained on so many examples; ReplyError about `field`."""
        if not self.examples:
            return 1
        if not isinstance(examples, int) or isinstance(examples, bool) or examples < 1:
            raise errors.ReplyError(field, "an integer, at least 1", repr(examples))
        return weight_of(examples, self.examples, self.largest_weight)


def threshold_of(share: float, clients: int) -> int:
    """The threshold that is a share of so many clients, rounded up, and at least 2."""
    return max(2, math.ceil(round(share * clients, 9)))


def weight_of(examples: int, unit: int, largest: int) -> int:
    """The weight of so many examples: 1 for every `unit`, rounded to nearest, from 1 to `largest`."""
    return min(max((2 * examples + unit) // (2 * unit), 1), largest)


def check_installed() -> None:
    """Import what `fedmrn_secagg` needs; BackendError that names the extra if it is not installed."""
    try:
        for module in MODULES:
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        expected = "the packages cryptography and pycryptodome (pip install 'fedmrn-codec[secagg]')"
        raise errors.BackendError("SecAgg", expected, error) from None


def typed_entry(entries: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """An entry of a message; ArgumentError if it is missing or of another type."""
    value = entries.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise errors.ArgumentError(f"{name!r} in {where}", kind.__name__, repr(value))
    return value


def _check_threshold(threshold: object) -> None:
    whole = isinstance(threshold, int) and not isinstance(threshold, bool) and threshold >= 2
    if not whole and not (isinstance(threshold, float) and 0.5 < threshold <= 1):
        expected = "an integer, at least 2, or a share above 0.5 and at most 1.0"
        raise errors.ArgumentError("threshold", expected, repr(threshold))

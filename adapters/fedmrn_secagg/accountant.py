"""What the sums of damped masks reveal about one client at most, from round to round.

docs/guides/differential_privacy.md derives the bound, and says how large it is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import U64, check_version, positive_number, unsigned

from .divergence import ORDERS, excess
from .server import Server

VERSION = 1
"""Of the entries of `Accountant.to_json`."""

LARGEST_DAMPING, LARGEST_DELTA = 0.999, 0.5

ROUNDING = 2.0**-22
"""How far the probability of a bit is from (1 + u / a) / 2 at most: it is a multiple of 2^-24 (spec 4.3)."""

Round = int | Server
"""A round as an argument: the number of its survivors, or its server."""


class Accountant:
    """The bound (epsilon, delta) of differential privacy of one client, over the rounds of a training.

    Two runs are neighbours if they differ in all that one client contributes: its whole update, whatever
    data and however many local steps it comes from, in every round in which the client takes part. Who takes
    part is not hidden. The bound holds against whoever knows the sums, the updates of all other clients, and
    the bits of `colluding` of them. It is a bound only if
    every client that is not among these encodes with this `damping` and `norm` (`fm.encode`), over Bernoulli
    noise with signed masks, and has a weight of 1.

    Nothing here changes the privacy: the clients' damping does. The class needs the package dp-accounting
    (extra `privacy`).

    Parameters
    ----------
    schema : fedmrn_codec.Schema
        Of the frames. Dense tensors are sent without any noise, so it may have none with elements.
    damping : float
        Of the clients: above 0 and at most 0.999.
    norm : float, optional
        Of the clients.
    colluding : int
        Clients of each round whose bits the adversary may know; 0 if it sees sums alone.

    Attributes
    ----------
    schema : fedmrn_codec.Schema
    damping : float
    norm : float or None
    colluding : int
    rounds : int
        The number of rounds that were counted.

    Raises
    ------
    ArgumentError
        An argument has another type or is out of range, or the schema has a dense tensor with elements, or
        no masked one.

    Examples
    --------
    >>> schema = fm.Schema([fm.Tensor("weight", (10, 64), masked=True)])
    >>> accountant = fedmrn_secagg.Accountant(schema, damping=0.25, norm=2.0)
    >>> accountant.spend(500)  # the survivors of a round, or its Server
    >>> f"{accountant.epsilon(1e-5):.2f}"
    '0.76'
    """

    def __init__(
        self, schema: fm.Schema, *, damping: float, norm: float | None = None, colluding: int = 0
    ) -> None:
        self.schema = _checked_schema(schema)
        self.damping = _up_to(damping, "damping", LARGEST_DAMPING)
        self.norm = None if norm is None else positive_number(norm, "norm")
        self.colluding = unsigned(colluding, U64, "colluding")
        self._spent: Counter[int] = Counter()

    def __repr__(self) -> str:
        norm = "" if self.norm is None else f", norm={self.norm:g}"
        return f"Accountant(damping={self.damping:g}{norm}, {self.rounds} rounds)"

    @property
    def rounds(self) -> int:
        """The number of rounds that were counted."""
        return self._spent.total()

    def spend(self, survivors: Round, *, rounds: int = 1) -> None:
        """Count a round, before its sum is used; a refused call changes nothing.

        Parameters
        ----------
        survivors : int, or Server
            The number of clients in the sum, without those that dropped out; or the server of the round,
            after `masked`, whose request is checked as well.
        rounds : int
            So many rounds of this kind.

        Raises
        ------
        ArgumentError
            The number is not above `colluding`; or the server has another schema, noise that is not
            Bernoulli, masks that are not signed, weights above 1, or no survivors yet.
        """
        number = self._of_server(survivors) if isinstance(survivors, Server) else survivors
        number = unsigned(number, U64, "survivors")
        if number <= self.colluding:
            raise fm.ArgumentError("survivors", f"more than {self.colluding}, who collude", number)
        count = unsigned(rounds, U64, "rounds")
        if count:
            self._spent[number] += count

    def epsilon(self, delta: float) -> float:
        """The epsilon for a delta, of all rounds together; infinity where the bound says nothing.

        Parameters
        ----------
        delta : float
            Above 0 and at most 0.5; far less than one by the number of all clients.

        Raises
        ------
        ArgumentError
            `delta` is out of range.
        ImportError
            The package dp-accounting is missing.
        """
        number = _up_to(delta, "delta", LARGEST_DELTA)
        if not self._spent:
            return 0.0
        divergences = self.divergences()
        finite = np.isfinite(divergences)
        if not finite.any():
            return math.inf
        return _converted(ORDERS[finite], divergences[finite], number)

    def divergences(self) -> np.ndarray:
        """The bound of the Renyi divergence of all rounds together, at each of `divergence.ORDERS`."""
        out = np.zeros(len(ORDERS))
        for survivors, rounds in self._spent.items():
            out += rounds * self._of_round(survivors - self.colluding)
        return out

    def _of_round(self, clients: int) -> np.ndarray:
        """The bound for one round over clients that do not collude."""
        elements = sum(tensor.size for tensor in self.schema)
        each, square = excess(clients, (1 + self.damping) / 2 + ROUNDING)
        if self.norm is not None:
            change = self.norm / math.sqrt(elements) + 2 * ROUNDING  # of each element, if all change alike
            with np.errstate(over="ignore"):
                each = np.minimum(each, square * change * change)
        out: np.ndarray = elements * np.log1p(each) / (ORDERS - 1)
        return out

    def _of_server(self, server: Server) -> int:
        """The number of survivors of a round that the bound holds for."""
        request = server.request
        if not server.survivors:
            raise fm.ArgumentError(
                "survivors", "a server after masked()", f"one that waits for {server.state}"
            )
        if request.schema != self.schema:
            raise fm.ArgumentError("survivors", "a server of the accountant's schema", "another schema")
        if request.mask != "signed":
            raise fm.ArgumentError("survivors", "a server of signed masks", f"{request.mask} ones")
        noises = request.noise.values() if isinstance(request.noise, Mapping) else [request.noise]
        if others := [noise for noise in noises if not isinstance(noise, fm.Bernoulli)]:
            raise fm.ArgumentError("survivors", "a server of Bernoulli noise", others[0])
        if server.largest_weight != 1:
            raise fm.ArgumentError("survivors", "a server whose largest weight is 1", server.largest_weight)
        return len(server.survivors)

    def to_json(self) -> dict[str, Any]:
        """The state for `json.dumps`: the arguments, and how many rounds had how many survivors."""
        return {
            "version": VERSION,
            "schema": self.schema.to_json(),
            "damping": self.damping,
            "norm": self.norm,
            "colluding": self.colluding,
            "rounds": [[survivors, rounds] for survivors, rounds in sorted(self._spent.items())],
        }

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> Self:
        """The accountant whose state `to_json` gave.

        Raises
        ------
        CodecError
            An entry is missing, of another type or out of range, or of another version.
        """
        check_version(entries, VERSION, "state of Accountant")
        try:
            schema = fm.Schema.from_json(entries["schema"])
            options = {name: entries[name] for name in ("damping", "norm", "colluding")}
            out = cls(schema, **options)
            for survivors, rounds in entries["rounds"]:
                out.spend(unsigned(survivors, U64, "survivors"), rounds=rounds)
        except fm.CodecError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise fm.ArgumentError("state of Accountant", "what to_json gave", repr(error)) from None
        return out


def _checked_schema(schema: Any) -> fm.Schema:
    """A schema all of whose elements are masked, and that has some."""
    if not isinstance(schema, fm.Schema):
        raise fm.ArgumentError("schema", "a Schema", type(schema).__name__)
    if dense := [tensor.name for tensor in schema if tensor.size and not tensor.masked]:
        expected = "no dense tensors, whose sums have no noise"
        raise fm.ArgumentError("schema", expected, dense)
    if not any(tensor.size for tensor in schema):
        raise fm.ArgumentError("schema", "masked elements", "none")
    return schema


def _up_to(value: Any, field: str, most: float) -> float:
    """A number above 0, and at most `most`."""
    return positive_number(value, field, most, f"a finite number above 0 and at most {most:g}")


def _converted(orders: np.ndarray, divergences: np.ndarray, delta: float) -> float:
    """The smallest epsilon that these Renyi divergences give for a delta."""
    try:
        from dp_accounting.rdp import compute_epsilon
    except ImportError as error:
        raise ImportError("the extra `privacy` is missing: pip install 'fedmrn-codec[privacy]'") from error
    return float(compute_epsilon(orders, divergences, delta)[0])

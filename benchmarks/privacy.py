"""What damped masks cost, and what they give: the tables of docs/guides/differential_privacy.md.

The numbers are computed, not measured: they depend on no machine, model or data set.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import fedmrn_codec as fm
import fedmrn_secagg
from reference_fl.report.documents import insert

from .tables import Table, number

DELTA = 1e-5
CLIENTS = 10, 100, 1_000, 10_000
ELEMENTS = 1_000, 1_000_000
ROUNDS = 1, 30, 100
DAMPINGS = 0.5, 0.1, 0.01

NORM_DAMPING = 0.25
"""Of the table in which the norm is chosen: small enough to cost little, and above nearly all elements."""

EPSILONS = 1.0, 8.0
"""For which that table looks for the norm."""


def schema_of(elements: int) -> fm.Schema:
    """A schema of one masked tensor."""
    return fm.Schema([fm.Tensor("w", (elements,), masked=True)])


def epsilon(clients: int, elements: int, rounds: int, damping: float, norm: float | None = None) -> float:
    """The bound of the accountant for `DELTA`."""
    accountant = fedmrn_secagg.Accountant(schema_of(elements), damping=damping, norm=norm)
    accountant.spend(clients, rounds=rounds)
    return accountant.epsilon(DELTA)


def error(clients: int, square: float) -> float:
    """The squared error of a round's mean, divided by the square of the mean, if all updates are equal.

    Parameters
    ----------
    clients : int
    square : float
        The mean square of an element of the update, in units of the scale (at most the damping squared). An
        element of one client has the variance 1 - its square, in these units.
    """
    return (1 - square) / (clients * square)


def norm_for(wanted: float, clients: int, elements: int, rounds: int) -> float:
    """The largest norm whose epsilon is at most `wanted`, to a thousandth; the damping is `NORM_DAMPING`."""
    low, high = 0.0, NORM_DAMPING * math.sqrt(elements)
    if epsilon(clients, elements, rounds, NORM_DAMPING, high) <= wanted:
        return high
    while high - low > high / 1000:
        middle = (low + high) / 2
        within = epsilon(clients, elements, rounds, NORM_DAMPING, middle) <= wanted
        low, high = (middle, high) if within else (low, middle)
    return low


def clipped() -> Table:
    """Damping alone: every element of an update may be as large as the damping allows."""
    heads = "clients", "elements", "damping", *(_rounds(rounds) for rounds in ROUNDS), "error of the mean"
    rows = [
        [
            *(f"{clients:,}", f"{elements:,}", f"{damping:g}"),
            *(number(epsilon(clients, elements, rounds, damping)) for rounds in ROUNDS),
            short(error(clients, damping**2)),
        ]
        for clients in CLIENTS
        for elements in ELEMENTS
        for damping in DAMPINGS
    ]
    return Table(f"Epsilon for delta {DELTA:g}, damping alone", heads, rows)


def shortened() -> Table:
    """The error of the mean of a round if the norm is as large as an epsilon allows."""
    heads = "clients", "elements", "epsilon of all rounds", *(f"error, {_rounds(each)}" for each in ROUNDS)
    rows = [
        [f"{clients:,}", f"{elements:,}", f"{wanted:g}", *_errors(wanted, clients, elements)]
        for clients in CLIENTS
        for elements in ELEMENTS
        for wanted in EPSILONS
    ]
    return Table(f"Error of a round's mean for delta {DELTA:g}, with a norm", heads, rows)


def _errors(wanted: float, clients: int, elements: int) -> Iterator[str]:
    for rounds in ROUNDS:
        norm = norm_for(wanted, clients, elements, rounds)
        yield short(error(clients, norm**2 / elements))


def rule() -> str:
    """How the error grows, as a sentence: its factors are those of the largest case that is not clipped."""
    clients, elements, rounds = CLIENTS[-2], ELEMENTS[-1], ROUNDS[-1]
    factors = [
        error(clients, norm_for(wanted, clients, elements, rounds) ** 2 / elements)
        * clients**2
        / (elements * rounds)
        for wanted in EPSILONS
    ]
    parts = (f"{factor:.2g} for epsilon {wanted:g}" for factor, wanted in zip(factors, EPSILONS, strict=True))
    return f"The error is about elements · rounds / clients², times {' and '.join(parts)}."


def short(value: float) -> str:
    """A number with two significant digits if it is below 1, else as in the other benchmarks."""
    return f"{value:.2g}" if value < 1 else number(value)


def _rounds(rounds: int) -> str:
    return "1 round" if rounds == 1 else f"{rounds} rounds"


PARTS = {"rule": rule, "clipped": lambda: clipped().markdown(), "shortened": lambda: shortened().markdown()}
"""What the document has of this, by place."""


def main() -> None:
    """Compute the tables; print them, or write them into a document."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.privacy", description="compute what damped masks cost and give"
    )
    parser.add_argument("--document", type=Path, help="write the tables between the comments of this file")
    document = parser.parse_args().document
    if document is None:
        clipped().print()
        shortened().print()
        print(rule())
        return
    for place, make in PARTS.items():
        insert(document, make(), place)


if __name__ == "__main__":
    main()

"""The steps of secure aggregation in a run: `secure.jsonl`, beside the metrics, one line for each round.

The keys of a line: `round`; `threshold`; `up` and `down`, each with the bytes of every message by its name,
as sums over the clients; `clipped`, the number of dense floats beyond the range of their grid; and
`seconds`, the time of the protocol on both sides, without the training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedmrn_codec.adapter_api.secagg import STEPS

from . import beside

UP, DOWN = STEPS, ("roster", "boxes", "survivors")
"""The messages from the clients and to them, in the order of the protocol (spec/SECAGG.md)."""

WHAT = "the steps of secure aggregation"


def read(file: Path) -> list[dict[str, Any]]:
    """Read the lines of a file, in order; none if there is no file.

    Raises
    ------
    ValueError
        A line does not hold the bytes of every message, the threshold, `clipped` and the seconds.
    """
    lines = beside.read(file, WHAT)
    for line in lines:
        try:
            sizes = [int(line[way][name]) for way, names in (("up", UP), ("down", DOWN)) for name in names]
            numbers = [*sizes, int(line["threshold"]), int(line["clipped"]), float(line["seconds"])]
        except (KeyError, TypeError, ValueError) as error:
            got = f"{type(error).__name__}: {error}"
            raise ValueError(f"{file}, round {line['round']}: expected {WHAT}, got {got}") from None
        if min(numbers) < 0:
            raise ValueError(
                f"{file}, round {line['round']}: expected no negative number, got {min(numbers)}"
            )
    return lines

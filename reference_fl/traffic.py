"""The messages of a round by client: `traffic.jsonl`, one line for each round."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import beside


@dataclass
class Traffic:
    """Bytes of the messages of one round.

    Attributes
    ----------
    down, up : dict of int to int
        To each client and from each, by its number.
    secure : dict or None
        With secure aggregation, the line of the round in `secure.jsonl`.
    """

    down: dict[int, int] = field(default_factory=dict)
    up: dict[int, int] = field(default_factory=dict)
    secure: dict[str, Any] | None = None

    def line(self, number: int) -> dict[str, Any]:
        """The line of a round: three lists, of the clients in ascending order and of their bytes."""
        clients = sorted(self.down)
        return {
            "round": number,
            "clients": clients,
            "up": [self.up[client] for client in clients],
            "down": [self.down[client] for client in clients],
        }


def read(file: Path) -> list[dict[str, Any]]:
    """Read the lines of a file, in order; none if there is no file.

    Raises
    ------
    ValueError
        A line does not have as many numbers in "up" as in "down", and at least one.
    """
    lines = beside.read(file, "a round with the bytes of its messages")
    for line in lines:
        up, down = line.get("up"), line.get("down")
        if not (isinstance(up, list) and isinstance(down, list) and up and len(up) == len(down)):
            expected = "lists up and down of one length, at least 1"
            raise ValueError(f"{file}, round {line['round']}: expected {expected}, got {up} and {down}")
    return lines

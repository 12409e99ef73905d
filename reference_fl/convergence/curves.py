"""The curve of a run: means of the quantities of `objective.jsonl` over bins of rounds, and their slopes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import beside, mask_counts, rates
from ..methods.scales import AS_RATE
from ..record import METRICS, read
from ..settings import ADAPTIVE

BINS = 12  # bins in a factor of ten of rounds
DIGITS = 5  # significant digits in files

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One run.

    Attributes
    ----------
    settings : dict
    commit : str or None
    first, last : list of int
        The rounds of each bin; a bin is about a twelfth of a factor of ten, or one round.
    distance, gradient : list of float
        Means over each bin; of a problem that is not convex there is no distance.
    scales : list of float
        The noise scale of the largest masked tensor in round 1 and in the last one; empty without masks.
    bits : float or None
        Bits sent for a masked parameter, mean over the last bin.
    """

    settings: dict[str, Any]
    commit: str | None
    first: list[int]
    last: list[int]
    distance: list[float]
    gradient: list[float]
    scales: list[float]
    bits: float | None

    @property
    def quantity(self) -> Array:
        """What proofs bound: the squared distance if there is an optimum, else the squared gradient."""
        return np.array(self.distance or self.gradient)

    @property
    def rounds(self) -> Array:
        """The middle of each bin."""
        return np.asarray(np.sqrt(np.array(self.first, float) * np.array(self.last, float)))

    @property
    def label(self) -> str:
        """Method, noise and how its scale goes, such as "binary, bernoulli:0.3 falling"."""
        s = self.settings
        if s["mask"] is None:
            return str(s["method"])
        if s["noise"] == ADAPTIVE:
            return f"{s['mask']}, rule"
        falls = s["options"].get("schedule") == AS_RATE
        return f"{s['mask']}, {s['noise']} {'falling' if falls else 'fixed'}"

    @property
    def problem(self) -> tuple[str, str, int]:
        """Model, partition and number of rounds."""
        return self.settings["model"], self.settings["partition"], self.last[-1]

    def slope(self, share: float) -> float:
        """The slope of log(quantity) over log(GAMMA + round - 1), from this share of the rounds on."""
        gamma, _ = rates.parse(self.settings["learning_rate_schedule"])
        kept = self.rounds >= share * self.last[-1]
        x, y = np.log(gamma + self.rounds - 1)[kept], np.log(self.quantity)[kept]
        return float(np.polyfit(x, y, 1)[0])


def bins(rounds: int) -> list[tuple[int, int]]:
    """First and last round of each bin of 1 to `rounds`."""
    found, first = [], 1
    while first <= rounds:
        last = min(max(first, math.ceil(first * 10 ** (1 / BINS)) - 1), rounds)
        found.append((first, last))
        first = last + 1
    return found


def of_run(folder: Path) -> Curve:
    """The curve of a finished run in its folder.

    Raises
    ------
    OSError
        The folder holds no run.
    ValueError
        Its files are damaged, or it has no objective: its model is not one of `smooth`.
    """
    metrics = folder / METRICS
    ((header, lines),) = read(metrics)
    found = beside.read(beside.path(metrics, "objective"))
    if not lines or [line["round"] for line in found] != [line["round"] for line in lines]:
        raise ValueError(f"{folder}: expected objectives of {len(lines)} finished rounds, got {len(found)}")
    spans = bins(len(found))
    counts = mask_counts.read(beside.path(metrics, "layers"))
    return Curve(
        settings=header["settings"],
        commit=header.get("commit"),
        first=[first for first, _ in spans],
        last=[last for _, last in spans],
        distance=_means(found, "distance", spans) if found[0]["distance"] is not None else [],
        gradient=_means(found, "gradient", spans),
        scales=[_short(_largest(counts[at])["scale"]) for at in (0, -1)] if counts else [],
        bits=_bits(lines, counts, spans[-1][0]) if counts else None,
    )


def _means(lines: list[dict[str, Any]], key: str, spans: list[tuple[int, int]]) -> list[float]:
    values = [line[key] for line in lines]
    return [_short(float(np.mean(values[first - 1 : last]))) for first, last in spans]


def _bits(lines: list[dict[str, Any]], counts: list[dict[str, Any]], first: int) -> float:
    sent = sum(line["uplink_mask_bytes"] for line in lines if line["round"] >= first)
    elements = sum(
        tensor["elements"] * tensor["frames"]
        for line in counts
        if line["round"] >= first
        for tensor in line["tensors"].values()
    )
    return _short(8 * sent / elements)


def _largest(counts: dict[str, Any]) -> dict[str, Any]:
    tensor: dict[str, Any] = max(counts["tensors"].values(), key=lambda each: each["elements"])
    return tensor


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def write(curves: Iterable[Curve]) -> str:
    """The curves as JSON lines."""
    return "".join(json.dumps(asdict(curve)) + "\n" for curve in curves)


def load(paths: Iterable[Path]) -> list[Curve]:
    """Read files of curves.

    Raises
    ------
    ValueError
        A line is not a curve.
    """
    found = []
    for path in paths:
        for number, text in enumerate(path.read_text().splitlines(), 1):
            try:
                found.append(Curve(**json.loads(text)))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: expected a curve, got {error}") from None
    return found

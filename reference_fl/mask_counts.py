"""Counts of the set mask bits of each tensor and round: `layers.jsonl`, beside the metrics of a run.

A line: `{"round": 3, "tensors": {"conv1.weight": {"elements": 288, "ones": 1301, "frames": 10, "scale": 0.1},
...}}`. The masked tensors are in schema order; `ones` is the sum over the frames of the round, and `scale`
that of the noise of the last frame, which older files lack. A round without masks has no line.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import masked_values

from . import beside

WHAT = "mask counts"
COUNTS = ("elements", "ones", "frames")


class MaskCounts:
    """The number of set bits in the masks that a server received in one round."""

    def __init__(self) -> None:
        self._tensors: dict[str, dict[str, Any]] = {}

    def add(self, frame: fm.CheckedFrame) -> None:
        """Count the mask bits of one frame that the server has accepted; no noise is drawn."""
        for name, bits in fm.decode_bits(frame).items():
            counts = self._tensors.setdefault(name, {"elements": bits.size, "ones": 0, "frames": 0})
            counts["ones"] += int(bits.sum())
            counts["frames"] += 1
        for tensor, entry in zip(frame.checked_schema, frame.tensors, strict=True):
            if entry.noise is not None:
                self._tensors[tensor.name]["scale"] = entry.noise.scale

    def add_sum(self, aggregator: fm.Aggregator, request: fm.Request) -> None:
        """Count the bits of the masks of one seed, of which their sum alone is known.

        Where c of n bits are set, the mean of noise times mask is c / n times the noise with binary masks,
        and (2 c - n) / n times the noise with signed ones.
        """
        frames, means = aggregator.frames, aggregator.mean()
        noises = masked_values(request.schema, request.noise, "noise")
        for stream, tensor in enumerate(request.schema):
            if not tensor.masked:
                continue
            mean, noise = means[tensor.name].reshape(-1), noises[tensor.name]
            own = fm.noise(noise, seed=request.seed, stream=stream, count=mean.size).astype(np.float64)
            share = mean / own if request.mask == "binary" else (1 + mean / own) / 2
            ones = int(np.rint(frames * share).sum())
            counts = {"elements": mean.size, "ones": ones, "frames": frames, "scale": noise.scale}
            self._tensors[tensor.name] = counts

    def line(self, number: int) -> dict[str, Any] | None:
        """The line of this round, or None if there were no masks."""
        return {"round": number, "tensors": self._tensors} if self._tensors else None


def read(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a file as `beside.read` does.

    Raises
    ------
    ValueError
        The file does not hold mask counts.
    """
    return [
        _checked(line, f"{path}, line {number}") for number, line in enumerate(beside.read(path, WHAT), 1)
    ]


def _checked(line: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        tensors: dict[str, dict[str, Any]] = {
            name: {key: int(t[key]) for key in COUNTS} for name, t in line["tensors"].items()
        }
        for name, t in tensors.items():
            if "scale" in line["tensors"][name]:
                t["scale"] = float(line["tensors"][name]["scale"])
            if not 0 <= t["ones"] <= t["elements"] * t["frames"]:
                most = f"{t['elements']} x {t['frames']}"
                raise ValueError(f"ones of {name}: expected 0 to {most}, got {t['ones']}")
        return {"round": line["round"], "tensors": tensors}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: expected {WHAT}, got {type(error).__name__}: {error}") from None


def density(counts: dict[str, int]) -> float:
    """The share of set bits, 0 to 1; NaN for a tensor without elements."""
    bits = counts["elements"] * counts["frames"]
    return counts["ones"] / bits if bits else math.nan


def entropy(share: float) -> float:
    """The binary entropy: bits of information in one mask bit that is set with this probability."""
    if math.isnan(share) or share in (0.0, 1.0):
        return 0.0 * share
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)

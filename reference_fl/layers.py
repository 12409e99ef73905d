"""What each tensor's masks look like, round by round: the lines of `layers.jsonl` beside a run's metrics.

A line: `{"round": 3, "tensors": {"conv1.weight": {"elements": 288, "ones": 1301, "frames": 10}, ...}}`, with
the masked tensors in schema order, `ones` summed over the round's frames. A round without masks has no line.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import fedmrn_codec as fm

COUNTS = ("elements", "ones", "frames")


class MaskCounts:
    """The set bits of the masks that a server received in one round."""

    def __init__(self) -> None:
        self._tensors: dict[str, dict[str, int]] = {}

    def add(self, frame: fm.CheckedFrame) -> None:
        """Count the mask bits of one frame that the server has accepted; no noise is drawn."""
        for name, bits in fm.decode_bits(frame).items():
            counts = self._tensors.setdefault(name, {"elements": bits.size, "ones": 0, "frames": 0})
            counts["ones"] += int(bits.sum())
            counts["frames"] += 1

    def line(self, number: int) -> dict[str, Any] | None:
        """The line of this round; None without masks."""
        return {"round": number, "tensors": self._tensors} if self._tensors else None


def path_beside(metrics: Path) -> Path:
    """Where the lines of a metrics file are: `layers.jsonl`, or `NAME.layers.jsonl` for `NAME.jsonl`."""
    name = "layers.jsonl" if metrics.name == "metrics.jsonl" else f"{metrics.stem}.layers.jsonl"
    return metrics.with_name(name)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, in order; none if there is no file. A last line cut short by a kill is left out.

    Raises
    ------
    ValueError
        It is no such file.
    """
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return [_parse(text, f"{path}, line {number}") for number, text in enumerate(lines, 1)]


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
        tensors = {name: {key: int(t[key]) for key in COUNTS} for name, t in line["tensors"].items()}
        for name, t in tensors.items():
            if not 0 <= t["ones"] <= t["elements"] * t["frames"]:
                raise ValueError(
                    f"ones of {name}: found {t['ones']}, in {t['frames']} x {t['elements']} bits"
                )
        return {"round": int(line["round"]), "tensors": tensors}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: no mask counts ({type(error).__name__}: {error})") from None


def density(counts: dict[str, int]) -> float:
    """The share of set bits, 0 to 1; NaN for a tensor without elements."""
    bits = counts["elements"] * counts["frames"]
    return counts["ones"] / bits if bits else math.nan


def entropy(share: float) -> float:
    """Bits of information in one mask bit that is set with this probability: the binary entropy."""
    if math.isnan(share) or share in (0.0, 1.0):
        return 0.0 * share
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)

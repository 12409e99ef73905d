"""Files beside the metrics of a run: JSON lines, at most one for each round, such as `layers.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES = ("layers", "objective", "traffic", "secure")
"""The files: counts of mask bits (`mask_counts`), quantities of a smooth objective (`objective`), the bytes
of each client (`traffic`), and the steps of secure aggregation (`secure_steps`)."""


def path(metrics: Path, name: str) -> Path:
    """The path of a file: `NAME.jsonl` for `metrics.jsonl`, `RUN.NAME.jsonl` for `RUN.jsonl`."""
    return metrics.with_name(
        f"{name}.jsonl" if metrics.name == "metrics.jsonl" else f"{metrics.stem}.{name}.jsonl"
    )


def is_one(file: Path) -> bool:
    """Whether a path is that of such a file."""
    return any(file.name == f"{name}.jsonl" or file.name.endswith(f".{name}.jsonl") for name in NAMES)


def read(file: Path, what: str = "an object with a round") -> list[dict[str, Any]]:
    """Read the lines of a file, in order; none if there is no file. An incomplete last line is left out.

    Raises
    ------
    ValueError
        A line is not a JSON object with a round; the message says that `what` was expected.
    """
    if not file.exists():
        return []
    lines = file.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return [_parse(text, f"{file}, line {number}: expected {what}") for number, text in enumerate(lines, 1)]


def _parse(text: str, expected: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
        return {**line, "round": int(line["round"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{expected}, got {type(error).__name__}: {error}") from None

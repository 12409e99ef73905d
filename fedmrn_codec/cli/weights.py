"""The weights of frames, on the command line or in a file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence

from .. import errors
from ..sums.state import MAX_WEIGHT
from . import files
from .problems import FileProblem


def given(frames: Sequence[str], text: str | None, path: str | None, *, partials: bool) -> list[int]:
    """One weight for each frame, in order; 1 for each if neither `text` nor `path` is given.

    Parameters
    ----------
    frames : sequence of str
        Paths as on the command line, without partial sums, which carry their own weights.
    text : str, optional
        Weights separated by commas, in the order of the frames.
    path : str, optional
        A file: a JSON object {frame: weight}, or CSV lines "frame,weight". A frame is found by its path as
        given, or else by its file name. The file may hold weights of other frames too.
    partials : bool
        Whether there are partial sums too. They carry weights, so the weights of frames must be given.

    Raises
    ------
    ArgumentError
        A weight is missing, or is not a positive integer; there are too many; or their sum is above
        2^39 - 1, [A-01].
    FileProblem
        The file is neither JSON nor CSV of that form.
    """
    if text is not None:
        texts = [item.strip() for item in text.split(",")]
        if len(texts) != len(frames):
            raise errors.ArgumentError("--weights", f"{len(frames)}, one for each frame", len(texts))
    elif path is not None:
        table = _read(path)
        texts = [_look_up(table, frame) for frame in frames]
    elif partials and frames:
        raise errors.ArgumentError(
            "--weights", "one for each frame, as partial sums and tallies have their own", "none"
        )
    else:
        texts = ["1"] * len(frames)
    weights = [_positive(item, frame) for item, frame in zip(texts, frames, strict=True)]
    if sum(weights) > MAX_WEIGHT:
        raise errors.ArgumentError("sum of weights", "at most 2^39 - 1", sum(weights))
    return weights


def _positive(text: str, frame: str) -> int:
    try:
        weight = int(text)
    except ValueError:
        weight = 0
    if weight < 1:
        raise errors.ArgumentError(f"weight of {frame}", "a positive integer", repr(text))
    return weight


def _look_up(table: dict[str, str], frame: str) -> str:
    weight = table.get(frame, table.get(os.path.basename(frame)))
    if weight is None:
        raise errors.ArgumentError("--weights-file", "a weight for each frame", f"none for {frame}")
    return weight


def _read(path: str) -> dict[str, str]:
    """Read weights as text, by frame."""
    try:
        text = files.read(path).decode("utf-8-sig")
        rows = _json_rows(text) if text.lstrip()[:1] == "{" else _csv_rows(text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise FileProblem(path, f"not a table of weights: {error}") from error
    table = dict(rows)
    if len(table) != len(rows):
        raise FileProblem(path, "frames: expected each once, got one twice")
    return table


def _json_rows(text: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, object]] = json.loads(text, object_pairs_hook=list)
    if bad := [weight for _, weight in rows if not isinstance(weight, int) or isinstance(weight, bool)]:
        raise ValueError(f"weight: expected an integer, got {bad[0]!r}")
    return [(frame, str(weight)) for frame, weight in rows]


def _csv_rows(text: str) -> list[tuple[str, str]]:
    rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    if rows and [cell.strip().lower() for cell in rows[0]] == ["frame", "weight"]:
        del rows[0]
    if bad := [row for row in rows if len(row) != 2]:
        raise ValueError(f"line: expected 'frame,weight', got {bad[0]}")
    return [(frame.strip(), weight.strip()) for frame, weight in rows]

"""The serial computation that the receiver's model is compared with, and what its databases say."""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import fedmrn_codec as fm

Key = tuple[int, str]  # round, client


@dataclass(frozen=True)
class Stored:
    """What the databases of a receiver say after its end.

    Parameters
    ----------
    frames : mapping of (round, client) to (digest, weight)
    closed : mapping of round to (frames, weight)
        What the sum of each round had.
    model : dict of str to array
        The server's own model after the last round.
    """

    frames: dict[Key, tuple[bytes, int]]
    closed: dict[int, tuple[int, int]]
    model: dict[str, np.ndarray]


def stored(folder: Path) -> Stored:
    """Read the databases in a folder; a frame that two shards have is an error."""
    frames: dict[Key, tuple[bytes, int]] = {}
    for path in sorted(folder.glob("shard-*.db")):
        for number, client, weight, digest, frame in _rows(
            path, "round, client, weight, digest, frame", "frames"
        ):
            assert hashlib.sha256(frame).digest() == digest
            assert (number, client) not in frames
            frames[number, client] = digest, weight
    rounds = list(_rows(folder / "merger.db", "number, frames, weight, model", "rounds"))
    closed = {number: (count, weight) for number, count, weight, _ in rounds if count is not None}
    (model,) = (model for _, _, _, model in rounds if model is not None)
    with np.load(io.BytesIO(model)) as file:
        return Stored(frames, closed, {name: file[name] for name in file.files})


def serial(
    start: Mapping[str, np.ndarray],
    policy: fm.Policy,
    frames: Mapping[Key, bytes],
    weights: Mapping[str, int],
    rounds: int,
) -> tuple[dict[str, np.ndarray], fm.Downlink]:
    """The server's own model and its downlink, from one aggregator a round, frame by frame.

    `frames` are those that were acknowledged; nothing of the receiver takes part in this.
    """
    model, down = dict(start), fm.Downlink(policy.schema, start)
    for number in range(1, rounds + 1):
        total = replace(policy, round=number, base_model=down.model_id, seeds=None).aggregator()
        for (its_round, client), frame in frames.items():
            if its_round == number:
                total.add(frame, weights[client])
        model = fm.apply(model, total.mean())
        down.advance(model)
    return model, down


def problems(
    found: Stored, acknowledged: Mapping[Key, bytes], weights: Mapping[str, int], rounds: int
) -> tuple[int, int, int]:
    """How many acknowledged frames are lost, how many count twice, and how many nobody was told about."""
    expected = {key: (hashlib.sha256(frame).digest(), weights[key[1]]) for key, frame in acknowledged.items()}
    lost = sum(found.frames.get(key) != value for key, value in expected.items())
    counts: Counter[int] = Counter(number for number, _ in found.frames)
    twice = sum(abs(found.closed.get(number, (0, 0))[0] - counts[number]) for number in range(1, rounds + 1))
    return lost, twice, len(found.frames.keys() - expected.keys())


def same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    """Whether two models have the same bits."""
    return first.keys() == second.keys() and all(first[n].tobytes() == second[n].tobytes() for n in first)


def _rows(path: Path, columns: str, table: str) -> Iterator[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        yield from db.execute(f"SELECT {columns} FROM {table}")

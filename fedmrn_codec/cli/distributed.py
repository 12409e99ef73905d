"""The work of `fedmrn aggregate --engine ray`: workers sum parts of the frames, and this process merges them.

Sums are exact, so the result does not depend on which process adds which frame, nor on how often a part is
repeated. Parts are merged in the order of the frames, because that order decides which frame is refused. A
part with a refused frame, or with noise that differs from that of the parts before it, is not merged: this
process adds its frames again, one after the other, as the local engine does, and reports the problem.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import errors
from ..cluster.ray import ClusterError, connected
from ..face.aggregation import Aggregator
from ..format.parsing import Expected
from ..primitives.noise import Noise
from .averaging import Average, Head, Source
from .output import tracked
from .problems import FileProblem

LEAST, MOST = 16, 1024
"""Bounds of the frames in a part: a sum is as long as 64 raw frames, and a part is repeated as a whole."""

WeightedFrames = Sequence[tuple[Source, int]]


class Part(NamedTuple):
    """What a worker returns; `total` is a partial sum, None where every frame was refused."""

    total: np.ndarray | None
    heads: list[Head]
    skipped: list[dict[str, Any]]
    unreadable: tuple[str, str] | None = None


@dataclass
class Distributed(Average):
    """Adds up sources on a Ray cluster; gives the same sum, problems and notes as `Average`.

    This process holds the sum and that of one part; Ray's store holds a few parts for each processor.

    Parameters
    ----------
    address : str, optional
        As in `connected`.
    """

    address: str | None = None

    def add(self, total: Aggregator, frames: WeightedFrames, backend: str | None) -> None:
        """Add frames with their weights, one part after the other.

        Raises
        ------
        ClusterError
            The cluster cannot be reached, or the workers of a part keep dying.
        FileProblem
            A worker cannot read a file.
        """
        if not frames:
            return
        with connected(self.address, "--engine ray") as cluster:
            size = min(max(-(-len(frames) // (4 * cluster.processors)), LEAST), MOST)
            parts = [frames[begin : begin + size] for begin in range(0, len(frames), size)]
            listed = (_listed(part) for part in parts if _is_in_files(part))
            results = cluster.map(
                _in_worker, ((total.expected, self.noise, each, backend) for each in listed)
            )
            for part in tracked(parts, "adding frames, in parts"):
                try:
                    result = next(results) if _is_in_files(part) else None
                except ClusterError as error:
                    first = part[0][0].path
                    raise ClusterError(f"the sum of {len(part)} frames from {first} on: {error}") from error
                if result is None or not self._merged(total, result, backend):
                    self._add_each(total, part)
                elif result.total is not None:
                    left_out = {problem["file"] for problem in result.skipped}
                    accepted = (source.path for source, _ in part if source.path not in left_out)
                    self.first = self.first or next(accepted, None)

    def _merged(self, total: Aggregator, result: Part, backend: str | None) -> bool:
        """Merge a part's result; False, with nothing changed, if its frames must be added here again."""
        if (result.skipped and not self.skip_bad) or any(map(self.unstated, result.skipped)):
            return False
        if result.unreadable is not None:
            raise FileProblem(*result.unreadable)
        if result.total is not None:
            try:
                total.merge(Aggregator.from_bytes(result.total.data, total.schema, backend=backend))
            except (errors.FrameError, errors.AggregateError):
                return False
        self.heads += result.heads
        self.skipped += result.skipped
        return True


def sum_part(
    expected: Expected, noise: Noise | None, frames: Sequence[tuple[str, str, int]], backend: str | None
) -> Part:
    """Sum the frames of a part, in a worker; refused frames are left out and listed.

    Parameters
    ----------
    expected : Expected
        With a schema.
    noise : Noise, optional
    frames : sequence of (str, str, int)
        The path as the user wrote it, the absolute path, and the weight.
    backend : str, optional
    """
    assert expected.schema is not None
    average = Average(expected, noise, skip_bad=True, backend=backend, of_part=True)
    total = average.start(expected.schema, backend, Expected())
    for path, place, weight in frames:
        try:
            average.add(total, [(Source(path, place), weight)], backend)
        except FileProblem as problem:
            unreadable = path, f"{problem} (on the worker {socket.gethostname()})"
            return Part(None, [], average.skipped, unreadable)
    data = np.frombuffer(total.to_bytes(), np.uint8) if total.frames else None  # Ray does not copy arrays
    return Part(data, average.heads, average.skipped)


def _in_worker(*arguments: Any) -> Part:
    """`sum_part` on one thread, since each processor has a worker."""
    os.environ.setdefault("FEDMRN_THREADS", "1")
    return sum_part(*arguments)


def _is_in_files(part: WeightedFrames) -> bool:
    """Whether a worker can read all frames of a part, since none of them comes from stdin or a pipe."""
    return not any(source.is_stream for source, _ in part)


def _listed(part: WeightedFrames) -> list[tuple[str, str, int]]:
    """The frames of a part as `sum_part` takes them."""
    return [(source.path, os.path.abspath(source.path), weight) for source, weight in part]

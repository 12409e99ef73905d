"""The work of `fedmrn aggregate --engine ray`: the frames in parts, each summed by some process, merged here.

Sums are exact, so that it does not matter which process adds which frame, nor how often a part is begun.
Parts are merged in the order of the frames, which decides what is refused. Whatever is unusual about a part,
a refused frame or noise that the parts before it do not have, is left to the local engine: it adds the part's
frames once more, one after the other, and says what there is to say.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import errors
from ..cluster.ray import ClusterError, connected
from ..face.aggregation import Aggregator
from ..format.parsing import Expected
from ..primitives.noise import Noise
from .averaging import Average, Head, Source
from .problems import FileProblem

RETRIES = 3
"""How often a part is begun again after the death of its process or machine."""

LEAST, MOST = 16, 1024
"""Frames of a part: a sum is as long as 64 raw frames, and what dies is done again."""

AHEAD = 2
"""Parts a processor that are asked for before they are merged."""

Weighed = tuple[Source, int]


class Part(NamedTuple):
    """What a worker gives back; `total` is a partial sum, None where every frame was refused."""

    total: np.ndarray | None
    heads: list[Head]
    skipped: list[dict[str, Any]]
    unreadable: tuple[str, str] | None = None


@dataclass
class Distributed(Average):
    """Adds up sources over a Ray cluster; the same sum, the same problems and notes as `Average`.

    Memory here: the sum and one part's, and `AHEAD` parts a processor in Ray's store.

    Parameters
    ----------
    address : str, optional
        As `cluster.connected`.
    """

    address: str | None = None

    def add(self, total: Aggregator, frames: Sequence[Weighed], backend: str | None) -> None:
        """Add frames with their weights, a part after the other.

        Raises
        ------
        ClusterError
            The cluster cannot be reached, or a part fails again and again.
        FileProblem
            A worker cannot read a file.
        """
        if not frames:
            return
        with connected(self.address, "--engine ray") as ray:
            for part, result in self._parts(ray, total.expected, frames, backend):
                if result is None or not self._merged(total, result, backend):
                    super().add(total, part, backend)

    def _parts(
        self, ray: Any, expected: Expected, frames: Sequence[Weighed], backend: str | None
    ) -> Iterator[tuple[Sequence[Weighed], Part | None]]:
        """The parts in order, each with its result; None for one that holds a stream."""
        work = ray.remote(max_retries=RETRIES)(_in_worker)
        processors = max(1, int(ray.cluster_resources().get("CPU", 1)))
        size = min(max(-(-len(frames) // (4 * processors)), LEAST), MOST)
        waiting: deque[tuple[Sequence[Weighed], Any]] = deque()
        for begin in range(0, len(frames), size):
            part = frames[begin : begin + size]
            if any(source.is_stream for source, _ in part):
                waiting.append((part, None))
            else:
                listed = [(source.path, os.path.abspath(source.path), weight) for source, weight in part]
                waiting.append((part, work.remote(expected, self.noise, listed, backend)))
            if len(waiting) > AHEAD * processors:
                yield _first(ray, waiting)
        while waiting:
            yield _first(ray, waiting)

    def _merged(self, total: Aggregator, result: Part, backend: str | None) -> bool:
        """Take a part's result over; False, and nothing has changed, if the local engine is to decide."""
        if result.skipped and not self.skip_bad:
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
    """Sum some frames, in a worker; refused ones are left out and listed.

    Parameters
    ----------
    expected : Expected
        With the schema.
    noise : Noise, optional
    frames : sequence of (str, str, int)
        The path as the user wrote it, the absolute path, and the weight.
    backend : str, optional
    """
    assert expected.schema is not None
    average = Average(expected, noise, skip_bad=True, backend=backend)
    total = average.start(expected.schema, backend, Expected())
    for path, place, weight in frames:
        try:
            average.add(total, [(Source(path, place), weight)], backend)
        except FileProblem as problem:
            unreadable = path, f"{problem} (on the worker {socket.gethostname()})"
            return Part(None, [], average.skipped, unreadable)
    data = np.frombuffer(total.to_bytes(), np.uint8) if total.frames else None  # an array is not copied again
    return Part(data, average.heads, average.skipped)


def _in_worker(*arguments: Any) -> Part:
    """`sum_part` on one thread, for there is a worker for each processor."""
    os.environ.setdefault("FEDMRN_THREADS", "1")
    return sum_part(*arguments)


def _first(ray: Any, waiting: deque[tuple[Sequence[Weighed], Any]]) -> tuple[Sequence[Weighed], Part | None]:
    """The result of the part that has waited longest."""
    part, asked = waiting.popleft()
    if asked is None:
        return part, None
    try:
        return part, ray.get(asked)
    except ray.exceptions.RayTaskError as error:
        raise _problem_of(error.cause) from error
    except ray.exceptions.RayError as error:
        begin = part[0][0].path
        reason = f"{type(error).__name__}, after up to {RETRIES} retries"
        raise ClusterError(f"the sum of {len(part)} frames from {begin} on: {reason}") from error


def _problem_of(cause: Exception) -> Exception:
    """What a worker raised: as the local engine would, or else as a problem of the cluster."""
    if isinstance(cause, errors.CodecError):
        return cause
    reason = (str(cause).strip() or "no reason given").splitlines()[0]
    return ClusterError(f"a worker failed: {type(cause).__name__}: {reason}")

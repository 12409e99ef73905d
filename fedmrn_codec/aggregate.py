"""The exact weighted mean of many frames (spec 8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backends, errors, frame, partial
from .arguments import masked_noise
from .decoding import open_frame
from .frame import Expected, Info
from .limits import DEFAULT_LIMITS, Limits
from .mask import KINDS
from .noise import Noise
from .schema import Schema, Tensor
from .sums import MAX_WEIGHT, Sums

if TYPE_CHECKING:
    from typing_extensions import Buffer


_END = object()


class Aggregator:
    """Adds up frames of one schema and gives their weighted mean, the same bits in any order (spec 8).

    Memory: 10 bytes a masked element, a few times 8 a dense one, whatever the number of frames. Frames are
    summed in groups: over a block of elements all those of a group, before the next block.

    Parameters
    ----------
    schema : Schema
    noise : Noise or mapping of str to Noise, optional
        Of all masked tensors, or of each by name; frames with another distribution or scale are refused. By
        default the first frame decides; a server that does not trust its clients should say.
    round, base_model : int, optional
        Refuse frames with another value. 0 and None ask nothing.
    limits : Limits
    backend : {"numba", "numpy"}, optional
        The bits do not depend on it.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        noise: Noise | Mapping[str, Noise] | None = None,
        round: int | None = None,
        base_model: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        backend: str | None = None,
    ) -> None:
        self.schema, self.limits = schema, limits
        self.expected = Expected(schema, round or None, base_model or None)
        self.weight = 0
        self.frames = 0
        self._backend, self._backend_name = backends.get(backend), backend
        self._sums = Sums(schema, {} if noise is None else masked_noise(schema, noise))

    def add(self, data: Buffer, weight: int, *, seed: int | None = None) -> Info:
        """Add a frame. One that is refused changes nothing.

        Parameters
        ----------
        data : bytes-like
        weight : int
            Positive; the client's number of samples, [A-01].
        seed : int, optional
            Refuse a frame with another seed.

        Returns
        -------
        Info
            What the frame says of itself.

        Raises
        ------
        FrameError
            As `fedmrn_codec.decode`; or the noise is not the aggregator's, [A-02].
        AggregateError
            The weight is no positive integer, or the sum of weights would pass 2^39 - 1.
        """
        weight = self._checked_weight(weight)
        expected = Expected(self.schema, self.expected.round, self.expected.base_model, seed)
        view, info, tensors = open_frame(data, expected, self.limits)
        contents = [frame.payload(view, info, stream, self._backend_name) for stream in range(len(tensors))]
        for stream, state in self._sums.masked.items():
            _check_noise(tensors[stream], state.noise, info.tensors[stream].noise)
        for stream, state in self._sums.masked.items():
            entry = info.tensors[stream]
            state.noise = entry.noise
            state.add(self._backend, stream, KINDS[entry.kind], info.seed, contents[stream], weight)
        self._sums.dense.add(contents, weight)
        self.weight += weight
        self.frames += 1
        return info

    def add_many(
        self, frames: Iterable[Buffer], weights: Iterable[int], *, seeds: Iterable[int] | None = None
    ) -> None:
        """Add frames, all of them or none: a refused one in their midst changes nothing.

        The frames are taken one at a time, and none is kept: mapped files and generators do well. Until the
        last one has passed, their sum is one of its own, of 10 bytes a masked element more where there are
        frames already.

        Parameters
        ----------
        frames : iterable of bytes-like
        weights : iterable of int
            One for each frame, as in `add`.
        seeds : iterable of int, optional
            One for each frame: refuse it with another seed.

        Raises
        ------
        FrameError, AggregateError
            As in `add`. The field of the message names the frame, counted from 0, and so does the error's
            `index`.
        AggregateError
            There are not as many weights, or seeds, as frames.
        """
        batch = self._like()
        for index, (data, weight, seed) in enumerate(_together(frames, weights, seeds)):
            try:
                batch.add(data, weight, seed=seed)
            except errors.CodecError as error:
                raise error.of_frame(index) from error
        if self.frames:
            self.merge(batch)
        elif batch.frames:
            self._sums, self.weight, self.frames = batch._sums, batch.weight, batch.frames

    def merge(self, other: Aggregator) -> None:
        """Add what another aggregator has summed; `other` stays as it is.

        Raises
        ------
        AggregateError
            The two have different schemas, rounds or base models, or too much weight together.
        FrameError
            The two have different noise, [A-02].
        """
        if not isinstance(other, Aggregator):
            raise errors.AggregateError("merge", type(other).__name__, "required: Aggregator")
        if other.expected != self.expected:
            raise errors.AggregateError(
                "merge", "another schema, round or base model", "required: the same on both sides"
            )
        if other.frames == 0:
            return
        self._checked_weight(other.weight)
        for stream, mine in self._sums.masked.items():
            _check_noise(self.schema.tensors[stream], mine.noise, other._sums.masked[stream].noise)
        for aggregator in (self, other):
            aggregator._sums.rest(aggregator._backend)
        self._sums.merge(other._sums)
        self.weight += other.weight
        self.frames += other.frames

    def mean(self) -> dict[str, np.ndarray]:
        """The weighted mean of the frames so far, by name, in schema order; shapes and dtypes as `decode`.

        Raises
        ------
        AggregateError
            No frame has been added.
        """
        self._need_frames()
        self._sums.rest(self._backend)
        means = self._sums.means(self.weight)
        return {t.name: means[stream].reshape(t.shape) for stream, t in enumerate(self.schema)}

    def to_bytes(self) -> bytes:
        """What has been summed so far, as a partial sum (spec 8.5).

        Raises
        ------
        AggregateError
            No frame has been added.
        """
        self._need_frames()
        self._sums.rest(self._backend)
        pins = self.expected
        return partial.build(
            self.schema, self._sums, self.weight, self.frames, pins.round or 0, pins.base_model or 0
        )

    @classmethod
    def from_bytes(
        cls, data: Buffer, schema: Schema, *, limits: Limits = DEFAULT_LIMITS, backend: str | None = None
    ) -> Aggregator:
        """An aggregator that goes on from a partial sum (spec 8.5).

        Raises
        ------
        FrameError
            The subclass of the first of [P-01] to [P-15] that fails.
        """
        header, sums = partial.parse(data, schema)
        out = cls(schema, round=header.round, base_model=header.base_model, limits=limits, backend=backend)
        out._sums, out.weight, out.frames = sums, header.weight, header.frames
        return out

    def _checked_weight(self, weight: int) -> int:
        try:
            number = weight.__index__()
        except AttributeError:
            raise errors.AggregateError("weight", repr(weight), "required: a positive integer") from None
        if number < 1 or isinstance(weight, bool):
            raise errors.AggregateError("weight", repr(weight), "required: a positive integer")
        if self.weight + number > MAX_WEIGHT:
            raise errors.AggregateError("sum of weights", self.weight + number, "the limit is 2^39 - 1")
        return number

    def _like(self) -> Aggregator:
        """An empty one that asks the same of frames."""
        pins, name = self.expected, self._backend_name
        out = Aggregator(
            self.schema, round=pins.round, base_model=pins.base_model, limits=self.limits, backend=name
        )
        for stream, state in self._sums.masked.items():
            out._sums.masked[stream].noise = state.noise
        return out

    def _need_frames(self) -> None:
        if not self.frames:
            raise errors.AggregateError("frames", 0, "required: at least 1")


def _check_noise(tensor: Tensor, mine: Noise | None, its: Noise | None) -> None:
    """[A-02]."""
    if mine is not None and mine != its:
        raise errors.NoiseError(f"noise of {tensor.name!r}", its, f"required: {mine}")


def _together(
    frames: Iterable[Buffer], weights: Iterable[int], seeds: Iterable[int] | None
) -> Iterator[tuple[Buffer, int, int | None]]:
    """Each frame with its weight, and its seed or None."""
    given: dict[str, Iterable[Any]] = {"frames": frames, "weights": weights}
    if seeds is not None:
        given["seeds"] = seeds
    for index, row in enumerate(zip_longest(*given.values(), fillvalue=_END)):
        for name, item in zip(given, row, strict=True):
            if item is _END:
                raise errors.AggregateError(name, index, f"required: as many {' as '.join(given)}")
        yield row if seeds is not None else (*row, None)

"""The exact weighted mean of many frames (spec 8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .. import backends, errors
from ..format.checked import CheckedFrame
from ..format.frame import Buffer
from ..format.limits import DEFAULT_LIMITS, Limits, checked_limits
from ..format.mask_spec import MaskSpec, MaskValue, Source, mask_specs, masked_noise
from ..format.parsing import Expected
from ..format.schema import Schema, Tensor
from ..primitives.arguments import U64, given, positive_weight, unsigned
from ..primitives.grid import Grid
from ..primitives.noise import Noise
from ..sums import partial
from ..sums.state import MAX_WEIGHT, Sums, noise_of
from ..sums.statistics import MaskStatistics, statistics_of
from .arrays import checked_arrays, packed_bits
from .changing import Changing
from .many import together
from .tally import Tally


class Aggregator(Changing):
    """The exact weighted mean of frames of one schema: the same bits in any order and grouping (spec 8).

    Memory: about 10 bytes per masked element, and 8 bytes per dense element and limb in use (spec 8.4),
    independent of the number of frames. A float64 tensor can use 88 limbs; one frame makes it take at most
    some 10 times its bytes. Several threads may use one aggregator; they take turns.

    A refused frame changes nothing. If something else stops a change of the sums half-way, such as a lack of
    memory or an interrupt, every later call raises AggregateError: there is no mean of half-added frames.

    Parameters
    ----------
    schema : Schema
    noise : Noise or mapping of str to Noise, optional
        Of all masked tensors, or of each by name; frames with another distribution or scale are refused. By
        default it is that of the first frame; a server that does not trust its clients should state it.
    round, base_model : int, optional
        Refuse frames with another value. 0 and None mean "not given": any value is accepted.
    limits : Limits
    backend : {"numba", "numpy", "torch", "onnx"}, optional
        Default: numba if it is installed, but numpy for the first elements. The bits do not depend on it.

    Attributes
    ----------
    weight, frames : int
        The sum of the weights, and the number of frames, that have been added.
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
        super().__init__()
        self.schema, self.limits = schema, checked_limits(limits)
        self.expected = Expected(schema, given(round), given(base_model))
        self.weight = 0
        self.frames = 0
        self._backend, self._backend_name = backends.get(backend), backend
        self._sums = Sums(schema, {} if noise is None else masked_noise(schema, noise))

    def add(self, data: Buffer | CheckedFrame, weight: int, *, seed: int | None = None) -> CheckedFrame:
        """Add a frame. A refused frame changes nothing.

        Parameters
        ----------
        data : bytes-like or CheckedFrame
            A checked frame is compared with the expected values; no other check is repeated.
        weight : int
            Positive, usually the client's number of samples, [A-01].
        seed : int, optional
            Refuse a frame with another seed.

        Returns
        -------
        CheckedFrame
            The frame's header and table.

        Raises
        ------
        FrameError
            As in `decode`; or the noise is not the aggregator's, [A-02].
        AggregateError
            The weight is no positive integer, or the sum of weights would exceed 2^39 - 1.
        """
        self._checked_weight(weight)
        expected = Expected(self.schema, self.expected.round, self.expected.base_model, seed)
        checked = CheckedFrame.open(data, expected, self.limits)
        contents = checked.payloads(self._backend_name)
        sources: dict[int, Source] = {}
        for stream, (tensor, entry) in enumerate(zip(self.schema, checked.tensors, strict=True)):
            if entry.noise is not None:
                sources[stream] = MaskSpec(entry.noise, entry.mask_kind)
            elif entry.step is not None and tensor.masked:
                sources[stream] = Grid(entry.step)
            elif entry.step is not None:
                contents[stream] = checked.elements(stream, self._backend_name)
        self._add(sources, checked.seed, contents, weight)
        return checked

    def add_arrays(
        self,
        arrays: Mapping[str, Any],
        weight: int,
        *,
        bits: Mapping[str, Any] | None = None,
        seed: int | None = None,
        noise: Noise | Mapping[str, Noise] | None = None,
        mask: MaskValue | Mapping[str, MaskValue] = "binary",
    ) -> None:
        """Add an update given as arrays, for servers that hold the arrays; no frame is made.

        The sums are those of adding the frame that `encode_bits` makes of the same arguments. Refused
        arguments change nothing.

        Parameters
        ----------
        arrays : mapping of str to array
            One for each dense tensor, of its shape and dtype, as in `encode`.
        weight : int
            As in `add`.
        bits : mapping of str to array of bool
            One for each masked tensor, of its shape: True keeps the noise. Required if the schema has any.
        seed : int, optional
            Of the noise; unsigned 64-bit. Required if the schema has masked tensors.
        noise : Noise, or mapping of str to Noise
            Default: the aggregator's, stated by its caller or by the first frame.
        mask : {"binary", "signed"} or MaskKind, or mapping of str to one of them

        Raises
        ------
        UpdateError
            An array is missing, unknown, of another shape or dtype, or holds a NaN or an infinity, [E-02].
        ArgumentError
            The seed or the noise is missing or out of range, or the mask kind is unknown.
        FrameError
            The noise is not the aggregator's, [A-02].
        AggregateError
            As in `add`.
        """
        self._checked_weight(weight)
        parts = checked_arrays(arrays, self.schema, dense_only=True) | packed_bits(bits or {}, self.schema)
        sources: dict[int, Source] = {}
        if self._sums.masked:
            if seed is None:
                raise errors.ArgumentError("seed", "the seed of the masked tensors' noise", None)
            by_name = mask_specs(self.schema, self._own_noise() if noise is None else noise, mask)
            sources = {stream: by_name[self.schema.tensors[stream].name] for stream in self._sums.masked}
        contents = [parts[tensor.name] for tensor in self.schema]
        self._add(sources, unsigned(seed or 0, U64, "seed"), contents, weight)

    def add_many(
        self,
        frames: Iterable[Buffer | CheckedFrame],
        weights: Iterable[int],
        *,
        seeds: Iterable[int] | None = None,
    ) -> None:
        """Add all of these frames, or none of them: if one is refused, nothing changes.

        The frames are read one at a time and not kept, so memory-mapped files and generators may be given.
        They are summed apart until the last one has been accepted, which takes as much memory again.

        Parameters
        ----------
        frames : iterable of bytes-like or CheckedFrame
        weights : iterable of int
            One for each frame, as in `add`.
        seeds : iterable of int, optional
            One for each frame: refuse a frame with another seed.

        Raises
        ------
        FrameError, AggregateError
            As in `add`. The message and the error's `index` identify the frame, counted from 0.
        AggregateError
            The numbers of frames, weights and seeds differ.
        """
        batch = self._like()
        for index, (data, weight, seed) in enumerate(together(frames, weights, seeds)):
            try:
                batch.add(data, weight, seed=seed)
            except errors.CodecError as error:
                raise error.of_frame(index) from error
        with self._lock:
            if self.frames:
                self.merge(batch)
            elif batch.frames:
                with self._changing():
                    self._sums, self.weight, self.frames = batch._sums, batch.weight, batch.frames

    def merge(self, other: Aggregator) -> None:
        """Add the sums of another aggregator, which does not change.

        Raises
        ------
        AggregateError
            `other` is no Aggregator, its schema, round or base model differs, or the sum of weights would
            exceed 2^39 - 1.
        FrameError
            The noise of the two differs, [A-02].
        """
        if not isinstance(other, Aggregator):
            raise errors.AggregateError("merge", "an Aggregator", type(other).__name__)
        if other.expected != self.expected:
            expected = "an aggregator of the same schema, round and base model"
            raise errors.AggregateError("merge", expected, "one that differs")
        with self._locked_with(other):
            if other.frames == 0:
                return
            self._checked_weight(other.weight)
            for stream, mine in self._sums.masked.items():
                _check_noise(self.schema.tensors[stream], mine.noise, other._sums.masked[stream].noise)
            other._release()
            self._release()
            with self._changing():
                self._sums.merge(other._sums)
                self.weight += other.weight
                self.frames += other.frames

    def add_tally(self, tally: Buffer | Tally, *, seed: int | None = None) -> Tally:
        """Add the frames of a tally, each with the tally's weight (spec 8.6). A refused one changes nothing.

        The sums, the mean and the statistics are those of adding the frames one by one, to the bit.

        Parameters
        ----------
        tally : bytes-like or Tally
            It does not change.
        seed : int, optional
            Refuse a tally with another seed.

        Returns
        -------
        Tally

        Raises
        ------
        FrameError
            As in `Tally.from_bytes`; or the noise is not the aggregator's, [A-02].
        AggregateError
            The round or the base model is not the aggregator's, or the sum of weights would exceed 2^39 - 1.
        """
        if not isinstance(tally, Tally):
            tally = Tally.from_bytes(
                tally, self.schema, seed=seed, limits=self.limits, backend=self._backend_name
            )
        with self._locked_with(tally):
            if seed is not None and tally.seed not in (None, seed):
                raise errors.SeedError("seed of the tally", seed, tally.seed)
            if tally.expected != self.expected:
                expected = "one of the same schema, round and base model"
                raise errors.AggregateError("tally", expected, "one that differs")
            if tally.frames:
                self._add_tally(tally)
        return tally

    def mean(self) -> dict[str, np.ndarray]:
        """The weighted mean of the added frames, by name, in schema order; shapes and dtypes as in `decode`.

        Raises
        ------
        AggregateError
            No frame has been added.
        FrameError
            A mean is outside the range of its dtype, which only a forged partial sum can cause, [A-07].
        """
        with self._lock:
            self._need_frames()
            self._release()
            means = self._sums.means(self._backend, self.weight)
        return {t.name: means[stream].reshape(t.shape) for stream, t in enumerate(self.schema)}

    def statistics(self) -> dict[str, MaskStatistics]:
        """What the added masks show of each masked tensor, by name, for a rule that sets the noise.

        Tensors that were sent on a grid are left out.

        Raises
        ------
        AggregateError
            No frame has been added, or a part of the sums comes from `from_bytes`, which has no counts.
        """
        with self._lock:
            self._need_frames()
            self._release()
            squares = self._sums.square_weights
            if squares is None:
                raise errors.AggregateError("statistics", "frames that were added here", "a partial sum")
            share = squares / self.weight**2
            return {
                self.schema.tensors[stream].name: statistics_of(state, self.weight, share)
                for stream, state in self._sums.masked.items()
                if isinstance(state.noise, Noise)
            }

    def to_bytes(self) -> bytes:
        """The sums of the added frames as bytes, a partial sum (spec 8.5), for `from_bytes`.

        Raises
        ------
        AggregateError
            No frame has been added.
        """
        with self._lock:
            self._need_frames()
            self._release()
            round, base_model = self.expected.round or 0, self.expected.base_model or 0
            return partial.build(self.schema, self._sums, self.weight, self.frames, round, base_model)

    @classmethod
    def from_bytes(
        cls, data: Buffer, schema: Schema, *, limits: Limits = DEFAULT_LIMITS, backend: str | None = None
    ) -> Aggregator:
        """An aggregator that holds the sums, round and base model of a partial sum (spec 8.5).

        Raises
        ------
        FrameError
            One of [P-01] to [P-16] fails; the first one that fails determines the subclass.
        """
        header, sums = partial.parse(data, schema)
        out = cls(schema, round=header.round, base_model=header.base_model, limits=limits, backend=backend)
        out._sums, out.weight, out.frames = sums, header.weight, header.frames
        return out

    def _checked_weight(self, weight: int) -> int:
        number = positive_weight(weight)
        if self.weight + number > MAX_WEIGHT:
            raise errors.AggregateError("sum of weights", "at most 2^39 - 1", self.weight + number)
        return number

    def _add(self, sources: Mapping[int, Source], seed: int, contents: list[np.ndarray], weight: int) -> None:
        """Add checked contents in schema order, as `Sums.add` takes them."""
        with self._lock:
            number = self._checked_weight(weight)
            for stream, state in self._sums.masked.items():
                _check_noise(self.schema.tensors[stream], state.noise, noise_of(sources[stream]))
            self._sums.reserve(sources, contents)
            with self._changing():
                self._sums.add(self._backend, sources, seed, contents, number)
                self.weight += number
                self.frames += 1

    def _add_tally(self, tally: Tally) -> None:
        """Add a tally of at least one frame, with both locks held."""
        number, sums = self._checked_weight(tally.frames * tally.weight), tally._sums
        for stream, state in self._sums.masked.items():
            _check_noise(self.schema.tensors[stream], state.noise, sums.masked[stream].noise)
        assert tally.seed is not None
        tally._release()
        with self._changing():
            self._sums.add_tally(
                self._backend, sums.masked, sums.dense, tally.seed, tally.frames, tally.weight
            )
            self.weight += number
            self.frames += tally.frames

    def _own_noise(self) -> dict[str, Noise]:
        """The noise of each masked tensor by name, stated by the caller or by the first frame."""
        noise = {self.schema.tensors[stream].name: state.noise for stream, state in self._sums.masked.items()}
        if missing := [name for name, its_noise in noise.items() if not isinstance(its_noise, Noise)]:
            raise errors.ArgumentError("noise", "one for each masked tensor", f"nothing for {missing}")
        return {name: its_noise for name, its_noise in noise.items() if isinstance(its_noise, Noise)}

    def _like(self) -> Aggregator:
        """An empty aggregator with the same expected values, noise, limits and backend."""
        out = Aggregator(
            self.schema,
            round=self.expected.round,
            base_model=self.expected.base_model,
            limits=self.limits,
            backend=self._backend_name,
        )
        for stream, state in self._sums.masked.items():
            out._sums.masked[stream].noise = state.noise
        return out

    def _release(self) -> None:
        """Add what waits in batches to the sums."""
        with self._changing():
            self._sums.release(self._backend)

    def _need_frames(self) -> None:
        self._check_sound()
        if not self.frames:
            raise errors.AggregateError("frames", "at least 1", 0)


def _check_noise(tensor: Tensor, expected: Noise | Grid | None, got: Noise | Grid | None) -> None:
    """Check a tensor's noise, or the step of its grid, [A-02]."""
    if expected not in (None, got):
        raise errors.NoiseError(f"noise of {tensor.name!r}", expected, got)

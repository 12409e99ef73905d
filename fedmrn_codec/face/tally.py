"""Counts of the set bits of frames that share one seed (spec 8.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import backends, errors
from ..format import codings
from ..format.checked import CheckedFrame
from ..format.codings import CodingValue
from ..format.frame import Buffer
from ..format.limits import DEFAULT_LIMITS, Limits, checked_limits
from ..format.mask_spec import MaskValue, mask_specs, masked_noise, masked_values
from ..format.parsing import Expected
from ..format.schema import Schema
from ..primitives.arguments import U64, given, positive_weight, unsigned
from ..primitives.codes import MaskKind
from ..primitives.noise import Noise
from ..sums import tally_bytes
from ..sums.state import MAX_WEIGHT
from ..sums.tally_state import MAX_FRAMES, TallySums
from .changing import Changing
from .tally_arguments import DenseTotals, checked_counts, dense_limbs


class Tally(Changing):
    """The sum of frames of one seed, as counts of their set bits (spec 8.6), for `Aggregator.add_tally`.

    All frames have the same schema, seed, round and base model, each masked tensor the same noise and mask
    kind in all of them, and all have one weight. n frames take as many bits an element as n has, where a
    partial sum takes 64, and adding a tally to an aggregator takes the time of adding one frame.

    Memory: 1 byte per masked element up to 255 frames, 2 up to 65,535, then 4; and 8 bytes per dense element
    and limb in use (spec 8.4). Several threads may use one tally; they take turns. A refused frame changes
    nothing. If something else stops a change half-way, every later call raises AggregateError.

    Parameters
    ----------
    schema : Schema
    seed : int, optional
        Refuse frames with another seed. By default it is that of the first frame.
    noise : Noise or mapping of str to Noise, optional
        Of all masked tensors, or of each by name; by default that of the first frame.
    mask : {"binary", "signed"} or MaskKind, or mapping of str to one of them, optional
        As `noise`.
    weight : int
        That of each frame: positive, at most 2^39 - 1 times the number of frames, [A-08].
    round, base_model : int, optional
        Refuse frames with another value. 0 and None mean "not given": then it is that of the first frame,
        and the tally's bytes have 0.
    limits : Limits
    backend : {"numba", "numpy", "torch", "onnx"}, optional
        As in `Aggregator`.

    Attributes
    ----------
    frames : int
        The number of frames that have been added.
    weight : int
        That of each frame.
    seed : int or None
        None before the first frame if none was stated.

    Raises
    ------
    ArgumentError
        An argument is out of range, or names tensors that are not the masked ones.
    AggregateError
        The weight is no positive integer, or exceeds 2^39 - 1.
    """

    _name = "tally"

    def __init__(
        self,
        schema: Schema,
        *,
        seed: int | None = None,
        noise: Noise | Mapping[str, Noise] | None = None,
        mask: MaskValue | Mapping[str, MaskValue] | None = None,
        weight: int = 1,
        round: int | None = None,
        base_model: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.schema, self.limits = schema, checked_limits(limits)
        self.expected = Expected(schema, given(round), given(base_model))
        self.frames, self.weight = 0, positive_weight(weight)
        self.seed = None if seed is None else unsigned(seed, U64, "seed")
        self._stated_seed, self._backend_name = self.seed, backend
        backends.get(backend)
        kinds = {} if mask is None else masked_values(schema, mask, "mask")
        self._sums = TallySums(
            schema,
            {} if noise is None else masked_noise(schema, noise),
            {name: MaskKind.of(kind, "mask") for name, kind in kinds.items()},
        )
        self._place: tuple[int, int] | None = None  # round and base model of the first frame
        if self.weight > MAX_WEIGHT:
            raise errors.AggregateError("weight", "at most 2^39 - 1", self.weight)

    def add(self, frame: Buffer | CheckedFrame) -> CheckedFrame:
        """Add a frame. A refused frame changes nothing.

        Parameters
        ----------
        frame : bytes-like or CheckedFrame
            A checked frame is compared with the expected values; no other check is repeated.

        Returns
        -------
        CheckedFrame
            The frame's header and table.

        Raises
        ------
        AggregateError
            The tally would have more than 2^24 - 1 frames, or a sum of weights over 2^39 - 1, [A-08].
        FrameError
            As in `decode`; or the code is "aggregate": the frame has another seed, round or base model than
            those before it, another noise or mask kind, or a masked tensor on a grid, [A-08].
        """
        self._check_room(1)
        expected = Expected(self.schema, self.expected.round, self.expected.base_model, self._stated_seed)
        checked = CheckedFrame.open(frame, expected, self.limits)
        contents = checked.payloads(self._backend_name)
        for stream, entry in enumerate(checked.tensors):
            if entry.step is not None:
                contents[stream] = checked.elements(stream, self._backend_name)
        with self._lock:
            self._check_sound()
            self._check_room(1)
            specs = self._specs_of(checked)
            self._sums.reserve(self.frames + 1)
            with self._changing():
                self._sums.add(specs, contents)
                self.seed, self._place = checked.seed, (checked.round, checked.base_model)
                self.frames += 1
        return checked

    def merge(self, other: Tally) -> None:
        """Add the counts of another tally, which does not change.

        Raises
        ------
        AggregateError
            `other` is no Tally; its schema, seed, weight, round, base model, noise or mask kinds differ; or
            both have more than 2^24 - 1 frames together, or a sum of weights over 2^39 - 1, [A-09].
        """
        if not isinstance(other, Tally):
            raise errors.AggregateError("merge", "a Tally", type(other).__name__)
        with self._locked_with(other):
            if other.expected != self.expected:
                expected = "a tally of the same schema, round and base model"
                raise errors.AggregateError("merge", expected, "one that differs")
            if other.weight != self.weight:
                raise errors.AggregateError("weight", self.weight, other.weight)
            if other.frames == 0:
                return
            self._check_sound()
            self._check_room(other.frames)
            if self.seed not in (None, other.seed):
                raise errors.AggregateError("seed", self.seed, other.seed)
            for stream, mine in self._sums.masked.items():
                its, name = other._sums.masked[stream], repr(self.schema.tensors[stream].name)
                for what, want, got in (("noise", mine.noise, its.noise), ("mask kind", mine.kind, its.kind)):
                    if want not in (None, got):
                        raise errors.AggregateError(f"{what} of {name}", want, got)
            other._release()
            self._release()
            self._sums.reserve(self.frames + other.frames)
            with self._changing():
                self._sums.merge(other._sums)
                self.seed, self._place = other.seed, self._place or other._place
                self.frames += other.frames

    def counts(self) -> dict[str, np.ndarray]:
        """The number of frames, for each element of each masked tensor, whose bit is set.

        Returns
        -------
        dict of str to numpy.ndarray of uint8, uint16 or uint32
            A copy, of the tensor's shape, by name in schema order.
        """
        with self._lock:
            self._check_sound()
            tensors = self.schema.tensors
            return {
                tensors[stream].name: state.counts.reshape(tensors[stream].shape).copy()
                for stream, state in self._sums.masked.items()
            }

    def to_bytes(self, coding: CodingValue = "raw") -> bytes:
        """The tally as bytes (spec 8.6), for `from_bytes` and `Aggregator.add_tally`.

        Parameters
        ----------
        coding : {"raw", "rans14"} or Coding
            "rans14" entropy-codes the counts of the tensors where that is shorter (spec 6.14).

        Raises
        ------
        AggregateError
            No frame has been added.
        ArgumentError
            The coding is unknown.
        """
        chosen = codings.checked(coding, "coding", codings.GRIDS)
        with self._lock:
            self._check_sound()
            if not self.frames:
                raise errors.AggregateError("frames", "at least 1", 0)
            self._release()
            assert self.seed is not None
            return tally_bytes.build(
                self.schema,
                self._sums,
                seed=self.seed,
                base_model=self.expected.base_model or 0,
                round=self.expected.round or 0,
                weight=self.weight,
                frames=self.frames,
                coding=chosen,
                backend=self._backend_name,
            )

    @classmethod
    def from_bytes(
        cls,
        data: Buffer,
        schema: Schema,
        *,
        seed: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        backend: str | None = None,
    ) -> Tally:
        """The tally that bytes hold (spec 8.6). `seed`: refuse a tally with another one, [T-09].

        Raises
        ------
        FrameError
            One of [T-01] to [T-20] and [C-10] to [C-14] fails; the first determines the subclass.
        """
        wanted = None if seed is None else unsigned(seed, U64, "seed")
        header, sums = tally_bytes.parse(data, schema, wanted, backend)
        out = cls(
            schema,
            seed=header.seed,
            weight=header.weight,
            round=header.round,
            base_model=header.base_model,
            limits=limits,
            backend=backend,
        )
        out._sums, out.frames, out._stated_seed = sums, header.frames, wanted
        return out

    @classmethod
    def from_counts(
        cls,
        schema: Schema,
        counts: Mapping[str, Any],
        frames: int,
        *,
        seed: int,
        noise: Noise | Mapping[str, Noise],
        mask: MaskValue | Mapping[str, MaskValue] = "signed",
        weight: int = 1,
        dense: Mapping[str, DenseTotals] | None = None,
        round: int | None = None,
        base_model: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        backend: str | None = None,
    ) -> Tally:
        """A tally of counts that were summed elsewhere, for servers that see sums alone.

        Its dense sums have the value that is given, so the mean is that of the frames to the bit. Their
        limbs, and so the bytes, may differ from those of a tally that has seen the frames (spec 8.4).

        Parameters
        ----------
        counts : mapping of str to array of integers
            One for each masked tensor, of its shape: 0 to `frames`.
        frames : int
            1 to 2^24 - 1.
        seed, noise, mask, weight, round, base_model, limits, backend
            As in `Tally`; `noise` and `mask` as in `encode`.
        dense : mapping of str to array, or to (array, float)
            One for each dense tensor. Of integers and bools, the sum over the frames: integers of the
            tensor's shape; as Python integers (dtype object) where 64 bits do not suffice. Of floats a pair:
            the sum of the integers z of a grid (int64, of the tensor's shape) and its step (spec 6.12).

        Raises
        ------
        UpdateError
            A tensor is missing, a name is unknown, or an array has another shape or no integers.
        ArgumentError
            A count, a sum or a step is out of range, or another argument is.
        AggregateError
            The number of frames or the weight is out of range, [A-08].
        """
        out = cls(
            schema,
            seed=unsigned(seed, U64, "seed"),
            weight=weight,
            round=round,
            base_model=base_model,
            limits=limits,
            backend=backend,
        )
        number = unsigned(frames, MAX_FRAMES + 1, "frames")
        if not number:
            raise errors.AggregateError("frames", "at least 1", 0)
        out._check_room(number)
        specs = mask_specs(schema, noise, mask)
        arrays = checked_counts(counts, schema, number)
        for stream, state in out._sums.masked.items():
            name = schema.tensors[stream].name
            (state.noise, state.kind), state.counts = specs[name], arrays[name]
        for stream, rows in dense_limbs(dense or {}, schema, number).items():
            out._sums.dense.set_rows(stream, rows)
        out.frames = number
        return out

    def _check_room(self, more: int) -> None:
        """Check that so many frames more are within the bounds of a tally."""
        frames = self.frames + more
        if frames > MAX_FRAMES:
            raise errors.AggregateError("frames", "at most 2^24 - 1", frames)
        if frames * self.weight > MAX_WEIGHT:
            raise errors.AggregateError("sum of weights", "at most 2^39 - 1", frames * self.weight)

    def _specs_of(self, checked: CheckedFrame) -> dict[int, tuple[Noise, MaskKind]]:
        """The noise and mask kind of each masked tensor of a frame, compared with those before it, [A-08]."""
        round, base_model = self._place or (checked.round, checked.base_model)
        seed = checked.seed if self.seed is None else self.seed
        for field, want, got in (
            ("seed", seed, checked.seed),
            ("round", round, checked.round),
            ("base_model", base_model, checked.base_model),
        ):
            if want != got:
                raise errors.UnlikeError(field, f"{want}, as in the frames before", got)
        out = {}
        for stream, state in self._sums.masked.items():
            entry, name = checked.tensors[stream], repr(self.schema.tensors[stream].name)
            if entry.noise is None:
                raise errors.UnlikeError(f"kind of {name}", "a mask", entry.kind)
            if state.noise not in (None, entry.noise):
                raise errors.NoiseError(f"noise of {name}", state.noise, entry.noise)
            if state.kind not in (None, entry.mask_kind):
                assert state.kind is not None
                raise errors.UnlikeError(f"mask kind of {name}", state.kind.label, entry.kind)
            out[stream] = entry.noise, entry.mask_kind
        return out

    def _release(self) -> None:
        """Add what waits in batches to the dense sums."""
        with self._changing():
            self._sums.dense.flush()

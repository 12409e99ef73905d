"""The server's model on its way to the clients: exact, and under one bit a parameter (docs/downlink.md)."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Self

import numpy as np

from .. import errors
from ..format.checked import CheckedFrame
from ..format.frame import Buffer
from ..format.limits import DEFAULT_LIMITS, Limits
from ..format.parsing import Expected
from ..format.schema import Schema
from ..primitives.arguments import U64, unsigned
from ..primitives.dtypes import DTYPES, is_finite, widen_bfloat16
from ..primitives.grid import BOUNDS
from . import downlink_state
from .grid_model import GridModel, dtypes_of
from .grids import Steps, checked_steps
from .models import Arrays, check_schema

FIRST, LARGEST, STEP = 1 / 8, 1 / 4, 4.0
"""The step of the first version as a share of the size of the weights (the root of their mean square), the
largest share, and the step of later versions as a multiple of the spread of what a round changes. Steps are
powers of two, which docs/downlink.md says how to round to."""

SMALLEST = -1000
"""An exponent below all bounds."""


class Downlink:
    """What a server keeps to send its model to clients that hold different versions of it (spec 6.12).

    The clients' model is the server's, rounded: every float element is an integer times a step, a power of
    two for each tensor. A frame holds the differences of two versions, and is exact. The server's own model
    is rounded anew in each round; so the error of an element stays below half a step and never adds up.

    Parameters
    ----------
    schema : Schema
    model : mapping of str to array
        The server's model: an array for each tensor of the schema; others are not looked at.
    step : float, or mapping of str to float, optional
        A power of two for all float tensors, or for each by name. Default: chosen for each tensor and each
        round from how much a round changes it. Dense vectors and scalars get the smallest step that holds the
        largest element that they have ever had, which is 23 bits for float32: they are few and sensitive.
        Clients send statistics such as those of BatchNorm anew, whatever they have received, so that an error
        of rounding returns in the server's own model, and a coarse one can make a variance negative.
    first : float, or mapping of str to float, optional
        As `step`, but of the first version only, for a server that goes on from a journal (`Replayed.steps`).
    keep : int
        The number of former versions from which `frame` can lead to the present one. Each takes the memory of
        one frame.
    backend : {"numba", "numpy", "torch", "onnx"}, optional
        As in `encode`.

    Attributes
    ----------
    schema : Schema
    keep : int

    Raises
    ------
    SchemaError
        The model does not fit the schema.
    UpdateError
        An element is a NaN or an infinity, or beyond the largest integer of its dtype.
    ArgumentError
        A step is no power of two, or out of bounds, or missing.
    """

    def __init__(
        self,
        schema: Schema,
        model: Arrays,
        *,
        step: Steps | None = None,
        first: Steps | None = None,
        keep: int = 32,
        backend: str | None = None,
    ) -> None:
        self.schema, self.keep = schema, unsigned(keep, U64, "keep")
        self._backend = backend
        elements = _elements(schema, model)
        dtypes = dtypes_of(schema, model)
        self._fixed = None if step is None else _exponents(step, schema, dtypes)
        exponents = self._fixed if first is None else _exponents(first, schema, dtypes)
        if exponents is None:
            vectors = _vectors(schema)
            wanted = {
                n: SMALLEST if n in vectors else _floor_log2(FIRST * _size(elements[n])) for n in dtypes
            }
            exponents = {n: _bounded(wanted[n], _largest(elements[n]), dtypes[n]) for n in dtypes}
        self._held = GridModel.rounded(schema, dtypes, elements, exponents)
        self._errors = _square_errors(self._held, elements)
        self._history: dict[int, bytes] = {}
        self._frames: dict[int, bytes] = {}

    @property
    def model(self) -> dict[str, np.ndarray]:
        """What clients hold: arrays that must not be written to, by name, in schema order."""
        return self._held.arrays

    @property
    def model_id(self) -> int:
        """The id of `model` (spec 1.7): the `base_model` of the requests and frames of the coming round."""
        return self._held.id

    @property
    def steps(self) -> dict[str, float]:
        """The step of each float tensor of the present version."""
        return {name: 2.0**exponent for name, exponent in self._held.exponents.items()}

    @property
    def versions(self) -> list[int]:
        """The ids of the former versions from which `frame` can lead to the present one, oldest first."""
        return list(self._history)

    def advance(self, model: Arrays) -> int:
        """Begin a new version: round the server's model, which is not changed. On an error nothing changes.

        Parameters
        ----------
        model : mapping of str to array
            The server's own model from before any rounding, plus the mean of the round. `model`, the rounded
            one, plus the mean would lose every change that is smaller than half a step.

        Returns
        -------
        int
            The id of the new version.

        Raises
        ------
        SchemaError, UpdateError
            As in the constructor.
        """
        elements = _elements(self.schema, model)
        if dtypes_of(self.schema, model) != self._held.dtypes:
            raise errors.SchemaError("model", f"the dtypes {dict(self._held.dtypes)}", "others")
        exponents = self._chosen(elements) if self._fixed is None else self._fixed
        new = GridModel.rounded(self.schema, self._held.dtypes, elements, exponents)
        square_errors, kept = _square_errors(new, elements), self._history
        if new.id != self.model_id:
            frame = new.frame_from(self._held, self.model_id, self._backend)
            history = [] if frame is None else [*self._history.items(), (self.model_id, frame)]
            ids = [each for each, _ in history]
            # Of a model that has returned to a former version, the frames up to that version lead no further.
            returned = ids.index(new.id) + 1 if new.id in ids else 0
            kept = dict(history[max(len(history) - self.keep, returned) :])
        # Together, since an interrupt may come between two lines.
        self._history, self._held, self._errors, self._frames = kept, new, square_errors, {}
        return new.id

    def frame(self, have: int | None = None) -> bytes:
        """The frame that leads a client to the present version; computed once for each `have`.

        Several threads may call it, also beside `advance` in another: each frame is that of one version.

        Parameters
        ----------
        have : int, optional
            The id of the version that the client holds. None, 0 or the id of a version that is no longer
            kept: the frame has base model 0, and the whole model.

        Returns
        -------
        bytes
            For `Replica.apply`, or for `decode` and a sum with the model that the client holds.
        """
        held, history, frames = self._held, self._history, self._frames  # those of one version
        known = have or 0
        if known not in (0, held.id) and known not in history:
            known = 0
        if (frame := frames.get(known)) is None:
            frame = self._frame_from(known, held, history) or held.whole_frame(self._backend)
            frames[known] = frame
        return frame

    def to_bytes(self) -> bytes:
        """The state, for a server that may be stopped between two rounds."""
        versions, frames = list(self._history), [self.frame(), *self._history.values()]
        kept = (dict(self._held.dtypes), self.keep, self._fixed, self._errors, versions, frames)
        return downlink_state.pack(downlink_state.State(*kept))

    @classmethod
    def from_bytes(cls, data: bytes, schema: Schema, *, backend: str | None = None) -> Self:
        """The inverse of `to_bytes`.

        Raises
        ------
        ArgumentError
            The bytes are not those of `to_bytes`, or of another version.
        FrameError
            A frame in them is damaged, or of another schema.
        """
        state = downlink_state.unpack(data, schema)
        whole, *frames = state.frames
        out = cls.__new__(cls)
        out.schema, out.keep, out._backend = schema, state.keep, backend
        out._fixed, out._errors = state.fixed, state.errors
        checked = CheckedFrame.open(whole, Expected(schema, base_model=0))
        out._held = GridModel.zeros(schema, state.dtypes).moved(checked, backend)
        for frame in frames:
            CheckedFrame.open(frame, Expected(schema))
        out._history = dict(zip(state.history, frames, strict=True))
        out._frames = {0: whole}
        return out

    def _frame_from(self, known: int, held: GridModel, history: Mapping[int, bytes]) -> bytes | None:
        """The frame from a kept version; None from 0, or if a difference is out of bounds."""
        ids = list(history)
        if known == 0:
            return None
        if ids and known == ids[-1]:
            return history[known]
        base = held
        try:
            for each in reversed(ids[ids.index(known) :] if known in ids else []):
                frame = CheckedFrame.open(history[each], Expected(self.schema))
                base = base.moved(frame, self._backend, -1)
        except errors.GridError:  # an older version lies on no grid that has the present one
            return None
        return held.frame_from(base, known, self._backend)

    def _chosen(self, elements: Mapping[str, np.ndarray]) -> dict[str, int]:
        """The exponents of the next version: from what the round changed, and not without need."""
        changed, vectors = _square_errors(self._held, elements), _vectors(self.schema)
        out = {}
        for name, exponent in self._held.exponents.items():
            wanted, change = exponent, changed[name] - self._errors[name]
            if name not in vectors and change > 0:
                asked = math.log2(STEP * math.sqrt(change))
                wanted = max(math.floor(asked), min(round(asked), exponent))  # up by whole doublings only
                wanted = min(wanted, _nearest_log2(LARGEST * _size(elements[name])))
            largest = max(_largest(elements[name]), _largest(_own(self._held, name)))
            out[name] = _bounded(wanted, largest, self._held.dtypes[name])
        return out


class Replica:
    """A client's copy of the server's model, which follows it frame by frame (spec 6.12).

    Parameters
    ----------
    schema : Schema
    like : mapping of str to array, optional
        A model with the dtypes of the server's. Required only if masked tensors are not float32.
    limits : Limits
    backend : {"numba", "numpy", "torch", "onnx"}, optional
        As in `decode`.
    """

    def __init__(
        self,
        schema: Schema,
        like: Arrays | None = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        backend: str | None = None,
    ) -> None:
        self.schema, self.limits, self._backend = schema, limits, backend
        if like is not None:
            check_schema(schema, like)
        floats = {tensor.name: tensor.dtype for tensor in schema if tensor.type.is_float}
        self._dtypes = floats if like is None else dtypes_of(schema, like)
        self._held: GridModel | None = None

    @property
    def model(self) -> dict[str, np.ndarray]:
        """The model: arrays that must not be written to, by name, in schema order.

        Raises
        ------
        ArgumentError
            No frame has been applied.
        """
        return self._present().arrays

    @property
    def model_id(self) -> int:
        """The id of the model, which the client tells the server; 0 if it holds none."""
        return 0 if self._held is None else self._held.id

    def apply(self, data: Buffer | CheckedFrame, model_id: int | None = None) -> dict[str, np.ndarray]:
        """Follow the server by one frame; on an error the model stays as it is.

        Parameters
        ----------
        data : bytes-like or CheckedFrame
            A frame of `Downlink.frame`. One with base model 0 replaces the model, whatever it was.
        model_id : int, optional
            The id that the new model must have, usually the request's `base_model`.

        Returns
        -------
        dict of str to numpy.ndarray
            The new model, as in `model`.

        Raises
        ------
        BaseModelError
            The frame is for another model than the one held, or the new one has another id: the client has
            to ask for the whole model.
        FrameError
            Another check fails.
        """
        checked = CheckedFrame.open(data, Expected(self.schema), self.limits)
        if checked.base_model not in (0, self.model_id):
            expected = f"{self.model_id}, the model held, or 0"
            raise errors.BaseModelError("base_model", expected, checked.base_model, 16)
        held = self._held if checked.base_model else None
        new = (held or GridModel.zeros(self.schema, self._dtypes)).moved(checked, self._backend)
        if model_id is not None and new.id != model_id:
            raise errors.BaseModelError("id of the new model", model_id, new.id, 16)
        self._held = new
        return new.arrays

    def to_bytes(self) -> bytes:
        """The model as one frame, for a client that may be stopped between two rounds; `apply` takes it.

        Raises
        ------
        ArgumentError
            No frame has been applied.
        """
        return self._present().whole_frame(self._backend)

    def _present(self) -> GridModel:
        if self._held is None:
            raise errors.ArgumentError("replica", "a frame of the whole model", "none so far")
        return self._held


def _elements(schema: Schema, model: Arrays) -> dict[str, np.ndarray]:
    """The finite elements of each tensor, flat; float32 in place of bfloat16; copies of those not rounded."""
    check_schema(schema, model)
    out = {}
    for tensor in schema:
        flat = np.ascontiguousarray(model[tensor.name]).reshape(-1)
        dtype = DTYPES[flat.dtype.name] if tensor.masked else tensor.type
        if not is_finite(flat, dtype):
            raise errors.UpdateNonFiniteError(f"{tensor.name!r}", "finite values", "a NaN or an infinity")
        bfloat16 = tensor.dtype == "bfloat16"
        out[tensor.name] = widen_bfloat16(flat) if bfloat16 else flat if dtype.is_float else flat.copy()
    return out


def _exponents(step: Steps, schema: Schema, dtypes: Mapping[str, str]) -> dict[str, int]:
    steps = checked_steps(step, schema)
    floats = {tensor.name for tensor in schema if tensor.type.is_float}
    if missing := sorted(floats - set(steps)):
        raise errors.ArgumentError("step", "one for each float tensor", f"nothing for {missing}")
    out = {name: _floor_log2(its) for name, its in steps.items()}
    for name, exponent in out.items():
        bounds = BOUNDS[dtypes[name]]
        if not bounds.allows(2.0**exponent):  # a masked tensor may have another dtype in the model
            expected = f"{bounds}, since its dtype is {dtypes[name]}"
            raise errors.ArgumentError(f"step of {name!r}", expected, steps[name])
    return out


def _vectors(schema: Schema) -> set[str]:
    """The names of the dense tensors with fewer than two dimensions."""
    return {tensor.name for tensor in schema if not tensor.masked and len(tensor.shape) < 2}


def _own(held: GridModel, name: str) -> np.ndarray:
    """The elements of a float tensor of a model, flat; float32 in place of bfloat16."""
    own = held.arrays[name].reshape(-1)
    return widen_bfloat16(own) if held.dtypes[name] == "bfloat16" else own


def _square_errors(held: GridModel, elements: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean square of the difference between elements and the model held, for each float tensor."""
    out = {}
    for name in held.integers:
        own = _own(held, name)
        with np.errstate(over="ignore"):
            difference = np.subtract(
                elements[name], own, dtype=np.float64 if own.itemsize == 8 else np.float32
            )
        out[name] = _mean_square(difference)
    return out


def _mean_square(values: np.ndarray) -> float:
    """0 of no values; at most the largest float, where the sum is beyond it."""
    square = float(np.vdot(values, values))
    if not square < math.inf:  # float32, whose squares are beyond it
        square = float(np.vdot(wide := values.astype(np.float64), wide))
    return min(square, sys.float_info.max) / max(values.size, 1)


def _floor_log2(value: float) -> int:
    return math.frexp(value)[1] - 1 if value > 0 else SMALLEST


def _nearest_log2(value: float) -> int:
    return round(math.log2(value)) if value > 0 else SMALLEST


def _largest(elements: np.ndarray) -> float:
    """The largest magnitude; 0 of no elements."""
    return float(max(elements.max(), -elements.min())) if elements.size else 0.0


def _size(elements: np.ndarray) -> float:
    """The root of the mean square; 0 of no elements."""
    wide = elements.astype(np.float32) if elements.itemsize < 4 else elements
    return math.sqrt(_mean_square(wide))


def _bounded(exponent: int, largest: float, dtype: str) -> int:
    """The exponent nearest to a wanted one with which elements, even if doubled, are within bounds."""
    bounds = BOUNDS[dtype]
    least = bounds.least_exponent
    if largest:
        least = max(least, math.ceil(math.log2(largest) + 1 - math.log2(bounds.largest)))
    return min(max(exponent, least), bounds.largest_exponent)

"""The checks of one frame against what a server has stated, which `Request` and `Policy` share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .. import errors
from ..format.checked import CheckedFrame
from ..format.frame import Buffer, Info
from ..format.limits import Limits
from ..format.parsing import Expected
from ..format.schema import Schema, Tensor
from ..primitives.codes import MaskKind
from ..primitives.dtypes import is_finite, widen_bfloat16
from ..primitives.noise import Noise
from .decoding import decode, decode_tensor
from .models import add, check_schema

MASKS = frozenset(MaskKind.labels())


@dataclass(frozen=True)
class Terms:
    """What a server demands of the frames of a round, whoever sends them.

    Parameters
    ----------
    expected : Expected
        With a schema, and without a seed.
    limits : Limits
    noise : mapping of str to Noise
        Of each masked tensor, if masks are allowed.
    masked, dense : frozenset of str
        The kinds, as in `Entry.kind`, that entries of masked and of dense tensors may have.
    codings : frozenset of str, optional
        The codings that payloads may have; all of them by default.
    step : mapping of str to float
        Of masked tensors that are sent on a grid; any, for one that is not named.
    max_value : mapping of str to float
        Bounds of the magnitude of elements, by tensor; they do not apply to a tensor that is sent as a mask.
    max_norm : float, optional
        Bound of the Euclidean norm of the update, over all float tensors.
    """

    expected: Expected
    limits: Limits
    noise: Mapping[str, Noise]
    masked: frozenset[str]
    dense: frozenset[str] = frozenset({"dense", "grid"})
    codings: frozenset[str] | None = None
    step: Mapping[str, float] = field(default_factory=dict)
    max_value: Mapping[str, float] = field(default_factory=dict)
    max_norm: float | None = None

    @property
    def schema(self) -> Schema:
        """The expected schema."""
        assert self.expected.schema is not None
        return self.expected.schema

    def check(
        self, data: Buffer | CheckedFrame, seed: int | None, base: Mapping[str, np.ndarray] | None = None
    ) -> CheckedFrame:
        """Make all checks, cheap ones first: header, table, checksum, payloads, values.

        Parameters
        ----------
        data : bytes-like or CheckedFrame
        seed : int, optional
            The expected one.
        base : mapping of str to array, optional
            The base model; its sum with the update must be finite in all dense float tensors.

        Raises
        ------
        FrameError
            A check fails; the first one determines the subclass.
        SchemaError
            A dense float tensor is missing in `base`, or has another shape or dtype there.
        """
        checked = CheckedFrame.open(data, replace(self.expected, seed=seed), self.limits, self._check_table)
        checked.payloads()
        self._check_values(checked)
        self._check_norm(checked)
        if base is not None:
            self._check_sum(checked, base)
        return checked

    def _check_table(self, info: Info) -> None:
        for tensor, entry in zip(self.schema, info.tensors, strict=True):
            kinds, noise = self.masked if tensor.masked else self.dense, self.noise.get(tensor.name)
            if entry.kind not in kinds or entry.noise not in (None, noise):
                expected = " or ".join(_described(kind, noise) for kind in sorted(kinds))
                got = _described(entry.kind, entry.noise)
                raise errors.ReplyError(f"tensor {tensor.name!r}", expected, got)
            if entry.step is not None and self.step.get(tensor.name) not in (None, entry.step):
                raise errors.ReplyError(f"step of {tensor.name!r}", self.step[tensor.name], entry.step)
            if self.codings is not None and entry.coding not in self.codings:
                expected = f"one of {', '.join(sorted(self.codings))}"
                raise errors.ReplyCodingError(f"coding of {tensor.name!r}", expected, entry.coding)

    def _check_values(self, checked: CheckedFrame) -> None:
        for stream, (tensor, entry) in enumerate(zip(self.schema, checked.tensors, strict=True)):
            bound = self.max_value.get(tensor.name)
            if bound is None or entry.noise is not None or not tensor.size:
                continue
            largest = _largest(checked.elements(stream), tensor)
            if largest > bound:
                expected = f"magnitudes of at most {bound}"
                raise errors.ValueBoundError(f"tensor {tensor.name!r}", expected, largest)

    def _check_norm(self, checked: CheckedFrame) -> None:
        if self.max_norm is None:
            return
        squares = 0.0
        for stream, tensor in enumerate(self.schema):
            if tensor.type.is_float:  # one tensor at a time, since all together may be large
                squares += _squares(decode_tensor(checked, stream, tensor), tensor)
        norm = math.sqrt(squares)
        if norm > self.max_norm:
            raise errors.NormBoundError("norm of the update", f"at most {self.max_norm}", norm)

    def _check_sum(self, checked: CheckedFrame, base: Mapping[str, np.ndarray]) -> None:
        dense = [tensor for tensor in self.schema if not tensor.masked and tensor.type.is_float]
        check_schema(dense, base)
        updates = decode(checked, names=[tensor.name for tensor in dense])
        for tensor in dense:
            total = add(base[tensor.name], updates[tensor.name], tensor.dtype)
            if not is_finite(total, tensor.type):
                finite, got = "a finite sum with the base model", "a NaN or an infinity"
                raise errors.ReplyError(f"tensor {tensor.name!r}", finite, got)


def _described(kind: str, noise: Noise | None) -> str:
    return f"{kind} mask of {noise}" if kind in MASKS else "a grid" if kind == "grid" else "elements"


def _numbers(elements: np.ndarray, tensor: Tensor) -> np.ndarray:
    return widen_bfloat16(elements) if tensor.dtype == "bfloat16" else elements


def _largest(elements: np.ndarray, tensor: Tensor) -> float | int:
    """The largest magnitude of elements that are finite and not empty, without a copy of them."""
    numbers = _numbers(elements, tensor)
    largest: float | int = max(-numbers.min().item(), numbers.max().item())
    return largest


def _squares(elements: np.ndarray, tensor: Tensor) -> float:
    """The sum of the squares, in float64."""
    wide = _numbers(elements, tensor).reshape(-1).astype(np.float64)
    with np.errstate(over="ignore"):
        return float(np.dot(wide, wide))

"""A frame that is parsed once, and whose payloads are each checked and decoded when first read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from .. import backends, errors
from ..primitives.dtypes import is_finite
from ..primitives.grid import BOUNDS, values
from ..primitives.mask import padding_is_zero
from . import codings, rans14
from .frame import Buffer, Entry, Info, as_view, check_checksum
from .limits import DEFAULT_LIMITS, Limits
from .parsing import Expected, check_expected, parse
from .schema import Schema, Tensor


@dataclass(frozen=True, eq=False)
class CheckedFrame(Info):
    """A frame whose header, table, length and checksum have passed their checks.

    Each payload is checked when it is first read; all have been if `verify` or `Request.check` returned it.
    `decode`, `decode_bits`, `Aggregator.add` and `Aggregator.add_many` accept it in place of the bytes: they
    compare its fields with the expected values passed to them, and repeat no other check. It refers to the
    bytes that it was made of; they must not change while it is used.

    Attributes
    ----------
    view : memoryview
        All bytes of the frame. The other attributes are those of `Info`.
    """

    view: memoryview = field(kw_only=True, repr=False)
    _payloads: dict[int, np.ndarray] = field(init=False, repr=False, default_factory=dict)

    @classmethod
    def open(
        cls,
        data: Buffer | CheckedFrame,
        expected: Expected,
        limits: Limits = DEFAULT_LIMITS,
        check_table: Callable[[Info], None] | None = None,
    ) -> Self:
        """Make the checks [F-01] to [F-27] and [F-31]: header, table, length, checksum, but no payload.

        `check_table` makes further checks of the table, before the checksum is computed. If `data` is a
        CheckedFrame, only these are made, it is compared with the expected values, and returned.

        Raises
        ------
        FrameError
            A check fails; the first one that fails determines the subclass.
        """
        if isinstance(data, cls):
            check_expected(data, expected)
            if check_table is not None:
                check_table(data)
            return data
        view = as_view(data)  # type: ignore[arg-type]
        info = parse(view, expected, limits)
        if check_table is not None:
            check_table(info)
        check_checksum(view)
        checked = cls.__new__(cls)  # a copy of all fields, without working out the sizes once more
        vars(checked).update(vars(info), view=view, _payloads={})
        return checked

    @property
    def checked_schema(self) -> Schema:
        """The schema, which is never None in a checked frame."""
        assert self.schema is not None
        return self.schema

    def payloads(self, backend: str | None = None) -> list[np.ndarray]:
        """A list of what `payload` returns for each tensor, in schema order; it raises the same errors."""
        return [self.payload(stream, backend) for stream in range(len(self.tensors))]

    def payload(self, stream: int, backend: str | None = None) -> np.ndarray:
        """The content of one tensor, 1-D; its payload is checked and decoded at the first call.

        Parameters
        ----------
        stream : int
            The tensor's position in the schema.
        backend : str, optional
            The backend that decodes an entropy-coded payload; the result does not depend on it.

        Returns
        -------
        numpy.ndarray
            Packed bits (uint8, spec 4.1) of a mask, integers (int32) of a grid, or else elements in the
            schema's dtype (bfloat16 as uint16). Must not be written to: it may be a view of the frame, and is
            returned again by the next call.

        Raises
        ------
        FrameError
            One of [F-28] to [F-30], [F-32] and [C-01] to [C-14] fails; the first determines the subclass.
        """
        content = self._payloads.get(stream)
        if content is None:
            tensor, entry = self.checked_schema.tensors[stream], self.tensors[stream]
            raw = np.frombuffer(self.view, np.uint8, entry.length, entry.offset)
            if entry.step is not None:
                content = _integers(raw, tensor, entry, backend)
            elif entry.noise is None:
                content = _elements(raw, tensor, entry)
            elif entry.payload_coding is not codings.RAW:
                coding, where = entry.payload_coding, (f"{tensor.name!r}", entry.offset)
                coder = backends.coder(backend, coding)  # here: the import takes time and few frames need it
                decode = codings.ENTROPY[coding].decode
                content = decode(coder, entry.noise, self.seed, stream, raw, tensor.size, *where)
            else:
                content = _packed_bits(raw, tensor, entry)
            self._payloads[stream] = content
        return content

    def elements(self, stream: int, backend: str | None = None) -> np.ndarray:
        """As `payload`, but of a grid the elements: flat, in the schema's dtype (bfloat16 as uint16)."""
        content, step = self.payload(stream, backend), self.tensors[stream].step
        if step is None:
            return content
        dtype = self.checked_schema.tensors[stream].type
        if dtype.name != "float32":
            return values(content, step, dtype)
        out = np.empty(len(content), np.float32)
        backends.get(backend).decode_grid(content, np.float32(step), out)
        return out


def _packed_bits(raw: np.ndarray, tensor: Tensor, entry: Entry) -> np.ndarray:
    """The packed bits of a raw mask, after the check of its padding, [F-28]."""
    if not padding_is_zero(raw, tensor.size):
        raise errors.PaddingError(
            f"padding of {tensor.name!r}",
            f"0 in the bits after element {tensor.size - 1}",
            f"{raw[-1]:#04x} in its last byte",
            entry.offset + entry.length - 1,
        )
    return raw


def _integers(raw: np.ndarray, tensor: Tensor, entry: Entry, backend: str | None) -> np.ndarray:
    """The integers of a grid, after the checks [C-10] to [C-14] and [F-32]."""
    name = f"{tensor.name!r}"
    if entry.payload_coding is codings.RAW:
        integers = raw.view("<i4")
    else:
        integers = rans14.decode(backends.grid_coder(backend), raw, tensor.size, name, entry.offset)
    most = BOUNDS[tensor.dtype].largest
    if integers.size and max(-int(integers.min()), largest := int(integers.max())) > most:
        got = largest if largest > most else int(integers.min())
        raise errors.GridError(f"integers of {name}", f"-{most} to {most}", got, entry.offset)
    return integers


def _elements(raw: np.ndarray, tensor: Tensor, entry: Entry) -> np.ndarray:
    """The elements of a dense payload, after the checks [F-29] and [F-30]."""
    if tensor.dtype == "bool" and raw.size and raw.max() > 1:
        first = int(np.argmax(raw > 1))
        raise errors.BoolError(f"bool of {tensor.name!r}", "0 or 1", raw[first], entry.offset + first)
    elements = codings.widen(raw, tensor, entry.payload_coding)
    if not is_finite(elements, tensor.type):
        raise errors.NonFiniteError(
            f"payload of {tensor.name!r}", "finite values", "a NaN or an infinity", entry.offset
        )
    return elements

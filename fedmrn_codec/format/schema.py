"""The schema, the ordered list of a model's tensors, which encoder and decoder must share (spec 5)."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .. import errors
from ..primitives.dtypes import BY_CODE, DTYPES, Dtype
from .limits import DEFAULT_LIMITS, Limits, checked_limits
from .reader import Reader

MAX_NAME, MAX_RANK, MAX_PRODUCT = 2**16 - 1, 32, 2**48


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model (spec 5.2).

    Parameters
    ----------
    name : str
        Unique within the schema; 1 to 65535 bytes of UTF-8.
    shape : tuple of int
        () for a scalar; a dimension may be 0.
    masked : bool
        True: sent as a mask, one bit per element; its dtype must be float32. False: dense, sent as elements.
    dtype : str
        A name of spec 5.3. Arrays of "bfloat16" hold the elements' bits in uint16.

    Raises
    ------
    SchemaError
        The format cannot represent the tensor.
    """

    name: str
    shape: tuple[int, ...]
    masked: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise errors.SchemaError("tensor name", "a string", repr(self.name))
        try:
            size = len(self.name.encode())
        except UnicodeEncodeError:
            raise errors.SchemaError("tensor name", "valid Unicode", repr(self.name)) from None
        if not 1 <= size <= MAX_NAME:
            raise errors.SchemaError("tensor name", f"1 to {MAX_NAME} bytes of UTF-8", size)
        try:
            shape = tuple(d.__index__() for d in self.shape)
        except (TypeError, AttributeError):
            raise errors.SchemaError(
                f"shape of {self.name!r}", "a tuple of integers", repr(self.shape)
            ) from None
        object.__setattr__(self, "shape", shape)
        if self.masked not in (False, True):
            raise errors.SchemaError(f"masked of {self.name!r}", "a bool", repr(self.masked))
        object.__setattr__(self, "masked", bool(self.masked))
        expected = "at most 32 dimensions and 2^48 elements"
        if len(shape) > MAX_RANK:
            raise errors.SchemaError(f"shape of {self.name!r}", expected, f"{len(shape)} dimensions")
        if min(shape, default=0) < 0 or math.prod(max(d, 1) for d in shape) > MAX_PRODUCT:
            raise errors.SchemaError(f"shape of {self.name!r}", expected, shape)
        if self.dtype not in DTYPES:
            raise errors.SchemaError(
                f"dtype of {self.name!r}", f"one of {', '.join(DTYPES)}", repr(self.dtype)
            )
        if self.masked and self.dtype != "float32":
            raise errors.SchemaError(f"dtype of masked {self.name!r}", "float32", self.dtype)

    @cached_property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @cached_property
    def type(self) -> Dtype:
        """The dtype's row of table 5.3."""
        return DTYPES[self.dtype]

    @cached_property
    def payload_bytes(self) -> int:
        """The length of the raw payload in bytes (spec 6.4)."""
        return (self.size + 7) // 8 if self.masked else self.size * self.type.numpy.itemsize

    @property
    def head(self) -> bytes:
        """The length of the name and the name, as a schema has them."""
        name = self.name.encode()
        return struct.pack("<H", len(name)) + name

    @property
    def dimensions(self) -> bytes:
        """The rank and the shape, as a schema has them."""
        return struct.pack(f"<B{len(self.shape)}Q", len(self.shape), *self.shape)

    def __str__(self) -> str:
        return f"{self.name!r} {self.dtype}{list(self.shape)}{' masked' if self.masked else ''}"


class Schema:
    """An ordered list of tensors with unique names (spec 5.1); immutable.

    The position of a tensor, from 0, is the stream of its noise (spec 2.1).

    Parameters
    ----------
    tensors : iterable of Tensor

    Raises
    ------
    SchemaError
        A name occurs twice, or an item is not a Tensor.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = tuple(tensors)
        seen: set[str] = set()
        for tensor in self.tensors:
            if not isinstance(tensor, Tensor):
                raise errors.SchemaError("schema", "a fedmrn_codec.Tensor", repr(tensor))
            if tensor.name in seen:
                raise errors.SchemaError(
                    "tensor name", "a name not used by an earlier tensor", repr(tensor.name)
                )
            seen.add(tensor.name)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.tensors == other.tensors

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Schema({list(self.tensors)!r})"

    @cached_property
    def data(self) -> bytes:
        """The schema's bytes (spec 5.1)."""
        parts = [struct.pack("<I", len(self))]
        for t in self:
            parts.append(t.head + bytes([t.masked, t.type.code]) + t.dimensions)
        return b"".join(parts)

    @cached_property
    def elements(self) -> int:
        """The number of elements of all tensors together."""
        return sum(tensor.size for tensor in self)

    @cached_property
    def digest(self) -> bytes:
        """The 16 bytes that identify the schema in a frame: the start of the SHA-256 of `data` (spec 5.4)."""
        return hashlib.sha256(self.data).digest()[:16]

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Schema:
        """Parse the bytes of a schema (spec 5.1), the inverse of `data`.

        Raises
        ------
        FrameError
            One of [S-01] to [S-07], or [S-09], fails; the first determines the subclass. `offset` is that in
            `data`.
        """
        return parse_schema(memoryview(data), 0, checked_limits(limits))

    def to_json(self) -> list[dict[str, Any]]:
        """The schema for `json.dumps`: a dictionary of name, shape, masked and dtype for each tensor."""
        return [{"name": t.name, "shape": list(t.shape), "masked": t.masked, "dtype": t.dtype} for t in self]

    @classmethod
    def from_json(cls, tensors: Iterable[Mapping[str, Any]]) -> Schema:
        """The inverse of `to_json`; `masked` and `dtype` may be absent; any other form is a SchemaError."""
        try:
            if isinstance(tensors, Mapping | str):
                raise TypeError(f"not a list but a {type(tensors).__name__}")
            return cls(Tensor(**{**t, "shape": tuple(t["shape"])}) for t in tensors)
        except (TypeError, KeyError, RecursionError) as error:
            raise errors.SchemaError(
                "schema",
                "a list of {name, shape, masked, dtype}",
                f"{type(error).__name__}: {error}",
            ) from None


def first_difference(got: Schema, expected: Schema) -> str:
    """The first difference between two schemas, as text for an error message."""
    for position, (a, b) in enumerate(zip(got, expected, strict=False)):
        if a != b:
            return f"tensor {position} is {a}, the caller's is {b}"
    return f"{len(got)} tensors, the caller's schema has {len(expected)}"


def parse_schema(data: memoryview, offset: int, limits: Limits) -> Schema:
    """Parse a schema that begins at byte `offset` of a frame: [S-01] to [S-07], [S-09].

    No more than `limits.max_tensors` tensors are read, however many bytes there are.
    """
    reader = Reader(data, errors.SchemaLengthError, offset)
    count = reader.number(4, "schema tensor count")
    tensors: list[Tensor] = []
    names: set[str] = set()
    for position in range(count):
        if position == limits.max_tensors:
            raise errors.LimitError("schema tensor count", f"at most {limits.max_tensors}", count, offset)
        tensor = _parse_tensor(reader, names)
        names.add(tensor.name)
        tensors.append(tensor)
    if reader.left:
        raise errors.SchemaLengthError(
            "schema length", f"{reader.at} bytes for its {count} tensors", len(data), reader.offset
        )
    schema = Schema(tensors)
    if schema.elements > limits.max_elements:
        raise errors.LimitError("schema elements", f"at most {limits.max_elements}", schema.elements, offset)
    return schema


def _parse_tensor(reader: Reader, names: set[str]) -> Tensor:
    size = reader.number(2, "tensor name length")
    at = reader.offset
    raw = bytes(reader.take(size, "tensor name"))
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise errors.SchemaNameError("tensor name", "valid UTF-8", raw, at) from None
    if not name or name in names:
        raise errors.SchemaNameError(
            "tensor name", "a name that is not empty and not that of an earlier tensor", repr(name), at
        )
    at = reader.offset
    role = reader.number(1, "tensor role")
    if role > 1:
        raise errors.UnknownRoleError("tensor role", "0 (dense) or 1 (masked)", role, at)
    at = reader.offset
    code = reader.number(1, "tensor dtype")
    if code not in BY_CODE:
        raise errors.UnknownDtypeError("tensor dtype", f"1 to {max(BY_CODE)}", code, at)
    dtype = BY_CODE[code].name
    if role and dtype != "float32":
        raise errors.MaskedDtypeError("dtype of a masked tensor", "float32", dtype, at)
    at = reader.offset
    rank = reader.number(1, "tensor rank")
    if rank > MAX_RANK:
        raise errors.SchemaShapeError("tensor rank", f"at most {MAX_RANK}", rank, at)
    at = reader.offset
    shape = struct.unpack(f"<{rank}Q", reader.take(8 * rank, "tensor shape"))
    if math.prod(max(d, 1) for d in shape) > MAX_PRODUCT:
        raise errors.SchemaShapeError("tensor shape", "at most 2^48 elements", shape, at)
    return Tensor(name, shape, bool(role), dtype)

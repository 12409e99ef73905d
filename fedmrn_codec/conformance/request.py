"""The requests to an implementation: one dataclass for each operation, and their JSON."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

HELLO = "hello"
PROFILES = {
    "decode": ("words", "noise", "digest", "decode"),
    "encode": ("sample", "encode"),
    "aggregate": ("aggregate", "merge"),
}

Result = dict[str, bytes | tuple[bytes, ...]]
"""The members of an answer: bytes, or a tuple of bytes."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """Words `start` to `start + count - 1` of a stream."""

    op: ClassVar[str] = "words"
    members: ClassVar[tuple[str, ...]] = ("words",)
    seed: int
    stream: int
    start: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise of elements `start` to `start + count - 1`; `scale` is the bits of the f32."""

    op: ClassVar[str] = "noise"
    members: ClassVar[tuple[str, ...]] = ("noise",)
    distribution: str
    scale: int
    seed: int
    stream: int
    start: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Digest:
    """The digest of a schema's bytes."""

    op: ClassVar[str] = "digest"
    members: ClassVar[tuple[str, ...]] = ("digest",)
    schema: bytes


@dataclass(frozen=True, kw_only=True)
class Decode:
    """The tensors of a frame; None means no expected value, or no schema."""

    op: ClassVar[str] = "decode"
    members: ClassVar[tuple[str, ...]] = ("tensors",)
    frame: bytes
    schema: bytes | None = None
    round: int | None = None
    base_model: int | None = None
    seed: int | None = None
    max_tensors: int = 2**16
    max_schema_bytes: int = 2**24
    max_elements: int = 2**34


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The packed mask of an update (f32), given the integers r (u32 each)."""

    op: ClassVar[str] = "sample"
    members: ClassVar[tuple[str, ...]] = ("mask",)
    kind: str
    distribution: str
    scale: int
    seed: int
    stream: int
    update: bytes
    draws: bytes


@dataclass(frozen=True, kw_only=True)
class Part:
    """One tensor of a frame to be encoded; only a mask has a distribution, a dense one has no scale either.

    The scale of a grid is its step. The payload is in raw form; the encoder applies the coding.
    """

    kind: str
    payload: bytes
    coding: str = "raw"
    distribution: str | None = None
    scale: int | None = None


@dataclass(frozen=True, kw_only=True)
class Encode:
    """The frame of these parts."""

    op: ClassVar[str] = "encode"
    members: ClassVar[tuple[str, ...]] = ("frame",)
    schema: bytes
    seed: int
    base_model: int
    round: int
    embed_schema: bool
    tensors: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """The weighted mean of frames, and their partial sum; round or base model 0 means no expected value."""

    op: ClassVar[str] = "aggregate"
    members: ClassVar[tuple[str, ...]] = ("mean", "partial")
    schema: bytes
    frames: tuple[bytes, ...]
    weights: tuple[int, ...]
    round: int = 0
    base_model: int = 0


@dataclass(frozen=True, kw_only=True)
class Merge:
    """The sum of one or more partial sums, and its mean."""

    op: ClassVar[str] = "merge"
    members: ClassVar[tuple[str, ...]] = ("mean", "partial")
    schema: bytes
    partials: tuple[bytes, ...]


Request = Words | Noise | Digest | Decode | Sample | Encode | Aggregate | Merge
REQUESTS: dict[str, type[Request]] = {
    kind.op: kind for kind in (Words, Noise, Digest, Decode, Sample, Encode, Aggregate, Merge)
}
PROFILE_OF = {op: profile for profile, ops in PROFILES.items() for op in ops}

LISTS = {"tensors", "mean"}
"""The members of results that are lists of bytes."""


def _bytes(text: str) -> bytes:
    """The bytes of padded base64; `ValueError` for anything else."""
    if not isinstance(text, str):
        raise ValueError(f"expected a base64 string, got {type(text).__name__}")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _part(value: Mapping[str, Any]) -> Part:
    return Part(**_members(value, {"kind", "payload", "coding", "distribution", "scale"} & set(value)))


FROM_WIRE: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("seed", "stream", "start", "base_model", "scale"), lambda text: int(text, 0)),
    **dict.fromkeys(("schema", "frame", "update", "draws", "payload"), _bytes),
    **dict.fromkeys(("frames", "partials"), lambda items: tuple(map(_bytes, items))),
    "weights": lambda items: tuple(map(int, items)),
    "tensors": lambda items: tuple(map(_part, items)),
}
TO_WIRE: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("seed", "stream", "start", "base_model", "scale"), hex),
    **dict.fromkeys(("schema", "frame", "update", "draws", "payload"), _text),
    **dict.fromkeys(("frames", "partials"), lambda items: [_text(item) for item in items]),
    "weights": lambda items: [str(item) for item in items],
    "tensors": lambda items: [_without_none(to_wire(item)) for item in items],
}


def _members(value: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    same: Callable[[Any], Any] = lambda found: found  # noqa: E731
    return {name: None if value[name] is None else FROM_WIRE.get(name, same)(value[name]) for name in names}


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def to_wire(request: Request | Part) -> dict[str, Any]:
    """The members of a request as JSON holds them."""
    members = {field.name: getattr(request, field.name) for field in fields(request)}
    return {
        name: value if value is None or name not in TO_WIRE else TO_WIRE[name](value)
        for name, value in members.items()
    }


def from_wire(op: str, message: Mapping[str, Any]) -> Request:
    """The request in a JSON object; `KeyError` or `ValueError` if there is none."""
    kind = REQUESTS[op]
    return kind(**_members(message, {field.name for field in fields(kind)}))


def result_to_wire(result: Result) -> dict[str, Any]:
    """A result as JSON holds it."""
    return {
        name: _text(value) if isinstance(value, bytes) else [_text(item) for item in value]
        for name, value in result.items()
    }


def result_from_wire(request: Request, members: Any) -> Result:
    """The result in a JSON value; `ValueError` if it is malformed."""
    if not isinstance(members, dict):
        raise ValueError(f"`result`: expected an object, got {type(members).__name__}")
    result: Result = {}
    for name in request.members:
        if name not in members:
            raise ValueError(f"`result`: expected a member `{name}`, got none")
        value = members[name]
        if name not in LISTS:
            result[name] = _bytes(value)
        elif isinstance(value, list):
            result[name] = tuple(map(_bytes, value))
        else:
            raise ValueError(f"`{name}`: expected a list, got {type(value).__name__}")
    return result

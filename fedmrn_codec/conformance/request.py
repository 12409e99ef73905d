"""The requests to an implementation: one dataclass for each operation, and their JSON."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_args

HELLO = "hello"
PROFILES = {
    "decode": ("words", "noise", "digest", "decode"),
    "encode": ("sample", "encode"),
    "aggregate": ("aggregate", "merge"),
    "tally": ("tally", "merge_tallies", "add_tallies"),
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


@dataclass(frozen=True, kw_only=True)
class Count:
    """The tally of frames, each of the same weight; round or base model 0 means no expected value."""

    op: ClassVar[str] = "tally"
    members: ClassVar[tuple[str, ...]] = ("tally",)
    schema: bytes
    frames: tuple[bytes, ...]
    weight: int
    coding: str | None = None
    round: int = 0
    base_model: int = 0


@dataclass(frozen=True, kw_only=True)
class MergeTallies:
    """The sum of one or more tallies."""

    op: ClassVar[str] = "merge_tallies"
    members: ClassVar[tuple[str, ...]] = ("tally",)
    schema: bytes
    tallies: tuple[bytes, ...]
    coding: str | None = None


@dataclass(frozen=True, kw_only=True)
class AddTallies:
    """The mean and the partial sum of an aggregator that adds one or more tallies."""

    op: ClassVar[str] = "add_tallies"
    members: ClassVar[tuple[str, ...]] = ("mean", "partial")
    schema: bytes
    tallies: tuple[bytes, ...]
    seed: int | None = None
    round: int = 0
    base_model: int = 0


Request = (
    Words | Noise | Digest | Decode | Sample | Encode | Aggregate | Merge | Count | MergeTallies | AddTallies
)
REQUESTS: dict[str, type[Request]] = {kind.op: kind for kind in get_args(Request)}
PROFILE_OF = {op: profile for profile, ops in PROFILES.items() for op in ops}

LISTS = {"tensors", "mean"}
"""The members of results that are lists of bytes."""


def _bytes(text: Any) -> bytes:
    """The bytes of padded base64; `ValueError` for anything else."""
    if not isinstance(text, str):
        raise ValueError(f"expected a base64 string, got {type(text).__name__}")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _number(most: int) -> Callable[[Any], int]:
    """A reader of JSON numbers without fraction or exponent, 0 to `most`."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise ValueError(f"expected a number, 0 to {most}, got {value!r:.80}")
        return value

    return read


def _hexadecimal(bits: int) -> Callable[[Any], int]:
    """A reader of integers that are written as hexadecimal strings."""

    def read(text: Any) -> int:
        digits = isinstance(text, str) and re.fullmatch("0[xX][0-9a-fA-F]+", text, re.ASCII)
        if not digits or int(text, 16) >> bits:
            raise ValueError(f"expected a string of at most {bits} bits, such as '0x7', got {text!r:.80}")
        return int(text, 16)

    return read


def _weight(text: Any) -> int:
    if not isinstance(text, str) or not re.fullmatch("-?[0-9]{1,4000}", text, re.ASCII):
        raise ValueError(f"expected a string of decimal digits, got {text!r:.80}")
    return int(text)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {value!r:.80}")
    return value


def _one_of(*names: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"expected one of {', '.join(names)}, got {value!r:.80}")
        return value

    return read


def _list_of(read: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def read_all(items: Any) -> tuple[Any, ...]:
        if not isinstance(items, list):
            raise ValueError(f"expected a list, got {type(items).__name__}")
        return tuple(map(read, items))

    return read_all


def _part(value: Any) -> Part:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")
    kind = KINDS(value.get("kind"))
    given = {"kind", "payload", *PART_NEEDS[kind]} | ({"coding"} & set(_without_none(value)))
    return Part(**_members(value, given, set()))


KINDS = _one_of("dense", "binary", "signed", "grid")
PART_NEEDS = {
    "dense": (),
    "grid": ("scale",),
    **dict.fromkeys(("binary", "signed"), ("scale", "distribution")),
}
"""The members that a part has beside kind, payload and coding."""

FROM_WIRE: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("seed", "stream", "base_model"), _hexadecimal(64)),
    "start": _hexadecimal(66),
    "scale": _hexadecimal(32),
    **dict.fromkeys(("count", "max_tensors", "max_schema_bytes", "max_elements"), _number(2**53)),
    "round": _number(2**32 - 1),
    "embed_schema": _flag,
    "distribution": _one_of("uniform", "gaussian", "bernoulli"),
    "kind": KINDS,
    "coding": _one_of("raw", "rans", "float16", "bfloat16", "rans12", "rans14"),
    **dict.fromkeys(("schema", "frame", "update", "draws", "payload"), _bytes),
    **dict.fromkeys(("frames", "partials", "tallies"), _list_of(_bytes)),
    "weight": _weight,
    "weights": _list_of(_weight),
    "tensors": _list_of(_part),
}
MAY_BE_NULL: dict[str, set[str]] = {
    "decode": {"schema", "round", "base_model", "seed"},
    "tally": {"coding"},
    "merge_tallies": {"coding"},
    "add_tallies": {"seed"},
}
"""The members of an operation that may be null or left out."""
TO_WIRE: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("seed", "stream", "start", "base_model", "scale"), hex),
    **dict.fromkeys(("schema", "frame", "update", "draws", "payload"), _text),
    **dict.fromkeys(("frames", "partials", "tallies"), lambda items: [_text(item) for item in items]),
    "weight": str,
    "weights": lambda items: [str(item) for item in items],
    "tensors": lambda items: [_without_none(to_wire(item)) for item in items],
}


EVERY = {
    "merge": ("partials",),
    "tally": ("frames",),
    **dict.fromkeys(("merge_tallies", "add_tallies"), ("tallies",)),
}
"""The lists of an operation that have at least one item."""


def _members(value: Mapping[str, Any], names: set[str], may_be_null: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(names):
        if value.get(name) is None and name in may_be_null:
            found[name] = None
            continue
        try:
            found[name] = FROM_WIRE[name](value.get(name))
        except ValueError as error:
            raise ValueError(f"`{name}`: {error}") from None
    return found


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
    """The request in a JSON object; `ValueError` if its members are not those of CONFORMANCE 3."""
    kind = REQUESTS[op]
    names = {field.name for field in fields(kind)}
    request = kind(**_members(message, names, MAY_BE_NULL.get(op, set())))
    if wrong := _misfit(request):
        raise ValueError(wrong)
    return request


def _misfit(request: Request) -> str | None:
    """What is wrong with members of a request that are right one by one; None if nothing is."""
    if isinstance(request, Words | Noise):
        most, end = 66 if isinstance(request, Words) else 48, request.start + request.count
        return f"start + count: expected at most 2^{most}, got {end}" if end > 2**most else None
    if isinstance(request, Sample):
        r = [int.from_bytes(request.draws[at : at + 4], "little") for at in range(0, len(request.draws), 4)]
        if request.kind not in ("binary", "signed"):
            return f"`kind`: expected binary or signed, got {request.kind}"
        whole = len(request.update) == len(request.draws) and len(request.update) % 4 == 0
        return None if whole and max(r, default=0) < 2**24 else "expected one r below 2^24 for each element"
    if isinstance(request, Aggregate) and len(request.frames) != len(request.weights):
        return f"expected a weight for each frame, got {len(request.weights)} for {len(request.frames)}"
    if isinstance(request, Count | MergeTallies) and request.coding not in (None, "raw", "rans14"):
        return f"`coding`: expected raw or rans14, got {request.coding}"
    for name in EVERY.get(request.op, ()):
        if not getattr(request, name):
            return f"`{name}`: expected one or more"
    return None


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

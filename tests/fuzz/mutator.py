"""Changes of bytes: of the fields of frames, partial sums, tallies and schemas, of JSON, and of any bytes."""

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from fedmrn_codec.conformance import oracle

from .message import Message, Part, read, repaired, schema_bytes
from .seeds import schemas, tensors_of

LONGEST = 8192
"""Bytes of an input; longer ones are cut."""

Change = Callable[[random.Random, Message, Message], Message]
"""A change of a message, which may take parts of another one."""


def number(rng: random.Random, old: int, size: int) -> int:
    """A number of `size` bytes: near the old one, near an end of its range, or any."""
    top = 1 << 8 * size
    how = rng.randrange(5)
    if how == 0:
        return (old + rng.choice((1, -1, 8, -8))) % top
    if how == 1:
        return (
            rng.choice((0, 1, 2, 3, 4, 5, 13, 14, 127, 128, 255, 256, 65535, 65536, top >> 1, top - 1)) % top
        )
    if how == 2:
        return old ^ 1 << rng.randrange(8 * size)
    return rng.randrange(top) if how == 3 else rng.randrange(16)


def with_number(rng: random.Random, data: bytes, at: int, size: int) -> bytes:
    """The bytes with another number at `at`; as they are if there are too few."""
    if at + size > len(data):
        return data
    new = number(rng, int.from_bytes(data[at : at + size], "little"), size)
    return data[:at] + new.to_bytes(size, "little") + data[at + size :]


def any_bytes(rng: random.Random, data: bytes) -> bytes:
    """Any bytes changed: a number, a few bytes removed, put in, repeated, or cut off."""
    if not data:
        return rng.randbytes(rng.randrange(1, 9))
    how, at = rng.randrange(6), rng.randrange(len(data))
    if how < 2:
        return with_number(rng, data, at, rng.choice((1, 1, 2, 4, 8)))
    size = rng.choice((1, 1, 2, 4, 8, 16))
    if how == 2:
        return data[:at] + data[at + size :]
    if how == 3:
        return data[:at] + (rng.randbytes(size) if rng.randrange(2) else bytes(size)) + data[at:]
    return data[:at] + data[at : at + size] + data[at:] if how == 4 else data[:at]


# --- frames and partial sums ------------------------------------------------------------------------

HEADER = ((0, 4), (4, 1), (5, 1), (6, 2), (8, 8), (16, 8), (24, 4), (28, 4), (32, 8), (48, 8))
"""Offset and size of the fields of a header; a frame's ends before the last one."""

ENTRY = ((0, 1), (0, 1), (1, 1), (1, 1), (2, 1), (2, 1), (3, 1), (4, 8), (12, 4), (15, 1))


def _header(rng: random.Random, message: Message, _: Message) -> Message:
    fields = HEADER + ((56, 4),) * (len(message.head) == 60)  # a tally's `frames`
    return message._replace(head=with_number(rng, message.head, *rng.choice(fields)))


def _at(rng: random.Random, message: Message, change: Callable[[Part], Part]) -> Message:
    """The message with one part changed."""
    if not message.parts:
        return message
    parts, i = list(message.parts), rng.randrange(len(message.parts))
    parts[i] = change(parts[i])
    return message._replace(parts=parts)


def _entry(rng: random.Random, message: Message, _: Message) -> Message:
    return _at(
        rng, message, lambda part: part._replace(entry=with_number(rng, part.entry, *rng.choice(ENTRY)))
    )


def _codes(rng: random.Random, message: Message, _: Message) -> Message:
    """Another kind, type or coding that is assigned; an entry gets or loses its scale with its kind."""

    def change(part: Part) -> Part:
        kind, type_, coding = part.entry[:3] if len(part.entry) >= 12 else (0, 1, 0)
        kind = rng.choice((kind, kind, 0, 1, 2, 3))
        type_ = rng.choice((type_, type_, rng.randrange(1, 14)))
        head = bytes([kind, type_, rng.choice((coding, 0, 1, 2, 3, 4, 5)), 0]) + part.entry[4:12]
        scale = part.entry[12:] or struct.pack("<f", rng.choice((0.01, 0.5, 1.0, 2.0**-20)))
        return part._replace(entry=head + scale * (kind != oracle.DENSE))

    return _at(rng, message, change) if message.is_frame else _entry(rng, message, message)


def _payload(rng: random.Random, message: Message, _: Message) -> Message:
    return _at(rng, message, lambda part: part._replace(payload=any_bytes(rng, part.payload)))


def _length(rng: random.Random, message: Message, _: Message) -> Message:
    """A payload longer or shorter by some bytes, or one of whole words."""

    def change(part: Part) -> Part:
        size = max(0, len(part.payload) + rng.choice((-8, -4, -2, -1, 1, 2, 4, 8)))
        return part._replace(
            payload=part.payload[:size].ljust(size, bytes([rng.choice((0, 0, 1, 128, 255))]))
        )

    return _at(rng, message, change)


def _fill(rng: random.Random, message: Message, _: Message) -> Message:
    """A payload of random, equal, or nearly equal bytes."""

    def change(part: Part) -> Part:
        size = len(part.payload)
        some = [rng.randbytes(size), bytes([rng.choice((0, 1, 127, 128, 255))]) * size]
        return part._replace(
            payload=any_bytes(rng, rng.choice(some)) if rng.randrange(2) else rng.choice(some)
        )

    return _at(rng, message, change)


def _swap(rng: random.Random, message: Message, other: Message) -> Message:
    """A part, an entry or a payload of another message, or of this one."""
    source = (other if rng.randrange(3) else message).parts
    if not source:
        return message
    its, what = rng.choice(source), rng.randrange(3)
    return _at(
        rng,
        message,
        lambda part: its if what == 0 else part._replace(**{Part._fields[what - 1]: its[what - 1]}),
    )


def _count(rng: random.Random, message: Message, other: Message) -> Message:
    """One part more, or one less, or all in another order."""
    parts, how = list(message.parts), rng.randrange(3)
    source = other.parts or parts
    if how == 0 and source:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(source))
    elif how == 1 and parts:
        del parts[rng.randrange(len(parts))]
    else:
        rng.shuffle(parts)
    return message._replace(parts=parts)


def _embed(rng: random.Random, message: Message, other: Message) -> Message:
    """With the caller's schema in the frame, with that of another, or without one."""
    known = schemas().get(message.head[32:48])
    choices = [None, other.schema, None if known is None else known.data]
    return message._replace(schema=rng.choice(choices)) if message.is_frame else message


def _schema(rng: random.Random, message: Message, _: Message) -> Message:
    if message.schema is None:
        return _embed(rng, message, message)
    change = changed_schema if rng.randrange(4) else any_bytes
    return message._replace(schema=change(rng, message.schema))


def _rest(rng: random.Random, message: Message, _: Message) -> Message:
    return message._replace(rest=any_bytes(rng, message.rest))


CHANGES: tuple[Change, ...] = (
    _header, _entry, _entry, _codes, _codes, _payload, _payload, _payload, _length, _fill, _swap, _count,
    _embed, _schema, _schema, _rest,
)  # fmt: skip


def changed_schema(rng: random.Random, data: bytes) -> bytes:
    """A schema with one tensor changed, removed or repeated; any change of bytes that are no schema."""
    try:
        tensors = list(oracle.parse_schema(data))
    except oracle.Refusal:
        return any_bytes(rng, data)
    if not tensors:
        return any_bytes(rng, data)
    i = rng.randrange(len(tensors))
    tensor, how = tensors[i], rng.randrange(6)
    if how == 0:
        tensors[i] = tensor._replace(dtype=rng.randrange(15))
    elif how == 1:
        tensors[i] = tensor._replace(masked=not tensor.masked)
    elif how == 2:
        tensors[i] = tensor._replace(name=tensor.name + rng.choice("\0a\u00e9\U0001f600"))
    elif how == 3:
        tensors.insert(rng.randrange(len(tensors) + 1), rng.choice(tensors))
    elif how == 4:
        del tensors[i]
    else:
        shape = list(tensor.shape) or [1]
        k = rng.randrange(len(shape))
        shape[k] = rng.choice((0, 1, 3, shape[k] + 1, 2**17, 2**32, 2**48, number(rng, shape[k], 8)))
        tensors[i] = tensor._replace(shape=tuple(shape + [1] * rng.choice((0, 0, 1, 33))))
    return schema_bytes(tensors)


def messages(rng: random.Random, pool: Sequence[bytes], often: float = 0.9) -> bytes:
    """A message of the pool with one to four changes, mostly with right lengths and sums."""
    data = rng.choice(pool)
    if rng.randrange(24) == 0:
        return any_bytes(rng, data)[:LONGEST]
    message, other = (read(each, tensors_of(each[32:48])) for each in (data, rng.choice(pool)))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        message = rng.choice(CHANGES)(rng, message, other)
    digest = message.head[32:48]
    if message.schema is None and digest not in schemas() and rng.randrange(2):
        digest = data[32:48]
    return repaired(message, rng, digest, often)[:LONGEST]


# --- JSON -------------------------------------------------------------------------------------------

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64 - 1, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e400,
    float("nan"), "", "0", "-1", "uniform:0.01", "uniform:1e999", "uniform:nan", "binary", "rans14", "\0",
    "\ud800", "\u0660", "9" * 400, "a" * 3000, [], [[]], {}, {"": None}, [None] * 40,
    {"name": "w", "shape": [3, 2**40], "masked": True},
)  # fmt: skip


def document(rng: random.Random, value: Any) -> Any:
    """A JSON value with something in it replaced, removed, repeated, or renamed."""
    if isinstance(value, dict) and value and rng.randrange(8):
        key, out = rng.choice(list(value)), dict(value)
        how = rng.randrange(8)
        if how == 0:
            del out[key]
        elif how == 1:
            out[rng.choice((key + "s", "", "noise", "limits", "weight"))] = out.pop(key)
        else:
            out[key] = document(rng, out[key])
        return out
    if isinstance(value, list) and value and rng.randrange(8):
        i, items = rng.randrange(len(value)), list(value)
        how = rng.randrange(8)
        if how == 0:
            del items[i]
        elif how == 1:
            items.insert(i, rng.choice(items))
        else:
            items[i] = document(rng, items[i])
        return items
    if isinstance(value, int) and not isinstance(value, bool) and rng.randrange(2):
        return value + rng.choice((1, -1, 2**32, 2**64))
    if isinstance(value, str) and value and rng.randrange(2):
        i = rng.randrange(len(value))
        return (
            value[:i]
            + rng.choice(("", "0", ":", ".", "e", "\0", "\u0661", "-"))
            + value[i + rng.randrange(2) :]
        )
    return rng.choice(STRANGE)


def documents(rng: random.Random, pool: Sequence[bytes]) -> bytes:
    """A JSON text of the pool, changed as a value, or rarely as bytes."""
    data = rng.choice(pool)
    if rng.randrange(16) == 0:
        return any_bytes(rng, data)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return any_bytes(rng, data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = document(rng, value)
    return json.dumps(value).encode()

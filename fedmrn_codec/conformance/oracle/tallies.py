"""Tallies: counts of the set bits of frames of one seed (spec 8.6)."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from .checks import Reader, require
from .codings import RANS14, RAW
from .elements import DTYPES, f32_bits, f32_from_bits
from .frame import Frame
from .grids import integers, rans14_decode, rans14_encode, rans14_length
from .masks import BINARY, SIGNED, pack, unpack
from .noise import SCALES, draw, scale_allowed
from .schema import Schema, Tensor, schema_digest
from .sums import DIGIT, MAX_WEIGHT, PartialSum, Sums, merge, sum_frame

MAX_FRAMES = 2**24 - 1  # spec 8.6


class Counts(NamedTuple):
    """The counts of a masked tensor, in one row, or of a dense one a row for each limb (8.4)."""

    rows: tuple[tuple[int, ...], ...]
    kind: int = 0
    distribution: int = 0
    scale: float = 0.0


class Tally(NamedTuple):
    """The sum of n frames of one seed; base model and round are those that were checked, or 0."""

    schema: Schema
    seed: int
    base_model: int
    round: int
    weight: int
    frames: int
    tensors: tuple[Counts, ...]


def check_room(frames: int, weight: int, number: str = "A-08") -> None:
    """Check the numbers of a tally, [A-08] and [A-09]."""
    require(weight >= 1, number, f"weight: expected a positive integer, got {weight}")
    require(frames <= MAX_FRAMES, number, f"{frames} frames")
    require(frames * weight <= MAX_WEIGHT, number, f"{frames} frames of weight {weight}")


def count_frame(frame: Frame, weight: int, base_model: int = 0, round: int = 0) -> Tally:
    """The tally of one frame."""
    plain = [i for i, tensor in enumerate(frame.schema) if not tensor.masked]
    schema, contents = tuple(frame.schema[i] for i in plain), tuple(frame.contents[i] for i in plain)
    sums = iter(sum_frame(frame._replace(schema=schema, contents=contents), 1).tensors)
    tensors = []
    for tensor, content in zip(frame.schema, frame.contents, strict=True):
        if tensor.masked:
            require(content.kind in (BINARY, SIGNED), "A-08", f"{tensor.name!r}: kind {content.kind}")
            bits = tuple(unpack(content.payload, tensor.elements))
            tensors.append(Counts((bits,), content.kind, content.distribution, content.scale))
        else:
            tensors.append(Counts(next(sums).rows))
    return Tally(frame.schema, frame.seed, base_model, round, weight, 1, tuple(tensors))


def count_more(total: Tally, first: Frame, frame: Frame) -> Tally:
    """The tally with one frame more; `first` is one of its frames."""
    alike = (frame.base_model, frame.round) == (first.base_model, first.round)
    require(alike, "A-08", "another base model or round than the frames before")
    return _joined(total, count_frame(frame, total.weight, total.base_model, total.round), "A-08")


def tally(frames: Sequence[Frame], weight: int, base_model: int = 0, round: int = 0) -> Tally:
    """The tally of one or more frames, [A-08]."""
    check_room(1, weight)
    total = count_frame(frames[0], weight, base_model, round)
    for frame in frames[1:]:
        check_room(total.frames + 1, weight)
        total = count_more(total, frames[0], frame)
    return total


def merge_tallies(a: Tally, b: Tally) -> Tally:
    """The tally of two disjoint sets of frames, [A-09]."""
    check_room(a.frames + b.frames, a.weight, "A-09")
    return _joined(a, b, "A-09")


def merge_all_tallies(parts: Sequence[Tally]) -> Tally:
    """The tally of one or more disjoint sets of frames (spec 8.6)."""
    return functools.reduce(merge_tallies, parts)


def _joined(a: Tally, b: Tally, number: str) -> Tally:
    require(a[:5] == b[:5], number, "another schema, seed, base model, round or weight")
    frames, tensors = a.frames + b.frames, []
    for x, y in zip(a.tensors, b.tensors, strict=True):
        alike = x[1:] == y[1:]
        require(alike, number, f"kind, distribution and scale {x[1:]}, {y[1:]}")
        rows = tuple(tuple(map(sum, zip(p, q, strict=True))) for p, q in zip(x.rows, y.rows, strict=True))
        tensors.append(x._replace(rows=rows))
    return a._replace(frames=frames, tensors=tuple(tensors))


def sums_of_tally(tally: Tally) -> PartialSum:
    """The partial sum of the frames of a tally (spec 8.6, [A-10])."""
    n, w, tensors = tally.frames, tally.weight, []
    for stream, (tensor, part) in enumerate(zip(tally.schema, tally.tensors, strict=True)):
        if not tensor.masked:
            limbs = tuple(tuple(w * limb for limb in row) for row in part.rows)
            tensors.append(Sums(limbs))
            continue
        m = [c if part.kind == BINARY else 2 * c - n for c in part.rows[0]]
        q = [draw(part.distribution, tally.seed, stream, i) for i in range(tensor.elements)]
        row = tuple(w * q[i] * m[i] for i in range(tensor.elements))
        tensors.append(Sums((row,), part.distribution, part.scale))
    return PartialSum(tally.schema, n * w, n, tally.base_model, tally.round, tuple(tensors))


def add_tally(total: PartialSum | None, tally: Tally, base_model: int = 0, round: int = 0) -> PartialSum:
    """The sums of an aggregator, None if it is empty, that adds a tally, [A-10]."""
    wanted = (tally.base_model, tally.round) == (base_model, round)
    require(wanted, "A-10", f"base model and round: expected {base_model}, {round}")
    part = sums_of_tally(tally)
    if total is None:
        return part
    for x, y in zip(total.tensors, part.tensors, strict=True):
        require(y[1:] == x[1:], "A-10", f"distribution and scale {x[1:]}, {y[1:]}")
    require(total.weight + part.weight <= MAX_WEIGHT, "A-10", f"weights {total.weight} + {part.weight}")
    return merge(total, part)


# the bytes


def packed_length(elements: int, n: int) -> int:
    """The bytes of as many counts of n frames."""
    return (elements * n.bit_length() + 7) // 8


def pack_counts(counts: Sequence[int], n: int) -> bytes:
    """Counts of n frames as a string of bits."""
    return pack([c >> k & 1 for c in counts for k in range(n.bit_length())])


def unpack_counts(packed: bytes, elements: int, n: int) -> tuple[int, ...]:
    """The counts of n frames in a string of bits, its padding checked, [T-19]."""
    b, string = n.bit_length(), int.from_bytes(packed, "little")
    require(string >> elements * b == 0, "T-19", f"the last byte is {packed[-1:].hex()}")
    return tuple(string >> i * b & ((1 << b) - 1) for i in range(elements))


def tally_to_bytes(tally: Tally, coding: int = RAW) -> bytes:
    """A tally's bytes, with coding 5 where it is chosen and shorter (spec 8.6, [E-05])."""
    n = tally.frames
    numbers = (tally.seed, tally.base_model, tally.round, len(tally.schema))
    data = struct.pack("<4sBBHQQII", b"FMRT", 1, 0, 0, *numbers)
    data += schema_digest(tally.schema) + struct.pack("<QI", tally.weight, n)
    for tensor, part in zip(tally.schema, tally.tensors, strict=True):
        if not tensor.masked:
            rows = [(limb, row) for limb, row in enumerate(part.rows) if set(row) - {0}]
            data += struct.pack("<I", len(rows))
            data += b"".join(struct.pack(f"<I{tensor.elements}q", limb, *row) for limb, row in rows)
            continue
        payload, used = pack_counts(part.rows[0], n), RAW
        if coding == RANS14 and part.rows[0]:
            z = [c - n // 2 for c in part.rows[0]]
            wire = rans14_encode(struct.pack(f"<{len(z)}i", *z))
            if len(wire) < len(payload):
                payload, used = wire, RANS14
        entry = (part.kind, part.distribution, used, f32_bits(part.scale), len(payload))
        data += struct.pack("<BBBxIQ", *entry) + payload
    return data + struct.pack("<I", zlib.crc32(data))


class _Wire(NamedTuple):
    """A masked tensor as it is in the bytes."""

    head: tuple[int, int, float]
    coding: int
    payload: bytes


def tally_from_bytes(data: bytes, schema: Schema, seed: int | None = None) -> Tally:
    """The tally of its bytes, [T-01] to [T-20] checked in their order (spec 8.6)."""
    reader, size = Reader(data[:-4], 60), len(data)
    require(size >= 64, "T-01", f"tally, byte 0: expected at least 64 bytes, got {size}")
    magic, major, minor, flags, *numbers, digest, w, n = struct.unpack("<4sBBHQQII16sQI", data[:60])
    its_seed, base_model, round_number, count = numbers
    require(magic == b"FMRT", "T-02", f"magic, byte 0: got {magic.hex()}")
    require((major, minor) == (1, 0), "T-03", f"version, byte 4: expected 1.0, got {major}.{minor}")
    require(flags == 0, "T-04", f"flags, byte 6: got {flags:#06x}")
    require(1 <= n <= MAX_FRAMES, "T-05", f"frames, byte 56: got {n}")
    require(w >= 1 and w * n <= MAX_WEIGHT, "T-06", f"weight, byte 48: got {w} for {n} frames")
    require(digest == schema_digest(schema), "T-07", f"digest, byte 32: got {digest.hex()}")
    require(count == len(schema), "T-08", f"tensor_count: expected {len(schema)}, got {count}")
    require(seed in (None, its_seed), "T-09", f"seed, byte 8: expected {seed}, got {its_seed}")
    parts: list[_Wire | dict[int, tuple[int, ...]]] = []
    for tensor in schema:
        at = f"tensor at byte {reader.at} ({tensor.name!r})"
        parts.append(_wire(reader, tensor.elements, n, at) if tensor.masked else _rows(reader, tensor, at))
    require(reader.at + 4 == size, "T-17", f"tally: expected {reader.at + 4} bytes, got {size}")
    crc = struct.pack("<I", zlib.crc32(data[:-4]))
    require(crc == data[-4:], "T-18", f"checksum: expected {crc.hex()}, got {data[-4:].hex()}")
    tensors = []
    for tensor, part in zip(schema, parts, strict=True):
        if isinstance(part, _Wire):
            counts = _counts(part, tensor.elements, n)
            require(all(0 <= c <= n for c in counts), "T-20", f"{tensor.name!r}: a count beyond {n}")
            tensors.append(Counts((counts,), *part.head))
            continue
        bound, zeros = n * (DIGIT - 1), (0,) * tensor.elements
        right = all(abs(v) <= bound for row in part.values() for v in row)
        require(right, "T-20", f"{tensor.name!r}: a limb beyond {bound}")
        require(all(any(row) for row in part.values()), "T-20", f"{tensor.name!r}: a row of zeros")
        limbs = range(DTYPES[tensor.dtype].limbs)
        tensors.append(Counts(tuple(part.get(limb, zeros) for limb in limbs)))
    return Tally(schema, its_seed, base_model, round_number, w, n, tuple(tensors))


def _wire(reader: Reader, elements: int, n: int, at: str) -> _Wire:
    kind, distribution, coding, reserved, scale, length = struct.unpack(
        "<BBBBIQ", reader.take(16, "T-01", at)
    )
    require(kind in (BINARY, SIGNED), "T-10", f"{at}: kind {kind}")
    require(distribution in SCALES, "T-11", f"{at}: distribution {distribution}")
    require(coding in (RAW, RANS14), "T-12", f"{at}: coding {coding}")
    require(reserved == 0, "T-13", f"{at}: reserved {reserved}")
    require(scale_allowed(distribution, scale), "T-14", f"{at}: scale bits {scale:#010x}")
    raw = packed_length(elements, n)
    least, most = (raw, raw) if coding == RAW else (rans14_length(elements), raw - 1)
    require(least <= length <= most, "T-15", f"{at}: length {length}, expected {least} to {most}")
    payload = reader.take(length, "T-01", f"{at}: payload")
    return _Wire((kind, distribution, f32_from_bits(scale)), coding, payload)


def _rows(reader: Reader, tensor: Tensor, at: str) -> dict[int, tuple[int, ...]]:
    rows, last, limbs, n = dict[int, tuple[int, ...]](), -1, DTYPES[tensor.dtype].limbs, tensor.elements
    for _ in range(reader.uint(4, "T-01", f"{at}: rows")):
        limb = reader.uint(4, "T-01", f"{at}: limb")
        require(last < limb < limbs, "T-16", f"{at}: limb {limb} after {last}, of {limbs}")
        rows[limb] = struct.unpack(f"<{n}q", reader.take(8 * n, "T-01", f"{at}: limbs"))
        last = limb
    return rows


def _counts(part: _Wire, elements: int, n: int) -> tuple[int, ...]:
    if part.coding == RAW:
        return unpack_counts(part.payload, elements, n)
    return tuple(z + n // 2 for z in integers(rans14_decode(part.payload, elements)))

"""Means, partial sums, merges (spec 8)."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from .checks import Reader, require
from .elements import (
    DTYPES,
    F32,
    FLOAT32,
    Dtype,
    exact_value,
    f32_bits,
    f32_from_bits,
    is_finite,
    round_float,
    words_of,
)
from .frame import Frame, decode_content
from .grids import GRID_DISTRIBUTION, integers, step_allowed
from .masks import GRID, sign_of_bit, unpack
from .noise import LARGEST_DRAW, SCALES, draw, scale_allowed, step
from .schema import Schema, schema_digest

MAX_WEIGHT = 2**39 - 1  # spec 8.1
DIGIT = 2**24  # spec 8.4


class Sums(NamedTuple):
    """The sums of one tensor: one row of S(i) if masked (8.2), a row for each limb if dense (8.4)."""

    rows: tuple[tuple[int, ...], ...]
    distribution: int = 0
    scale: float = 0.0


class PartialSum(NamedTuple):
    """The sums of an aggregator (spec 8.5)."""

    schema: Schema
    weight: int
    frames: int
    base_model: int
    round: int
    tensors: tuple[Sums, ...]


def sum_frame(frame: Frame, weight: int, base_model: int = 0, round: int = 0) -> PartialSum:
    """The partial sum of one frame; the base model and round that were checked, or 0 (spec 8.1 to 8.5)."""
    require(1 <= weight <= MAX_WEIGHT, "A-01", f"weight: expected 1 to 2^39 - 1, got {weight}")
    tensors = []
    for stream, (tensor, content) in enumerate(zip(frame.schema, frame.contents, strict=True)):
        if tensor.masked and content.kind == GRID:  # spec 8.2
            row = tuple(weight * z for z in integers(content.payload))
            tensors.append(Sums((row,), GRID_DISTRIBUTION, content.scale))
        elif tensor.masked:  # spec 8.2
            m = [sign_of_bit(content.kind, bit) for bit in unpack(content.payload, tensor.elements)]
            q = [draw(content.distribution, frame.seed, stream, i) for i in range(tensor.elements)]
            row = tuple(weight * q[i] * m[i] for i in range(tensor.elements))
            tensors.append(Sums((row,), content.distribution, content.scale))
        else:  # spec 8.4
            kind, values = DTYPES[tensor.dtype], decode_content(content, tensor, frame.seed, stream)
            x = [int(exact_value(w, kind) / kind.quantum) for w in words_of(values, tensor.dtype)]
            signed = [(-weight if v < 0 else weight, abs(v)) for v in x]
            limbs = (tuple(sw * (v // DIGIT**limb % DIGIT) for sw, v in signed) for limb in range(kind.limbs))
            tensors.append(Sums(tuple(limbs)))
    return PartialSum(frame.schema, weight, 1, base_model, round, tuple(tensors))


def merge(a: PartialSum, b: PartialSum) -> PartialSum:
    """The partial sum of two disjoint sets of frames; `Refusal` unless [A-06] holds (spec 8.5)."""
    require(a.schema == b.schema, "A-06", "two schemas")
    require((a.base_model, a.round) == (b.base_model, b.round), "A-06", "two base models or rounds")
    require(a.weight + b.weight <= MAX_WEIGHT, "A-01", f"weights {a.weight} + {b.weight}")
    tensors = []
    for x, y in zip(a.tensors, b.tensors, strict=True):
        require(x[1:] == y[1:], "A-02", f"distribution and scale {x[1:]}, {y[1:]}")
        rows = tuple(tuple(map(sum, zip(p, q, strict=True))) for p, q in zip(x.rows, y.rows, strict=True))
        tensors.append(x._replace(rows=rows))
    return a._replace(weight=a.weight + b.weight, frames=a.frames + b.frames, tensors=tuple(tensors))


def merge_all(parts: Sequence[PartialSum]) -> PartialSum:
    """The partial sum of one or more disjoint sets of frames (spec 8.5)."""
    return functools.reduce(merge, parts)


def partial_sum(
    frames: Sequence[Frame], weights: Sequence[int], base_model: int = 0, round: int = 0
) -> PartialSum:
    """The partial sum of one or more frames; the base model and round that were checked, or 0 (spec 8)."""
    return merge_all([sum_frame(f, w, base_model, round) for f, w in zip(frames, weights, strict=True)])


def mean(partial: PartialSum) -> list[bytes]:
    """The weighted mean of each tensor, little-endian (spec 8.2, 8.3)."""
    means = []
    for tensor, part in zip(partial.schema, partial.tensors, strict=True):
        kind = DTYPES[tensor.dtype]
        if tensor.masked:
            grid = part.distribution == GRID_DISTRIBUTION
            a = Fraction(part.scale) if grid else step(part.distribution, part.scale)
            words = [_masked_mean(total, partial.weight, a) for total in part.rows[0]]
        else:
            words = [_dense_mean(limbs, partial.weight, kind) for limbs in zip(*part.rows, strict=True)]
        means.append(b"".join(word.to_bytes(kind.size, "little") for word in words))
    return means


def _masked_mean(total: int, weight: int, step_value: Fraction) -> int:
    # spec 8.2. Python's floats are IEEE doubles: float(int) rounds to nearest, ties to even; / and * do too.
    # Not total / weight, for Python divides two ints without rounding them first.
    return round_float(Fraction(float(total) / float(weight) * float(step_value)), F32)


def _dense_mean(limbs: Sequence[int], weight: int, kind: Dtype) -> int:
    total = sum(limb * DIGIT**k for k, limb in enumerate(limbs))
    exact: Fraction = kind.quantum * total / weight  # spec 8.3, 8.4
    if not kind.fraction:
        least, largest = _integer_range(kind)
        require(least <= round(exact) <= largest, "A-07", f"a mean of {round(exact)}")
        return round(exact) % (1 << 8 * kind.size)
    word = round_float(exact, kind)
    require(is_finite(word, kind), "A-07", "a mean beyond the range of its dtype")
    return word if word % (1 << 8 * kind.size - 1) else 0  # spec 8.3: a zero is +0.0


def _integer_range(kind: Dtype) -> tuple[int, int]:
    if kind.name == "bool":
        return 0, 1
    bits = 8 * kind.size
    return (0, 2**bits - 1) if kind.name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def partial_to_bytes(partial: PartialSum) -> bytes:
    """A partial sum's bytes (spec 8.5)."""
    numbers = (partial.weight, partial.base_model, partial.round, len(partial.schema))
    minor = int(any(part.distribution == GRID_DISTRIBUTION for part in partial.tensors))
    data = struct.pack("<4sBBHQQII", b"FMRS", 1, minor, 0, *numbers)
    data += schema_digest(partial.schema) + struct.pack("<Q", partial.frames)
    for tensor, part in zip(partial.schema, partial.tensors, strict=True):
        rows = [(limb, row) for limb, row in enumerate(part.rows) if any(row)]
        if tensor.masked:
            data += struct.pack("<BxxxI", part.distribution, f32_bits(part.scale))
            data += struct.pack(f"<{tensor.elements}q", *part.rows[0])
        else:
            data += struct.pack("<I", len(rows))
            data += b"".join(struct.pack(f"<I{tensor.elements}q", limb, *row) for limb, row in rows)
    return data + struct.pack("<I", zlib.crc32(data))


def partial_from_bytes(data: bytes, schema: Schema) -> PartialSum:
    """The partial sum of its bytes, [P-01] to [P-16] checked in their order (spec 8.5)."""
    reader, size = Reader(data[:-4], 56), len(data)
    require(size >= 60, "P-01", f"partial sum, byte 0: expected at least 60 bytes, got {size}")
    magic, major, minor, flags, *numbers, digest, frames = struct.unpack("<4sBBHQQII16sQ", data[:56])
    weight, base_model, round_number, count = numbers
    require(magic == b"FMRS", "P-02", f"magic, byte 0: got {magic.hex()}")
    require(major == 1 and minor < 2, "P-03", f"version, byte 4: expected 1.0 or 1.1, got {major}.{minor}")
    require(flags == 0, "P-04", f"flags, byte 6: got {flags:#06x}")
    require(1 <= weight <= MAX_WEIGHT, "P-05", f"weight, byte 8: got {weight}")
    require(1 <= frames <= weight, "P-06", f"frames, byte 48: expected 1 to {weight}, got {frames}")
    require(digest == schema_digest(schema), "P-07", f"digest, byte 32: got {digest.hex()}")
    require(count == len(schema), "P-08", f"tensor_count: expected {len(schema)}, got {count}")
    parts, present = [], []
    for tensor in schema:
        n, at = tensor.elements, f"tensor at byte {reader.at} ({tensor.name!r})"
        if tensor.masked:
            distribution, reserved, scale = struct.unpack("<B3sI", reader.take(8, "P-01", at))
            grid = minor >= 1 and distribution == GRID_DISTRIBUTION
            require(grid or distribution in SCALES, "P-09", f"{at}: distribution {distribution}")
            require(reserved == bytes(3), "P-10", f"{at}: reserved {reserved.hex()}")
            allowed = step_allowed(FLOAT32, scale) if grid else scale_allowed(distribution, scale)
            require(allowed, "P-11", f"{at}: scale bits {scale:#010x}")
            row = struct.unpack(f"<{n}q", reader.take(8 * n, "P-01", f"{at}: sums"))
            parts.append(Sums((row,), distribution, f32_from_bits(scale)))
            continue
        limbs, last = [(0,) * n] * DTYPES[tensor.dtype].limbs, -1
        for _ in range(reader.uint(4, "P-01", f"{at}: rows")):
            limb = reader.uint(4, "P-01", f"{at}: limb")
            require(last < limb < len(limbs), "P-12", f"{at}: limb {limb} after {last}, of {len(limbs)}")
            limbs[limb], last = struct.unpack(f"<{n}q", reader.take(8 * n, "P-01", f"{at}: limbs")), limb
            present.append(limbs[limb])
        parts.append(Sums(tuple(limbs)))
    grids = any(part.distribution == GRID_DISTRIBUTION for part in parts)
    require(minor == int(grids), "P-16", f"minor: expected {int(grids)}, got {minor}")
    require(reader.at + 4 == size, "P-13", f"partial sum: expected {reader.at + 4} bytes, got {size}")
    crc = struct.pack("<I", zlib.crc32(data[:-4]))
    require(crc == data[-4:], "P-14", f"checksum: expected {crc.hex()}, got {data[-4:].hex()}")
    for part in parts:
        # Distribution 4 has the bound 2^24 - 1, as limbs have.
        bound = weight * LARGEST_DRAW.get(part.distribution, DIGIT - 1)
        require(all(abs(v) <= bound for row in part.rows for v in row), "P-15", f"a value beyond {bound}")
    require(all(any(row) for row in present), "P-15", "a row of zeros")
    return PartialSum(schema, weight, frames, base_model, round_number, tuple(parts))

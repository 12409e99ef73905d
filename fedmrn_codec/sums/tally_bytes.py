"""Tallies, i.e. counts of the set bits of frames with one seed, as bytes: building and parsing (spec 8.6)."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np

from .. import backends, errors
from ..format import rans14
from ..format.codings import GRIDS
from ..format.frame import CHECKSUM, Buffer, as_view, check_checksum
from ..format.parsing import check_digest, check_tensor_count
from ..format.reader import Reader
from ..format.schema import Schema, Tensor
from ..primitives.codes import Coding, MaskKind
from ..primitives.noise import DISTRIBUTIONS, Noise
from .counts import MaskCounts, counts_dtype
from .rows import Rows, check_rows, read_rows, write_rows
from .state import MAX_WEIGHT
from .tally_state import MAX_FRAMES, TallySums

MAGIC, MAJOR, MINOR = b"FMRT", 1, 0
HEADER = struct.Struct("<4sBBHQQII16sQI")
MASKED = struct.Struct("<BBBBfQ")


class Header(NamedTuple):
    """The fields of a tally's header (spec 8.6)."""

    magic: bytes
    major: int
    minor: int
    flags: int
    seed: int
    base_model: int
    round: int
    tensor_count: int
    digest: bytes
    weight: int
    frames: int


class Masked(NamedTuple):
    """A masked tensor as it is in the bytes."""

    kind: MaskKind
    noise: Noise
    coding: Coding
    payload: np.ndarray
    offset: int


def build(
    schema: Schema,
    sums: TallySums,
    *,
    seed: int,
    base_model: int,
    round: int,
    weight: int,
    frames: int,
    coding: Coding,
    backend: str | None,
) -> bytes:
    """The bytes of a tally, [E-05]; all batches of `sums` must have been flushed."""
    head = MAGIC, MAJOR, MINOR, 0, seed, base_model, round, len(schema), schema.digest, weight, frames
    parts = [HEADER.pack(*head)]
    for stream in range(len(schema)):
        state = sums.masked.get(stream)
        if state is None:
            parts.append(write_rows(sums.dense.rows(stream)))
            continue
        assert state.noise is not None
        assert state.kind is not None
        payload, used = _encoded(state.counts, frames, coding, backend)
        entry = state.kind, state.noise.code, used, 0, state.noise.scale, len(payload)
        parts += [MASKED.pack(*entry), payload.tobytes()]
    body = b"".join(parts)
    return body + CHECKSUM.pack(zlib.crc32(body))


def _encoded(
    counts: np.ndarray, frames: int, coding: Coding, backend: str | None
) -> tuple[np.ndarray, Coding]:
    """The payload of counts, and its coding: the one that is asked for where it is shorter than raw."""
    bits = frames.bit_length()
    if coding is Coding.RANS14:
        integers = counts.astype(np.int32) - np.int32(frames // 2)
        coded = rans14.encode(backends.grid_coder(backend), integers, packed_bytes(len(counts), bits))
        if coded is not None:
            return coded, coding
    narrow = counts.astype(counts_dtype(frames), copy=False)
    return backends.count_packer(backend).pack(narrow, bits), Coding.RAW


def packed_bytes(size: int, bits: int) -> int:
    """The bytes of `size` counts of `bits` bits."""
    return -(-size * bits // 8)


def parse(data: Buffer, schema: Schema, seed: int | None, backend: str | None) -> tuple[Header, TallySums]:
    """Parse and check the bytes of a tally; return its header and its sums.

    Raises
    ------
    FrameError
        One of [T-01] to [T-20] and [C-10] to [C-14] fails; the first that fails determines the subclass.
    """
    view = as_view(data)
    header = _parse_header(view, schema, seed)
    reader = Reader(view[HEADER.size : -CHECKSUM.size], errors.TruncatedError, HEADER.size)
    parts = [_read_masked(reader, t, header.frames) if t.masked else read_rows(reader, t) for t in schema]
    if reader.left:
        raise errors.TrailingError("tally", "no more bytes", f"{reader.left} more", reader.offset)
    check_checksum(view)
    sums = TallySums(schema, {}, {})
    for stream, (tensor, part) in enumerate(zip(schema, parts, strict=True)):
        if isinstance(part, Masked):
            state = MaskCounts(0, part.noise, part.kind)
            state.counts = _decoded(part, tensor, header.frames, backend)
            sums.masked[stream] = state
        else:
            rows: Rows = part
            check_rows(tensor, rows, header.frames)
            sums.dense.set_rows(stream, rows)
    return header, sums


def _parse_header(view: memoryview, schema: Schema, seed: int | None) -> Header:
    """Parse the header: [T-01] to [T-09]."""
    least = HEADER.size + CHECKSUM.size
    if len(view) < least:
        raise errors.TruncatedError("tally", f"at least {least} bytes", len(view), 0)
    header = Header(*HEADER.unpack_from(view))
    if header.magic != MAGIC:
        raise errors.MagicError("magic", repr(MAGIC), header.magic, 0)
    if (header.major, header.minor) != (MAJOR, MINOR):
        raise errors.VersionError("version", f"{MAJOR}.{MINOR}", f"{header.major}.{header.minor}", 4)
    if header.flags:
        raise errors.ReservedError("flags", "0", f"{header.flags:#06x}", 6)
    if not 1 <= header.frames <= MAX_FRAMES:
        raise errors.FramesError("frames", "1 to 2^24 - 1", header.frames, 56)
    if not 1 <= header.weight <= MAX_WEIGHT // header.frames:
        expected = f"1 to {MAX_WEIGHT // header.frames}, for {header.frames} frames"
        raise errors.WeightError("weight", expected, header.weight, 48)
    check_digest(header.digest, schema)
    check_tensor_count(header.tensor_count, schema)
    if seed is not None and header.seed != seed:
        raise errors.SeedError("seed", seed, header.seed, 8)
    return header


def _read_masked(reader: Reader, tensor: Tensor, frames: int) -> Masked:
    """Read the entry and the payload of a masked tensor: [T-10] to [T-15]."""
    at, name = reader.offset, repr(tensor.name)
    kind, code, coding, reserved, scale, length = MASKED.unpack(reader.take(MASKED.size, f"entry of {name}"))
    if kind not in frozenset(MaskKind):
        raise errors.UnknownKindError(f"kind of {name}", f"1 to {max(MaskKind)}", kind, at)
    if code not in DISTRIBUTIONS:
        expected = f"1 to {max(DISTRIBUTIONS)}"
        raise errors.UnknownDistributionError(f"distribution of {name}", expected, code, at + 1)
    if coding not in GRIDS:
        expected = f"one of {', '.join(str(int(each)) for each in GRIDS)}"
        raise errors.UnknownCodingError(f"coding of {name}", expected, coding, at + 2)
    if reserved:
        raise errors.ReservedError(f"reserved byte of {name}", "0", reserved, at + 3)
    if not DISTRIBUTIONS[code].allows(scale):
        raise errors.FrameScaleError(f"scale of {name}", DISTRIBUTIONS[code].bounds(), scale, at + 4)
    raw = packed_bytes(tensor.size, frames.bit_length())
    least, most = (raw, raw) if coding == Coding.RAW else (rans14.shortest(tensor.size), raw - 1)
    if not least <= length <= most:
        most_too = f" to {most}" if coding != Coding.RAW else ""
        expected = f"{least}{most_too} for {tensor.size} counts of {frames.bit_length()} bits"
        raise errors.PayloadLengthError(f"payload length of {name}", expected, length, at + 8)
    offset = reader.offset
    payload = np.frombuffer(reader.take(length, f"payload of {name}"), np.uint8)
    return Masked(MaskKind(kind), DISTRIBUTIONS[code](scale), Coding(coding), payload, offset)


def _decoded(part: Masked, tensor: Tensor, frames: int, backend: str | None) -> np.ndarray:
    """The counts of a masked tensor, after [T-19] or [C-10] to [C-14], and [T-20]."""
    name, dtype, bits = repr(tensor.name), counts_dtype(frames), frames.bit_length()
    if part.coding is Coding.RAW:
        _check_padding(part, tensor, bits)
        counts = np.empty(tensor.size, dtype)
        backends.count_packer(backend).unpack(part.payload, bits, counts)
    else:
        coder = backends.grid_coder(backend)
        counts = rans14.decode(coder, part.payload, tensor.size, name, part.offset, "counts")
        counts += np.int32(frames // 2)
    if counts.size and (int(counts.max()) > frames or int(counts.min()) < 0):
        first = int(np.flatnonzero((counts > frames) | (counts < 0))[0])
        at = part.offset + (first * bits // 8 if part.coding is Coding.RAW else 0)
        expected = f"0 to {frames}, the number of frames"
        raise errors.SumsError(f"count {first} of {name}", expected, counts[first], at)
    return counts.astype(dtype, copy=False)


def _check_padding(part: Masked, tensor: Tensor, bits: int) -> None:
    """Check that the bits after the last count are 0, [T-19]."""
    used = tensor.size * bits % 8
    if used and int(part.payload[-1]) >> used:
        raise errors.PaddingError(
            f"padding of {tensor.name!r}",
            f"0 in the bits after count {tensor.size - 1}",
            f"{part.payload[-1]:#04x} in its last byte",
            part.offset + len(part.payload) - 1,
        )

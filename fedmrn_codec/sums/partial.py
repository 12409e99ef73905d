"""Partial sums, i.e. the sums of weighted frames, as bytes: building and parsing them (spec 8.5)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from .. import errors
from ..format.frame import CHECKSUM, Buffer, as_view, check_checksum
from ..format.parsing import check_digest, check_tensor_count
from ..format.reader import Reader
from ..format.schema import Schema, Tensor
from ..primitives.grid import Grid
from ..primitives.noise import DISTRIBUTIONS, Noise
from .rows import Rows, check_magnitude, check_rows, read_rows, read_sums, write_rows
from .state import MAX_WEIGHT, MaskedSum, Sums

MAGIC, MAJOR, MINOR = b"FMRS", 1, 1  # the highest minor version that this library reads
HEADER = struct.Struct("<4sBBHQQII16sQ")
MASKED = struct.Struct("<B3sf")


class Header(NamedTuple):
    """The fields of a partial sum's header (spec 8.5)."""

    magic: bytes
    major: int
    minor: int
    flags: int
    weight: int
    base_model: int
    round: int
    tensor_count: int
    digest: bytes
    frames: int


def build(schema: Schema, sums: Sums, weight: int, frames: int, round: int, base_model: int) -> bytes:
    """The bytes of a partial sum of `frames` frames; all batches of `sums` must have been flushed."""
    minor = _minor(sums.masked.values())
    parts = [
        HEADER.pack(MAGIC, MAJOR, minor, 0, weight, base_model, round, len(schema), schema.digest, frames)
    ]
    for stream in range(len(schema)):
        if stream in sums.masked:
            state = sums.masked[stream]
            assert state.noise is not None
            parts.append(MASKED.pack(state.noise.code, bytes(3), state.noise.scale))
            parts.append(state.sums.astype("<i8").tobytes())
            continue
        parts.append(write_rows(sums.dense.rows(stream)))
    body = b"".join(parts)
    return body + CHECKSUM.pack(zlib.crc32(body))


def parse(data: Buffer, schema: Schema) -> tuple[Header, Sums]:
    """Parse and check the bytes of a partial sum; return its header and its sums.

    Raises
    ------
    FrameError
        One of [P-01] to [P-16] fails; the first one that fails determines the subclass.
    """
    view = as_view(data)
    header = _parse_header(view, schema)
    reader = Reader(view[HEADER.size : -CHECKSUM.size], errors.TruncatedError, HEADER.size)
    states = [_read_masked(reader, t, header.minor) if t.masked else read_rows(reader, t) for t in schema]
    needed = _minor(state for state in states if isinstance(state, MaskedSum))
    if header.minor != needed:
        raise errors.MinorError("minor version", f"{needed}, for its distributions", header.minor, 5)
    if reader.left:
        raise errors.TrailingError("partial sum", "no more bytes", f"{reader.left} more", reader.offset)
    check_checksum(view)
    sums = Sums(schema, {})
    sums.square_weights = None
    for stream, (tensor, state) in enumerate(zip(schema, states, strict=True)):
        _check_sums(tensor, state, header.weight)
        if isinstance(state, MaskedSum):
            sums.masked[stream] = state
        else:
            sums.dense.set_rows(stream, state)
    return header, sums


def _parse_header(view: memoryview, schema: Schema) -> Header:
    """Parse the header: [P-01] to [P-08]."""
    least = HEADER.size + CHECKSUM.size
    if len(view) < least:
        raise errors.TruncatedError("partial sum", f"at least {least} bytes", len(view), 0)
    header = Header(*HEADER.unpack_from(view))
    if header.magic != MAGIC:
        raise errors.MagicError("magic", repr(MAGIC), header.magic, 0)
    if header.major != MAJOR or header.minor > MINOR:
        known = f"{MAJOR}.0 to {MAJOR}.{MINOR}"
        raise errors.VersionError("version", known, f"{header.major}.{header.minor}", 4)
    if header.flags:
        raise errors.ReservedError("flags", "0", f"{header.flags:#06x}", 6)
    if not 1 <= header.weight <= MAX_WEIGHT:
        raise errors.WeightError("weight", "1 to 2^39 - 1", header.weight, 8)
    if not 1 <= header.frames <= header.weight:
        raise errors.FramesError("frames", f"1 to {header.weight}", header.frames, 48)
    check_digest(header.digest, schema)
    check_tensor_count(header.tensor_count, schema)
    return header


def _minor(states: Iterable[MaskedSum]) -> int:
    """The lowest minor version that has the distributions of these sums."""
    return int(any(isinstance(state.noise, Grid) for state in states))


def _read_masked(reader: Reader, tensor: Tensor, minor: int) -> MaskedSum:
    """Read the sums of a masked tensor: [P-09] to [P-11]."""
    at, name = reader.offset, repr(tensor.name)
    code, reserved, scale = MASKED.unpack(reader.take(MASKED.size, f"noise of {name}"))
    known: dict[int, type[Noise | Grid]] = {**DISTRIBUTIONS, **({Grid.code: Grid} if minor else {})}
    if code not in known:
        raise errors.UnknownDistributionError(f"distribution of {name}", f"1 to {max(known)}", code, at)
    if any(reserved):
        raise errors.ReservedError(f"reserved bytes of {name}", "0", reserved.hex(), at + 1)
    if not known[code].allows(scale):
        raise errors.FrameScaleError(f"scale of {name}", known[code].bounds(), scale, at + 4)
    sums = read_sums(reader, tensor, f"sums of {name}")
    out = MaskedSum(0, known[code](scale))
    out.sums = sums
    return out


def _check_sums(tensor: Tensor, state: MaskedSum | Rows, weight: int) -> None:
    """Check the magnitudes of one tensor's sums, and that no row is all 0: [P-15]."""
    if isinstance(state, MaskedSum):
        assert state.noise is not None
        check_magnitude(tensor, state.sums, weight * state.noise.largest_draw)
    else:
        check_rows(tensor, state, weight)

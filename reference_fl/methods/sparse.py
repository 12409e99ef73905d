"""Sparse vectors as bytes: the kept values, and their positions in the shortest of three codings.

| offset | size | name      | allowed                                                             |
|--------|------|-----------|---------------------------------------------------------------------|
| 0      | 1    | positions | 0 gaps, 1 bitmap, 2 all are kept                                    |
| 1      | 1    | width     | bits of the remainder of a gap, 0 to 24; 0 without gaps             |
| 2      | 2    | reserved  | 0                                                                   |
| 4      | 4    | count     | number n of kept elements                                           |
| 8      | 4 n  | values    | float32, finite, in order of position                               |
|        |      | positions | Golomb-Rice coded gaps, or one bit an element, or nothing           |
"""

from __future__ import annotations

import struct

import numpy as np

from ..messages import Part
from .packing import MAX_WIDTH, gaps_width, pack_gaps, unpack_bits, unpack_gaps

HEADER = struct.Struct("<BBHI")
GAPS, BITMAP, ALL = 0, 1, 2


def pack_sparse(vector: np.ndarray, kept: np.ndarray) -> bytes:
    """Encode a vector of which only some elements are kept.

    Parameters
    ----------
    vector : float32, shape (n,)
    kept : bool, shape (n,)

    Returns
    -------
    bytes
        In the shortest of the codings, which the first byte identifies.
    """
    positions = np.flatnonzero(kept)
    values = vector[positions].astype("<f4").tobytes()
    if len(positions) == len(vector):
        return HEADER.pack(ALL, 0, 0, len(positions)) + values
    gaps = np.diff(positions, prepend=-1) - 1
    width = gaps_width(gaps)
    coded, bitmap = pack_gaps(gaps, width), np.packbits(kept, bitorder="little").tobytes()
    if len(coded) < len(bitmap):
        return HEADER.pack(GAPS, width, 0, len(positions)) + values + coded
    return HEADER.pack(BITMAP, 0, 0, len(positions)) + values + bitmap


def unpack_sparse(part: Part, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `pack_sparse`.

    Returns
    -------
    vector : float32, shape (size,)
        0 where no element was kept.
    kept : bool, shape (size,)

    Raises
    ------
    MessageError
        The part does not have the form above.
    """
    if len(part.data) < HEADER.size:
        raise part.error("sparse header", f"at least {HEADER.size} bytes", f"{len(part.data)} bytes")
    coding, width, reserved, count = HEADER.unpack_from(part.data)
    if coding not in (GAPS, BITMAP, ALL):
        raise part.error("coding of positions", "0 (gaps), 1 (bitmap) or 2 (all)", coding)
    if width > (MAX_WIDTH if coding == GAPS else 0):
        raise part.error("width of gaps", f"0 to {MAX_WIDTH}, 0 without gaps", width, 1)
    if reserved:
        raise part.error("reserved bytes", "0", reserved, 2)
    if count > size or (coding == ALL and count != size):
        raise part.error("count of values", f"at most the tensor's {size} elements", count, 4)
    values = _values(part, count)
    kept = _kept(part, HEADER.size + 4 * count, coding, count, width, size)
    vector = np.zeros(size, np.float32)
    vector[kept] = values
    return vector, kept


def _values(part: Part, count: int) -> np.ndarray:
    if len(part.data) < HEADER.size + 4 * count:
        got = f"{len(part.data) - HEADER.size} bytes left"
        raise part.error("values", f"{4 * count} bytes for {count} values", got, HEADER.size)
    values = np.frombuffer(part.data, "<f4", count, HEADER.size)
    if not np.isfinite(values).all():
        first = int(np.argmin(np.isfinite(values)))
        raise part.error("value", "a finite number", values[first], HEADER.size + 4 * first)
    return values


def _kept(part: Part, at: int, coding: int, count: int, width: int, size: int) -> np.ndarray:
    if coding == GAPS:
        positions = np.cumsum(unpack_gaps(part, at, count, width) + 1) - 1
        if count and positions[-1] >= size:
            raise part.error("last position", f"below {size}, the tensor's elements", positions[-1], at)
        kept = np.zeros(size, np.bool_)
        kept[positions] = True
        return kept
    kept, end = unpack_bits(part, at, size, "bitmap") if coding == BITMAP else (np.ones(size, np.bool_), at)
    if end != len(part.data):
        raise part.error("length of the part", f"{end} bytes of fields", len(part.data), end)
    if kept.sum() != count:
        raise part.error("bitmap", f"{count} values", f"{kept.sum()} bits set", at)
    return kept

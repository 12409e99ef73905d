"""The rows of limbs of a dense tensor, as bytes in partial sums and tallies (spec 8.5, 8.6)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

from .. import errors
from ..format.reader import Reader
from ..format.schema import Tensor
from ..primitives.noise import MAX_DRAW

Rows = dict[int, np.ndarray]
"""The sums of a dense tensor, by limb: int64, shape (size,)."""


def write_rows(rows: Iterable[tuple[int, np.ndarray]]) -> bytes:
    """The bytes of rows, which are in ascending order of their limbs."""
    parts = [struct.pack("<I", limb) + row.astype("<i8").tobytes() for limb, row in rows]
    return struct.pack("<I", len(parts)) + b"".join(parts)


def read_sums(reader: Reader, tensor: Tensor, field: str) -> np.ndarray:
    """Read a sum for each element: int64, shape (size,)."""
    return np.frombuffer(reader.take(8 * tensor.size, field), "<i8").astype(np.int64)


def read_rows(reader: Reader, tensor: Tensor) -> Rows:
    """Read the sums of a dense tensor, a row for each limb: [P-12], [T-16]."""
    out: Rows = {}
    last, name = -1, repr(tensor.name)
    for _ in range(reader.number(4, f"rows of {name}")):
        at = reader.offset
        limb = reader.number(4, f"row of {name}")
        if not last < limb < tensor.type.limbs:
            raise errors.RowsError(
                f"row of {name}", f"{last + 1} to {tensor.type.limbs - 1}, ascending", limb, at
            )
        out[limb] = read_sums(reader, tensor, f"row {limb} of {name}")
        last = limb
    return out


def check_rows(tensor: Tensor, rows: Rows, total: int) -> None:
    """Check the magnitudes of limbs for a sum of weights, and that no row is all 0: [P-15], [T-20]."""
    for row in rows.values():
        if not check_magnitude(tensor, row, total * MAX_DRAW):
            raise errors.SumsError(f"rows of {tensor.name!r}", "a sum other than 0 in each", "a row of zeros")


def check_magnitude(tensor: Tensor, row: np.ndarray, limit: int) -> int:
    """Check that no sum exceeds a limit in magnitude, [P-15] and [T-20]; returns the largest magnitude."""
    largest = max(abs(int(row.min())), abs(int(row.max()))) if row.size else 0
    if largest > limit:
        raise errors.SumsError(f"sums of {tensor.name!r}", f"magnitudes of at most {limit}", largest)
    return largest

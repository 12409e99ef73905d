"""The blocks of codings 4 and 5, which have one state each, in a payload (spec 6.11, 6.14)."""

from __future__ import annotations

import numpy as np

from .. import errors
from ..backends.rans_parts import LOWEST, Coded, blocks


def join(
    head: bytes, count_type: str, states: np.ndarray, counts: np.ndarray, words: np.ndarray
) -> np.ndarray:
    """A payload (uint8): the head, the number of words of each block but the last, and the blocks."""
    ends = np.cumsum(counts)
    parts = [head, counts[:-1].astype(count_type).tobytes()]
    for row, begin, end in zip(states, ends - counts, ends, strict=True):
        parts += [row.astype("<u4").tobytes(), words[begin:end].astype("<u2").tobytes()]
    return np.frombuffer(b"".join(parts), np.uint8)


def split(
    data: np.ndarray,
    begin: int,
    count_type: str,
    most: int | None,
    probabilities: np.ndarray,
    size: int,
    field: str,
    offset: int,
) -> Coded:
    """Split a payload into its parts: [C-06] and [C-07], or [C-11] and [C-12].

    Parameters
    ----------
    data : numpy.ndarray of uint8
    begin : int
        The place of the first number of words.
    count_type : str
        The NumPy type of these numbers.
    most : int or None
        The largest number of words of the last block, if it is bounded.
    probabilities : numpy.ndarray
        As in `Coded`.
    size : int
        The number of elements.
    field, offset : str, int
        The tensor and the payload's offset in the frame, for error messages.
    """
    n = blocks(size)
    body = begin + np.dtype(count_type).itemsize * (n - 1)
    counts = np.empty(n, np.int64)
    counts[:-1] = np.frombuffer(data[begin:body].tobytes(), count_type)
    left = len(data) - body - 4 * n - 2 * int(counts[:-1].sum())
    if left % 2 or left < 0 or (most is not None and left > 2 * most):
        expected = f"0 to {most} whole words in its last block" if most else "whole words in its last block"
        raise errors.CodingError(field, expected, f"{left} bytes", offset + begin)
    counts[-1] = left // 2
    starts = body + np.cumsum(4 + 2 * counts) - (4 + 2 * counts)
    states = np.empty((n, 1), np.uint32)
    words = np.empty(int(counts.sum()), np.uint16)
    at = 0
    for b, start in enumerate(starts.tolist()):
        states[b] = np.frombuffer(data[start : start + 4].tobytes(), "<u4")
        end = at + int(counts[b])
        words[at:end] = np.frombuffer(data[start + 4 : start + 4 + 2 * (end - at)].tobytes(), "<u2")
        at = end
    if (low := np.flatnonzero(states[:, 0] < LOWEST)).size:
        b = int(low[0])
        where = offset + int(starts[b])
        raise errors.CodingError(f"state of {field}", f"at least {LOWEST}", states[b, 0], where)
    return Coded(probabilities, states, counts, words)

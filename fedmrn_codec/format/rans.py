"""Coding 1 of masks (spec 6.8): range coding by probabilities that depend on the size of the noise.

A bit is set more often where the noise is small, and the decoder knows the noise: each of 16 buckets of |q|
has a probability of its own. The coder is rANS (Duda, arXiv 1311.2540) in integers, over independent blocks
of 65,536 elements, each with eight states that take turns. The steps element by element are in the backends
(`backends.Coder`); this module holds the payload's layout and its checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import errors
from ..backends.rans_parts import BUCKETS, LANES, LOWEST, Coded, blocks
from ..primitives.noise import Noise

if TYPE_CHECKING:
    from ..backends import Coder

CODED_FIELD = "coded mask"


def shortest(size: int) -> int:
    """The least number of bytes that `size` elements may be coded in."""
    return BUCKETS + (2 + 4 * LANES) * blocks(size)


def probabilities(ones: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """The nearest 256ths of ones / totals, 1 to 255; 128 for an empty bucket: uint8."""
    nearest = (512 * ones + totals) // np.maximum(2 * totals, 1)
    out: np.ndarray = np.where(totals == 0, 128, np.clip(nearest, 1, 255)).astype(np.uint8)
    return out


def encode(
    coder: Coder, noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int
) -> np.ndarray | None:
    """A packed mask's coded payload, uint8; None if it would not be shorter."""
    if shortest(size) >= len(payload):
        return None
    ones, totals = coder.count(noise, seed, stream, payload, size)
    chosen = probabilities(ones, totals)
    if _estimate(ones, totals, chosen) > 8 * len(payload):
        return None
    states, counts, words = coder.encode(noise, seed, stream, payload, size, chosen)
    if shortest(size) + 2 * len(words) >= len(payload):
        return None
    ends = np.cumsum(counts)
    parts = [chosen.tobytes(), counts.astype("<u2").tobytes()]
    for row, begin, end in zip(states, ends - counts, ends, strict=True):
        parts += [row.astype("<u4").tobytes(), words[begin:end].astype("<u2").tobytes()]
    return np.frombuffer(b"".join(parts), np.uint8)


def decode(
    coder: Coder, noise: Noise, seed: int, stream: int, data: np.ndarray, size: int, name: str, offset: int
) -> np.ndarray:
    """The packed mask of a coded payload, after the checks [C-01] to [C-04].

    Parameters
    ----------
    data : numpy.ndarray of uint8
        Its length has passed [F-23].
    size : int
        Elements.
    name, offset
        Of the tensor, and of its payload in the frame, for messages.

    Returns
    -------
    numpy.ndarray of uint8, shape (ceil(size / 8),)
    """
    field = f"{CODED_FIELD} of {name}"
    coded = _split(data, size, field, offset)
    out = np.empty((size + 7) // 8, np.uint8)
    bad, ones, totals = coder.decode(noise, seed, stream, coded, out, size)
    if len(bad):
        where = f"block {bad[0]} does not end in its first state with its last word"
        raise errors.CodingError(
            field, "each block to end in its first state with its last word", where, offset
        )
    right = probabilities(ones, totals)
    if (wrong := np.flatnonzero(right != coded.probabilities)).size:
        k = int(wrong[0])
        expected = f"{right[k]}, as the bits have it"
        raise errors.CodingError(f"probability {k} of {name}", expected, coded.probabilities[k], offset + k)
    return out


def _split(data: np.ndarray, size: int, field: str, offset: int) -> Coded:
    """The parts: [C-01] and [C-02]."""
    n = blocks(size)
    chosen = data[:BUCKETS]
    counts = data[BUCKETS : BUCKETS + 2 * n].view("<u2").astype(np.int64)
    need = shortest(size) + 2 * int(counts.sum())
    if need != len(data):
        raise errors.CodingError(
            field, f"{need} bytes for its blocks", f"{len(data)} bytes", offset + BUCKETS
        )
    body = data[BUCKETS + 2 * n :]
    ends = np.cumsum(4 * LANES + 2 * counts)
    begins = ends - (4 * LANES + 2 * counts)
    states = np.empty((n, LANES), np.uint32)
    words = np.empty(int(counts.sum()), np.uint16)
    at = 0
    for b, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        states[b] = body[begin : begin + 4 * LANES].view("<u4")
        words[at : at + counts[b]] = body[begin + 4 * LANES : end].view("<u2")
        at += int(counts[b])
    if (low := np.argwhere(states < LOWEST)).size:
        b, lane = (int(i) for i in low[0])
        at = offset + BUCKETS + 2 * n + int(begins[b]) + 4 * lane
        raise errors.CodingError(f"state of {field}", f"at least {LOWEST}", states[b, lane], at)
    return Coded(chosen, states, counts, words)


def _estimate(ones: np.ndarray, totals: np.ndarray, chosen: np.ndarray) -> float:
    """Bits of the words, or a few fewer."""
    p = chosen / 256
    return float(-(ones * np.log2(p) + (totals - ones) * np.log2(1 - p)).sum())

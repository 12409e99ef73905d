"""Entropy coding of masks, coding 1 (spec 6.8): rANS (Duda, arXiv 1311.2540) in integers.

A bit is more often set where the noise is small, and the decoder knows the noise: elements are sorted by |q|
into 16 buckets, each with its own probability of a set bit. Blocks of 65,536 elements are independent; each
has eight states, which code an eighth of the elements each. The backends code the elements
(`backends.Coder`); this module reads, writes and checks the payload around them.
"""

from __future__ import annotations

import numpy as np

from .. import errors
from ..backends import Coder
from ..backends.rans_parts import BUCKETS, LANES, LOWEST, Coded, blocks
from ..primitives.noise import Noise

CODED_FIELD = "coded mask"


def shortest(size: int) -> int:
    """The least length in bytes of the coded payload of `size` elements."""
    return BUCKETS + (2 + 4 * LANES) * blocks(size)


def probabilities(ones: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """The probability of a set bit in each bucket, in 256ths, 1 to 255 (128 if it is empty): uint8."""
    nearest = (512 * ones + totals) // np.maximum(2 * totals, 1)
    out: np.ndarray = np.where(totals == 0, 128, np.clip(nearest, 1, 255)).astype(np.uint8)
    return out


def encode(
    coder: Coder, noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int
) -> np.ndarray | None:
    """Entropy-code a packed mask (uint8): the payload (uint8), or None if it is not shorter than the mask."""
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
    """Decode a coded payload to a packed mask, and check it: [C-01] to [C-04].

    `data` is the payload (uint8), whose length has passed [F-23], and `size` the number of elements. `name`
    and `offset` are the tensor's name and the payload's offset in the frame, for error messages.

    Returns
    -------
    numpy.ndarray of uint8, shape (ceil(size / 8),)
    """
    field = f"{CODED_FIELD} of {name}"
    coded = _split(data, size, field, offset)
    out = np.empty((size + 7) // 8, np.uint8)
    bad, ones, totals = coder.decode(noise, seed, stream, coded, out, size)
    if len(bad):
        expected = f"block {bad[0]} to end with its last word and the initial states"
        raise errors.CodingError(field, expected, "other states or unread words", offset)
    right = probabilities(ones, totals)
    if (wrong := np.flatnonzero(right != coded.probabilities)).size:
        k = int(wrong[0])
        expected = f"{right[k]}, the share of set bits in 256ths"
        raise errors.CodingError(f"probability {k} of {name}", expected, coded.probabilities[k], offset + k)
    return out


def _split(data: np.ndarray, size: int, field: str, offset: int) -> Coded:
    """Split a payload into its parts: [C-01] and [C-02]."""
    n = blocks(size)
    chosen = data[:BUCKETS]
    counts = data[BUCKETS : BUCKETS + 2 * n].view("<u2").astype(np.int64)
    need = shortest(size) + 2 * int(counts.sum())
    if need != len(data):
        raise errors.CodingError(
            field, f"{need} bytes for the words of its blocks", len(data), offset + BUCKETS
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
    """A lower bound of the length of the words in bits: the entropy of the mask."""
    p = chosen / 256
    return float(-(ones * np.log2(p) + (totals - ones) * np.log2(1 - p)).sum())

"""Entropy coding of masks, coding 4 (spec 6.10, 6.11): rANS with probabilities of 12 bits.

It conditions on the buckets of |q|, as coding 1 (`rans`) does, and costs less where few bits are set or a
tensor is small: a block has one state, the probabilities take one byte or some ten, and the number of words
of the last block follows from the payload's length. The backends code the elements (`backends.Coder`); this
module reads, writes and checks the payload around them.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .. import errors
from ..backends import Coder
from ..backends.rans_parts import BUCKETS, blocks
from ..primitives.noise import Bernoulli, Noise
from .rans import CODED_FIELD
from .rans_blocks import join, split

MIDDLE = 39
"""The index of the probability 1/2."""

HALF = [k + 1 if k < 3 else (4 + (k + 1) % 4) << ((k + 1) // 4 - 1) for k in range(MIDDLE + 1)]
FREQUENCIES = np.array([*HALF, *(4096 - v for v in reversed(HALF[:MIDDLE]))], np.uint16)
"""v(0) to v(78): the probabilities of a set bit that a bucket can have, in 4096ths."""

BETWEEN = FREQUENCIES[:-1].astype(np.int64) + FREQUENCIES[1:]
"""Twice the middles between neighbours in `FREQUENCIES`."""

COUNTS, MOST_WORDS = "<u2", 2**16 - 1
"""The type of the numbers of words, and the largest one."""


def shortest(size: int) -> int:
    """The least length in bytes of the coded payload of `size` elements."""
    return 6 * blocks(size) - 1


def classes(noise: Noise) -> int:
    """The number of buckets that draws can be in."""
    return 1 if isinstance(noise, Bernoulli) else BUCKETS


def indices(ones: np.ndarray, totals: np.ndarray, count: int) -> list[int]:
    """The index into `FREQUENCIES` of each of `count` buckets; that of an empty one is its predecessor's."""
    out, last = [], MIDDLE
    for set_, total in zip(ones[:count].tolist(), totals[:count].tolist(), strict=True):
        last = int(np.count_nonzero(8192 * set_ >= BETWEEN * total)) if total else last
        out.append(last)
    return out


def encode(
    coder: Coder, noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int
) -> np.ndarray | None:
    """Entropy-code a packed mask (uint8): the payload (uint8), or None if it is not shorter than the mask."""
    if shortest(size) >= len(payload):
        return None
    table = indices(*coder.count(noise, seed, stream, payload, size), classes(noise))
    states, counts, words = coder.encode(noise, seed, stream, payload, size, _probabilities(table))
    coded = join(_pack(table), COUNTS, states, counts, words)
    return coded if len(coded) < len(payload) else None


def decode(
    coder: Coder, noise: Noise, seed: int, stream: int, data: np.ndarray, size: int, name: str, offset: int
) -> np.ndarray:
    """Decode a coded payload to a packed mask, and check it: [C-05] to [C-09].

    `data` is the payload (uint8), whose length has passed [F-23], and `size` the number of elements. `name`
    and `offset` are the tensor's name and the payload's offset in the frame, for error messages.

    Returns
    -------
    numpy.ndarray of uint8, shape (ceil(size / 8),)
    """
    field = f"{CODED_FIELD} of {name}"
    table, begin = _unpack(data[: len(data) - 6 * blocks(size) + 2], classes(noise), field, offset)
    coded = split(data, begin, COUNTS, MOST_WORDS, _probabilities(table), size, field, offset)
    out = np.empty((size + 7) // 8, np.uint8)
    bad, ones, totals = coder.decode(noise, seed, stream, coded, out, size)
    if len(bad):
        expected = f"block {bad[0]} to end with its last word and the initial state"
        raise errors.CodingError(field, expected, "another state or unread words", offset)
    right = indices(ones, totals, classes(noise))
    for c, (k, its) in enumerate(zip(right, table, strict=True)):
        if k != its:
            expected = f"{k}, that of the share of set bits"
            raise errors.CodingError(f"probability index {c} of {name}", expected, its, offset)
    return out


def _probabilities(table: list[int]) -> np.ndarray:
    """The probability of a set bit in each of the 16 buckets, in 4096ths: uint16."""
    return np.resize(FREQUENCIES[table], BUCKETS)


def _pack(table: list[int]) -> bytes:
    """The first index as a byte, the differences of the others in bits."""
    bits: list[int] = []
    for before, k in pairwise(table):
        bits += [1, *[0] * (before - k - 1), 1] if k < before else [0, *[0] * (k - before), 1]
    return bytes(table[:1]) + np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def _unpack(data: np.ndarray, count: int, field: str, offset: int) -> tuple[list[int], int]:
    """The indices of `count` buckets, and the number of bytes that they take: [C-05]."""

    def check(right: bool, expected: str, got: object, at: int) -> None:
        if not right:
            raise errors.CodingError(f"probabilities of {field}", expected, got, offset + at)

    last = len(FREQUENCIES) - 1
    table, at = [int(data[0])], 0
    check(table[0] <= last, f"an index of at most {last}", table[0], 0)
    # No more bits are needed than these: a difference has at most `last` + 2.
    bits = np.unpackbits(data[1 : 1 + count * (last + 2) // 8], bitorder="little")
    ends = np.flatnonzero(bits)
    for _ in range(count - 1):
        place = int(np.searchsorted(ends, at + 1))  # of the set bit that ends the difference
        check(place < len(ends), f"the indices of {count} buckets", f"the end of bucket {len(table) - 1}", 1)
        size = int(ends[place]) - at - 1
        table.append(table[-1] - size - 1 if bits[at] else table[-1] + size)
        at = int(ends[place]) + 1
        check(0 <= table[-1] <= last, f"an index of 0 to {last}", table[-1], 1 + (at - 1) // 8)
    size = -(-at // 8)
    check(not bits[at : 8 * size].any(), "padding bits of 0", "others", size)
    return table, 1 + size

"""Entropy coding of the integers of a grid, coding 5 (spec 6.13, 6.14): rANS with probabilities of 14 bits.

Small integers are symbols of their own; larger ones share a symbol with others of a similar magnitude, and
plain bits tell them apart. The backends code the elements (`backends.GridCoder`); this module reads, writes
and checks the payload around them.
"""

from __future__ import annotations

import numpy as np

from .. import errors
from ..backends import GridCoder
from ..backends.rans_parts import SYMBOLS, blocks
from .rans_blocks import join, split

TOTAL = 2**14
"""The sum of the frequencies of all symbols."""

COUNTS = "<u4"
"""The type of the numbers of words."""

MOST_ZEROS = 14
"""The most bits of 0 with which a frequency begins."""


def shortest(size: int) -> int:
    """The least length in bytes of the coded payload of `size` elements."""
    return 8 * blocks(size) - 3


def frequencies(counts: np.ndarray) -> np.ndarray:
    """The frequency of each symbol, from the numbers of elements that have it: uint32, shape (215,)."""
    total = int(counts.sum())
    out = [max(1, TOTAL * c // total) if c else 0 for c in counts.tolist()]
    out[int(counts.argmax())] += TOTAL - sum(out)
    return np.array(out, np.uint32)


def encode(coder: GridCoder, integers: np.ndarray, raw_bytes: int | None = None) -> np.ndarray | None:
    """Entropy-code integers (int32, shape (n,)): the payload (uint8), or None if raw is not longer.

    `raw_bytes` is the length of the raw payload; by default that of a grid, 4 bytes an element.
    """
    raw_bytes = integers.nbytes if raw_bytes is None else raw_bytes
    if shortest(len(integers)) >= raw_bytes:
        return None
    chosen = frequencies(coder.count(integers))
    states, counts, words = coder.encode(integers, chosen)
    coded = join(_pack(chosen), COUNTS, states, counts, words)
    return coded if len(coded) < raw_bytes else None


def decode(
    coder: GridCoder, data: np.ndarray, size: int, name: str, offset: int, what: str = "grid"
) -> np.ndarray:
    """Decode a coded payload to integers, and check it: [C-10] to [C-14].

    `data` is the payload (uint8), whose length has passed [F-23] or [T-15], and `size` the number of
    elements. `name` and `offset` are the tensor's name and the payload's offset in the bytes, and `what` says
    what the integers are, for error messages.

    Returns
    -------
    numpy.ndarray of int32, shape (size,)
    """
    field = f"coded {what} of {name}"
    given, begin = _unpack(data[: len(data) - 8 * blocks(size) + 4], field, offset)
    coded = split(data, begin, COUNTS, None, given, size, field, offset)
    out = np.empty(size, np.int32)
    bad, counts = coder.decode(coded, out)
    if len(bad):
        expected = f"block {bad[0]} to end with its last word and the initial state"
        raise errors.CodingError(field, expected, "another state or unread words", offset)
    right = frequencies(counts)
    if (wrong := np.flatnonzero(right != given)).size:
        s = int(wrong[0])
        expected = f"{right[s]}, that of the decoded integers"
        raise errors.CodingError(f"frequency of symbol {s} of {name}", expected, given[s], offset)
    return out


def _pack(chosen: np.ndarray) -> bytes:
    """The last symbol as a byte, the frequencies of all symbols from 1 on in bits."""
    last = int(np.flatnonzero(chosen)[-1])
    bits: list[int] = []
    for v in (chosen[1 : last + 1] + 1).tolist():
        k = v.bit_length() - 1
        bits += [*[0] * k, 1, *(v >> i & 1 for i in range(k))]
    return bytes([last]) + np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def _unpack(data: np.ndarray, field: str, offset: int) -> tuple[np.ndarray, int]:
    """The frequencies (uint32, shape (215,)), and the number of bytes that they take: [C-10]."""

    def check(right: bool, expected: str, got: object, at: int) -> None:
        if not right:
            raise errors.CodingError(f"frequencies of {field}", expected, got, offset + at)

    last = int(data[0])
    check(last < SYMBOLS, f"a last symbol of at most {SYMBOLS - 1}", last, 0)
    packed = data[1 : 2 + last * (2 * MOST_ZEROS + 1) // 8]
    bits = np.where(np.unpackbits(packed, bitorder="little"), b"1", b"0").tobytes()
    out, at = np.zeros(SYMBOLS, np.uint32), 0
    for s in range(1, last + 1):
        one = bits.find(b"1", at, at + MOST_ZEROS + 1)
        end = 2 * one - at + 1
        check(one >= 0 and end <= len(bits), f"{last} frequencies", f"the end of number {s}", 1 + at // 8)
        out[s] = int(b"1" + bits[end - 1 : one : -1], 2) - 1
        at = end
    size = -(-at // 8)
    check(b"1" not in bits[at : 8 * size], "padding bits of 0", "others", size)
    total = int(out.sum())
    check(total <= TOTAL, f"a sum of at most {TOTAL}", total, 1)
    check(last == 0 or out[last] > 0, "a frequency of the last symbol other than 0", 0, size)
    out[0] = TOTAL - total
    return out, 1 + size

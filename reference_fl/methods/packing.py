"""Packing of integers into bytes: fields of k bits, gaps between positions, trits; the lowest bit is first.

All functions work on whole NumPy arrays. The readers check every length and every padding bit.
"""

from __future__ import annotations

import numpy as np

from ..messages import Part

TRITS = 5
"""Trits in a byte: 3^5 = 243 of 256 values are used, 1.6 bits for a trit; the minimum is log2(3) = 1.585."""

POWERS = 3 ** np.arange(TRITS)
MAX_WIDTH = 24


def pack_fields(values: np.ndarray, width: int) -> bytes:
    """Pack unsigned integers below 2^width into `width` bits each, lowest bit first."""
    bits = (values[:, None].astype(np.int64) >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def unpack_fields(part: Part, at: int, count: int, width: int, name: str) -> tuple[np.ndarray, int]:
    """The inverse of `pack_fields`: int64 of shape (count,), and the offset in the part after the fields."""
    bits, end = unpack_bits(part, at, count * width, name)
    return bits.reshape(count, width).astype(np.int64) @ (1 << np.arange(width, dtype=np.int64)), end


def unpack_bits(part: Part, at: int, count: int, name: str) -> tuple[np.ndarray, int]:
    """Bits as bool of shape (count,), and the offset after them; padding bits in the last byte must be 0."""
    end = at + (count + 7) // 8
    if end > len(part.data):
        raise part.error(name, f"{end - at} bytes for {count} bits", f"{len(part.data) - at} bytes left", at)
    raw = np.frombuffer(part.data, np.uint8, end - at, at)
    if count % 8 and raw[-1] >> (count % 8):
        raise part.error(f"padding of {name}", "0 in the bits beyond the last", f"{raw[-1]:#04x}", end - 1)
    return np.unpackbits(raw, count=count, bitorder="little").view(np.bool_), end


def gaps_width(gaps: np.ndarray) -> int:
    """The smallest width k for which `pack_gaps` gives the fewest bytes."""
    sizes = [k * len(gaps) + int((gaps >> k).sum()) for k in range(MAX_WIDTH + 1)]
    return int(np.argmin(sizes))


def pack_gaps(gaps: np.ndarray, width: int) -> bytes:
    """Encode non-negative integers in Golomb-Rice code: all remainders in `width` bits, then unary quotients.

    A quotient q is written as q bits 0 and a bit 1. For gaps between positions that are kept with probability
    p, the length is within a few hundredths of a bit of the entropy (Golomb, 1966; Rice and Plaunt, 1971).
    """
    ends = np.cumsum((gaps >> width) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1 if len(ends) else 0, np.uint8)
    unary[ends] = 1
    remainders = pack_fields(gaps & ((1 << width) - 1), width)
    return remainders + np.packbits(unary, bitorder="little").tobytes()


def unpack_gaps(part: Part, at: int, count: int, width: int) -> np.ndarray:
    """The inverse of `pack_gaps`, from offset `at` to the end of a part: int64 of shape (count,)."""
    remainders, at = unpack_fields(part, at, count, width, "gap remainders")
    raw = np.frombuffer(part.data, np.uint8, len(part.data) - at, at)
    ends = np.flatnonzero(np.unpackbits(raw, bitorder="little"))
    if len(ends) != count:
        raise part.error("gap quotients", f"{count} positions", len(ends), at)
    used = int(ends[-1]) // 8 + 1 if count else 0
    if used != len(raw):
        raise part.error("gap quotients", f"{used} bytes", f"{len(raw)} bytes", at + used)
    gaps: np.ndarray = ((np.diff(ends, prepend=-1) - 1) << width) + remainders
    return gaps


def pack_trits(trits: np.ndarray) -> bytes:
    """Pack integers -1, 0, 1 (digits 2, 0, 1) five to a byte; element 5i is the lowest digit of byte i."""
    digits = np.zeros(-(-len(trits) // TRITS) * TRITS, np.int64)
    digits[: len(trits)] = trits % 3
    return (digits.reshape(-1, TRITS) @ POWERS).astype(np.uint8).tobytes()


def unpack_trits(part: Part, at: int, count: int) -> np.ndarray:
    """The inverse of `pack_trits`, from offset `at` to the end of a part: int64 of shape (count,)."""
    need = -(-count // TRITS)
    raw = np.frombuffer(part.data, np.uint8, len(part.data) - at, at).astype(np.int64)
    if len(raw) != need:
        raise part.error("trits", f"{need} bytes for {count} elements", f"{len(raw)} bytes", at)
    if need and raw.max() >= 3**TRITS:
        first = int(np.argmax(raw >= 3**TRITS))
        raise part.error("trits", f"below {3**TRITS}", raw[first], at + first)
    digits = (raw[:, None] // POWERS % 3).reshape(-1)
    if digits[count:].any():
        raise part.error(
            "padding of trits", "0 in the digits beyond the last element", raw[-1], at + need - 1
        )
    trits: np.ndarray = (digits[:count] + 1) % 3 - 1
    return trits

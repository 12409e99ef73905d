"""Codings of masks and of dense float32 tensors (spec 6.8 to 6.11)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence

from .checks import require
from .elements import DTYPES, F32, exact_value, is_finite, round_float, words_of
from .masks import pack, unpack
from .noise import BERNOULLI, GAUSSIAN, draw

RAW, RANS, IN_FLOAT16, IN_BFLOAT16, RANS12, RANS14 = 0, 1, 2, 3, 4, 5  # spec 6.5
# spec 6.2: the first minor version with the coding
MINOR = {RAW: 0, RANS: 1, IN_FLOAT16: 1, IN_BFLOAT16: 1, RANS12: 2, RANS14: 3}
HALF_DTYPE = {IN_FLOAT16: 3, IN_BFLOAT16: 4}  # spec 6.9, 5.3


def widen(wire: bytes, coding: int) -> bytes:
    """Dense elements from their payload: 16 bits to the f32 of the same value (spec 6.9)."""
    if coding == RAW:
        return wire
    half, out = DTYPES[HALF_DTYPE[coding]], b""
    for word in words_of(wire, HALF_DTYPE[coding]):
        require(is_finite(word, half), "F-29", f"{word:#x}")
        bits = round_float(exact_value(word, half), F32) | (word & 2**15) << 16
        out += struct.pack("<I", bits)
    return out


def rans_length(n: int, words: int = 0) -> int:
    """The length of an entropy-coded mask of n elements with this number of words (spec 6.8)."""
    return 16 + 34 * ((n + 65535) // 65536) + 2 * words


def bucket(distribution: int, q: int) -> int:
    """The bucket of a draw (spec 6.8)."""
    return min(abs(q) >> (19 if distribution == GAUSSIAN else 20), 15)


def probabilities(buckets: Sequence[int], bits: Sequence[int]) -> list[int]:
    """P(0) to P(15) (spec 6.8)."""
    out = []
    for c in range(16):
        its = [bit for k, bit in zip(buckets, bits, strict=True) if k == c]
        p = (512 * sum(its) + len(its)) // (2 * len(its)) if its else 128
        out.append(min(max(p, 1), 255))
    return out


def entropy_encode(
    payload: bytes,
    distribution: int,
    seed: int,
    stream: int,
    n: int,
    forged: Sequence[int] | None = None,
    begin: Sequence[int] = (2**16,) * 8,
) -> bytes:
    """A packed mask, entropy-coded (spec 6.8); with forged probabilities or first states it is invalid."""
    buckets = [bucket(distribution, draw(distribution, seed, stream, i)) for i in range(n)]
    bits = unpack(payload, n)
    table = probabilities(buckets, bits) if forged is None else forged
    counts, blocks = b"", b""
    for first in range(0, n, 65536):
        states, words = list(begin), b""
        for i in reversed(range(first, min(first + 65536, n))):
            x, p = states[i % 8], table[buckets[i]]
            f = p if bits[i] else 256 - p
            if x >= f << 24:
                words, x = struct.pack("<H", x % 2**16) + words, x >> 16
            states[i % 8] = (x // f << 8) + x % f + (0 if bits[i] else p)
        counts += struct.pack("<H", len(words) // 2)
        blocks += struct.pack("<8I", *states) + words
    return bytes(table) + counts + blocks


def entropy_decode(wire: bytes, distribution: int, seed: int, stream: int, n: int) -> bytes:
    """A packed mask from its entropy-coded payload, with the checks [C-01] to [C-04] (spec 6.8)."""
    blocks = (n + 65535) // 65536
    table, counts = wire[:16], struct.unpack(f"<{blocks}H", wire[16 : 16 + 2 * blocks])
    require(rans_length(n, sum(counts)) == len(wire), "C-01", f"{len(wire)} bytes, counts {counts}")
    at, read = 16 + 2 * blocks, []
    for count in counts:
        read.append(struct.unpack(f"<8I{count}H", wire[at : at + 32 + 2 * count]))
        at += 32 + 2 * count
    for b, numbers in enumerate(read):
        require(min(numbers[:8]) >= 2**16, "C-02", f"block {b}: states {numbers[:8]}")
    buckets, bits = [], []
    for b, numbers in enumerate(read):
        states, words = list(numbers[:8]), list(numbers[8:])
        for i in range(65536 * b, min(65536 * (b + 1), n)):
            buckets.append(bucket(distribution, draw(distribution, seed, stream, i)))
            x, p = states[i % 8], table[buckets[-1]]
            s = x % 256
            bits.append(int(s < p))
            x = p * (x >> 8) + s if s < p else (256 - p) * (x >> 8) + s - p
            if x < 2**16:
                require(bool(words), "C-03", f"block {b}: its words end at element {i}")
                x = (x << 16) + words.pop(0)
            states[i % 8] = x
        require(not words and states == [2**16] * 8, "C-03", f"block {b}: {len(words)} words left, {states}")
    require(probabilities(buckets, bits) == list(table), "C-04", f"P: {table.hex()}")
    return pack(bits)


def rans12_length(n: int) -> int:
    """The least length of a mask of n elements in coding 4 (spec 6.4)."""
    return 6 * ((n + 65535) // 65536) - 1


def range_encode(symbols: Sequence[tuple[int, int]], x: int = 2**16) -> tuple[int, list[int]]:
    """The state and the words of the symbols' starts and frequencies (spec 6.10); x is the first state."""
    words = []
    for start, f in reversed(symbols):
        if x >= f << 20:
            words.append(x % 2**16)
            x >>= 16
        x = (x // f << 12) + x % f + start
    return x, words[::-1]


class RangeDecoder:
    """The decoder of one block (spec 6.10)."""

    def __init__(self, state: int, words: Sequence[int]) -> None:
        self.x, self.words, self.read = state, words, 0

    @property
    def low(self) -> int:
        """The number that identifies the next symbol: start <= low < start + frequency."""
        return self.x % 4096

    def advance(self, start: int, f: int, what: str) -> None:
        """Go to the next symbol, [C-08]."""
        self.x = f * (self.x >> 12) + self.low - start
        if self.x < 2**16:
            require(self.read < len(self.words), "C-08", f"{what}: no word is left")
            self.x, self.read = (self.x << 16) + self.words[self.read], self.read + 1

    def end(self, what: str) -> None:
        """Check the end of the block, [C-08]."""
        done = self.x == 2**16 and self.read == len(self.words)
        require(done, "C-08", f"{what}: state {self.x}, {len(self.words) - self.read} words left")


def frequency(k: int) -> int:
    """v(k), the frequency of a set bit, of 4096 (spec 6.11)."""
    if k > 39:
        return 4096 - frequency(78 - k)
    return k + 1 if k < 3 else (4 + (k + 1) % 4) << ((k + 1) // 4 - 1)


def classes(distribution: int) -> int:
    """The number of buckets in coding 4: |q| of Bernoulli noise is always 1 (spec 6.11)."""
    return 1 if distribution == BERNOULLI else 16


def indices(buckets: Sequence[int], bits: Sequence[int], distribution: int) -> list[int]:
    """k(0), k(1), ... (spec 6.11)."""
    out, last = [], 39
    for c in range(classes(distribution)):
        its = [bit for k, bit in zip(buckets, bits, strict=True) if k == c]
        if its:
            middles = [frequency(j - 1) + frequency(j) for j in range(1, 79)]
            last = sum(8192 * sum(its) >= middle * len(its) for middle in middles)
        out.append(last)
    return out


def put_indices(table: Sequence[int]) -> bytes:
    """k(0) as a byte, the differences of the others in bits (spec 6.11)."""
    bits: list[int] = []
    for before, k in itertools.pairwise(table):
        less = k < before
        bits += [int(less), *[0] * (before - k - 1 if less else k - before), 1]
    return bytes([table[0]]) + pack(bits)


def take_indices(wire: bytes, distribution: int) -> tuple[list[int], int]:
    """k(0), k(1), ..., and the number of bytes that they take, [C-05] (spec 6.11)."""
    table, at = [wire[0]], 8
    require(wire[0] <= 78, "C-05", f"k(0) is {wire[0]}")

    def bit() -> int:
        nonlocal at
        require(at < 8 * len(wire), "C-05", f"the bits end at k({len(table)})")
        at += 1
        return wire[(at - 1) // 8] >> (at - 1) % 8 & 1

    while len(table) < classes(distribution):
        less, size = bit(), 0
        while not bit():
            size += 1
        table.append(table[-1] - size - 1 if less else table[-1] + size)
        require(0 <= table[-1] <= 78, "C-05", f"k({len(table) - 1}) is {table[-1]}")
    size = (at + 7) // 8
    require(at % 8 == 0 or wire[size - 1] >> at % 8 == 0, "C-05", f"padding in {wire[size - 1]:#04x}")
    return table, size


def rans12_encode(
    payload: bytes,
    distribution: int,
    seed: int,
    stream: int,
    n: int,
    forged: Sequence[int] | None = None,
    begin: int = 2**16,
) -> bytes:
    """A packed mask in coding 4 (spec 6.11); with forged k(0), k(1), ... or a first state it is invalid."""
    buckets = [bucket(distribution, draw(distribution, seed, stream, i)) for i in range(n)]
    bits = unpack(payload, n)
    table = indices(buckets, bits, distribution) if forged is None else forged
    p = [frequency(k) for k in table]
    symbols = [(0, p[c]) if bit else (p[c], 4096 - p[c]) for c, bit in zip(buckets, bits, strict=True)]
    coded = [range_encode(symbols[first : first + 65536], begin) for first in range(0, n, 65536)]
    wire = put_indices(table) + b"".join(struct.pack("<H", len(words)) for _, words in coded[:-1])
    return wire + b"".join(struct.pack(f"<I{len(words)}H", x, *words) for x, words in coded)


def rans12_decode(wire: bytes, distribution: int, seed: int, stream: int, n: int) -> bytes:
    """A packed mask from its payload in coding 4, with the checks [C-05] to [C-09] (spec 6.11)."""
    blocks = (n + 65535) // 65536
    table, at = take_indices(wire[: len(wire) - 6 * blocks + 2], distribution)
    counts = list(struct.unpack_from(f"<{blocks - 1}H", wire, at))
    left = len(wire) - at - 6 * blocks + 2 - 2 * sum(counts)
    require(left % 2 == 0 and 0 <= left <= 2 * 65535, "C-06", f"{left} bytes for the words of the last block")
    counts.append(left // 2)
    at, read = at + 2 * (blocks - 1), []
    for count in counts:
        read.append(struct.unpack_from(f"<I{count}H", wire, at))
        at += 4 + 2 * count
    for b, numbers in enumerate(read):
        require(numbers[0] >= 2**16, "C-07", f"block {b}: state {numbers[0]}")
    p, buckets, bits = [frequency(k) for k in table], [], []
    for b, numbers in enumerate(read):
        decoder = RangeDecoder(numbers[0], numbers[1:])
        for i in range(65536 * b, min(65536 * (b + 1), n)):
            buckets.append(bucket(distribution, draw(distribution, seed, stream, i)))
            f = p[buckets[-1]]
            bits.append(int(decoder.low < f))
            decoder.advance(*((0, f) if bits[-1] else (f, 4096 - f)), f"block {b}, element {i}")
        decoder.end(f"block {b}")
    require(indices(buckets, bits, distribution) == table, "C-09", f"k: {table}")
    return pack(bits)


CODERS: dict[int, tuple[Callable[..., bytes], Callable[..., bytes]]] = {
    RANS: (entropy_encode, entropy_decode),
    RANS12: (rans12_encode, rans12_decode),
}

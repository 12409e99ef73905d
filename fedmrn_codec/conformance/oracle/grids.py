"""Integers on a grid, and their coding (spec 6.12 to 6.14)."""

from __future__ import annotations

import collections
import itertools
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from .checks import require
from .elements import DTYPES, round_float
from .masks import pack

GRID_DISTRIBUTION = 4  # spec 8.1
# spec 6.12: the dtype's largest |z|, and the exponents of the least and the largest step
GRIDS = {
    1: (2**24 - 1, -126, 104),
    2: (2**24 - 1, -126, 104),
    3: (2**11 - 1, -24, 5),
    4: (2**8 - 1, -126, 120),
}
SYMBOLS = 215  # spec 6.14
TOTAL = 2**14  # spec 6.13


def step_allowed(dtype: int, bits: int) -> bool:
    """Whether a bit pattern is a step that 6.12 allows for the dtype."""
    _, least, largest = GRIDS[dtype]
    return bits % 2**23 == 0 and 127 + least <= bits >> 23 <= 127 + largest


def integers(payload: bytes) -> list[int]:
    """The integers z of a raw payload (spec 6.5)."""
    return [z for (z,) in struct.iter_unpack("<i", payload)]


def check_integers(payload: bytes, dtype: int) -> None:
    """Check that every z is within the bounds of its dtype, [F-32]."""
    for i, z in enumerate(integers(payload)):
        require(abs(z) <= GRIDS[dtype][0], "F-32", f"element {i}: {z}")


def grid_values(payload: bytes, step: float, dtype: int) -> bytes:
    """A tensor's update, in its dtype, little-endian: every product is exact (spec 6.12)."""
    kind = DTYPES[dtype]
    words = [round_float(Fraction(step) * z, kind) for z in integers(payload)]
    return b"".join(word.to_bytes(kind.size, "little") for word in words)


# 6.13 Range coder of 14 bits


class Symbol(NamedTuple):
    """The start and the frequency of a symbol."""

    start: int
    f: int


class Plain(NamedTuple):
    """An integer r of b bits, 1 to 16."""

    r: int
    b: int


class Encoder14:
    """The encoder of one block, from its last symbol to its first (spec 6.13)."""

    def __init__(self, x: int = 2**16) -> None:
        self.x, self.backwards = x, list[int]()

    def put(self, item: Symbol | Plain) -> None:
        """Put a symbol or plain bits before those so far."""
        limit = item.f << 18 if isinstance(item, Symbol) else 1 << 32 - item.b
        if self.x >= limit:
            self.backwards.append(self.x % 2**16)
            self.x >>= 16
        if isinstance(item, Symbol):
            self.x = (self.x // item.f << 14) + self.x % item.f + item.start
        else:
            self.x = (self.x << item.b) + item.r

    def block(self) -> bytes:
        """The state and the words."""
        return struct.pack(f"<I{len(self.backwards)}H", self.x, *reversed(self.backwards))


class Decoder14:
    """The decoder of one block (spec 6.13)."""

    def __init__(self, state: int, words: Sequence[int], what: str = "block") -> None:
        self.x, self.words, self.read, self.what = state, words, 0, what

    @property
    def low(self) -> int:
        """The number that identifies the next symbol: start <= low < start + frequency."""
        return self.x % TOTAL

    def advance(self, symbol: Symbol) -> None:
        """Go to what follows the symbol, [C-13]."""
        self.x = symbol.f * (self.x >> 14) + self.low - symbol.start
        self._refill()

    def plain(self, b: int) -> int:
        """The next integer of b bits, [C-13]."""
        r = self.x % (1 << b)
        self.x >>= b
        self._refill()
        return r

    def end(self) -> None:
        """Check the end of the block, [C-13]."""
        left = len(self.words) - self.read
        require(self.x == 2**16 and left == 0, "C-13", f"{self.what}: state {self.x}, {left} words left")

    def _refill(self) -> None:
        if self.x < 2**16:
            require(self.read < len(self.words), "C-13", f"{self.what}: no word is left")
            self.x, self.read = (self.x << 16) + self.words[self.read], self.read + 1


# 6.14 Coding 5


def symbol_of(z: int) -> tuple[int, list[Plain]]:
    """The symbol of z, and its plain bits in the order in which they are decoded."""
    m, plain = abs(z), list[Plain]()
    if m >= 32:
        e = m.bit_length() - 1
        d = e - 2
        r = m % 2**d
        plain = [Plain(r, d)] if d <= 16 else [Plain(r % 2**16, 16), Plain(r >> 16, d - 16)]
        m = 32 + 4 * (e - 5) + (m >> d) % 4
    return (2 * m - 1 if z > 0 else 2 * m), plain


def integer_of(symbol: int, decoder: Decoder14) -> int:
    """The integer z of a symbol, whose plain bits the decoder has next."""
    m = (symbol + 1) // 2
    if m >= 32:
        d = 3 + (m - 32) // 4
        r = decoder.plain(min(d, 16))
        r += decoder.plain(d - 16) << 16 if d > 16 else 0
        m = (4 + (m - 32) % 4 << d) + r
    return m if symbol % 2 else -m


def grid_frequencies(symbols: Sequence[int]) -> list[int]:
    """f(0) to f(last) of one or more symbols."""
    number = collections.Counter(symbols)
    counts = [number[s] for s in range(max(symbols) + 1)]
    table = [max(1, TOTAL * c // len(symbols)) if c else 0 for c in counts]
    table[counts.index(max(counts))] += TOTAL - sum(table)
    return table


def put_frequencies(table: Sequence[int]) -> bytes:
    """`last` and the bits of f(1) to f(last)."""
    bits: list[int] = []
    for f in table[1:]:
        v = f + 1
        k = v.bit_length() - 1
        bits += [*[0] * k, 1, *(v >> j & 1 for j in range(k))]
    return bytes([len(table) - 1]) + pack(bits)


def take_frequencies(wire: bytes) -> tuple[list[int], int]:
    """f(0) to f(last), and the number of bytes that they take, [C-10]."""
    last, at, table = wire[0], 8, list[int]()
    require(last < SYMBOLS, "C-10", f"last is {last}")

    def bit() -> int:
        nonlocal at
        require(at < 8 * len(wire), "C-10", f"the bits end at f({len(table) + 1})")
        at += 1
        return wire[(at - 1) // 8] >> (at - 1) % 8 & 1

    for s in range(1, last + 1):
        k = 0
        while not bit():
            k += 1
        require(k <= 14, "C-10", f"k of f({s}) is {k}")
        table.append((1 << k) + sum(bit() << j for j in range(k)) - 1)
    require(sum(table) <= TOTAL, "C-10", f"f(1) to f({last}) have a sum of {sum(table)}")
    require(last == 0 or table[-1] > 0, "C-10", f"f({last}) is 0")
    size = (at + 7) // 8
    require(at % 8 == 0 or wire[size - 1] >> at % 8 == 0, "C-10", f"padding in {wire[size - 1]:#04x}")
    return [TOTAL - sum(table), *table], size


def starts(table: Sequence[int]) -> list[Symbol]:
    """The start and frequency of each symbol."""
    return [Symbol(a, f) for a, f in zip(itertools.accumulate(table, initial=0), table, strict=False)]


def rans14_length(n: int) -> int:
    """The least length of n integers in coding 5 (spec 6.4)."""
    return 8 * ((n + 65535) // 65536) - 3


def rans14_encode(payload: bytes, forged: Sequence[int] | None = None, begin: int = 2**16) -> bytes:
    """One or more integers in coding 5; with forged f(0), f(1), ... or another first state it is invalid."""
    items = [symbol_of(z) for z in integers(payload)]
    table = grid_frequencies([s for s, _ in items]) if forged is None else forged
    symbols, blocks = starts(table), []
    for first in range(0, len(items), 65536):
        encoder = Encoder14(begin)
        for s, plain in reversed(items[first : first + 65536]):
            for bits in reversed(plain):
                encoder.put(bits)
            encoder.put(symbols[s])
        blocks.append(encoder.block())
    counts = [len(block) // 2 - 2 for block in blocks[:-1]]
    return put_frequencies(table) + struct.pack(f"<{len(counts)}I", *counts) + b"".join(blocks)


def rans14_decode(wire: bytes, n: int) -> bytes:
    """The raw payload of n integers from their payload in coding 5, with the checks [C-10] to [C-14]."""
    blocks = (n + 65535) // 65536
    table, at = take_frequencies(wire[: len(wire) - 8 * blocks + 4])
    counts = list(struct.unpack_from(f"<{blocks - 1}I", wire, at))
    left = len(wire) - at - 8 * blocks + 4 - 2 * sum(counts)
    require(left % 2 == 0 and left >= 0, "C-11", f"{left} bytes for the words of the last block")
    counts.append(left // 2)
    at, read = at + 4 * (blocks - 1), []
    for count in counts:
        read.append(struct.unpack_from(f"<I{count}H", wire, at))
        at += 4 + 2 * count
    for b, numbers in enumerate(read):
        require(numbers[0] >= 2**16, "C-12", f"block {b}: state {numbers[0]}")
    of = [s for s, f in enumerate(table) for _ in range(f)]  # the symbol of each y
    symbols, found, values = starts(table), list[int](), list[int]()
    for b, numbers in enumerate(read):
        decoder = Decoder14(numbers[0], numbers[1:], f"block {b}")
        for _ in range(65536 * b, min(65536 * (b + 1), n)):
            found.append(of[decoder.low])
            decoder.advance(symbols[found[-1]])
            values.append(integer_of(found[-1], decoder))
        decoder.end()
    require(grid_frequencies(found) == table, "C-14", f"the frequencies: {table}")
    return struct.pack(f"<{n}i", *values)

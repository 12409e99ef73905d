"""Frames of version 1.2 to be refused: tables and payloads of coding 4 (FORMAT.md 6.10, 6.11)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BERNOULLI, BINARY, GAUSSIAN, UNIFORM, Content
from vector_cases.bad_frame import PLAIN, Bad, bad
from vector_cases.basics import (
    CODED,
    CODED_12,
    CODED_SCHEMA,
    SMALL_SCHEMA,
    empty_mask,
    f32,
    frame,
    masked,
    patched,
    sealed,
)

GOOD = o.encode(CODED_12)
W, B, P = 48, 64, 100  # the first two entries and the first payload of GOOD
RAW_W = CODED_12.contents[0].payload
WIRE = o.with_codings(CODED_12)[1][0]
TABLE, STATE = o.take_indices(WIRE, UNIFORM)  # k(0) to k(15), and where the state is
WORDS = STATE + 4


def recoded(wire: bytes, name: str, comment: str) -> Bad:
    """GOOD with another coded mask and the right length."""
    data = GOOD[: W + 4] + struct.pack("<Q", len(wire)) + GOOD[W + 12 : P] + wire + GOOD[P + len(WIRE) : -4]
    return bad(name, comment, sealed(data), CODED_SCHEMA)


def forged(table: list[int]) -> bytes:
    """The mask of GOOD, rightly coded by another table."""
    return o.rans12_encode(RAW_W, UNIFORM, CODED.seed, 0, 1001, table)


def bad_coded12() -> Iterator[Bad]:
    assert (GOOD[5], GOOD[W + 2], GOOD[B + 2]) == (2, o.RANS12, o.IN_FLOAT16)
    yield from _tables()
    yield from _indices()
    yield from _blocks()
    yield from _two_blocks()


def _tables() -> Iterator[Bad]:
    def of(name: str, comment: str, *patches: tuple[int, str]) -> Bad:
        return bad(name, comment, patched(GOOD, *patches), CODED_SCHEMA)

    for minor in (0, 1):
        yield of(f"f21-coded12-minor-{minor}", f"coding 4 in a frame of version 1.{minor}", (5, f"0{minor}"))
    yield of("f21-coded12-dense", "coding 4 of a dense tensor", (B + 2, "04"))
    yield of("f21-coded12-5", "coding 5", (W + 2, "05"))
    for label, comment, length in (
        ("least", "a byte fewer than 5", 4),
        ("raw", "as long as the raw mask", len(RAW_W)),
        ("huge", "2^63 bytes", 2**63),
    ):
        yield of(f"f23-coded12-{label}", comment, (W + 4, struct.pack("<Q", length).hex()))
    for label, length in (("", 0), ("-minus-1", 2**64 - 1)):
        comment, data = f"coding 4 of no elements, {length} bytes", empty_mask(2, o.RANS12, length)
        yield bad(f"f23-coded12-empty{label}", comment, data, (masked("w", 0),))
    yield bad("f31-raw-2", "minor version 2 and no coding", patched(PLAIN, (5, "02")), SMALL_SCHEMA)
    lower = patched(o.encode(CODED), (5, "02"))
    yield bad("f31-coded-2", "minor version 2 and codings of version 1.1", lower, CODED_SCHEMA)


def _indices() -> Iterator[Bad]:
    body = WIRE[STATE:]
    for k in (79, 255):
        yield recoded(bytes([k]) + WIRE[1:], f"c05-first-{k}", f"k(0) is {k}")
    for label, comment, table in (
        ("above", "k(1) is 79", [78, 79, *[78] * 14]),
        ("far-above", "k(15) is 300", [*[78] * 15, 300]),
        ("below", "k(1) is -1", [0, -1, *[0] * 14]),
        ("back", "k(1) is 79, and the others are allowed", [78, 79, *TABLE[2:]]),
    ):
        yield recoded(o.put_indices(table) + body, f"c05-{label}", comment)
    bits = [1 - (byte >> 7) for byte in WIRE[STATE - 1 : STATE]]
    assert bits == [1], "the last byte of the bits has padding"
    padded = WIRE[: STATE - 1] + bytes([WIRE[STATE - 1] | 0x80]) + body
    yield recoded(padded, "c05-padding", "a padding bit is set")
    yield recoded(bytes([TABLE[0]]) + bytes(40), "c05-zeros", "the bits of k(1) do not end")
    yield recoded(WIRE[: STATE + 3], "c05-state", "a state of three bytes")
    most = o.put_indices([0, 78] * 8)
    yield recoded(most[:100], "c05-cut", "the bits are cut off")
    yield recoded(bytes([79]) + bytes(4), "c05-short", "the first index comes before the missing bits")


def _blocks() -> Iterator[Bad]:
    yield recoded(WIRE + b"\0", "c06-odd", "half a word more")
    yield recoded(WIRE[:-1], "c06-odd-less", "half a word is missing")
    low = WIRE[:STATE] + struct.pack("<I", 2**16 - 1) + WIRE[WORDS:]
    yield recoded(low, "c07-low", "the state is 2^16 - 1")
    yield recoded(WIRE[:STATE] + bytes(4) + WIRE[WORDS:], "c07-zero", "the state is 0")
    yield recoded(low + b"\0", "c06-and-state", "the words come before the state")
    yield recoded(_written_early(), "c07-early", "a word written where none is due: all else is right")
    flipped = bytes([WIRE[-2] ^ 1, WIRE[-1]])
    yield recoded(WIRE[:-2] + flipped, "c08-word", "another last word: the state does not end at 2^16")
    state = struct.pack("<I", int.from_bytes(WIRE[STATE:WORDS], "little") ^ 2**20)
    yield recoded(WIRE[:STATE] + state + WIRE[WORDS:], "c08-state", "another first state")
    yield recoded(WIRE + b"\0\0", "c08-left", "a word is left")
    yield recoded(WIRE[:-2], "c08-missing", "a word is missing")
    yield recoded(WIRE[:WORDS], "c08-none", "there is no word")
    ends = o.rans12_encode(RAW_W, UNIFORM, CODED.seed, 0, 1001, begin=2**16 + 1)
    yield recoded(ends, "c08-ends", "the state ends at 65537; all else is right")
    for label, c, k in (("above", 3, TABLE[3] + 1), ("below", 9, TABLE[9] - 1)):
        wire = forged([*TABLE[:c], k, *TABLE[c + 1 :]])
        yield recoded(wire, f"c09-{label}", f"rightly coded by k({c}) = {k}, where {TABLE[c]} is nearest")
    none = o.rans12_encode(bytes(126), UNIFORM, CODED.seed, 0, 1001, [1] * 16)
    yield recoded(none, "c09-none", "no bit is set, and k is 1")
    yield _empty_bucket()


def _written_early() -> bytes:
    """The coded mask of an encoder that writes a word before element 0, its last one, which is not due."""
    p = o.frequency(TABLE[o.bucket(UNIFORM, o.draw(UNIFORM, CODED.seed, 0, 0))])
    decoder = o.RangeDecoder(int.from_bytes(WIRE[STATE:WORDS], "little"), [0])
    start, f = (0, p) if decoder.low < p else (p, 4096 - p)
    before = f * (decoder.x >> 12) + decoder.low - start
    assert 2**16 <= before < f << 20, before
    high, word = before >> 16, before % 2**16
    state = (high // f << 12) + high % f + start
    assert state < 2**16
    return WIRE[:STATE] + struct.pack("<IH", state, word) + WIRE[WORDS:]


def _empty_bucket() -> Bad:
    """A bucket without elements whose index is not that of the bucket before."""
    n, seed = 400, 7
    mask = o.pack([0] * 398 + [1, 1])
    buckets = [o.bucket(GAUSSIAN, o.draw(GAUSSIAN, seed, 0, i)) for i in range(n)]
    table = o.indices(buckets, o.unpack(mask, n), GAUSSIAN)
    empty = next(c for c in range(1, 16) if c not in buckets)
    table[empty] += 1
    wire = o.rans12_encode(mask, GAUSSIAN, seed, 0, n, table)
    assert len(wire) < len(mask), "the length is not what is refused"
    content = Content(mask, BINARY, GAUSSIAN, f32(0.01), o.RANS12)
    source = frame((masked("w", n),), [content], seed=seed)
    good, right = o.encode(source), o.with_codings(source)[1][0]
    data = good[: W + 4] + struct.pack("<Q", len(wire)) + good[W + 12 : W + 16] + wire
    assert good[W + 16 : -4] == right
    return bad("c09-empty", f"bucket {empty} is empty, and its k is another", sealed(data), source.schema)


def _two_blocks() -> Iterator[Bad]:
    """A mask of two blocks: the number of words of the first is in the payload."""
    n, seed = 65_600, 3
    content = Content(bytes(n // 8), BINARY, BERNOULLI, 1.0, o.RANS12)
    source = frame((masked("w", n),), [content], seed=seed)
    good, wire = o.encode(source), o.with_codings(source)[1][0]
    assert (len(wire), wire[0], wire[1:3]) == (13, 0, b"\1\0"), wire.hex()

    def of(name: str, comment: str, wire: bytes) -> Bad:
        data = good[: W + 4] + struct.pack("<Q", len(wire)) + good[W + 12 : W + 16] + wire
        return bad(name, comment, sealed(data), source.schema)

    yield of("c06-count", "two words in the first block, of one in all", wire[:1] + b"\2\0" + wire[3:])
    yield of("c06-most", "65535 words in the first block", wire[:1] + b"\xff\xff" + wire[3:])
    yield of("c07-second", "the state of the second block is 0", wire[:-4] + bytes(4))
    second = wire[:3] + struct.pack("<IHI", int.from_bytes(wire[3:7], "little") ^ 1, 0, 0)
    yield of("c07-and-first", "the states come before what they code", second)
    yield of("c08-count", "the word is in the second block", wire[:1] + bytes(2) + wire[3:])
    yield of("c08-second", "a word is left in the second block", wire + b"\1\0")

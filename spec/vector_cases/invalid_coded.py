"""Frames of version 1.1 to be refused: tables and payloads of codings 1 to 3 (FORMAT.md 6.8, 6.9)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BERNOULLI, BINARY, UNIFORM, Content
from vector_cases.bad_frame import P_W, PLAIN, Bad, bad
from vector_cases.basics import CODED, CODED_SCHEMA, SMALL_SCHEMA, empty_mask, frame, masked, patched, sealed

GOOD = o.encode(CODED)
W, B, D, N = 48, 64, 76, 88  # entries in GOOD
P = 100  # the first payload
RAW_W = CODED.contents[0].payload
WIRE = o.with_codings(CODED)[1][0]
COUNT = (len(WIRE) - 50) // 2
HALVES = P + len(WIRE)


def recoded(wire: bytes, name: str, comment: str) -> Bad:
    """GOOD with another coded mask and the right length."""
    data = GOOD[: W + 4] + struct.pack("<Q", len(wire)) + GOOD[W + 12 : P] + wire + GOOD[P + len(WIRE) : -4]
    return bad(name, comment, sealed(data), CODED_SCHEMA)


def changed(at: int, new: bytes, name: str, comment: str) -> Bad:
    """GOOD with bytes of its coded mask replaced."""
    return recoded(WIRE[:at] + new + WIRE[at + len(new) :], name, comment)


def bad_codings() -> Iterator[Bad]:
    assert (GOOD[5], GOOD[W + 2], GOOD[B + 2]) == (1, o.RANS, o.IN_FLOAT16)
    yield from _tables()
    yield from _payloads()
    yield from _final_states()
    yield from _blocks()


def _tables() -> Iterator[Bad]:
    def of(name: str, comment: str, *patches: tuple[int, str]) -> Bad:
        return bad(name, comment, patched(GOOD, *patches), CODED_SCHEMA)

    yield of("f21-coded-minor-0", "coding 1 in a frame of version 1.0", (5, "00"))
    yield of("f21-coded-dense", "coding 1 of a dense tensor", (B + 2, "01"))
    yield of("f21-coded-masked-2", "coding 2 of a masked tensor", (W + 2, "02"))
    yield of("f21-coded-masked-3", "coding 3 of a masked tensor", (W + 2, "03"))
    yield of("f21-coded-float64", "coding 2 of a float64 tensor", (D + 2, "02"))
    yield of("f21-coded-int64", "coding 3 of an integer tensor", (N + 2, "03"))
    yield of("f21-coded-4", "coding 4", (B + 2, "04"))
    for label, comment, at, length in (
        ("least", "a byte fewer than 16 + 34", W, 49),
        ("raw", "as long as the raw mask", W, len(RAW_W)),
        ("huge", "2^63 bytes", W, 2**63),
        ("half-raw", "coding 2 as long as raw", B, 12),
        ("half-odd", "coding 2 with a byte more", B, 7),
    ):
        yield of(f"f23-coded-{label}", comment, (at + 4, struct.pack("<Q", length).hex()))
    for label, length in (("", 0), ("-minus-1", 2**64 - 1), ("-minus-16", 2**64 - 16)):
        comment, data = f"coding 1 of no elements, {length} bytes", empty_mask(1, o.RANS, length)
        yield bad(f"f23-coded-empty{label}", comment, data, (masked("w", 0),))
    yield bad("f31-raw", "minor version 1 and nothing that needs it", patched(PLAIN, (5, "01")), SMALL_SCHEMA)
    longer = sealed(PLAIN[:5] + b"\x01" + PLAIN[6:-4] + b"\x00")
    shorter = sealed(PLAIN[:5] + b"\x01" + PLAIN[6:-5])
    yield bad("f31-and-truncated", "the minor version comes before the missing byte", shorter, SMALL_SCHEMA)
    empty = sealed(PLAIN[:5] + b"\x01" + PLAIN[6:P_W])
    yield bad(
        "f31-and-no-payload", "the minor version comes before the missing payloads", empty, SMALL_SCHEMA
    )
    wrong = bytes([PLAIN[-1] ^ 1])
    yield bad(
        "f31-and-checksum",
        "the minor version comes before the checksum",
        PLAIN[:5] + b"\x01" + PLAIN[6:-1] + wrong,
        SMALL_SCHEMA,
    )
    yield bad("f31-and-trailing", "the minor version comes before the length", longer, SMALL_SCHEMA)


def _written_early() -> bytes:
    """The coded mask of an encoder that writes a word before element 0, its last one, which is not due."""
    x, p = int.from_bytes(WIRE[18:22], "little"), WIRE[o.bucket(UNIFORM, o.draw(UNIFORM, CODED.seed, 0, 0))]
    bit = x % 256 < p
    f, plus = (p, 0) if bit else (256 - p, p)
    before = f * (x >> 8) + x % 256 - plus
    assert 2**16 <= before < f << 24, before
    high, word = before >> 16, before % 2**16
    state = (high // f << 8) + high % f + plus
    assert state < 2**16
    words = struct.pack("<H", word) + WIRE[50:]
    return WIRE[:16] + struct.pack("<HI", COUNT + 1, state) + WIRE[22:50] + words


def _payloads() -> Iterator[Bad]:
    for label, count in (("more", COUNT + 1), ("fewer", COUNT - 1), ("none", 0), ("most", 65535)):
        yield changed(16, struct.pack("<H", count), f"c01-{label}", f"count {count}, of {COUNT}")
    yield recoded(WIRE[:-1], "c01-odd", "half a word is missing")
    yield changed(16, struct.pack("<H5I", 0, *[0] * 5), "c01-and-state", "the counts come before the states")
    for lane in (0, 7):
        low = struct.pack("<I", 2**16 - 1)
        yield changed(18 + 4 * lane, low, f"c02-{lane}", f"state {lane} is 2^16 - 1")
    yield changed(18, bytes(4), "c02-zero", "state 0 is 0")
    yield recoded(_written_early(), "c02-early", "a word written where none is due: all else is right")
    last = len(WIRE) - 2
    flipped = bytes([WIRE[last] ^ 1, WIRE[last + 1]])
    yield changed(last, flipped, "c03-word", "another last word: a state does not end at 2^16")
    state = struct.pack("<I", int.from_bytes(WIRE[18:22], "little") ^ 2**20)
    yield changed(18, state, "c03-state", "another first state")
    more = struct.pack("<H", COUNT + 1) + WIRE[18:] + b"\0\0"
    yield recoded(WIRE[:16] + more, "c03-left", "a word is left")
    fewer = struct.pack("<H", COUNT - 1) + WIRE[18:-2]
    yield recoded(WIRE[:16] + fewer, "c03-missing", "a word is missing")
    honest = list(WIRE[:16])
    for label, c, p in (("above", 3, honest[3] + 1), ("below", 9, honest[9] - 1)):
        probabilities = [*honest[:c], p, *honest[c + 1 :]]
        forged = o.entropy_encode(RAW_W, UNIFORM, CODED.seed, 0, 1001, probabilities)
        yield recoded(forged, f"c04-{label}", f"rightly coded by P({c}) = {p}, where {honest[c]} is nearest")
    yield changed(0, b"\0", "c03-odds-zero", "P(0) is 0")
    empty = CODED.contents[0]._replace(payload=bytes(126), kind=BINARY)
    probabilities = [2] * 16
    forged = o.entropy_encode(empty.payload, UNIFORM, CODED.seed, 0, 1001, probabilities)
    yield recoded(forged, "c04-none", "no bit is set, and P is 2")
    for label, word in (("nan", 0x7E00), ("infinity", 0xFC00)):
        frame = patched(GOOD, (HALVES + 2, struct.pack("<H", word).hex()))
        yield bad(f"f29-half-{label}", f"a float16 {label} in coding 2", frame, CODED_SCHEMA)


def _final_states() -> Iterator[Bad]:
    """Masks of an encoder that begins with other states: only those at the end of a block are wrong."""
    for label, states in (
        ("0", [2**16 + 1, *[2**16] * 7]),
        ("7", [*[2**16] * 7, 2**16 + 1]),
        ("all", [2**16 + 1] * 8),
        ("high", [2**16, 2**24 - 1, *[2**16] * 6]),
    ):
        wire = o.entropy_encode(RAW_W, UNIFORM, CODED.seed, 0, 1001, begin=states)
        comment = f"the states end at {', '.join(map(str, states))}; all else is right"
        yield recoded(wire, f"c03-ends-{label}", comment)


def _blocks() -> Iterator[Bad]:
    """A mask of two blocks, of which the second uses three of its states."""
    n, seed, states = 65_539, 3, 32
    content = Content(bytes((n + 7) // 8), BINARY, BERNOULLI, 1.0, o.RANS)
    source = frame((masked("w", n),), [content], seed=seed)
    good, wire = o.encode(source), o.with_codings(source)[1][0]
    counts, first = struct.unpack("<2H", wire[16:20]), 20
    second = first + states + 2 * counts[0]
    assert (counts[0] > 1, counts[1], len(wire)) == (True, 0, second + states), (counts, len(wire))

    def of(name: str, comment: str, wire: bytes) -> Bad:
        data = good[: W + 4] + struct.pack("<Q", len(wire)) + good[W + 12 : W + 16] + wire
        return bad(name, comment, sealed(data), source.schema)

    def put(at: int, state: int, wire: bytes = wire) -> bytes:
        return wire[:at] + struct.pack("<I", state) + wire[at + 4 :]

    unused = second + 4 * 5
    yield of("c01-second", "a word more in the second block than there is", wire[:18] + b"\1\0" + wire[20:])
    yield of("c02-second", "a state of the second block is 2^16 - 1", put(unused, 2**16 - 1))
    early = put(first, int.from_bytes(wire[first : first + 4], "little") ^ 1, put(unused, 0))
    yield of("c02-and-first", "the states come before what they code", early)
    moved = (
        struct.pack("<2H", counts[0] - 1, 1)
        + wire[20 : second - 2]
        + wire[second:]
        + wire[second - 2 : second]
    )
    yield of("c03-moved", "the last word of the first block is in the second", wire[:16] + moved)
    yield of(
        "c03-second", "a state of the second block that no element uses ends at 65537", put(unused, 2**16 + 1)
    )
    more = wire[:18] + b"\1\0" + wire[20:] + b"\0\0"
    yield of("c03-second-left", "a word is left in the second block", more)
    table = [*wire[:1], 127, *wire[2:16]]
    forged = o.entropy_encode(content.payload, BERNOULLI, seed, 0, n, table)
    yield of("c04-second", "P(1) is 127, of a bucket without elements", forged)

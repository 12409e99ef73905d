"""Frames of version 1.3 to be refused: grids and their coding (FORMAT.md 6.12 to 6.14), and partial sums."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import SIGNED, UNIFORM, Content
from vector_cases.bad_frame import PLAIN, Bad, bad
from vector_cases.bad_frame import N as PLAIN_N
from vector_cases.bad_frame import W as PLAIN_W
from vector_cases.basics import (
    CODED,
    CODED_12,
    CODED_SCHEMA,
    DTYPES,
    SMALL_SCHEMA,
    chaos,
    dense,
    f32,
    frame,
    grid,
    ints,
    mask,
    masked,
    patched,
    sealed,
    u32,
)

SCHEMA = (
    masked("w", 60),
    dense("b", "float32", 3),
    dense("h", "float16", 2),
    masked("m", 9),
    dense("d", "float32", 2),
    dense("n", "int64"),
)
NEAR = [byte.bit_count() - 4 for byte in chaos("grid", 57)]
VALUES = [*NEAR[:20], 40, -700, 2**19, *NEAR[20:]]
SOURCE = frame(
    SCHEMA,
    [
        grid(VALUES, 2.0**-10, o.RANS14),
        grid([1, -2, 3], 2.0**-6),
        grid([2047, 0], 0.25),
        Content(mask("m", 9), SIGNED, UNIFORM, f32(0.01)),
        Content(bytes(8)),
        Content(ints("int64", [-3])),
    ],
    seed=5,
)
GOOD = o.encode(SOURCE)
W, B, H, M, D, N = 48, 64, 80, 96, 112, 124  # the entries of GOOD
WIRE = o.with_codings(SOURCE)[1][0]
P_W = 136
P_B = P_W + len(WIRE)
P_H, P_M = P_B + 12, P_B + 20
P_D = P_M + 2
TABLE, STATE = o.take_frequencies(WIRE)  # f(0) to f(last), and where the state is
WORDS = STATE + 4


def bad_grids() -> Iterator[Bad]:
    assert (GOOD[5], GOOD[W : W + 3], GOOD[H : H + 3], GOOD[M]) == (3, b"\3\1\5", b"\3\3\0", SIGNED)
    assert GOOD[P_B : P_B + 12] == ints("int32", [1, -2, 3])
    assert GOOD[P_M : P_M + 2] == mask("m", 9)
    assert len(TABLE) > 3
    yield from _entries()
    yield from _lengths()
    yield from _steps()
    yield from _versions()
    yield from _frequencies()
    yield from _blocks()
    yield from _wrong_frequencies()
    yield from _two_blocks()
    yield from _integers()


def of(name: str, comment: str, *patches: tuple[int, str]) -> Bad:
    """GOOD with other bytes."""
    return bad(name, comment, patched(GOOD, *patches), SCHEMA)


def u64(value: int) -> str:
    return struct.pack("<Q", value).hex()


def u32le(value: int) -> str:
    return struct.pack("<I", value).hex()


def alone(name: str, comment: str, dtype: str, values: Sequence[int], *patches: tuple[int, str]) -> Bad:
    """A frame of one dense grid with other bytes; its entry is at byte 48, its payload at 64."""
    schema = (dense("x", dtype, len(values)),)
    return bad(name, comment, patched(o.encode(frame(schema, [grid(values, 1.0)])), *patches), schema)


def _entries() -> Iterator[Bad]:
    for label, comment, cut in (
        ("11", "11 bytes of the entry of a grid", W + 11),
        ("12", "the entry of a grid without its step", W + 12),
        ("15", "a byte of the step is missing", W + 15),
    ):
        yield bad(f"f15-grid-{label}", comment, sealed(GOOD[:cut]), SCHEMA)
    short = sealed(GOOD[:N] + b"\3" + GOOD[N + 1 : N + 12])
    yield bad(
        "f15-grid-and-kind", "the step is missed before the kind is compared with the schema", short, SCHEMA
    )
    for minor in (0, 1, 2):
        yield of(f"f16-grid-minor-{minor}", f"kind 3 in a frame of version 1.{minor}", (5, f"0{minor}"))
    body = sealed(PLAIN[:116] + b"\3" + PLAIN[117:128])
    cut = patched(body, (5, "02"))
    yield bad("f16-grid-and-cut", "in version 1.2, kind 3 needs no step to be there", cut, SMALL_SCHEMA)
    for kind in (4, 127, 255):
        yield of(f"f16-grid-{kind}", f"kind {kind} in a frame of version 1.3", (B, f"{kind:02x}"))
    role = patched(PLAIN, (5, "02"), (PLAIN_N, "03"))
    yield bad(
        "f16-grid-and-role", "kind 3 of an int64 in version 1.2: the version is first", role, SMALL_SCHEMA
    )
    yield of("f17-grid-int64", "kind 3 for a dense tensor of int64: its type is not looked at", (N, "03"))
    for dtype in ("bool", "uint8", "int32"):
        schema = (dense("x", dtype, 4),)
        size = 4 * o.DTYPES[DTYPES[dtype]].size
        entry = struct.pack("<BBBxQf", 3, DTYPES[dtype], 0, 16, 1.0)
        data = o.encode(frame(schema, [Content(bytes(size))]))[:48] + entry + bytes(16)
        yield bad(f"f17-grid-{dtype}", f"a grid of {dtype}", patched(sealed(data), (5, "03")), schema)
    yield of("f17-grid-masked", "kind 0 for a masked tensor, in version 1.3", (W, "00"))
    yield of("f17-grid-dense", "kind 1 for a dense tensor, in version 1.3", (B, "01"))
    for dtype in ("int32", "int64", "bool"):
        code = DTYPES[dtype]
        yield of(f"f18-grid-{dtype}", f"a grid of type {dtype}, which is no float", (B + 1, f"{code:02x}"))
    for code in (0, 14, 255):
        yield of(f"f18-grid-{code}", f"a grid of type {code}", (B + 1, f"{code:02x}"))
    yield of("f18-grid-masked", "a masked grid of type uint8", (W + 1, "09"))
    yield of("f18-grid-and-coding", "the type comes before the coding", (B + 1, "0701"))
    for dtype in ("float64", "float16", "bfloat16"):
        code = DTYPES[dtype]
        yield of(
            f"f19-grid-{dtype}", f"a grid of {dtype}, where the schema has float32", (B + 1, f"{code:02x}")
        )
    yield of("f19-grid-masked", "a masked grid of float64", (W + 1, "02"))
    yield of("f19-grid-half", "a grid of float32, where the schema has float16", (H + 1, "01"))
    yield of("f19-grid-and-coding", "the type comes before the coding", (W + 1, "0204"))
    for coding in (1, 2, 3, 4, 6, 255):
        yield of(f"f21-grid-{coding}", f"coding {coding} of a grid", (B + 2, f"{coding:02x}"))
    yield of("f21-grid-mask", "coding 5 of a mask", (M + 2, "05"))
    yield of("f21-grid-elements", "coding 5 of elements", (D + 2, "05"))
    yield of("f21-grid-half", "coding 2 of a grid of float16", (H + 2, "02"))
    yield of("f21-grid-and-reserved", "the coding comes before the reserved byte", (W + 2, "0401"))
    yield of("f22-grid", "reserved byte 1", (W + 3, "01"))
    yield of("f22-grid-and-length", "the reserved byte comes before the length", (B + 3, "80ff"))


def _lengths() -> Iterator[Bad]:
    for label, comment, at, length in (
        ("one-more", "13 bytes of 3 integers", B, 13),
        ("one-less", "11 bytes of 3 integers", B, 11),
        ("zero", "0 bytes of 3 integers", B, 0),
        ("most", "2^64 - 1 bytes of 3 integers", B, 2**64 - 1),
        ("half", "4 bytes: 2 elements of float16, but their integers have 8", H, 4),
        ("least", "a byte fewer than the 5 of coding 5", W, 4),
        ("raw", "coding 5, as long as raw", W, 240),
        ("huge", "coding 5, 2^63 bytes", W, 2**63),
    ):
        yield of(f"f23-grid-{label}", comment, (at + 4, u64(length)))
    yield alone("f23-grid-double", "8 bytes an element of float64", "float64", [1, 2], (52, u64(16)))
    for label, length in (("", 0), ("-minus-1", 2**64 - 1), ("-minus-3", 2**64 - 3)):
        comment = f"coding 5 of no elements, {length} bytes"
        yield alone(f"f23-grid-empty-coded{label}", comment, "float32", [], (50, "05"), (52, u64(length)))
    yield alone("f23-grid-one-coded", "coding 5 of one element, 4 bytes", "float32", [1], (50, "05"))
    yield alone(
        "f23-grid-one-least", "coding 5 of one element, 5 bytes", "float32", [1], (50, "05"), (52, u64(5))
    )
    yield of("f23-grid-and-step", "the length comes before the step", (B + 4, u64(13)), (B + 12, u32le(0)))


def _steps() -> Iterator[Bad]:
    for label, bits in (
        ("zero", 0),
        ("minus-zero", 0x80000000),
        ("negative", 0xBF800000),
        ("infinity", 0x7F800000),
        ("nan", 0x7FC00000),
        ("three", 0x40400000),
        ("hundredth", 0x3C23D70A),
        ("next", 0x3F800001),
        ("subnormal", 1 << 22),
        ("least-subnormal", 1),
        ("above", (127 + 105) << 23),
    ):
        yield of(f"f24-grid-{label}", f"step bits {u32(bits)}", (W + 12, u32le(bits)))
    for dtype, code in (("float64", 2), ("float16", 3), ("bfloat16", 4)):
        _, least, largest = o.GRIDS[code]
        above, below = (127 + largest + 1) << 23, (127 + least - 1) << 23 or 1 << 22
        for label, bits in (("above", above), ("below", below)):
            comment = f"step bits {u32(bits)} of {dtype}"
            yield alone(f"f24-grid-{dtype}-{label}", comment, dtype, [1], (60, u32le(bits)))
    yield alone("f24-grid-empty", "the step of an empty tensor counts too", "float32", [], (60, u32le(0)))
    comment = "an entry is checked to its end before the next: step here, kind there"
    yield of("f24-grid-and-next", comment, (W + 12, u32le(0)), (B, "09"))
    cut = patched(GOOD, (M + 12, u32le(0)))
    yield bad("f24-grid-and-cut", "the table comes before the total length", sealed(cut[:P_H]), SCHEMA)


def _versions() -> Iterator[Bad]:
    three = patched(PLAIN, (5, "03"))
    yield bad("f31-grid-raw", "minor version 3, and neither kind 3 nor a coding", three, SMALL_SCHEMA)
    for label, comment, source in (("coded", "1 and 2", CODED), ("coded12", "4 and 2", CODED_12)):
        data = patched(o.encode(source), (5, "03"))
        yield bad(f"f31-grid-{label}", f"minor version 3, and codings {comment}", data, CODED_SCHEMA)
    yield bad(
        "f31-grid-nothing", "minor version 3, and no tensors", patched(o.encode(frame((), [])), (5, "03")), ()
    )
    scale = patched(three, (PLAIN_W + 12, u32le(0)))
    yield bad("f24-grid-and-minor", "a scale comes before the minor version", scale, SMALL_SCHEMA)
    yield bad(
        "f31-grid-and-cut",
        "the minor version comes before the total length",
        sealed(three[:140]),
        SMALL_SCHEMA,
    )
    yield bad("f25-grid", "the last payload byte is missing", sealed(GOOD[:-5]), SCHEMA)
    yield bad("f26-grid", "a byte after the last payload", sealed(GOOD[:-4] + b"\0"), SCHEMA)
    data = bytearray(GOOD)
    data[P_B + 3] ^= 64
    yield bad("f27-grid-and-integers", "the checksum comes before the integers", bytes(data), SCHEMA)


def recoded(wire: bytes, name: str, comment: str) -> Bad:
    """GOOD with another coded grid and the right length."""
    data = GOOD[: W + 4] + struct.pack("<Q", len(wire)) + GOOD[W + 12 : P_W] + wire + GOOD[P_B:-4]
    return bad(name, comment, sealed(data), SCHEMA)


def _frequencies() -> Iterator[Bad]:
    body = WIRE[STATE:]
    for last in (215, 255):
        yield recoded(bytes([last]) + WIRE[1:], f"c10-last-{last}", f"last is {last}")
    for label, comment, table in (
        ("sum", "f(1) and f(2) have a sum of 16385", [0, 8192, 8193]),
        ("sum-of-one", "f(1) is 16385", [0, 16385]),
        ("sum-of-many", "17 frequencies of 1000", [0, *[1000] * 17]),
        ("sum-large", "f(1) is 32766, the largest of k = 14", [0, 32766]),
        ("k-15", "f(1) is 32767, whose k is 15", [0, 32767]),
        ("k-32", "f(1) is 2^32 - 1, whose k is 32", [0, 2**32 - 1]),
        ("last-zero", "f(last) is 0", [16383, 1, 0]),
        ("only-zero", "f(1) is 0, and last is 1", [16384, 0]),
    ):
        yield recoded(o.put_frequencies(table) + body, f"c10-{label}", comment)
    assert not WIRE[STATE - 1] >> 7, "the last byte of the bits has padding"
    padded = WIRE[: STATE - 1] + bytes([WIRE[STATE - 1] | 0x80]) + body
    yield recoded(padded, "c10-padding", "a padding bit is set")
    yield recoded(bytes([1]) + bytes(40), "c10-zeros", "the bits of f(1) do not end")
    yield recoded(
        bytes([214]) + bytes([255] * 26) + body, "c10-all-zero", "214 frequencies of 0, the last among them"
    )
    yield recoded(WIRE[: STATE + 3], "c10-state", "a state of three bytes")
    yield recoded(WIRE[: STATE - 1], "c10-cut", "the bits are cut off")
    yield recoded(b"\1" + body[:4], "c10-no-bits", "last is 1, and only the state follows")
    yield recoded(padded + b"\0", "c10-and-words", "the padding comes before the words")


def _blocks() -> Iterator[Bad]:
    yield recoded(WIRE + b"\0", "c11-odd", "half a word more")
    yield recoded(WIRE[:-1], "c11-odd-less", "half a word is missing")
    low = WIRE[:STATE] + struct.pack("<I", 2**16 - 1) + WIRE[WORDS:]
    yield recoded(low, "c12-low", "the state is 2^16 - 1")
    yield recoded(WIRE[:STATE] + bytes(4) + WIRE[WORDS:], "c12-zero", "the state is 0")
    yield recoded(low + b"\0", "c11-and-state", "the words come before the state")
    yield recoded(low[:-2], "c12-and-words", "the state comes before the word that is missing")
    yield recoded(_written_early(), "c12-early", "a word written where none is due: all else is right")
    flipped = bytes([WIRE[-2] ^ 1, WIRE[-1]])
    yield recoded(WIRE[:-2] + flipped, "c13-word", "another last word: the state does not end at 2^16")
    state = struct.pack("<I", int.from_bytes(WIRE[STATE:WORDS], "little") ^ 2**20)
    yield recoded(WIRE[:STATE] + state + WIRE[WORDS:], "c13-state", "another first state")
    ends = o.rans14_encode(SOURCE.contents[0].payload, begin=2**16 + 1)
    yield recoded(ends, "c13-ends", "the state ends at 65537; all else is right")
    yield recoded(WIRE + b"\0\0", "c13-left", "a word is left")
    yield recoded(WIRE[:-2], "c13-missing", "a word is missing")
    yield recoded(WIRE[:WORDS], "c13-none", "there is no word")
    for label, values, comment in (
        ("plain", [2**10] * 30, "the word that 8 plain bits need is missing"),
        ("plain-16", [2**19 - 1] * 30, "the word that 16 plain bits need is missing"),
        ("plain-high", [0] * 62 + [2**23, 128], "the word that the plain bits beyond 16 need is missing"),
    ):
        wire = o.rans14_encode(ints("int32", values))
        yield _with_payload(f"c13-{label}", comment, values, wire[:-2], "float32")


def _written_early() -> bytes:
    """The coded grid of an encoder that writes a word before element 0, its last one, which is not due."""
    decoder = o.Decoder14(int.from_bytes(WIRE[STATE:WORDS], "little"), [])
    symbol = next(s for s in o.starts(TABLE) if s.start <= decoder.low < s.start + s.f)
    before = symbol.f * (decoder.x >> 14) + decoder.low - symbol.start
    assert 2**16 <= before < symbol.f << 18, before
    high, word = before >> 16, before % 2**16
    state = (high // symbol.f << 14) + high % symbol.f + symbol.start
    assert state < 2**16
    return WIRE[:STATE] + struct.pack("<IH", state, word) + WIRE[WORDS:]


def u64_bytes(value: int) -> bytes:
    return struct.pack("<Q", value)


def forged(table: Sequence[int]) -> bytes:
    """The integers of GOOD, rightly coded by another table."""
    assert sum(table) == 16384
    return o.rans14_encode(SOURCE.contents[0].payload, table)


def _wrong_frequencies() -> Iterator[Bad]:
    largest = TABLE.index(max(TABLE))
    others = [s for s, f in enumerate(TABLE) if f > 1 and s != largest]

    def moved(source: int, target: int) -> list[int]:
        table = [*TABLE, *[0] * (target + 1 - len(TABLE))]
        table[source] -= 1
        table[target] += 1
        return table

    for label, comment, table in (
        ("above", "another frequency is one higher", moved(largest, others[0])),
        ("below", "another frequency is one lower", moved(others[-1], largest)),
        ("remainder", "what is missing to 16384 is with another symbol", moved(largest, others[1])),
        ("absent", "a symbol that does not occur has a frequency", moved(largest, TABLE.index(0))),
        ("last", "the last symbol does not occur", moved(largest, len(TABLE))),
        ("last-214", "last is 214, which does not occur", moved(largest, 214)),
    ):
        yield recoded(forged(table), f"c14-{label}", comment)
    for label, comment, values, table in (
        ("tie", "of the most frequent symbols, the second one has what is missing", [0, 1, 2] * 10,
         [5461, 5462, 0, 5461]),
        ("one", "one symbol, and f(0) is 1", [1] * 40, [1, 16383]),
        ("zeros", "all zeros, and f(1) is 1", [0] * 40, [16383, 1]),
        ("rounded", "the frequency nearest to the share, in place of the one below", [0, 0, 1] * 10,
         [10922, 5462]),
    ):  # fmt: skip
        yield _forged_alone(f"c14-{label}", comment, values, table)
    wire = forged(moved(largest, others[0]))
    yield recoded(wire[:-2] + bytes([wire[-2] ^ 1, wire[-1]]), "c13-and-frequencies", "the end comes first")


def _forged_alone(
    name: str, comment: str, values: Sequence[int], table: Sequence[int], dtype: str = "float32"
) -> Bad:
    """A frame of one grid, coded by another table than its own."""
    wire = o.rans14_encode(ints("int32", values), table)
    assert len(wire) < 4 * len(values)
    assert table != o.grid_frequencies([o.symbol_of(z)[0] for z in values])
    return _with_payload(name, comment, values, wire, dtype)


def _with_payload(name: str, comment: str, values: Sequence[int], wire: bytes, dtype: str) -> Bad:
    schema = (dense("x", dtype, len(values)),)
    good = o.encode(frame(schema, [grid([0] * len(values), 1.0, o.RANS14)]))
    return bad(name, comment, sealed(good[:52] + u64_bytes(len(wire)) + good[60:64] + wire), schema)


def _two_blocks() -> Iterator[Bad]:
    """A grid of two blocks: the number of words of the first is in the payload."""
    n = 65_600
    values = [0] * n
    values[3], values[65_580] = 2**19 - 1, 1
    source = frame((masked("w", n),), [grid(values, 1.0, o.RANS14)], seed=0)
    good, wire = o.encode(source), o.with_codings(source)[1][0]
    _, at = o.take_frequencies(wire)
    (count,), first = struct.unpack_from("<I", wire, at), at + 4
    second = first + 4 + 2 * count
    assert (count > 0, len(wire)) == (True, second + 4), (count, len(wire), second)

    def of(name: str, comment: str, wire: bytes) -> Bad:
        data = good[: W + 4] + struct.pack("<Q", len(wire)) + good[W + 12 : W + 16] + wire
        return bad(name, comment, sealed(data), source.schema)

    def counted(words: int) -> bytes:
        return wire[:at] + struct.pack("<I", words) + wire[first:]

    yield of("c11-count", f"{count + 1} words in the first block, of {count} in all", counted(count + 1))
    yield of("c11-most", "2^32 - 1 words in the first block", counted(2**32 - 1))
    yield of("c11-wrap", "2^31 words in the first block, whose bytes are 0 modulo 2^32", counted(2**31))
    yield of("c12-second", "the state of the second block is 0", wire[:second] + bytes(4))
    state = int.from_bytes(wire[first : first + 4], "little") ^ 1
    both = wire[:first] + struct.pack("<I", state) + wire[first + 4 : second] + bytes(4)
    yield of("c12-and-first", "the states come before what they code", both)
    yield of("c13-second", "a word is left in the second block", wire + b"\1\0")
    end = wire[:second] + struct.pack("<I", int.from_bytes(wire[second:], "little") ^ 2**18)
    yield of("c13-second-state", "another state of the second block", end)
    yield of("c10-blocks", "the counts cut the frequencies' bits off", wire[:1] + b"\0" + wire[at:])


def _integers() -> Iterator[Bad]:
    for dtype, code in (("float32", 1), ("float64", 2), ("float16", 3), ("bfloat16", 4)):
        most = o.GRIDS[code][0]
        for label, value in (("above", most + 1), ("below", -most - 1)):
            comment = f"{value} in a grid of {dtype}, raw"
            yield alone(f"f32-{dtype}-{label}", comment, dtype, [0, 1], (68, ints("int32", [value]).hex()))
    for label, value in (("least", -(2**31)), ("most", 2**31 - 1)):
        word = ints("int32", [value]).hex()
        yield alone(f"f32-{label}", f"{value} in a grid of float32", "float32", [0, 1], (64, word))
    yield of("f32-masked", "2^24 in the second grid, of a dense tensor", (P_B + 8, "00000001"))
    for dtype, value in (("float16", 2048), ("bfloat16", -256)):
        values = [value, *[0] * 39]
        wire = o.rans14_encode(ints("int32", values))
        yield _with_payload(f"f32-coded-{dtype}", f"{value} in a grid of {dtype}, coded", values, wire, dtype)
    table = o.grid_frequencies([o.symbol_of(z)[0] for z in [2048, *[0] * 39]])
    other = [table[0] - 1, 1, *table[2:]]
    comment = "the frequencies come before the bounds of the integers"
    yield _forged_alone("c14-and-bounds", comment, [2048, *[0] * 39], other, "float16")
    padding = (P_M + 1, "ff")
    nan = (P_D, "0000c07f")
    yield of(
        "f32-and-padding", "integers of tensor 2 come before padding of tensor 3", (P_H, "00080000"), padding
    )
    yield of("f28-grid-and-nan", "padding of tensor 3 comes before a NaN of tensor 4", padding, nan)
    early = (P_W + STATE, "00000000")
    yield of(
        "c12-and-integers", "the state of tensor 0 comes before integers of tensor 1", early, (P_B + 3, "40")
    )

"""Tallies to be refused (FORMAT.md 8.6)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BERNOULLI, GAUSSIAN, SIGNED, UNIFORM, Counts, Schema, Tally
from vector_cases.basics import (
    SMALL_SCHEMA,
    TOP,
    Case,
    dense,
    f32,
    invalid,
    masked,
    patched,
    refusal,
    schema_json,
    sealed,
    u32,
    u64,
)
from vector_cases.tallies import mixed

FRAMES, WEIGHT = 5, 4
SOURCE = o.tally([mixed(k) for k in range(FRAMES)], WEIGHT)
GOOD = o.tally_to_bytes(SOURCE)
W = 60
P_W = W + 16
B = P_W + 4  # 10 counts of 3 bits, 2 bits of padding
ROWS_B = GOOD[B]
N = B + 4 + 20 * ROWS_B
F = N + 4 + 12 * GOOD[N]
V = F + 4 + 28 * GOOD[F]
P_V = V + 16
H = P_V + 4  # 9 counts of 3 bits, 5 bits of padding

CODED_SCHEMA = (masked("w", 90), dense("n", "int8", 1), masked("v", 3))
CODED = Tally(
    CODED_SCHEMA,
    7,
    0,
    0,
    3,
    40,
    (
        Counts(((*([20] * 80), *range(10)),), SIGNED, BERNOULLI, 0.5),
        Counts(((-7,),)),
        Counts(((40, 0, 1),), SIGNED, UNIFORM, 0.25),
    ),
)
GOOD_CODED = o.tally_to_bytes(CODED, o.RANS14)
INTEGERS = [c - 20 for c in CODED.tensors[0].rows[0]]
LENGTH = int.from_bytes(GOOD_CODED[W + 8 : W + 16], "little")
WIRE = GOOD_CODED[P_W : P_W + LENGTH]
TABLE, BODY = o.take_frequencies(WIRE[: LENGTH - 4])


class Bad(NamedTuple):
    """A tally to be refused, and the seed that its reader expects."""

    name: str
    comment: str
    data: bytes
    schema: Schema = SMALL_SCHEMA
    seed: int | None = None


def of(name: str, comment: str, *patches: tuple[int, str]) -> Bad:
    """The good tally with other bytes and the right checksum."""
    return Bad(name, comment, patched(GOOD, *patches))


def number(value: int, size: int = 8) -> str:
    """A little-endian number in hexadecimal."""
    return value.to_bytes(size, "little").hex()


def headers() -> Iterator[Bad]:
    yield Bad("t01-empty", "no bytes", b"")
    yield Bad("t01-63", "a byte short of the shortest", sealed(GOOD[:59]))
    yield of("t02-partial-sum", "the magic of a partial sum", (0, b"FMRS".hex()))
    yield of("t02-and-version", "the magic comes before the version", (0, "0000000002"))
    for label, version in (("major-2", "0200"), ("minor-1", "0101"), ("major-0", "0000")):
        yield of(f"t03-{label}", f"major and minor {version}", (4, version))
    yield of("t03-and-flags", "the version comes before the flags", (4, "02000100"))
    for label, flags in (("bit-0", "0100"), ("bit-15", "0080")):
        yield of(f"t04-{label}", f"flags {flags}", (6, flags))
    yield of("t04-and-frames", "flags come before the number of frames", (6, "0100"), (56, "00000000"))
    for label, n in (("zero", 0), ("2-24", 2**24), ("most", 2**32 - 1)):
        yield of(f"t05-{label}", f"{n} frames", (56, number(n, 4)))
    both = number(0) + number(0, 4)
    yield of("t05-and-weight", "the number of frames comes before the weight", (48, both))
    for label, weight, n in (
        ("zero", 0, FRAMES),
        ("above", (2**39 - 1) // FRAMES + 1, FRAMES),
        ("2-39", 2**39, 1),
        ("product", 2**20, 2**19),
        ("wraps-64", 2**62, 4),
        ("wraps-to-4", (2**64 + 4) // 4, 4),
        ("wraps-53", 2**53, 2**11),
        ("most", TOP, 1),
        ("most-of-both", TOP, 2**24 - 1),
    ):
        comment = f"a weight of {weight} for {n} frames"
        yield of(f"t06-{label}", comment, (48, number(weight) + number(n, 4)))
    yield of("t06-and-digest", "the weight comes before the schema", (48, number(0)), (32, "00" * 16))
    yield of("t07-bit", "one bit of the digest", (47, f"{GOOD[47] ^ 1:02x}"))
    yield Bad("t07-other", "the caller has another schema", GOOD, (masked("x", 2, 5), *SMALL_SCHEMA[1:]))
    yield of("t07-and-count", "the schema comes before the count", (28, "05"), (32, "00" * 16))
    for found in (0, 5, 7):
        yield of(f"t08-{found}", f"{found} tensors where the schema has 6", (28, f"{found:02x}"))
    yield Bad("t08-and-seed", "the count comes before the seed", patched(GOOD, (28, "05")), seed=1)
    for label, seed in (("other", 1001), ("zero", 0), ("most", TOP), ("high", 1000 + 2**32)):
        yield Bad(f"t09-{label}", f"seed 1000, {seed} is expected", GOOD, seed=seed)
    bad_kind = patched(GOOD, (W, "00"))
    yield Bad("t09-and-kind", "the seed comes before the tensors", bad_kind, seed=1)


def entries() -> Iterator[Bad]:
    for label, comment, cut in (
        ("none", "no tensors", W),
        ("head", "the head of a masked tensor is cut off", W + 15),
        ("payload", "a count is cut off", B - 1),
        ("rows", "the number of rows is cut off", B + 3),
        ("limb", "the index of a row is cut off", B + 7),
        ("limbs", "a limb is cut off", N - 1),
        ("head-second", "the head of the second masked tensor is cut off", V + 8),
        ("last", "the last limb is cut off by the checksum", len(GOOD) - 5),
    ):
        yield Bad(f"t01-{label}", comment, sealed(GOOD[:cut]))
    yield Bad("t01-checksum", "the checksum is missing", GOOD[:-4])
    huge = sealed(GOOD[:B] + b"\xff" * 4)
    yield Bad("t01-rows-huge", "2^32 - 1 rows announced, none there", huge)
    for kind in (0, 3, 4, 255):
        yield of(f"t10-{kind}", f"kind {kind}", (W, f"{kind:02x}"))
    yield of("t10-second", "kind 3 of the second masked tensor", (V, "03"))
    yield of("t10-and-distribution", "the kind comes before the distribution", (W, "0000"))
    for code in (0, 4, 255):
        yield of(f"t11-{code}", f"distribution {code}", (W + 1, f"{code:02x}"))
    yield of("t11-and-coding", "the distribution comes before the coding", (W + 1, "0001"))
    for coding in (1, 2, 3, 4, 6, 255):
        yield of(f"t12-{coding}", f"coding {coding}", (W + 2, f"{coding:02x}"))
    yield of("t12-and-reserved", "the coding comes before the reserved byte", (W + 2, "0101"))
    yield of("t13-one", "the reserved byte is 1", (W + 3, "01"))
    yield of("t13-and-scale", "the reserved byte comes before the scale", (W + 3, "0100000000"))
    for label, bits in (
        ("zero", 0),
        ("negative", 0xBCA3D70A),
        ("nan", 0x7FC00000),
        ("infinity", 0x7F800000),
        ("gaussian-below", (22 << 23) - 1),
        ("gaussian-above", (252 << 23) + 1),
    ):
        yield of(f"t14-{label}", f"scale bits {u32(bits)}", (W + 4, number(bits, 4)))
    yield of("t14-and-length", "the scale comes before the length", (W + 4, "00" * 12))
    for label, length in (("zero", 0), ("less", 3), ("more", 5), ("one-bit", 2), ("most", TOP)):
        yield of(f"t15-{label}", f"{length} bytes for 10 counts of 3 bits", (W + 8, number(length)))
    yield of("t15-coded-raw", "coding 5 in as many bytes as raw", (W + 2, "05"))
    yield of("t15-coded-short", "4 bytes are too few for coding 5", (V + 2, "05"))
    cut = sealed(patched(GOOD, (W + 8, number(5)))[:P_W])
    yield Bad("t15-and-cut", "the length comes before the payload that is cut off", cut)
    empty = Tally((masked("m", 0),), 7, 0, 0, 1, 1, (Counts(((),), SIGNED, UNIFORM, 1.0),))
    data = patched(o.tally_to_bytes(empty), (W + 2, "05"))
    yield Bad(
        "t15-empty-coded", "an empty tensor in coding 5, which has no length for it", data, empty.schema
    )
    one = sealed(o.tally_to_bytes(empty)[:-12] + struct.pack("<Q", 1) + b"\0")
    yield Bad("t15-empty-one", "an empty tensor with a byte", one, empty.schema)
    yield of("t16-beyond", "limb 12 of float32, which has 12", (B + 4, "0c"))
    yield of("t16-most", "limb 2^32 - 1", (B + 4, "ffffffff"))
    yield of("t16-bool", "limb 1 of bool, which has 1", (F + 4, "01"))
    row = GOOD[B + 4 : B + 24]
    more = struct.pack("<I", ROWS_B + 1)
    yield Bad("t16-twice", "the same limb twice", sealed(GOOD[:B] + more + row + GOOD[B + 4 : -4]))
    beyond = sealed(GOOD[:B] + struct.pack("<II", 1, 12))
    yield Bad("t16-and-cut", "a wrong index comes before limbs that are cut off", beyond)


def ends() -> Iterator[Bad]:
    yield Bad("t17-before", "a byte between the last tensor and the checksum", sealed(GOOD[:-4] + b"\0"))
    yield Bad("t17-after", "a byte after the checksum", GOOD + b"\0")
    yield Bad("t17-and-checksum", "a byte too many comes before the checksum", GOOD[:-4] + bytes(5))
    yield Bad("t18-zeros", "a checksum of zeros", GOOD[:-4] + bytes(4))
    yield Bad(
        "t18-bit", "a bit of a count turned over", GOOD[:P_W] + bytes([GOOD[P_W] ^ 1]) + GOOD[P_W + 1 :]
    )
    padded = GOOD[B - 1] | 0x80
    yield Bad(
        "t18-and-padding", "the checksum comes before the padding", GOOD[: B - 1] + bytes([padded]) + GOOD[B:]
    )
    for label, at, bit in (
        ("first", B - 1, 6),
        ("last", B - 1, 7),
        ("second", H - 1, 3),
        ("second-last", H - 1, 7),
    ):
        yield of(
            f"t19-{label}",
            f"bit {bit} of the last byte, which is padding",
            (at, f"{GOOD[at] | 1 << bit:02x}"),
        )
    yield of("t19-and-count", "the padding of a tensor comes before its counts", (P_W, "ff" * 4))
    six, seven = (o.pack_counts([5, value, *[0] * 8], FRAMES) for value in (6, 7))
    yield of("t20-count-6", "a count of 6 for 5 frames", (P_W, six.hex()))
    yield of("t20-count-7", "a count of 7 for 5 frames", (P_W, seven.hex()))
    last = o.pack_counts([0] * 8 + [6], FRAMES)
    yield of("t20-count-last", "the last count is 6", (P_V, last.hex()))
    yield of(
        "t20-and-padding",
        "the counts of a tensor come before the next tensor",
        (P_W, six.hex()),
        (H - 1, "ff"),
    )
    bound = FRAMES * (2**24 - 1)
    for label, value in (
        ("above", bound + 1),
        ("below", -bound - 1),
        ("most", 2**63 - 1),
        ("least", -(2**63)),
    ):
        comment = f"a limb of {value}, 5 frames allow {bound}"
        yield of(f"t20-limb-{label}", comment, (B + 8, struct.pack("<q", value).hex()))
    weighted = WEIGHT * bound
    yield of(
        "t20-limb-weight", "a limb that the weight would allow", (B + 8, struct.pack("<q", weighted).hex())
    )
    yield of("t20-zeros", "a row of zeros", (N + 8, "00" * 8))
    e = (dense("e", "int8", 0),)
    whole = o.tally_to_bytes(Tally(e, 7, 0, 0, 1, 1, (Counts(((),)),)))
    yield Bad(
        "t20-empty", "a row of an empty tensor is all 0", sealed(whole[:60] + struct.pack("<II", 1, 0)), e
    )
    yield of(
        "t20-and-second",
        "a limb comes before the padding of a later tensor",
        (B + 8, "ff" * 7 + "7f"),
        (H - 1, "ff"),
    )


def recoded(name: str, comment: str, wire: bytes, *patches: tuple[int, str]) -> Bad:
    """The coded tally with another payload of its first tensor."""
    rest = GOOD_CODED[P_W + LENGTH : -4]
    data = sealed(GOOD_CODED[: W + 8] + struct.pack("<Q", len(wire)) + wire + rest)
    return Bad(name, comment, patched(data, *patches), CODED_SCHEMA)


def coded() -> Iterator[Bad]:
    state = WIRE[BODY : BODY + 4]
    yield recoded("c10-tally-last", "last is 215", b"\xd7" + WIRE[1:])
    yield recoded(
        "c10-tally-bits",
        "the bits of the frequencies do not end",
        WIRE[:1] + b"\0" * (BODY - 1) + WIRE[BODY:],
    )
    yield recoded("c11-tally-odd", "half a word more", WIRE + b"\0")
    yield recoded("c12-tally-zero", "the state is 0", WIRE[:BODY] + bytes(4) + WIRE[BODY + 4 :])
    wrong = struct.pack("<I", int.from_bytes(state, "little") ^ 2**20)
    yield recoded("c13-tally-state", "another first state", WIRE[:BODY] + wrong + WIRE[BODY + 4 :])
    yield recoded("c13-tally-left", "a word is left", WIRE + b"\0\0")
    yield recoded("c13-tally-missing", "a word is missing", WIRE[:-2])
    largest = TABLE.index(max(TABLE))
    other = next(s for s, f in enumerate(TABLE) if f > 1 and s != largest)
    table = list(TABLE)
    table[largest] -= 1
    table[other] += 1
    yield recoded("c14-tally", "another frequency is one higher", encoded(INTEGERS, table))
    for label, value in (("above", 21), ("below", -21), ("far", 2**20), ("far-below", -(2**20))):
        comment = f"an integer of {value}: a count of {value + 20} for 40 frames"
        yield recoded(f"t20-coded-{label}", comment, encoded([*INTEGERS[:-1], value]))
    second = P_W + LENGTH + 4 + 12 + 16
    padding = (second + 2, f"{GOOD_CODED[second + 2] | 0x80:02x}")
    yield Bad(
        "t19-coded", "padding of a raw tensor behind a coded one", patched(GOOD_CODED, padding), CODED_SCHEMA
    )
    broken = patched(recoded("", "", WIRE[:BODY] + bytes(4) + WIRE[BODY + 4 :]).data, padding)
    yield Bad(
        "c12-tally-and-padding", "a tensor's payload comes before that of the next", broken, CODED_SCHEMA
    )


def encoded(values: Sequence[int], table: Sequence[int] | None = None) -> bytes:
    """Integers in coding 5."""
    return o.rans14_encode(struct.pack(f"<{len(values)}i", *values), table)


def bad_tally_cases() -> Iterator[Case]:
    assert (ROWS_B, GOOD[N], GOOD[F]) == (1, 1, 1) or ROWS_B >= 1
    assert GOOD[W + 1] == GAUSSIAN
    for make in (headers, entries, ends, coded):
        for name, comment, data, schema, seed in make():
            wanted = f"{name[0].upper()}-{name[1:3]}"
            found = refusal(lambda d=data, s=schema, k=seed: o.tally_from_bytes(d, s, k))  # type: ignore[misc]
            assert found == wanted, (name, wanted, found)
            expected = {} if seed is None else {"seed": u64(seed)}
            yield invalid(name, wanted, comment, schema=schema_json(schema), tally=data.hex(), **expected)


assert f32(0.02) == SOURCE.tensors[0].scale

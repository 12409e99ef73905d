"""Frames refused for their table, their length, or their payloads (FORMAT.md 7)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BINARY, UNIFORM, Content
from vector_cases.bad_frame import (
    FULL,
    P_B,
    P_F,
    P_H,
    P_V,
    P_W,
    PLAIN,
    B,
    Bad,
    H,
    N,
    V,
    W,
    bad,
    bare,
)
from vector_cases.basics import (
    DISTRIBUTIONS,
    DTYPES,
    TOP,
    dense,
    frame,
    masked,
    patched,
    sealed,
    u32,
)


def bad_tables() -> Iterator[Bad]:
    for label, comment, cut in (
        ("none", "no table", W),
        ("masked-11", "11 bytes of a masked entry", W + 11),
        ("masked-12", "a masked entry without its scale", W + 12),
        ("masked-15", "a byte of the scale is missing", W + 15),
        ("masked-checksum", "the checksum's bytes are not the scale", W + 12),
        ("dense-11", "11 bytes of a dense entry", B + 11),
        ("last", "the last entry is missing", H),
    ):
        if label != "masked-checksum":
            yield bad(f"f15-{label}", comment, sealed(PLAIN[:cut]))
    yield bad(
        "f15-kind-of-other",
        "the scale of a masked kind is missed before the kind is compared with the schema",
        sealed(PLAIN[:H] + b"\x01" + PLAIN[H + 1 : H + 12]),
    )
    for kind in (3, 128, 255):
        yield bad(f"f16-{kind}", f"kind {kind}", patched(PLAIN, (W, f"{kind:02x}")))
    yield bad("f16-dense", "kind 3 for a dense tensor", patched(PLAIN, (N, "03")))
    yield bad(
        "f16-last", "kind 3 needs no scale to be there", sealed(PLAIN[:H] + b"\x03" + PLAIN[H + 1 : H + 12])
    )
    yield bad("f17-dense", "kind 0 for a masked tensor", patched(PLAIN, (W, "00")))
    yield bad("f17-binary", "kind 1 for a dense tensor", patched(PLAIN, (B, "01")))
    yield bad("f17-signed", "kind 2 for a dense tensor", patched(PLAIN, (H - 16 - 12, "02")))
    yield bad("f17-and-type", "the kind comes before the type", patched(PLAIN, (W, "00ff")))
    for dtype in (0, 14, 255):
        yield bad(f"f18-{dtype}", f"dtype {dtype}", patched(PLAIN, (B + 1, f"{dtype:02x}")))
    yield bad("f18-and-coding", "the type comes before the coding", patched(PLAIN, (B + 1, "0e01")))
    for name in ("int32", "float64", "bfloat16"):
        yield bad(
            f"f19-{name}",
            f"{name} where the schema has float32",
            patched(PLAIN, (B + 1, f"{DTYPES[name]:02x}")),
        )
    for distribution in (0, 4, 128, 255):
        yield bad(
            f"f20-{distribution}",
            f"distribution {distribution}",
            patched(PLAIN, (W + 1, f"{distribution:02x}")),
        )
    yield bad(
        "f20-and-scale",
        "the distribution comes before its scale",
        patched(PLAIN, (W + 1, "00"), (W + 12, "00000000")),
    )
    for label, at in (("masked", W), ("dense", B)):
        yield bad(f"f21-{label}", "coding 1", patched(PLAIN, (at + 2, "01")))
        yield bad(f"f21-{label}-255", "coding 255", patched(PLAIN, (at + 2, "ff")))
        yield bad(
            f"f21-{label}-and-reserved",
            "the coding comes before the reserved byte",
            patched(PLAIN, (at + 2, "0101")),
        )
        yield bad(f"f22-{label}", "reserved byte 1", patched(PLAIN, (at + 3, "01")))
        yield bad(f"f22-{label}-128", "reserved byte 128", patched(PLAIN, (at + 3, "80")))
        yield bad(
            f"f22-{label}-and-length",
            "the reserved byte comes before the length",
            patched(PLAIN, (at + 3, "01ff")),
        )
    for label, comment, at, length in (
        ("one-more", "3 bytes, 10 elements need 2", W, 3),
        ("one-less", "1 byte, 10 elements need 2", W, 1),
        ("zero", "0 bytes", W, 0),
        ("elements", "the number of elements", W, 10),
        ("unpacked", "the bytes of the decoded tensor", W, 40),
        ("high-word", "2 + 2^32: the high word counts", W, 2**32 + 2),
        ("most", "2^64 - 1", W, TOP),
        ("dense-elements", "the number of elements of a dense tensor", B, 2),
        ("dense-most", "2^63 bytes of a dense tensor", B, 2**63),
        ("scalar-zero", "0 bytes for a scalar", N, 0),
    ):
        yield bad(f"f23-{label}", comment, patched(PLAIN, (at + 4, struct.pack("<Q", length).hex())))
    yield bad(
        "f23-and-scale",
        "the length comes before the scale",
        patched(PLAIN, (W + 4, "03"), (W + 12, "00000000")),
    )
    yield bad(
        "f23-moved", "a byte moved from one payload to the next", patched(PLAIN, (B + 4, "07"), (N + 4, "09"))
    )
    for label, distribution, bits in (
        ("zero", 2, 0),
        ("minus-zero", 2, 0x80000000),
        ("negative", 2, 0xBCA3D70A),
        ("infinity", 2, 0x7F800000),
        ("minus-infinity", 2, 0xFF800000),
        ("nan", 2, 0x7FC00000),
        ("signalling-nan", 1, 0x7F800001),
        ("negative-nan", 3, 0xFFC00000),
        ("subnormal", 3, 1),
        ("uniform-below", 1, (25 << 23) - 1),
        ("gaussian-below", 2, (22 << 23) - 1),
        ("bernoulli-below", 3, (1 << 23) - 1),
        ("gaussian-above", 2, (252 << 23) + 1),
        ("gaussian-max", 2, 0x7F7FFFFF),
        ("uniform-infinity", 1, 0x7F800000),
        ("bernoulli-infinity", 3, 0x7F800000),
    ):
        scale = struct.pack("<I", bits).hex()
        comment = f"scale bits {u32(bits)}, {DISTRIBUTIONS[distribution]}"
        yield bad(f"f24-{label}", comment, patched(PLAIN, (W + 1, f"{distribution:02x}"), (W + 12, scale)))
    yield bad("f24-second", "scale 0 of the second masked tensor", patched(PLAIN, (V + 12, "00000000")))
    yield bad(
        "f24-and-next",
        "an entry is checked to its end before the next: scale here, kind there",
        patched(PLAIN, (W + 12, "00000000"), (B, "03")),
    )
    yield bad(
        "f24-and-cut",
        "the table comes before the total length",
        sealed(patched(PLAIN, (V + 12, "00000000"))[: P_H + 1]),
    )
    empty = o.encode(frame((masked("m", 0),), [Content(b"", BINARY, UNIFORM, 1.0)]))
    yield bad(
        "f24-empty",
        "an empty masked tensor's scale counts too",
        patched(empty, (60, "00000000")),
        schema=(masked("m", 0),),
    )


def bad_payloads() -> Iterator[Bad]:
    yield bad("f25-one", "the last payload byte is missing", sealed(PLAIN[: P_H + 1]))
    yield bad("f25-payloads", "no payload at all", sealed(PLAIN[:P_W]))
    yield bad("f25-checksum", "the checksum is missing", PLAIN[:-4])
    yield bad("f25-last-byte", "the frame's last byte is missing", PLAIN[:-1])
    yield bare("f25-embedded", "the last payload byte is missing, schema embedded", sealed(FULL[:-5]))
    yield bad(
        "f26-before", "a byte between the last payload and a right checksum", sealed(PLAIN[:-4] + b"\x00")
    )
    yield bad("f26-after", "a byte after the checksum", PLAIN + b"\x00")
    yield bad("f26-twice", "two frames in a row", PLAIN + PLAIN)
    yield bad(
        "f16-schema-unflagged",
        "a frame that embeds its schema though the flag says no",
        patched(FULL, (6, "0000")),
    )
    nothing = o.encode(frame((), []))
    yield bad("f26-nothing", "a byte more than the shortest frame", sealed(nothing[:-4] + b"\x00"), schema=())
    for label, comment, at in (
        ("payload", "a bit of a payload", P_W),
        ("seed", "a bit of the seed", 8),
        ("round", "a bit of the round", 24),
        ("last", "a bit of the last payload byte", P_H + 1),
    ):
        data = bytearray(PLAIN)
        data[at] ^= 1
        yield bad(f"f27-{label}", f"{comment} turned over, the checksum left", bytes(data))
    yield bad("f27-zeros", "a checksum of zeros", PLAIN[:-4] + bytes(4))
    yield bad("f27-order", "the checksum's bytes reversed", PLAIN[:-4] + PLAIN[:-5:-1])
    inverse = (zlib.crc32(PLAIN[:-4]) ^ 0xFFFFFFFF).to_bytes(4, "little")
    yield bad("f27-inverse", "the checksum without its final exclusive or", PLAIN[:-4] + inverse)
    yield bad(
        "f27-and-padding",
        "the checksum comes before the payloads",
        PLAIN[:P_W] + b"\xff\xff" + PLAIN[P_W + 2 :],
    )
    for label, comment, at, bit in (
        ("lowest", "the lowest padding bit", P_W + 1, 2),
        ("highest", "the highest padding bit", P_W + 1, 7),
        ("second", "a padding bit of the second masked tensor", P_V + 1, 1),
    ):
        yield bad(f"f28-{label}", comment, patched(PLAIN, (at, f"{PLAIN[at] | 1 << bit:02x}")))
    one = o.encode(frame((masked("m"),), [Content(b"\1", BINARY, UNIFORM, 1.0)]))
    yield bad("f28-scalar", "a scalar's mask is 2", patched(one, (64, "02")), schema=(masked("m"),))
    for name, words in (
        ("float32", ("000080 7f", "000080ff", "0000c07f", "0100807f")),
        ("float64", ("000000000000f07f", "000000000000f0ff", "000000000000f87f", "010000000000f07f")),
        ("float16", ("007c", "00fc", "007e", "017c")),
        ("bfloat16", ("807f", "80ff", "c07f", "817f")),
    ):
        schema = (dense("x", name, 2),)
        size = o.DTYPES[DTYPES[name]].size
        data = o.encode(frame(schema, [Content(bytes(2 * size))]))
        for label, word in zip(("infinity", "minus-infinity", "nan", "signalling-nan"), words, strict=True):
            yield bad(
                f"f29-{name}-{label}",
                f"{label} as the second element of {name}",
                patched(data, (60 + size, word)),
                schema=schema,
            )
    for value in (2, 128, 255):
        yield bad(f"f30-{value}", f"a bool of {value}", patched(PLAIN, (P_F + 1, f"{value:02x}")))
    yield bad(
        "f28-and-nan",
        "padding of tensor 0 comes before a NaN of tensor 1",
        patched(PLAIN, (P_W + 1, "ff"), (P_B, "0000c07f")),
    )
    yield bad(
        "f29-and-bool",
        "a NaN of tensor 1 comes before a bool of tensor 3 and padding of tensor 4",
        patched(PLAIN, (P_B, "0000c07f"), (P_F, "02"), (P_V + 1, "ff")),
    )
    yield bad(
        "f30-and-padding",
        "a bool of tensor 3 comes before padding of tensor 4",
        patched(PLAIN, (P_F, "02"), (P_V + 1, "ff")),
    )

"""Partial sums to be refused (FORMAT.md 8.5)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BERNOULLI, GAUSSIAN, Content, Schema
from vector_cases.basics import (
    SMALL,
    SMALL_SCHEMA,
    TOP,
    Broken,
    Case,
    dense,
    frame,
    invalid,
    masked,
    one,
    patched,
    refusal,
    schema_json,
    sealed,
    u32,
)
from vector_cases.partials_grid import bad_grids

PARTIAL = o.partial_to_bytes(o.partial_sum([SMALL, SMALL._replace(seed=1)], [3, 4]))


def broken(name: str, comment: str, data: bytes, schema: Schema = SMALL_SCHEMA) -> Broken:
    """A partial sum that the reader of SMALL_SCHEMA refuses; the name begins with the number of the check."""
    return Broken(name, comment, data, schema)


def bad_partials() -> Iterator[Broken]:
    s, p = SMALL_SCHEMA, PARTIAL
    w, b = 56, 56 + 8 + 80  # tensors w and b begin here
    rows_b = [int.from_bytes(p[b + 4 + 20 * k : b + 8 + 20 * k], "little") for k in range(p[b])]
    assert len(rows_b) == 1, rows_b
    n = b + 4 + 20 * len(rows_b)
    f = n + 4 + 12 * p[n]
    v = f + 4 + 28 * p[f]
    assert p[v] == BERNOULLI
    h = v + 8 + 72
    yield broken("p01-empty", "no bytes", b"")
    yield broken("p01-59", "a byte short of the shortest", sealed(p[:55]))
    for label, comment, cut in (
        ("head", "the head of a masked tensor is cut off", w + 7),
        ("sums", "a sum is cut off", b - 1),
        ("rows", "the number of rows is cut off", b + 3),
        ("limb", "the index of a row is cut off", b + 7),
        ("limbs", "a limb is cut off", n - 1),
        ("last", "the last limb is cut off by the checksum", len(p) - 5),
        ("none", "no tensors", 56),
    ):
        yield broken(f"p01-{label}", comment, sealed(p[:cut]))
    yield broken("p01-checksum", "the checksum is missing", p[:-4])
    yield broken("p01-rows-huge", "2^32 - 1 rows announced, none there", sealed(p[:b] + b"\xff" * 4))
    yield broken("p02-frame", "the magic of a frame", patched(p, (0, b"FMRN".hex())))
    yield broken("p02-and-version", "magic comes before the version", patched(p, (0, "0000000002")))
    for label, version in (("major-2", "0200"), ("minor-2", "0102")):
        yield broken(f"p03-{label}", f"major and minor {version}", patched(p, (4, version)))
    for label, flags in (("bit-0", "0100"), ("bit-15", "0080")):
        yield broken(f"p04-{label}", f"flags {flags}", patched(p, (6, flags)))
    for label, weight in (("zero", 0), ("2-39", 2**39), ("most", TOP)):
        yield broken(f"p05-{label}", f"weight {weight}", patched(p, (8, struct.pack("<Q", weight).hex())))
    for label, frames_ in (("zero", 0), ("beyond-weight", 8), ("most", TOP)):
        yield broken(
            f"p06-{label}", f"{frames_} frames, weight 7", patched(p, (48, struct.pack("<Q", frames_).hex()))
        )
    yield broken(
        "p06-and-digest",
        "the number of frames comes before the schema",
        patched(p, (48, "00"), (32, "00" * 16)),
    )
    yield broken("p07-bit", "one bit of the digest", patched(p, (47, f"{p[47] ^ 1:02x}")))
    yield broken("p07-other", "the caller has another schema", p, (masked("x", 2, 5), *s[1:]))
    yield broken(
        "p07-and-count", "the schema comes before the count", patched(p, (28, "05"), (32, "00" * 16))
    )
    for found in (0, 5, 7):
        yield broken(
            f"p08-{found}", f"{found} tensors where the schema has 6", patched(p, (28, f"{found:02x}"))
        )
    for code in (0, 4, 255):
        yield broken(f"p09-{code}", f"distribution {code}", patched(p, (w, f"{code:02x}")))
    yield broken("p09-second", "distribution 4 of the second masked tensor", patched(p, (v, "04")))
    for k in (1, 2, 3):
        yield broken(f"p10-byte-{k}", f"reserved byte {k} is 1", patched(p, (w + k, "01")))
    yield broken(
        "p10-and-scale", "reserved bytes come before the scale", patched(p, (w + 1, "01000000000000"))
    )
    for label, bits in (
        ("zero", 0),
        ("negative", 0xBCA3D70A),
        ("nan", 0x7FC00000),
        ("infinity", 0x7F800000),
        ("gaussian-below", (22 << 23) - 1),
        ("gaussian-above", (252 << 23) + 1),
    ):
        yield broken(
            f"p11-{label}", f"scale bits {u32(bits)}", patched(p, (w + 4, struct.pack("<I", bits).hex()))
        )
    yield broken(
        "p11-and-cut",
        "the scale comes before sums that are cut off",
        sealed(patched(p, (w + 4, "00000000"))[: w + 20]),
    )
    yield broken("p12-beyond", "limb 12 of float32, which has 12", patched(p, (b + 4, "0c")))
    yield broken("p12-most", "limb 2^32 - 1", patched(p, (b + 4, "ffffffff")))
    yield broken("p12-bool", "limb 1 of bool, which has 1", patched(p, (f + 4, "01")))
    for code, dtype in o.DTYPES.items():
        data = o.partial_to_bytes(o.partial_sum([one(code)], [1]))
        assert data[56] == 1  # a row, whose limb is at byte 60
        beyond = patched(data, (60, struct.pack("<I", dtype.limbs).hex()))
        comment = f"limb {dtype.limbs} of {dtype.name}, which has {dtype.limbs}"
        yield broken(f"p12-beyond-{dtype.name}", comment, beyond, one(code).schema)
    row = p[b + 4 : n]
    twice = sealed(p[:b] + struct.pack("<I", 2) + row + row + p[n:-4])
    yield broken("p12-twice", "the same limb twice", twice)
    back = struct.pack("<I", rows_b[0] - 1) + row[4:]
    yield broken(
        "p12-descending", "limbs descend", sealed(p[:b] + struct.pack("<I", 2) + row + back + p[n:-4])
    )
    yield broken(
        "p12-and-cut",
        "a wrong index comes before limbs that are cut off",
        sealed(p[:b] + struct.pack("<II", 1, 12)),
    )
    yield broken("p13-before", "a byte between the last tensor and the checksum", sealed(p[:-4] + b"\x00"))
    yield broken("p13-after", "a byte after the checksum", p + b"\x00")
    yield broken("p14-zeros", "a checksum of zeros", p[:-4] + bytes(4))
    yield broken("p14-bit", "a bit of a sum turned over", p[: w + 8] + bytes([p[w + 8] ^ 1]) + p[w + 9 :])
    bound = 7 * (2**24 - 1)  # of a limb
    assert p[w] == GAUSSIAN
    largest = 7 * o.LARGEST_DRAW[GAUSSIAN]
    for label, value in (
        ("above", largest + 1),
        ("below", -largest - 1),
        ("most", 2**63 - 1),
        ("least", -(2**63)),
    ):
        comment = f"a sum of {value}, weight 7 and Gaussian noise allow {largest}"
        yield broken(f"p15-sum-{label}", comment, patched(p, (w + 8, struct.pack("<q", value).hex())))
    yield broken(
        "p15-bernoulli",
        "a sum of 8, weight 7 and Bernoulli noise allow 7",
        patched(p, (v + 8, struct.pack("<q", 8).hex())),
    )
    yield broken(
        "p15-limb-above", "a limb beyond the bound", patched(p, (b + 8, struct.pack("<q", bound + 1).hex()))
    )
    yield broken("p15-zeros", "a row of zeros", patched(p, (b + 8, "00" * 16)))
    zero_row = sealed(p[:h] + struct.pack("<I", p[h] + 1) + struct.pack("<Iq", 0, 0) + p[h + 4 : -4])
    yield broken("p15-zeros-more", "a row of zeros before another", zero_row)
    empty = (dense("e", "int8", 0),)
    whole = o.partial_to_bytes(o.partial_sum([frame(empty, [Content(b"")])], [1]))
    yield broken(
        "p15-empty", "a row of an empty tensor is all 0", sealed(whole[:56] + struct.pack("<II", 1, 0)), empty
    )
    yield broken(
        "p14-and-sums",
        "the checksum comes before the sums",
        p[: w + 8] + struct.pack("<q", bound + 1) + p[w + 16 :],
    )


def partial_cases() -> Iterator[Case]:
    for name, comment, data, schema in (*bad_partials(), *bad_grids()):
        number = f"P-{name[1:3]}"
        found = refusal(lambda d=data, s=schema: o.partial_from_bytes(d, s))  # type: ignore[misc]
        assert found == number, (name, number, found)
        yield invalid(name, number, comment, schema=schema_json(schema), partial=data.hex())

"""Frames refused for their header, their schema, or values other than expected (FORMAT.md 7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BINARY, UNIFORM, Content
from vector_cases.bad_frame import (
    FULL,
    PLAIN,
    SCHEMA_END,
    Bad,
    bad,
    bare,
    embedding,
    raw_tensor,
)
from vector_cases.basics import (
    DTYPES,
    SMALL,
    SMALL_SCHEMA,
    TOP,
    frame,
    masked,
    patched,
    sealed,
)


def bad_headers() -> Iterator[Bad]:
    yield bad("f01-empty", "no bytes", b"")
    yield bad("f01-magic-only", "four bytes", b"FMRN")
    yield bad("f01-51", "a byte short of the shortest frame", sealed(PLAIN[:47]))
    yield bad("f01-short-and-wrong", "too short comes before wrong magic", b"GIF89a" * 8)
    for label, magic in (
        ("partial", b"FMRS"),
        ("lower-case", b"fmrn"),
        ("reversed", b"NRMF"),
        ("zeros", bytes(4)),
    ):
        yield bad(f"f02-{label}", f"magic {magic!r}", patched(PLAIN, (0, magic.hex())))
    yield bad(
        "f02-and-version", "wrong magic comes before a wrong version", patched(PLAIN, (0, "00000000 09"))
    )
    for label, version in (
        ("major-0", "0000"),
        ("major-2", "0200"),
        ("minor-4", "0104"),
        ("minor-255", "01ff"),
    ):
        yield bad(f"f03-{label}", f"major and minor {version}", patched(PLAIN, (4, version)))
    yield bad("f03-and-flags", "a version comes before its flags", patched(PLAIN, (4, "0104 0200")))
    for label, flags in (("bit-1", "0200"), ("bit-8", "0001"), ("bit-15", "0080"), ("all", "ffff")):
        yield bad(f"f04-{label}", f"flags {flags}", patched(PLAIN, (6, flags)))
    yield bare("f04-bit-1-embedded", "bits 0 and 1", patched(FULL, (6, "0300")))
    yield bad(
        "f04-and-count",
        "flags come before the limit of tensors",
        patched(PLAIN, (6, "0200"), (28, "ffffffff")),
    )
    yield bad("f05-caller", "6 tensors, 5 allowed", PLAIN, max_tensors=5)
    yield bad("f05-default", "65537 tensors, the default allows 65536", patched(PLAIN, (28, "01000100")))
    yield bad("f05-most", "2^32 - 1 tensors", patched(PLAIN, (28, "ffffffff")))
    yield bare(
        "f05-and-length",
        "the limit of tensors comes before the schema's length",
        patched(FULL, (28, "ffffffff"), (48, "ffffffff")),
    )


def bad_schemas() -> Iterator[Bad]:
    one = raw_tensor(b"w", 1, 1, 3)
    count = struct.pack("<I", 1)
    raw = count + one
    yield bare(
        "f06-no-length",
        "the frame ends with its header: the checksum's bytes are not the length",
        sealed(FULL[:48]),
    )
    yield bare("f06-half-length", "two bytes of the length", sealed(FULL[:50]))
    yield bare("f07-caller", "a byte more than allowed", FULL, max_schema_bytes=SCHEMA_END - 53)
    yield bare(
        "f07-default",
        "2^24 + 1 bytes, more than the default allows and more than there are",
        patched(FULL, (48, "01000001")),
    )
    yield bare("f07-most", "2^32 - 1 bytes", patched(FULL, (48, "ffffffff")))
    yield bare("f08-one-more", "the schema would end in the checksum", embedding(raw, length=len(raw) + 1))
    yield bare(
        "f08-checksum", "the schema would end where the checksum does", embedding(raw, length=len(raw) + 4)
    )
    yield bare("f08-far", "as long as the default allows, but not there", embedding(raw, length=2**24))
    yield bare("f08-cut", "the frame ends within the schema", sealed(FULL[: SCHEMA_END - 1]))
    rest = o.encode(frame((masked("w", 3),), [Content(b"\5", BINARY, UNIFORM, 1.0)]))[48:-4]
    yield bare("s01-no-count", "a schema of 0 bytes", embedding(b"", count=0))
    yield bare("s01-half-count", "a schema of 3 bytes", embedding(bytes(3), count=0))
    yield bare("s01-byte-after", "a byte after the last tensor", embedding(raw + b"\x00", rest=rest))
    yield bare(
        "s01-tensor-after", "a tensor more than counted", embedding(raw + raw_tensor(b"v", 1, 1), rest=rest)
    )
    yield bare(
        "s01-tensor-missing",
        "a tensor fewer than counted",
        embedding(struct.pack("<I", 2) + one, count=2, rest=rest),
    )
    yield bare(
        "s01-count-huge", "2^32 - 1 tensors counted, one there", embedding(b"\xff" * 4 + one, rest=rest)
    )
    cuts = (("name-length", 1), ("name", 2), ("role", 3), ("dtype", 4), ("rank", 5), ("shape", 13))
    for label, cut in cuts:
        yield bare(
            f"s01-cut-{label}", f"the schema's length cuts off the {label}", embedding(count + one[:cut])
        )
    yield bare(
        "s01-cut-name-utf8",
        "a name cut off comes before its bytes are looked at",
        embedding(count + b"\x04\x00\xff\xff"),
    )
    yield bare(
        "s01-and-limit",
        "a byte after comes before the limit of elements",
        embedding(raw + b"\x00", rest=rest),
        max_elements=2,
    )
    yield bare("s02-empty", "a name of no bytes", embedding(count + raw_tensor(b"", 1, 1, 3), rest=rest))
    for label, number, what, field in (
        ("name", "s02", "a name that is not UTF-8", raw_tensor(b"\xff", 1, 1)[:3]),
        ("role", "s03", "a role of 2", raw_tensor(b"w", 2, 1)[:4]),
        ("dtype", "s04", "a dtype of 14", raw_tensor(b"w", 0, 14)[:5]),
        ("masked", "s05", "a masked tensor of float64", raw_tensor(b"w", 1, 2)[:5]),
    ):
        comment = f"{what} is found when it is read: the field after it is cut off"
        yield bare(f"{number}-{label}-and-cut", comment, embedding(count + field))
        more = struct.pack("<I", 2) + one + field.replace(b"w", b"v")
        yield bare(
            f"{number}-{label}-and-cut-later", "the same in the second tensor", embedding(more, count=2)
        )
    yield bare("s02-empty-and-cut", "an empty name, and then nothing", embedding(count + bytes(2)))
    for label, name in (
        ("ff", "ff"),
        ("lone-continuation", "80"),
        ("cut", "e6ac"),
        ("overlong", "c080"),
        ("surrogate", "eda080"),
        ("beyond", "f4908080"),
        ("latin-1", "636166e9"),
    ):
        yield bare(
            f"s02-{label}",
            f"name {name} is not UTF-8",
            embedding(count + raw_tensor(bytes.fromhex(name), 1, 1, 3), rest=rest),
        )
    two = struct.pack("<I", 2)
    yield bare("s02-twice", "the same name again", embedding(two + one + raw_tensor(b"w", 0, 1), count=2))
    far = struct.pack("<I", 3) + one + raw_tensor(b"x", 0, 1) + raw_tensor(b"w", 0, 1)
    yield bare("s02-twice-apart", "the same name two tensors later", embedding(far, count=3))
    yield bare(
        "s02-and-role",
        "a name comes before the role after it",
        embedding(count + raw_tensor(b"\xff", 9, 1, 3)),
    )
    for role in (2, 255):
        yield bare(f"s03-{role}", f"role {role}", embedding(count + raw_tensor(b"w", role, 1, 3), rest=rest))
    yield bare(
        "s03-and-later-name",
        "an earlier tensor's role comes before a later one's name",
        embedding(two + raw_tensor(b"w", 2, 1) + raw_tensor(b"w", 0, 1), count=2),
    )
    for dtype in (0, 14, 128, 255):
        yield bare(f"s04-{dtype}", f"dtype {dtype}", embedding(count + raw_tensor(b"w", 0, dtype, 3)))
    yield bare(
        "s04-masked", "a masked tensor of an unknown dtype", embedding(count + raw_tensor(b"w", 1, 14, 3))
    )
    for name in ("float64", "float16", "bfloat16", "int32", "bool"):
        yield bare(
            f"s05-{name}",
            f"a masked tensor of {name}",
            embedding(count + raw_tensor(b"w", 1, DTYPES[name], 3), rest=rest),
        )
    yield bare(
        "s05-and-rank",
        "a dtype comes before the rank after it",
        embedding(count + raw_tensor(b"w", 1, 2, rank=33)),
    )
    yield bare("s06-rank", "33 dimensions", embedding(count + raw_tensor(b"w", 1, 1, *[1] * 33), rest=rest))
    yield bare(
        "s06-rank-and-cut",
        "a rank of 255 comes before the shape that is not there",
        embedding(count + raw_tensor(b"w", 1, 1, rank=255)),
    )
    for label, comment, shape in (
        ("one", "2^48 + 1 elements", (2**48 + 1,)),
        ("product", "2^49 elements", (2**24, 2**25)),
        ("overflow", "2^64 elements, 0 modulo 2^64", (2**32, 2**32)),
        ("overflow-small", "a product that is 6 modulo 2^64", (2**63 + 3, 2)),
        ("sign", "a dimension of 2^64 - 1", (TOP,)),
        ("beside-zero", "a 0 counts as 1: 2^49 beside it", (0, 2**49)),
        ("around-zero", "2^24 and 2^25 around a 0", (2**24, 0, 2**25)),
    ):
        yield bare(f"s06-{label}", comment, embedding(count + raw_tensor(b"w", 1, 1, *shape)))
    few = embedding(two + one + raw_tensor(b"v", 1, 1), count=1)
    yield bare("s09-caller", "2 tensors in the schema, 1 allowed and in the header", few, max_tensors=1)
    yield bare(
        "s09-and-byte-after",
        "a limit reached comes before a byte after the last tensor",
        embedding(two + one + raw_tensor(b"v", 1, 1) + b"\x00", count=1),
        max_tensors=1,
    )
    yield bare(
        "s02-and-tensors",
        "an earlier tensor's name comes before the limit",
        embedding(two + raw_tensor(b"\xff", 1, 1) + raw_tensor(b"v", 1, 1), count=1),
        max_tensors=1,
    )
    yield bare("s07-caller", "26 elements, 25 allowed", FULL, max_elements=25)
    yield bare(
        "s07-default",
        "2^34 + 1 elements, the default allows 2^34",
        embedding(count + raw_tensor(b"w", 1, 1, 2**34 + 1)),
    )
    yield bare(
        "s07-sum",
        "two tensors, each within the default limit",
        embedding(two + raw_tensor(b"w", 1, 1, 2**34) + raw_tensor(b"v", 1, 1), count=2),
    )
    yield bare(
        "s07-and-digest",
        "the limit of elements comes before the digest",
        patched(FULL, (32, "00")),
        max_elements=25,
    )
    yield bare("s08-bit", "one bit of the digest", patched(FULL, (47, f"{FULL[47] ^ 128:02x}")))
    yield bare("s08-zeros", "a digest of zeros", patched(FULL, (32, "00" * 16)))
    renamed = patched(FULL, (58, "78"))
    yield bare("s08-schema", "one letter of a name in the schema", renamed)
    yield bad("s08-known", "the embedded schema differs, though the digest is that of the caller's", renamed)
    yield bare(
        "s08-and-count", "the digest comes before the count", patched(FULL, (32, "00" * 16), (28, "05"))
    )


def bad_agreements() -> Iterator[Bad]:
    s = SMALL_SCHEMA
    yield bare("f09-no-schema", "nobody has a schema", PLAIN)
    yield bare("f09-and-count", "no schema comes before the count", patched(PLAIN, (28, "00")))
    other = (masked("x", 2, 5), *s[1:])
    yield bad("f10-name", "the caller's first tensor has another name", PLAIN, schema=other)
    yield bad("f10-order", "the caller's tensors in another order", PLAIN, schema=(s[1], s[0], *s[2:]))
    yield bad(
        "f10-shape",
        "the caller's first tensor has its shape turned",
        PLAIN,
        schema=(masked("w", 5, 2), *s[1:]),
    )
    yield bad("f10-embedded", "the frame embeds another schema than the caller's", FULL, schema=other)
    yield bad("f10-bit", "one bit of the digest", patched(PLAIN, (32, f"{PLAIN[32] ^ 1:02x}")))
    yield bad("f10-and-round", "the schema comes before the round", PLAIN, schema=other, round=1)
    yield bad("f10-and-count", "the schema comes before the count", patched(PLAIN, (28, "05")), schema=other)
    for found in (0, 5, 7):
        yield bad(
            f"f11-{found}", f"{found} tensors where the schema has 6", patched(PLAIN, (28, f"{found:02x}"))
        )
    yield bare("f11-embedded", "7 tensors where the embedded schema has 6", patched(FULL, (28, "07")))
    yield bad("f11-and-round", "the count comes before the round", patched(PLAIN, (28, "07")), round=1)
    yield bad("f12-other", "round 41, wanted 42", PLAIN, round=42)
    yield bad("f12-not-given", "round 0 (not given), wanted 41", patched(PLAIN, (24, "00")), round=41)
    yield bad("f12-zero-wanted", "round 41, wanted 0", PLAIN, round=0)
    yield bad("f12-and-others", "round, base model and seed all differ", PLAIN, round=1, base_model=2, seed=3)
    yield bad(
        "f13-other",
        "another base model, the difference in its top bit",
        PLAIN,
        base_model=SMALL.base_model ^ 2**63,
    )
    yield bad(
        "f13-not-given",
        "base model 0 (not given), another wanted",
        patched(PLAIN, (16, "00" * 8)),
        base_model=5,
    )
    yield bad("f13-and-seed", "the base model comes before the seed", PLAIN, base_model=2, seed=3)
    yield bad("f14-other", "another seed, the difference in its top bit", PLAIN, seed=SMALL.seed ^ 2**63)
    yield bad("f14-zero", "seed 0 wanted", PLAIN, seed=0)
    yield bad("f14-and-table", "the seed comes before the table", sealed(PLAIN[:48]), seed=3)

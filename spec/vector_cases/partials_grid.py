"""Partial sums of version 1.1 to be refused (FORMAT.md 8.5)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BINARY, GAUSSIAN, Content
from vector_cases.basics import (
    SMALL,
    SMALL_SCHEMA,
    Broken,
    dense,
    f32,
    f32s,
    frame,
    grid,
    mask,
    masked,
    patched,
    sealed,
    u32,
)

SCHEMA = (masked("w", 4), dense("b", "float32", 1), masked("v", 9))
FRAMES = [
    frame(
        SCHEMA,
        [
            grid([k, -k, 2**24 - 1, 0], 2.0**-8),
            Content(f32s([1.5])),
            Content(mask(f"v{k}", 9), BINARY, GAUSSIAN, f32(0.02)),
        ],
        seed=k,
    )
    for k in range(2)
]
GOOD = o.partial_to_bytes(o.partial_sum(FRAMES, [3, 4]))
OLD = o.partial_to_bytes(o.partial_sum([SMALL], [2]))  # of version 1.0
W, B = 56, 96  # tensors w and b begin here
V = B + 4 + 12 * GOOD[B]


def bad_grids() -> Iterator[Broken]:
    assert (GOOD[4:6], GOOD[W], GOOD[V], OLD[5]) == (b"\1\1", 4, GAUSSIAN, 0)

    def of(name: str, comment: str, *patches: tuple[int, str]) -> Broken:
        return Broken(name, comment, patched(GOOD, *patches), SCHEMA)

    yield of("p09-grid-minor-0", "distribution 4 in a partial sum of version 1.0", (5, "00"))
    for code in (0, 5, 255):
        yield of(f"p09-grid-{code}", f"distribution {code} in version 1.1", (W, f"{code:02x}"))
    yield of("p09-grid-and-reserved", "the distribution comes before the reserved bytes", (W, "0501"))
    yield of("p10-grid", "reserved byte 1 is 1", (W + 1, "01"))
    yield of("p10-grid-and-step", "reserved bytes come before the step", (W + 3, "0100000000"))
    for label, bits in (
        ("zero", 0),
        ("negative", 0xBF800000),
        ("infinity", 0x7F800000),
        ("nan", 0x7FC00000),
        ("three", 0x40400000),
        ("hundredth", 0x3C23D70A),
        ("subnormal", 1 << 22),
        ("above", (127 + 105) << 23),
    ):
        step = struct.pack("<I", bits).hex()
        yield of(f"p11-grid-{label}", f"step bits {u32(bits)}", (W + 4, step))
    cut = sealed(patched(GOOD, (W + 4, "00000000"))[: W + 20])
    yield Broken("p11-grid-and-cut", "the step comes before sums that are cut off", cut, SCHEMA)
    yield Broken("p01-grid", "a sum of a grid is cut off", sealed(GOOD[: B - 1]), SCHEMA)
    one = patched(OLD, (5, "01"))
    yield Broken("p16-noise", "version 1.1, and no distribution 4", one, SMALL_SCHEMA)
    plain = (dense("b", "float32", 1),)
    dense_grid = o.partial_to_bytes(o.sum_frame(frame(plain, [grid([1], 1.0)]), 1))
    comment = "version 1.1 for a dense tensor, which was sent as a grid"
    yield Broken("p16-dense", comment, patched(dense_grid, (5, "01")), plain)
    nothing = o.partial_to_bytes(o.sum_frame(frame((), []), 1))
    yield Broken("p16-nothing", "version 1.1, and no tensors", patched(nothing, (5, "01")), ())
    yield Broken(
        "p16-and-trailing", "the version comes before a byte too many", sealed(one[:-4] + b"\0"), SMALL_SCHEMA
    )
    damaged = one[:-1] + bytes([one[-1] ^ 1])
    yield Broken("p16-and-checksum", "the version comes before the checksum", damaged, SMALL_SCHEMA)
    yield Broken(
        "p01-and-minor", "a part that is cut off comes before the version", sealed(one[:-5]), SMALL_SCHEMA
    )
    scale = patched(one, (W + 4, "00000000"))
    yield Broken("p11-and-minor", "a scale comes before the version", scale, SMALL_SCHEMA)
    yield of("p12-grid-and-sums", "a row's index comes before a sum beyond its bound",
             (B + 4, "0c"), (W + 8, "ff" * 7 + "7f"))  # fmt: skip
    bound = 7 * (2**24 - 1)
    for label, value in (
        ("above", bound + 1),
        ("below", -bound - 1),
        ("most", 2**63 - 1),
        ("least", -(2**63)),
    ):
        comment = f"a sum of {value}, weight 7 and a grid allow {bound}"
        yield of(f"p15-grid-{label}", comment, (W + 8, struct.pack("<q", value).hex()))

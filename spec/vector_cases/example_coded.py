"""The worked examples of coding 1 and of a partial sum (FORMAT.md 12)."""

from __future__ import annotations

import struct

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BINARY, UNIFORM, Content
from vector_cases.basics import EXAMPLE_FRAME, EXAMPLE_SCHEMA, frame, masked, u32
from vector_cases.tables import fields, table

EXAMPLE_1_SCHEMA = (masked("weight", 512),)
DRAWS = [o.draw(UNIFORM, 7, 0, i) for i in range(512)]
EXAMPLE_1 = frame(
    EXAMPLE_1_SCHEMA,
    [Content(o.pack([int(0 < q < 3 * 2**20) for q in DRAWS]), BINARY, UNIFORM, 0.5, o.RANS)],
)
SEEDS, WEIGHTS = (7, 8, 9), (1, 2, 3)
EXAMPLE_SUMMED = [EXAMPLE_FRAME._replace(seed=seed) for seed in SEEDS]


def coded() -> str:
    """The example of coding 1."""
    (weight,), (content,) = EXAMPLE_1_SCHEMA, EXAMPLE_1.contents
    data, wire, n = o.encode(EXAMPLE_1), o.with_codings(EXAMPLE_1)[1][0], weight.elements
    bits = o.unpack(content.payload, n)
    buckets = [o.bucket(UNIFORM, q) for q in DRAWS]
    p = list(wire[:16])
    (count,), states = struct.unpack("<H", wire[16:18]), list(struct.unpack("<8I", wire[18:50]))
    words = list(struct.unpack(f"<{count}H", wire[50:]))
    ones = [sum(bit for c, bit in zip(buckets, bits, strict=True) if c == k) for k in range(16)]
    totals = [buckets.count(k) for k in range(16)]
    frame_table = fields(
        data,
        [
            (1, "kind", f"`{weight.name}`: binary"),
            (1, "type", "uniform"),
            (1, "coding", "1"),
            (1, "reserved", ""),
            (8, "length", f"{len(wire)} bytes"),
            (4, "scale", f"{content.scale!r}"),
            (16, "P(0) to P(15)", "below"),
            (2, "count", f"{count} words"),
            (32, "states 0 to 7", ", ".join(map(str, states))),
            (2 * count, "words", ", ".join(map(str, words))),
            (4, "checksum", f"CRC-32 of the {len(data) - 4} bytes before"),
        ],
        48,
    )
    rows = [
        (k, total, one, f"({512 * one} + {total}) div {2 * total}", p[k])
        for k, (total, one) in enumerate(zip(totals, ones, strict=True))
    ]
    some = ", ".join(map(str, DRAWS[:4]))
    classes = ", ".join(map(str, buckets[:4]))
    return f"""\
**A frame with coding 1**, {len(data)} bytes, of version 1.1; it is the case `frames/coded-example`.
The schema is one masked tensor `{weight.name}` of shape ({n}), the seed is {EXAMPLE_1.seed}, the noise
uniform. The {sum(bits)} bits with 0 < q(i) < 3 · 2^20 of the binary mask are set. After the header:

{frame_table}

Raw, the mask has {len(content.payload)} bytes. The draws q(0) to q(3) are {some};
c(0) to c(3) are {classes}. These are the buckets; a P of 0 is raised to 1:

{table("bucket|elements|set bits|P before the bounds|P", rows)}

These are the steps of the decoder that are the first or the last of a state, or read a word:

{_steps(states, words, buckets, bits, p)}

All words are used, and every state is 65536 at its end.
"""


def _steps(states: list[int], words: list[int], buckets: list[int], bits: list[int], p: list[int]) -> str:
    rows, read = [], 0
    for i, (q, c, bit) in enumerate(zip(DRAWS, buckets, bits, strict=True)):
        x, word = states[i % 8], ""
        y = x % 256
        assert bit == (y < p[c])
        after = p[c] * (x >> 8) + y if bit else (256 - p[c]) * (x >> 8) + y - p[c]
        if after < 2**16:
            word, read = str(words[read]), read + 1
            after = (after << 16) + int(word)
        states[i % 8] = after
        if i < 8 or i >= len(bits) - 8 or word:
            rows.append((i, i % 8, q, c, p[c], x, y, bit, word, after))
    assert read == len(words)
    assert states == [2**16] * 8
    return table("i|state|q(i)|c(i)|P|x|y|bit|word read|x after", rows)


def partial_sum() -> str:
    """The example of a partial sum."""
    weight, bias = EXAMPLE_SCHEMA
    total = o.partial_sum(EXAMPLE_SUMMED, WEIGHTS)
    data, means = o.partial_to_bytes(total), o.mean(total)
    step = o.step(UNIFORM, EXAMPLE_FRAME.contents[0].scale)
    sums, limbs = total.tensors[0].rows[0], total.tensors[1].rows
    ((limb, row),) = [(k, values) for k, values in enumerate(limbs) if any(values)]
    parts = [
        (4, "magic", '"FMRS"'),
        (1, "major", "1"),
        (1, "minor", "0"),
        (2, "flags", "0"),
        (8, "weight", " + ".join(map(str, WEIGHTS)) + f" = {total.weight}"),
        (8, "base_model", "not checked"),
        (4, "round", "not checked"),
        (4, "tensor_count", "2"),
        (16, "schema_digest", "that of the first example"),
        (8, "frames", f"{total.frames}"),
        (1, "distribution", f"`{weight.name}`: uniform"),
        (3, "reserved", ""),
        (4, "scale", "that of the frames"),
        *((8, f"S({i})", f"{s}") for i, s in enumerate(sums)),
        (4, "rows", f"`{bias.name}`: one limb is not 0"),
        (4, "limb", f"{limb}"),
        *((8, f"limb {limb} of element {i}", f"{value}") for i, value in enumerate(row)),
        (4, "checksum", f"CRC-32 of the {len(data) - 4} bytes before"),
    ]
    bits = o.unpack(EXAMPLE_FRAME.contents[0].payload, weight.elements)
    rows = []
    for i, (s, bit) in enumerate(zip(sums, bits, strict=True)):
        q = [o.draw(UNIFORM, seed, 0, i) for seed in SEEDS]
        assert s == sum(w * v * bit for w, v in zip(WEIGHTS, q, strict=True))
        word = struct.unpack_from("<I", means[0], 4 * i)[0]
        value = o.f32_from_bits(word)
        rows.append((i, bit, *q, s, f"`{u32(word)[2:]}`", f"{value:.9g}"))
    heads = "|".join(f"q(i), seed {seed}" for seed in SEEDS)
    seeds, weights = ", ".join(map(str, SEEDS)), ", ".join(map(str, WEIGHTS))
    digits = (2 ** (148 - 24 * limb), 2 ** (147 - 24 * limb))
    assert row == (total.weight * digits[0], -total.weight * digits[1])
    words = [means[1][at : at + 4][::-1].hex() for at in (0, 4)]
    return f"""\
**A partial sum**, {len(data)} bytes: the frame of the first example with the seeds {seeds} and the weights
{weights}; it is in the case `aggregate/example`.

{fields(data, parts)}

S(i) is the sum of weight · q(i) where bit i is set, as it is in all three frames or in none. The mean is
f32(f64(S) / {total.weight} · step), with the step {float(step)!r} (8.2):

{table(f"i|bit|{heads}|S(i)|mean, bits|mean", rows)}

The elements of `{bias.name}` are 0.5 and -0.25 in each frame: M is 2^148 and 2^147, in quanta of 2^-149.
Limb {limb} counts multiples of 2^{24 * limb}: its digits are {digits[0]} and {digits[1]}, all others
are 0. The sums are {row[0]} and {row[1]}. The means, with the bits `{words[0]}` and `{words[1]}`, are 0.5
and -0.25.
"""

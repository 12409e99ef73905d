"""The worked example of a tally (FORMAT.md 12)."""

from __future__ import annotations

import struct

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import UNIFORM
from vector_cases.basics import EXAMPLE_SCHEMA, u32
from vector_cases.tables import fields, table
from vector_cases.tallies import EXAMPLE, EXAMPLE_WEIGHT


def tally() -> str:
    """The example of a tally."""
    weight, bias = EXAMPLE_SCHEMA
    total = o.tally(EXAMPLE, EXAMPLE_WEIGHT)
    data, sums = o.tally_to_bytes(total), o.sums_of_tally(total)
    means, n = o.mean(sums), total.frames
    counts, limbs = total.tensors[0].rows[0], total.tensors[1].rows
    ((limb, row),) = [(k, values) for k, values in enumerate(limbs) if any(values)]
    size = o.packed_length(weight.elements, n)
    parts = [
        (4, "magic", '"FMRT"'),
        (1, "major", "1"),
        (1, "minor", "0"),
        (2, "flags", "0"),
        (8, "seed", f"{total.seed}"),
        (8, "base_model", "not checked"),
        (4, "round", "not checked"),
        (4, "tensor_count", "2"),
        (16, "schema_digest", "that of the first example"),
        (8, "weight", f"{total.weight}, that of each frame"),
        (4, "frames", f"{n}: counts of {n.bit_length()} bits"),
        (1, "kind", f"`{weight.name}`: binary"),
        (1, "distribution", "uniform"),
        (1, "coding", "raw"),
        (1, "reserved", ""),
        (4, "scale", "that of the frames"),
        (8, "length", f"{size} bytes"),
        (size, "payload", f"the counts {', '.join(map(str, counts))}"),
        (4, "rows", f"`{bias.name}`: one limb is not 0"),
        (4, "limb", f"{limb}"),
        *((8, f"limb {limb} of element {i}", f"{value}") for i, value in enumerate(row)),
        (4, "checksum", f"CRC-32 of the {len(data) - 4} bytes before"),
    ]
    masks = [o.unpack(one.contents[0].payload, weight.elements) for one in EXAMPLE]
    rows = []
    for i, c in enumerate(counts):
        q, s = o.draw(UNIFORM, total.seed, 0, i), sums.tensors[0].rows[0][i]
        assert c == sum(bits[i] for bits in masks)
        assert s == total.weight * q * c
        word = struct.unpack_from("<I", means[0], 4 * i)[0]
        cells = (*(bits[i] for bits in masks), c, f"{c:0{n.bit_length()}b}"[::-1], q, s, f"`{u32(word)[2:]}`")
        rows.append((i, *cells, f"{o.f32_from_bits(word):.9g}"))
    heads = "|".join(f"bit, frame {k + 1}" for k in range(n))
    size = sum(len(o.encode(one)) for one in EXAMPLE)
    return f"""\
**A tally**, {len(data)} bytes: three frames of seed {total.seed} and weight {total.weight}.
The first one is that of the first example, the others have other masks; it is in the case `tallies/example`.

{fields(data, parts)}

The three frames have {size} bytes. After an aggregator has added the tally,
S(i) = {total.weight} · q(i) · c(i) and W = {sums.weight}, as after these frames:

{table(f"i|{heads}|c(i)|its bits|q(i)|S(i)|mean, bits|mean", rows)}

The elements of `{bias.name}` are 0.5 and -0.25 in each frame. The limbs of the tally are
{n} times those of one frame; the aggregator adds {total.weight} times as much.
"""

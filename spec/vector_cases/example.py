"""The worked example (FORMAT.md 12)."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import UNIFORM
from vector_cases.basics import (
    EXAMPLE_12,
    EXAMPLE_12_SCHEMA,
    EXAMPLE_14,
    EXAMPLE_14_SCHEMA,
    EXAMPLE_FRAME,
    EXAMPLE_SCHEMA,
    f32,
    u32,
)
from vector_cases.example_coded import coded, partial_sum
from vector_cases.example_tally import tally
from vector_cases.tables import fields, table


def example() -> str:
    """Section 12 of FORMAT.md."""
    return f"{first()}\n{coded()}\n{second()}\n{third()}\n{partial_sum()}\n{tally()}"


def second() -> str:
    """The example of coding 4."""
    (weight,), (content,) = EXAMPLE_12_SCHEMA, EXAMPLE_12.contents
    data, wire = o.encode(EXAMPLE_12), o.with_codings(EXAMPLE_12)[1][0]
    n, bits = weight.elements, o.unpack(content.payload, weight.elements)
    (k,), at = o.take_indices(wire, content.distribution)
    state, *words = struct.unpack(f"<I{(len(wire) - at - 4) // 2}H", wire[at:])
    p = o.frequency(k)
    frame_table = fields(
        data,
        [
            (1, "kind", f"`{weight.name}`: binary"),
            (1, "type", "bernoulli"),
            (1, "coding", "4"),
            (1, "reserved", ""),
            (8, "length", f"{len(wire)} bytes"),
            (4, "scale", f"{content.scale!r}"),
            (1, "k(0)", f"v({k}) = {p}: {sum(bits)} of {n} bits are set, {4096 * sum(bits) / n:.1f} of 4096"),
            (4, "state", f"{state}"),
            (2 * len(words), "words", ", ".join(map(str, words))),
            (4, "checksum", f"CRC-32 of the {len(data) - 4} bytes before"),
        ],
        48,
    )
    decoder, rows = o.RangeDecoder(state, words), []
    shown = {0, 1, n - 1} | {i + d for i, bit in enumerate(bits) if bit for d in (0, 1)}
    for i, bit in enumerate(bits):
        x, low, read = decoder.x, decoder.low, decoder.read
        assert bit == (low < p)
        decoder.advance(*((0, p) if bit else (p, 4096 - p)), "example")
        word = words[read] if decoder.read > read else ""
        if i in shown or word != "":
            rows.append((i, x, low, bit, word, decoder.x))
    decoder.end("example")
    steps = table("i|x|y|bit|word read|x after", rows)
    set_bits = ", ".join(str(i) for i, bit in enumerate(bits) if bit)
    return f"""\
**A frame with coding 4**, {len(data)} bytes, of version 1.2; it is the case `frames/coded12-example`.
The schema is one masked tensor `{weight.name}` of shape ({n}), the seed is {EXAMPLE_12.seed}, the noise
Bernoulli noise. Bits {set_bits} of the binary mask are set. After the header:

{frame_table}

Raw, the mask has {len(content.payload)} bytes. These are the steps of the decoder that begin or end the
block, read a word, or decode a set bit or the bit after it:

{steps}
"""


def third() -> str:
    """The example of coding 5."""
    (weight,), (content,) = EXAMPLE_14_SCHEMA, EXAMPLE_14.contents
    data, wire = o.encode(EXAMPLE_14), o.with_codings(EXAMPLE_14)[1][0]
    values, (frequencies, at) = o.integers(content.payload), o.take_frequencies(wire)
    state, *words = struct.unpack(f"<I{(len(wire) - at - 4) // 2}H", wire[at:])
    present = ", ".join(f"f({s}) = {f}" for s, f in enumerate(frequencies) if f)
    exponent = math.frexp(content.scale)[1] - 1
    frame_table = fields(
        data,
        [
            (1, "kind", f"`{weight.name}`: grid"),
            (1, "type", "float32"),
            (1, "coding", "5"),
            (1, "reserved", ""),
            (8, "length", f"{len(wire)} bytes"),
            (4, "scale", f"2^{exponent}, the step"),
            (1, "last", f"{wire[0]}"),
            (at - 1, "f(1) to f(last)", f"{present}"),
            (4, "state", f"{state}"),
            (2 * len(words), "words", ", ".join(map(str, words))),
            (4, "checksum", f"CRC-32 of the {len(data) - 4} bytes before"),
        ],
        48,
    )
    decoder, rows = o.Decoder14(state, words), []
    for i, z in enumerate(values):
        s, plain = o.symbol_of(z)
        x, low, read = decoder.x, decoder.low, decoder.read
        decoder.advance(o.starts(frequencies)[s])
        rows.append((i, x, low, s, "", z if not plain else "", *_after(decoder, words, read)))
        for part in plain:
            x, read = decoder.x, decoder.read
            assert decoder.plain(part.b) == part.r
            rows.append((i, x, "", "", f"{part.r} ({part.b} bits)", z, *_after(decoder, words, read)))
    decoder.end()
    steps = table("i|x|y|symbol|plain bits|z|word read|x after", rows)
    return f"""\
**A frame with kind 3 and coding 5**, {len(data)} bytes, of version 1.3; it is the case `frames/grid-example`.
The schema is one masked tensor `{weight.name}` of shape ({weight.elements}), the seed is 0, the
step 2^{exponent}. The integers are {", ".join(map(str, values))}. After the header:

{frame_table}

Raw, the integers have {len(content.payload)} bytes. These are the steps of the decoder:

{steps}

Decoded, `{weight.name}` is the {4 * weight.elements} bytes

```
{o.decode(data, EXAMPLE_14_SCHEMA)[0].hex(" ", 4)}
```
"""


def _after(decoder: o.Decoder14, words: Sequence[int], read: int) -> tuple[object, int]:
    """The word that a step has read, if any, and the state after it."""
    return words[read] if decoder.read > read else "", decoder.x


def first() -> str:
    """The example of a raw mask and a dense tensor."""
    weight, bias = EXAMPLE_SCHEMA
    content, dense_content = EXAMPLE_FRAME.contents
    raw, data = o.schema_bytes(EXAMPLE_SCHEMA), o.encode(EXAMPLE_FRAME)
    bits, step = o.unpack(content.payload, 10), f32(float(o.step(UNIFORM, content.scale)))

    schema_table = fields(
        raw,
        [
            (4, "count", f"{len(EXAMPLE_SCHEMA)} tensors"),
            (2, "name_length", f"{len(weight.name)}"),
            (len(weight.name), "name", f"`{weight.name}`"),
            (1, "role", "masked"),
            (1, "dtype", "float32"),
            (1, "rank", f"{len(weight.shape)}"),
            (8 * len(weight.shape), "shape", f"{weight.shape}: {weight.elements} elements"),
            (2, "name_length", f"{len(bias.name)}"),
            (len(bias.name), "name", f"`{bias.name}`"),
            (1, "role", "dense"),
            (1, "dtype", "float32"),
            (1, "rank", f"{len(bias.shape)}"),
            (8 * len(bias.shape), "shape", f"({bias.shape[0]}): {bias.elements} elements"),
        ],
    )
    one, two = struct.unpack("<2f", dense_content.payload)
    frame_table = fields(
        data,
        [
            (4, "magic", '"FMRN"'),
            (1, "major", f"{data[4]}"),
            (1, "minor", f"{data[5]}"),
            (2, "flags", "the schema is not in the frame"),
            (8, "seed", f"{EXAMPLE_FRAME.seed}"),
            (8, "base_model", "not given"),
            (4, "round", "not given"),
            (4, "tensor_count", f"{len(EXAMPLE_SCHEMA)}"),
            (16, "schema_digest", "the digest above"),
            (1, "kind", f"`{weight.name}`: binary"),
            (1, "type", "uniform"),
            (1, "coding", "raw"),
            (1, "reserved", ""),
            (8, "length", f"{weight.payload_length} bytes"),
            (4, "scale", f"the f32 nearest to 0.01, {content.scale!r}"),
            (1, "kind", f"`{bias.name}`: dense"),
            (1, "type", "float32"),
            (1, "coding", "raw"),
            (1, "reserved", ""),
            (8, "length", f"{bias.payload_length} bytes"),
            (2, "payload", f"bits {''.join(map(str, bits))}, element 0 first; 6 bits of padding"),
            (8, "payload", f"{one!r}, {two!r}"),
            (4, "checksum", f"CRC-32 of the {len(data) - 4} bytes before"),
        ],
    )
    rows = []
    update = o.decode(data, EXAMPLE_SCHEMA)
    for i, bit in enumerate(bits):
        noise = o.noise(UNIFORM, content.scale, EXAMPLE_FRAME.seed, 0, i)
        word, q = o.philox_word(EXAMPLE_FRAME.seed, 0, i), o.draw(UNIFORM, EXAMPLE_FRAME.seed, 0, i)
        decoded = struct.unpack_from("<f", update[0], 4 * i)[0]
        result = f"`{u32(o.f32_bits(decoded))[2:]}`"
        rows.append(
            (
                i,
                f"`{word:08x}`",
                q,
                f"`{u32(o.f32_bits(noise))[2:]}`",
                f"{noise:.9g}",
                bit,
                result,
                f"{decoded:.9g}",
            )
        )
    elements = table("i|word i|q(i)|noise(i), bits|noise(i)|mask|update, bits|update", rows)
    shown = [f"`{EXAMPLE_SCHEMA[k].name}` is the {len(update[k])} bytes" for k in range(2)]
    return f"""\
Two tensors: a masked `{weight.name}` of shape {weight.shape} and a dense `{bias.name}` of ({bias.shape[0]}).
This section is printed by `make_vectors.py --example`; the frame is also the case `frames/worked-example`.

**The schema**, {len(raw)} bytes, known to both sides beforehand:

{schema_table}

The first 16 bytes of its SHA-256 are the digest, `{o.schema_digest(EXAMPLE_SCHEMA).hex()}`.

**The frame**, {len(data)} bytes: seed {EXAMPLE_FRAME.seed}, uniform noise of scale 0.01, a binary mask.

{frame_table}

**The noise** of `{weight.name}`, stream 0. The scale has the bits
`{u32(o.f32_bits(content.scale))[2:]}`, the step, scale · 2^-24, has `{u32(o.f32_bits(step))[2:]}`.

{elements}

**Decoded**, little-endian, {shown[0]}

```
{update[0][:20].hex(" ", 4)}
{update[0][20:].hex(" ", 4)}
```

and {shown[1]} `{update[1].hex(" ", 4)}`, those of its payload.
"""

"""Cases of words and noise (FORMAT.md 2, 3)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from fedmrn_codec.conformance.oracle import BERNOULLI, GAUSSIAN, UNIFORM
from vector_cases.basics import DISTRIBUTIONS, TOP, Case, chaos, f32, f32s, u32, u64, valid


def philox_cases() -> Iterator[Case]:
    known = (
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    )
    for name, (counter, key, output) in zip(("zeros", "ones", "pi"), known, strict=True):
        assert o.philox_block(counter, key) == output
        words = {"counter": counter, "key": key, "output": output}
        fields = {field: [u32(w) for w in value] for field, value in words.items()}
        comment = "published with Random123 as a known answer of philox4x32-10"
        yield valid(f"kat-{name}", "2.3 N-02", comment, op="block", **fields)
    for name, comment, seed, stream, start, count in (
        ("first", "the first words of all", 0, 0, 0, 8),
        ("seed-7", "three blocks", 7, 0, 0, 12),
        ("stream-1", "another stream", 7, 1, 0, 8),
        ("unaligned-1", "starts at lane 1", 7, 0, 1, 6),
        ("unaligned-2", "starts at lane 2", 7, 3, 2, 4),
        ("unaligned-3", "starts at lane 3 and ends in the next block", 7, 3, 3, 2),
        ("one-word", "a single word in the middle of a block", 7, 3, 6, 1),
        ("no-words", "nothing asked for", 7, 3, 5, 0),
        ("seed-2-32", "the seed's low word is 0, its high word 1", 2**32, 0, 0, 4),
        ("seed-low-max", "the seed's low word is all ones", 2**32 - 1, 0, 0, 4),
        ("seed-2-63", "the top bit of the seed: a signed integer would go wrong", 2**63, 0, 0, 4),
        ("seed-max", "the largest seed", TOP, 0, 0, 4),
        ("stream-2-32", "the stream's low word is 0, its high word 1", 7, 2**32, 0, 4),
        ("stream-mixed", "different low and high words of the stream", 7, 0x0123456789ABCDEF, 0, 4),
        ("stream-max", "the largest stream", 7, TOP, 0, 4),
        ("all-max", "the largest seed and stream", TOP, TOP, 0, 4),
        ("below-2-32", "word positions pass 2^32, blocks do not", 11, 5, 2**32 - 3, 6),
        ("below-2-34", "the block passes 2^32: c1 becomes 1 on the way", 11, 5, 2**34 - 3, 6),
        ("beyond-2-34", "c1 is 1", 11, 5, 2**34 + 4 * 12345 + 1, 7),
        ("beyond-2-48", "beyond the largest tensor's last element", 11, 5, 2**48 - 2, 4),
        ("beyond-2-53", "beyond the integers of a double", 11, 5, 2**53 - 1, 4),
        ("high-stream-66", "66 words of a stream whose high word counts", 7, 2**40 + 5, 0, 66),
        ("high-stream-130", "130 words of the largest stream, unaligned", TOP, TOP, 3, 130),
        ("high-stream-2-34", "the block passes 2^32 within 70 words", 2**63, 2**63 + 1, 2**34 - 33, 70),
        ("below-2-63", "the last positions of a signed 64-bit integer", 11, 5, 2**63 - 6, 5),
    ):
        words = {"words": [u32(o.philox_word(seed, stream, start + j)) for j in range(count)]}
        where = {"seed": u64(seed), "stream": u64(stream), "start": u64(start), "count": count}
        yield valid(name, "2.1 2.2 N-02", comment, op="words", **where, **words)


def noise_fields(distribution: int, scale: float, seed: int, stream: int, start: int, count: int) -> Case:
    where = range(start, start + count)
    noise = f32s([o.noise(distribution, scale, seed, stream, i) for i in where])
    return {
        "distribution": DISTRIBUTIONS[distribution],
        "scale": u32(o.f32_bits(scale)),
        "seed": u64(seed),
        "stream": u64(stream),
        "start": u64(start),
        "count": count,
        "draws": [o.draw(distribution, seed, stream, i) for i in where],
        "noise": noise.hex(),
    }


def noise_cases() -> Iterator[Case]:
    for distribution, name in DISTRIBUTIONS.items():
        least, largest = (o.f32_from_bits(bits) for bits in o.SCALES[distribution])
        many = 70 * 32 if distribution == BERNOULLI else 70
        for label, comment, scale, seed, stream, start, count in (
            ("tenth", "a usual scale, not a power of two", f32(0.1), 7, 0, 0, 40),
            ("hundredth", "another seed and stream", f32(0.01), 2**40 + 3, 2, 0, 12),
            ("one", "the noise is the draw times a power of two", 1.0, 7, 1, 0, 12),
            ("mantissa", "a scale with all mantissa bits set", 2 - 2**-23, 7, 1, 0, 12),
            ("pi", "the largest seed and stream", f32(math.pi), TOP, TOP, 0, 12),
            ("least", "the least scale allowed", least, 7, 4, 0, 16),
            ("largest", "the largest scale allowed", largest, 7, 4, 0, 16),
            ("high-stream", "70 words and more of a high stream", f32(0.1), 2**63, 2**40 + 5, 3, many),
            ("start-odd", "starts inside a block, and for bernoulli inside a word", f32(0.1), 7, 0, 13, 40),
            ("start-far", "elements about 2^34", f32(0.1), 7, 0, 2**34 - 5, 12),
            ("start-last", "the last elements of the largest tensor", f32(0.1), 7, 0, 2**48 - 6, 6),
        ):
            fields = noise_fields(distribution, scale, seed, stream, start, count)
            yield valid(f"{name}-{label}", "3.1 3.5 N-04", comment, op="noise", **fields)
    inside = struct.unpack("<31I", chaos("inside", 124))
    for label, comment, words in (
        ("ends", "both signs of the smallest and largest tail", (0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)),
        ("near-ends", "words beside those", (1, 2, 3, 0x7FFFFFFE, 0x80000001, 0xFFFFFFFE)),
        ("octave-first", "first word of every octave", [0, *(1 << j for j in range(31))]),
        (
            "octave-second",
            "second word of every octave from 2, negative",
            [(1 << 31) + (1 << j) + 1 for j in range(1, 31)],
        ),
        (
            "octave-inside",
            "a word inside every octave",
            [(1 << j) + far % (1 << j) for j, far in enumerate(inside)],
        ),
        ("octave-last", "last word of every octave", [(1 << j) - 1 for j in range(32)]),
        (
            "last-octave",
            "segment borders of the last octave",
            [(1 << 30) + (s << 24) - e for s in (1, 32, 63) for e in (0, 1)],
        ),
        (
            "middle-octave",
            "words of octave 20, all over its segments",
            [(1 << 19) + 8191 * k for k in range(64)],
        ),
        ("low-octaves", "every word of octaves 0 to 5", range(32)),
        ("any", "words without a pattern", struct.unpack("<64I", chaos("words", 256))),
    ):
        draws = [o.draw_of_word(GAUSSIAN, w, 0) for w in words]
        yield valid(
            f"gaussian-word-{label}",
            "3.4 N-04",
            comment,
            op="draw",
            distribution="gaussian",
            words=[u32(w) for w in words],
            draws=draws,
        )
    ends = (0, 255, 256, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    yield valid(
        "uniform-word-ends",
        "3.2 N-04",
        "ends and middle; the low 8 bits of a word do not count",
        op="draw",
        distribution="uniform",
        words=[u32(w) for w in ends],
        draws=[o.draw_of_word(UNIFORM, w, 0) for w in ends],
    )

"""The oracle's grids (spec 6.12 to 6.14) against the numbers in the text, and results made by hand."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import pytest

from fedmrn_codec.conformance import oracle as o

TOP = 2**24 - 1


def raw(values: list[int]) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def tensor(n: int, dtype: int = o.FLOAT32, masked: bool = True, name: str = "w") -> o.Tensor:
    return o.Tensor(name, masked, dtype, (n,))


def grid(values: list[int], step: float = 1.0, coding: int = o.RAW) -> o.Content:
    return o.Content(raw(values), o.GRID, scale=step, coding=coding)


def frame_of(values: list[int], step: float = 1.0, coding: int = o.RAW, dtype: int = o.FLOAT32) -> o.Frame:
    schema = (tensor(len(values), dtype, dtype == o.FLOAT32),)
    return o.Frame(0, 0, 0, schema, (grid(values, step, coding),))


@pytest.mark.parametrize(
    ("z", "symbol", "plain"),
    [
        (0, 0, []),
        (-3, 6, []),
        (31, 61, []),
        (32, 63, [(0, 3)]),
        (-1000, 102, [(104, 7)]),
        (2**18 - 1, 165, [(2**15 - 1, 15)]),
        (2**19 - 1, 173, [(2**16 - 1, 16)]),
        (2**19 + 5, 175, [(5, 16), (0, 1)]),
        (-TOP, 214, [(2**16 - 1, 16), (2**5 - 1, 5)]),
    ],
)
def test_symbols_are_those_of_the_text(z: int, symbol: int, plain: list[tuple[int, int]]) -> None:
    assert o.symbol_of(z) == (symbol, plain)


def test_every_symbol_is_the_class_of_its_integers() -> None:
    edges = [*range(33), *(2**e + k for e in range(5, 24) for k in (-1, 0, 1)), TOP]
    seen = [o.symbol_of(z)[0] for z in sorted(set(edges))]
    assert seen == sorted(seen)
    for z in edges:
        for signed in (z, -z):
            symbol, plain = o.symbol_of(signed)
            assert 0 <= symbol < o.SYMBOLS
            encoder = o.Encoder14()
            for bits in reversed(plain):
                encoder.put(bits)
            state, *words = struct.unpack(f"<I{len(encoder.block()) // 2 - 2}H", encoder.block())
            decoder = o.Decoder14(state, words)
            assert o.integer_of(symbol, decoder) == signed
            decoder.end()


def test_frequencies_are_packed_as_in_the_text() -> None:
    bits = [1, *(0, 0, 1, 0, 1), *(0, 1, 0)]  # 0, 5, 1
    wire = bytes([3]) + o.pack(bits)
    assert o.put_frequencies([16378, 0, 5, 1]) == wire
    assert o.take_frequencies(wire + b"rest") == ([16378, 0, 5, 1], 3)


@pytest.mark.parametrize(
    ("symbols", "table"),
    [
        ([0], [16384]),
        ([7, 7], [0] * 7 + [16384]),
        ([0, 1, 2], [5462, 5461, 5461]),  # one is missing: to the first of the largest
        ([2, 1, 1, 2], [0, 8192, 8192]),
        ([0] * 40000 + [4], [16383, 0, 0, 0, 1]),  # 16384 * 1 div 40001 is 0, and one is beyond
        ([0, 1, 1], [5461, 10923]),
    ],
)
def test_frequencies_sum_to_16384(symbols: list[int], table: list[int]) -> None:
    assert o.grid_frequencies(symbols) == table
    assert sum(table) == 16384


def test_the_largest_frequency_stays_positive_with_many_rare_symbols() -> None:
    for common in (1, 2, 50, 100, 108, 150, 214):
        symbols = [s for s in range(common) for _ in range(400)] + list(range(common, o.SYMBOLS))
        assert min(o.grid_frequencies(symbols)) > 0


def test_a_payload_made_by_hand() -> None:
    # Two zeros and a one: f is 10923, 5461; v = 5462 = 0b1010101010110 has k = 12.
    low = [5462 >> j & 1 for j in range(12)]
    head = bytes([1]) + o.pack([0] * 12 + [1] + low)
    x = 2**16
    for f, a in ((5461, 10923), (10923, 0), (10923, 0)):  # the last element first: 1, 0, 0
        assert x < f << 18
        x = (x // f << 14) + x % f + a
    wire = head + struct.pack("<I", x)
    assert o.rans14_encode(raw([0, 0, 1])) == wire
    assert o.rans14_decode(wire, 3) == raw([0, 0, 1])
    data = o.encode(frame_of([0, 0, 1], coding=o.RANS14))
    assert data[48:64] == struct.pack("<BBBxQ", 3, 1, 5, len(wire)) + struct.pack("<f", 1.0)
    assert data[64:-4] == wire
    assert data[4:6] == b"\1\3"


def lists() -> list[list[int]]:
    edges = [s * z for z in (0, 1, 31, 32, 33, 2**18, 2**19 - 1, 2**19, TOP) for s in (1, -1)]
    words = [o.philox_word(1, 2, j) for j in range(400)]
    spread = [(-1) ** (w & 1) * (w >> 8 >> (w >> 1) % 24) for w in words]
    return [edges, [5] * 40, spread, [0] * 65536 + [1, -TOP], [-TOP, TOP] * 4, list(range(-300, 300))]


@pytest.mark.parametrize("values", lists(), ids=len)
def test_payloads_decode_to_their_integers(values: list[int]) -> None:
    wire = o.rans14_encode(raw(values))
    assert len(wire) >= o.rans14_length(len(values))
    assert o.rans14_decode(wire, len(values)) == raw(values)


def test_a_payload_is_near_the_entropy_of_its_symbols() -> None:
    values = [w.bit_count() - 16 for w in (o.philox_word(3, 4, j) for j in range(8000))]
    symbols = [o.symbol_of(z)[0] for z in values]
    shares = [symbols.count(s) / 8000 for s in set(symbols)]
    entropy = -8000 * math.fsum(p * math.log2(p) for p in shares) / 8
    assert entropy < len(o.rans14_encode(raw(values))) < 1.01 * entropy + 60


def test_coding_5_is_used_where_it_is_shorter() -> None:
    for values, coding in (([], o.RAW), ([0], o.RAW), ([0, 0], o.RANS14), ([7, -9], o.RAW)):
        data = o.encode(frame_of(values, coding=o.RANS14))
        assert data[50] == coding
        assert o.decode(data, frame_of(values).schema) == [struct.pack(f"<{len(values)}f", *values)]


@pytest.mark.parametrize(("dtype", "bounds"), [(1, "f"), (2, "d"), (3, "e")])
def test_the_ends_of_the_bounds_are_exact_values(dtype: int, bounds: str) -> None:
    most, least, largest = o.GRIDS[dtype]
    for exponent in (least, largest):
        step = 2.0**exponent
        assert o.step_allowed(dtype, o.f32_bits(step))
        values = [0, 1, -1, most, -most]
        (update,) = o.decode(
            o.encode(frame_of(values, step, dtype=dtype)), frame_of(values, dtype=dtype).schema
        )
        assert update == struct.pack(f"<5{bounds}", *(z * step for z in values))
        assert update[: len(update) // 5] == bytes(len(update) // 5)
    for bits in (0, 1, o.f32_bits(1.5), 0xBF800000, 0x7F800000, 0x7FC00000):
        assert not o.step_allowed(dtype, bits)
    assert not o.step_allowed(dtype, o.f32_bits(2.0 ** (largest + 1)))


def test_bfloat16_has_eight_bits() -> None:
    for step in (2.0**-126, 2.0**120):
        values = [255, -255, 1, 0]
        source = frame_of(values, step, dtype=4)
        (update,) = o.decode(o.encode(source), source.schema)
        words = struct.unpack("<4H", update)
        assert [struct.unpack("<f", struct.pack("<I", word << 16))[0] for word in words] == [
            z * step for z in values
        ]


def test_an_encoder_refuses_other_steps_and_integers() -> None:
    for values, step, dtype in (
        ([TOP + 1], 1.0, 1), ([-(2**31)], 1.0, 2), ([2**11], 1.0, 3), ([-(2**8)], 1.0, 4), ([1], 3.0, 1),
        ([1], 2.0**-127, 1), ([1], 2.0**105, 2), ([1], 2.0**6, 3), ([1], 2.0**-25, 3), ([1], -1.0, 1),
    ):  # fmt: skip
        for coding in (o.RAW, o.RANS14):
            with pytest.raises(o.Refusal):
                o.encode(frame_of(values * 40, step, coding, dtype))


# Aggregation


def test_the_mean_of_one_grid_is_what_it_decodes_to() -> None:
    values = [0, 1, -1, 77, -TOP, TOP]
    for step in (2.0**-126, 2.0**-10, 2.0**104):
        source = frame_of(values, step)
        (update,) = o.decode(o.encode(source), source.schema)
        assert o.mean(o.sum_frame(source, 2**29 - 1)) == [update]


def test_grids_are_averaged_as_fractions() -> None:
    a, b = frame_of([1, -5, TOP], 0.5), frame_of([2, 4, -TOP], 0.5)
    total = o.partial_sum([a, b], [3, 5])
    assert total.tensors[0] == o.Sums(((13, 5, -2 * TOP),), 4, 0.5)
    expected = [o.f32_round(Fraction(s, 8) / 2) for s in (13, 5, -2 * TOP)]
    assert o.mean(total) == [struct.pack("<3f", *expected)]
    data = o.partial_to_bytes(total)
    assert data[:6] == b"FMRS\1\1"
    assert data[56:64] == bytes([4, 0, 0, 0]) + struct.pack("<f", 0.5)
    assert o.partial_from_bytes(data, a.schema) == total


def test_dense_tensors_are_summed_by_value_however_they_are_sent() -> None:
    schema = (tensor(3, 1, masked=False),)
    elements = o.Frame(0, 0, 0, schema, (o.Content(struct.pack("<3f", 0.1, -2.0, 8.0)),))
    first, second = (o.Frame(0, 0, 0, schema, (grid([1, 2, -3], step),)) for step in (0.25, 2.0))
    total = o.partial_sum([elements, first, second], [1, 1, 2])
    assert o.partial_to_bytes(total)[5] == 0
    tenth = Fraction(struct.unpack("<f", struct.pack("<f", 0.1))[0])
    exact = [
        (tenth + Fraction(1, 4) + 4) / 4,
        (-2 + Fraction(1, 2) + 8) / Fraction(4),
        (8 - Fraction(3, 4) - 12) / 4,
    ]
    assert o.mean(total) == [struct.pack("<3f", *map(o.f32_round, exact))]


def test_masked_tensors_of_other_steps_or_of_noise_are_not_summed() -> None:
    mask = o.Frame(0, 0, 0, (tensor(3),), (o.Content(b"\5", o.BINARY, o.UNIFORM, 0.5),))
    for other in (frame_of([1, 2, 3], 0.25), mask):
        with pytest.raises(o.Refusal) as refused:
            o.partial_sum([frame_of([1, 2, 3], 0.5), other], [1, 1])
        assert refused.value.number == "A-02"

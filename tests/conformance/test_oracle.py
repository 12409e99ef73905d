"""The oracle against results that do not come from it; the vectors against the text of the format."""

from __future__ import annotations

import json
import math
import re
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath  # type: ignore[import-untyped]
import pytest

from fedmrn_codec.conformance import oracle as o

ROOT = Path(__file__).resolve().parents[2]
FORMAT = (ROOT / "spec" / "FORMAT.md").read_text(encoding="utf-8")
F64, F16 = o.DTYPES[2], o.DTYPES[3]


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((ROOT / "spec" / "vectors" / f"{name}.json").read_bytes())[
        "cases"
    ]
    assert found
    return found


def make_vectors(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "spec" / "make_vectors.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")


# Words and noise


@pytest.mark.parametrize(
    ("counter", "key", "output"),
    [
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_answers_published_with_random123(counter: str, key: str, output: str) -> None:
    counter_words, key_words, expected = (
        [int(w, 16) for w in text.split()] for text in (counter, key, output)
    )
    assert list(o.philox_block(counter_words, key_words)) == expected


def test_a_word_is_a_lane_of_its_block() -> None:
    seed, stream = 0x299F31D0A4093822, 0x0370734413198A2E
    first = 4 * 0x85A308D3243F6A88
    words = [o.philox_word(seed, stream, first + lane) for lane in range(4)]
    assert words == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_the_table_is_the_one_the_format_names() -> None:
    table = o.gaussian_table()
    assert o.TABLE_SHA256 in FORMAT
    assert (len(table), table[0], table[1], table[64], table[2047], table[2048]) == (
        2049, 13291661, 13286649, 13065803, 20535, 0,
    )  # fmt: skip
    assert (ROOT / "spec" / "tables" / "gaussian.bin").read_bytes() == struct.pack("<2049I", *table)


def test_the_checksum_is_the_one_the_format_names() -> None:
    assert zlib.crc32(b"123456789") == 0xCBF43926


def test_gaussian_draws_are_quantiles() -> None:
    with mpmath.workdps(30):
        words = {0, 1, 2, 3, 2**31 - 1, *(2**j + k * 2**j // 7 for j in range(31) for k in range(7))}
        worst = mpmath.mpf(0)
        for w in words:
            tail = mpmath.mpf(2 * w + 1) / 2**33
            exact = mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * tail)
            worst = max(worst, abs(mpmath.mpf(o.draw_of_word(o.GAUSSIAN, w, 0)) / 2**21 - exact))
            assert o.draw_of_word(o.GAUSSIAN, w + 2**31, 0) == -o.draw_of_word(o.GAUSSIAN, w, 0)
    assert len(words) > 150
    assert 1e-6 < worst < 1.4e-5


@pytest.mark.parametrize(
    ("distribution", "unit", "deviation", "kurtosis"),
    [
        (o.UNIFORM, 2**24, 3**-0.5, 9 / 5),
        (o.GAUSSIAN, 2**21, 1.0, 3.0),
        (o.BERNOULLI, 1, 1.0, 1.0),
    ],
)
def test_draws_have_the_moments_of_their_distribution(
    distribution: int, unit: int, deviation: float, kurtosis: float
) -> None:
    n = 4000
    draws = [o.draw(distribution, 12345, 6, i) for i in range(n)]
    assert all(0 < abs(q) < 2**24 for q in draws)
    x = [q / unit / deviation for q in draws]
    error = 5 / math.sqrt(n)  # five standard errors of the mean
    assert abs(math.fsum(x) / n) < error
    assert abs(math.fsum(v * v for v in x) / n - 1) < error * math.sqrt(kurtosis)
    assert abs(math.fsum(v**4 for v in x) / n - kurtosis) < 0.5


@pytest.mark.parametrize("distribution", list(o.SCALES))
def test_noise_is_normal_and_its_step_exact_at_the_ends_of_the_scale(distribution: int) -> None:
    biggest = {o.UNIFORM: 2**24 - 1, o.GAUSSIAN: o.gaussian_table()[0], o.BERNOULLI: 1}[distribution]
    for bits in o.SCALES[distribution]:
        assert o.scale_allowed(distribution, bits)
        step = o.step(distribution, o.f32_from_bits(bits))
        assert o.exact_value(o.round_float(step, o.F32), o.F32) == step
        for q in (1, biggest):
            word = o.round_float(q * step, o.F32)
            assert 0x00800000 <= word < 0x7F800000
    least, largest = o.SCALES[distribution]
    assert not any(
        o.scale_allowed(distribution, bits) for bits in (0, least - 1, largest + 1, least | 1 << 31)
    )


# Floats


def test_rounding_agrees_with_struct() -> None:
    words = [o.philox_word(1, 2, j) for j in range(6000)]
    doubles = [
        struct.unpack("<d", struct.pack("<II", a, b))[0] for a, b in zip(words[::2], words[1::2], strict=True)
    ]
    # exponents about those of f32, so that normal, subnormal, vanishing and overflowing values all come up
    doubles += [math.ldexp(a + 2.0**-20, b % 300 - 196) for a, b in zip(words[::2], words[1::2], strict=True)]
    seen = set()
    for x in doubles:
        if math.isfinite(x):
            assert o.round_float(Fraction(x), F64) == int.from_bytes(struct.pack("<d", x), "little")
            got = o.round_float(Fraction(x), o.F32)
            try:
                expected = int.from_bytes(struct.pack("<f", x), "little")
            except OverflowError:  # struct refuses what rounds to an infinity
                expected = 0xFF800000 if x < 0 else 0x7F800000
            assert got == expected
            seen.add("inf" if got << 1 >> 24 == 255 else "subnormal" if 0 < got % 2**31 < 2**23 else "other")
    assert seen == {"inf", "subnormal", "other"}


def test_every_half_is_read_and_written_back() -> None:
    for word in range(2**16):
        if o.is_finite(word, F16):
            (x,) = struct.unpack("<e", struct.pack("<H", word))
            assert o.exact_value(word, F16) == Fraction(x)
            assert o.round_float(Fraction(x), F16) == (word if x else 0)
            assert math.isfinite(x)
        else:
            assert not math.isfinite(struct.unpack("<e", struct.pack("<H", word))[0])


def test_halves_between_two_halves_go_to_the_even_one() -> None:
    for word in range(0x7BFF):
        middle = (o.exact_value(word, F16) + o.exact_value(word + 1, F16)) / 2
        assert o.round_float(middle, F16) == word + word % 2
        assert o.round_float(middle, F16) == int.from_bytes(struct.pack("<e", float(middle)), "little")
        assert o.round_float(middle + Fraction(1, 2**200), F16) == word + 1
        assert o.round_float(-middle + Fraction(1, 2**200), F16) == word + 2**15


def test_f32_bits_takes_f32_only() -> None:
    assert o.f32_bits(0.5) == 0x3F000000
    assert o.f32_bits(-0.0) == 0x80000000
    with pytest.raises(ValueError, match="not an f32"):
        o.f32_bits(0.1)


def test_limbs_hold_every_value_of_their_dtype() -> None:
    for kind in o.DTYPES.values():
        if kind.fraction:
            largest = o.exact_value(((2**kind.exponent - 1) << kind.fraction) - 1, kind) / kind.quantum
        else:
            largest = Fraction(2 ** (8 * kind.size - 1) if kind.signed else 2 ** (8 * kind.size) - 1)
            largest = Fraction(1) if kind.name == "bool" else largest
        assert largest.denominator == 1
        assert 2 ** (24 * (kind.limbs - 1)) <= max(largest, 1) < 2 ** (24 * kind.limbs)


# Masks and means


def test_sampling_is_unbiased_within_reach() -> None:
    noise = o.noise(o.UNIFORM, 1.0, 7, 0, 0)
    n = 2000
    for kind, factor in ((o.BINARY, 0.25), (o.SIGNED, 0.25), (o.SIGNED, -0.5)):
        u = o.f32_round(Fraction(noise) * Fraction(factor))
        bits = [o.sample_bit(kind, u, noise, o.philox_word(3, 4, i) >> 8) for i in range(n)]
        kept = sum(o.sign_of_bit(kind, bit) for bit in bits) / n
        assert abs(kept - factor) < 5 / math.sqrt(n)


def test_the_mean_of_one_frame_is_what_it_decodes_to() -> None:
    checked = 0
    for case in cases("aggregate"):
        if case["result"] == "valid" and case["op"] == "mean" and len(case["frames"]) == 1:
            schema = schema_of(case["schema"])
            decoded = o.decode(bytes.fromhex(case["frames"][0]), schema)
            means = [bytes.fromhex(text) for text in case["mean"]]
            for tensor, update, mean in zip(schema, decoded, means, strict=True):
                size = o.DTYPES[tensor.dtype].size
                for at in range(0, len(update), size):
                    element = update[at : at + size]
                    negative_zero = o.DTYPES[tensor.dtype].fraction and element == bytes(size - 1) + b"\x80"
                    assert mean[at : at + size] == (bytes(size) if negative_zero else element)
                    checked += 1
    assert checked > 20


def is_zero(word: int, kind: o.Dtype) -> bool:
    """Whether a float's bits are those of a zero of either sign."""
    return word in (0, 1 << (8 * kind.size - 1))


def test_dense_means_are_the_rounded_rational_number() -> None:
    checked = 0
    for case in cases("aggregate"):
        if case["result"] == "valid" and case["op"] == "mean":
            schema, weights = schema_of(case["schema"]), case["weights"]
            frames = [o.decode(bytes.fromhex(frame), schema) for frame in case["frames"]]
            for position, tensor in enumerate(schema):
                kind = o.DTYPES[tensor.dtype]
                mean = o.words_of(bytes.fromhex(case["mean"][position]), tensor.dtype)
                columns = [o.words_of(frame[position], tensor.dtype) for frame in frames]
                for i in range(0 if tensor.masked else tensor.elements):
                    total = sum(w * o.exact_value(c[i], kind) for w, c in zip(weights, columns, strict=True))
                    exact = Fraction(total) / sum(weights)
                    rounded = (
                        o.round_float(exact, kind) if kind.fraction else round(exact) % 2 ** (8 * kind.size)
                    )
                    zero = kind.fraction and is_zero(rounded, kind)
                    assert mean[i] == (0 if zero else rounded)
                    checked += 1
    assert checked > 100


# The vectors and the text


def schema_of(entries: list[dict[str, Any]]) -> o.Schema:
    codes = {dtype.name: code for code, dtype in o.DTYPES.items()}
    return tuple(
        o.Tensor(e["name"], e["role"] == "masked", codes[e["dtype"]], tuple(e["shape"])) for e in entries
    )


def numbered_checks() -> dict[str, str]:
    """Number to code, from the tables of checks in FORMAT.md."""
    return dict(re.findall(r"^\| \[([FSCPT]-\d\d)\] \|.*\| `(\w+)` \| \w+ \|$", FORMAT, re.MULTILINE))


def test_every_check_of_the_format_has_a_vector_and_its_code() -> None:
    checks = numbered_checks()
    assert len(checks) == 32 + 9 + 14 + 16 + 20
    assert {number: o.CODES[number] for number in checks} == checks
    refused: dict[str, set[str]] = {}
    for case in cases("invalid") + cases("partials_invalid") + cases("tallies_invalid"):
        (number,) = case["spec"]
        refused.setdefault(number, set()).add(case["code"])
    assert refused == {number: {code} for number, code in checks.items()}


def test_every_number_that_the_format_cites_is_defined_once() -> None:
    section = FORMAT.split("\n## 7 ")[1].split("\n## 8 ")[0] + FORMAT.split("**8.5 ")[1].split("\n## 9 ")[0]
    assert set(re.findall(r"\[([FSCPT]-\d\d)\]", section)) == set(numbered_checks())
    defined = re.findall(r"^(?:\| |- )\[([A-Z]-\d\d)\]", FORMAT, re.MULTILINE)
    assert len(defined) == len(set(defined))
    assert set(re.findall(r"\[([A-Z]-\d\d)\]", FORMAT)) == set(defined)


def test_the_vectors_are_what_the_oracle_makes() -> None:
    done = make_vectors()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cases") == 12


def test_the_worked_example_is_what_the_oracle_makes() -> None:
    done = make_vectors("--example")
    assert done.returncode == 0, done.stderr
    assert done.stdout in FORMAT
    assert len(done.stdout) > 3000


def test_a_changed_vector_is_found(tmp_path: Path) -> None:
    for name in ("fedmrn_codec", "spec"):
        for source in (ROOT / name).rglob("*"):
            if source.suffix in {".py", ".bin", ".json"} and source.is_file():
                target = tmp_path / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    script = [sys.executable, str(tmp_path / "spec" / "make_vectors.py")]
    assert subprocess.run(script, capture_output=True, check=False).returncode == 0
    changed = tmp_path / "spec" / "vectors" / "philox.json"
    changed.write_text(
        changed.read_text(encoding="utf-8").replace("0x6627e8d5", "0x6627e8d6"), encoding="utf-8"
    )
    (tmp_path / "spec" / "vectors" / "bits.json").unlink()
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "philox.json, bits.json" in done.stderr


# The rounding recipe of 8.3


def rounded_with_integers(total: int, weight: int, p: int) -> int:
    """m * 2^e of 8.3 for a positive sum in quanta; 0 for 0."""
    e = max((total // weight).bit_length() - p, 0)
    d = weight << e
    m, r = divmod(total, d)
    return (m + (2 * r > d or (2 * r == d and m % 2 == 1))) << e


def test_the_recipe_of_the_text_rounds_as_the_oracle_does() -> None:
    """Also with the text's sticky bit in place of the remainder."""
    assert "m = m + 1  if 2 * r > d, or if 2 * r = d and m is odd" in FORMAT
    checked = 0
    for kind in (k for k in o.DTYPES.values() if k.fraction):
        p = kind.fraction + 1
        words = [o.philox_word(8, kind.size, j) for j in range(300)]
        for k, word in enumerate(words):
            weight = (1, 3, 4, 2**39 - 1, 600)[k % 5]
            exponent = word % (2 ** (kind.exponent - 1))
            total = weight * (word | 1) << exponent >> k % 33
            if k % 3 == 0:  # the middle of two values, or very near to it
                total = (weight * (2 * (word >> 8) + 1) << exponent) + (0, 1, -1)[k // 3 % 3]
            exact = kind.quantum * Fraction(total, weight)
            found = o.round_float(exact, kind)
            if total > 0 and o.is_finite(found, kind):
                assert rounded_with_integers(total, weight, p) * kind.quantum == o.exact_value(found, kind)
                e = max((total // weight).bit_length() - p, 0)
                quotient, rest = divmod(total, weight)
                below, low = (quotient >> e - 1) % 2 if e else 0, quotient % (1 << max(e - 1, 0))
                if e:
                    sticky = bool(low or rest)
                    m = (quotient >> e) + int(below and (sticky or (quotient >> e) % 2))
                    assert m << e == rounded_with_integers(total, weight, p)
                checked += 1
    assert checked > 600


def test_the_example_of_the_sticky_bit() -> None:
    values = [4, Fraction(1, 2**22), Fraction(1, 2**140)]
    assert "the float32 values 4, 2^-22, 2^-140 and 0" in FORMAT
    assert o.round_float(Fraction(sum(values)) / 4, o.F32) == 0x3F800001
    assert o.round_float(Fraction(sum(values[:2])) / 4, o.F32) == 0x3F800000

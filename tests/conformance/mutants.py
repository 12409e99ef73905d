"""Deliberately broken implementations: the plain-integer oracle with one line changed in each."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tally_mutants import TALLIES

from fedmrn_codec.conformance import oracle
from fedmrn_codec.conformance.reference import Reference
from fedmrn_codec.conformance.request import Noise, Request, Result, Sample, Words
from fedmrn_codec.conformance.target import Broken, Refused, Unsupported

MODULES = ("checks", "elements", "noise", "masks", "schema", "codings", "grids", "frame", "sums", "tallies")
"""The modules of the oracle, each after those that it imports."""


def _source(name: str) -> str:
    """The text of a module of the oracle without its imports of the others."""
    text = Path(oracle.__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    text = text.replace("from __future__ import annotations\n", "")
    return re.sub(r"^from \.\w+ import (\([^)]*\)|.*)\n", "", text, flags=re.MULTILINE)


SOURCE = "from __future__ import annotations\n" + "".join(map(_source, MODULES))
"""The oracle as one module."""


class Mutant(NamedTuple):
    """What is wrong, the text that changes (it occurs once), and the MUST or section that breaks first."""

    name: str
    old: str
    new: str
    breaks: str


MUTANTS = [
    # 2 Random words
    Mutant("two lanes swapped", "return c0, c1, c2, c3", "return c0, c1, c3, c2", "N-02"),
    Mutant("wrong Weyl constant", "0xBB67AE85", "0xBB67AE84", "N-02"),
    Mutant("nine rounds", "for r in range(10):", "for r in range(9):", "N-02"),
    Mutant("key bumped before the first round", "k0 + r * 0x9E", "k0 + (r + 1) * 0x9E", "N-02"),
    Mutant("stream ignored", "stream % 2**32, stream >> 32)", "0, 0)", "N-02"),
    Mutant("the stream's high half ignored", "stream % 2**32, stream >> 32)", "stream % 2**32, 0)", "N-02"),
    Mutant(
        "the seed's high half ignored", "(seed % 2**32, seed >> 32))\n\n", "(seed % 2**32, 0))\n\n", "N-02"
    ),
    Mutant("positions wrap at 2^34", "(b % 2**32, b >> 32, stream", "(b % 2**32, 0, stream", "N-02"),
    # 3 Noise
    Mutant("uniform draws that are even", "2 * (w >> 8) - (2**24 - 1)", "2 * (w >> 8) - 2**24", "N-04"),
    Mutant(
        "wrong Gaussian sign",
        "return -max(g, 1) if w >> 31 else max(g, 1)",
        "return max(g, 1) if w >> 31 else -max(g, 1)",
        "N-04",
    ),
    Mutant(
        "Gaussian without the floor of 1",
        "return -max(g, 1) if w >> 31 else max(g, 1)",
        "return -g if w >> 31 else g",
        "N-04",
    ),
    Mutant("Gaussian table read without rounding", "* f + 2**15) >> 16)", "* f) >> 16)", "N-04"),
    Mutant("Bernoulli bits from the top", "w >> (i % 32) & 1", "w >> (31 - i % 32) & 1", "N-04"),
    Mutant(
        "fused multiply-add in the noise",
        "return f32_round(draw(distribution, seed, stream, i) * step(distribution, scale))",
        "q, s = draw(distribution, seed, stream, i), step(distribution, scale)\n"
        "    return f32_round((q + 2**24 - 1) * s - Fraction(f32_round((2**24 - 1) * s)))",
        "N-04",
    ),
    Mutant("rounding towards zero", "round(units / (1 << shift))", "int(units / (1 << shift))", "N-04"),
    Mutant(
        "subnormal numbers flushed to zero",
        "return f32_from_bits(round_float(x, F32))",
        "return f32_from_bits(round_float(x, F32)) if abs(x) >= Fraction(1, 2**126) else 0.0",
        "M-04",
    ),
    # 4 Masks
    Mutant(
        "masks read most significant bit first",
        "enumerate(unpack(content.payload, n)):",
        "enumerate(content.payload[i // 8] >> (7 - i % 8) & 1 for i in range(n)):",
        "M-02",
    ),
    Mutant("-0.0 for dropped elements", "<< 31 if m else 0", "<< 31 if m else word & 1 << 31", "M-02"),
    Mutant(
        "signed masks negate the kept",
        "return 1 if bit else (0 if kind == BINARY else -1)",
        "return bit if kind == BINARY else (-1 if bit else 1)",
        "M-02",
    ),
    Mutant("kinds exchanged", "(0 if kind == BINARY else -1)", "(0 if kind == SIGNED else -1)", "M-02"),
    Mutant("r <= t", "return int(r < t)", "return int(r <= t)", "M-04"),
    Mutant(
        "quotient kept in double precision",
        "p = f32_round(Fraction(u) / Fraction(noise_value))",
        "p = u / noise_value\n    if abs(p) > 2**100:\n        return int(p > 0)",
        "M-04",
    ),
    Mutant(
        "p + 1 exact",
        "f32_round(Fraction(f32_round(Fraction(p) + 1)) * 2**23)",
        "(Fraction(p) + 1) * 2**23",
        "M-04",
    ),
    Mutant("masks written most significant bit first", "sum(bit << k for", "sum(bit << 7 - k for", "M-02"),
    # 5 Schema
    Mutant(
        "digest over another order",
        "hashlib.sha256(schema_bytes(schema)).digest()[:16]",
        "hashlib.sha256(schema_bytes(tuple(reversed(schema)))).digest()[:16]",
        "5.4",
    ),
    Mutant("a dimension of 0 hides the others", "math.prod(d or 1 for d", "math.prod(d for d", "S-06"),
    Mutant(
        "the shape's product wraps",
        "math.prod(d or 1 for d in shape) <= 2**48",
        "math.prod(d or 1 for d in shape) % 2**64 <= 2**48",
        "S-06",
    ),
    Mutant(
        "a role looked at after the dtype is read",
        'require(role in (0, 1), "S-03", f"{at}: role: expected 0 or 1, got {role}")\n'
        '        dtype = reader.uint(1, "S-01", f"{at}: dtype")',
        'dtype = reader.uint(1, "S-01", f"{at}: dtype")\n        require(role in (0, 1), "S-03", "")',
        "S-03",
    ),
    Mutant(
        "a dtype looked at after the rank is read",
        'require(dtype in DTYPES, "S-04", f"{at}: dtype {dtype}")',
        'Reader(data, reader.at).uint(1, "S-01", "")\n        require(dtype in DTYPES, "S-04", "")',
        "S-04",
    ),
    Mutant("surrogates in names", '"utf-8", "strict"', '"utf-8", "surrogatepass"', "S-02"),
    # 6 Frame, 7 Checks
    Mutant("any minor version", 'major == 1 and minor < 4, "F-03"', 'major == 1, "F-03"', "F-03"),
    Mutant("only known flags looked at", 'require(flags < 2, "F-04"', 'require(flags < 256, "F-04"', "F-04"),
    Mutant(
        "the embedded schema's tensors not limited",
        "embedded = parse_schema(raw, most)",
        "embedded = parse_schema(raw)",
        "S-09",
    ),
    Mutant(
        "the limit of elements on every tensor alone",
        "total = sum(tensor.elements for tensor in embedded)",
        "total = max((tensor.elements for tensor in embedded), default=0)",
        "S-07",
    ),
    Mutant(
        "the embedded schema's digest not compared when the caller has one",
        'require(hashlib.sha256(raw).digest()[:16] == digest, "S-08"',
        'require(schema is not None or hashlib.sha256(raw).digest()[:16] == digest, "S-08"',
        "S-08",
    ),
    Mutant(
        "a demand for 0 is none",
        "options.round in (None, round_number)",
        "not options.round or options.round == round_number",
        "F-12",
    ),
    Mutant(
        "coding and reserved byte exchanged",
        "require(coding in known and",
        'require(reserved == 0, "F-22", at)\n    require(coding in known and',
        "F-21",
    ),
    Mutant(
        "checksum before length",
        'require(size >= end, "F-25"',
        'require(struct.pack("<I", zlib.crc32(data[:-4])) == data[-4:], "F-27", "")\n'
        '    require(size >= end, "F-25"',
        "F-25",
    ),
    Mutant(
        "length before minor version",
        'require(minor == needed, "F-31"',
        'require(size >= reader.at + sum(length for _, length in entries) + 4, "F-25", "")\n'
        '    require(minor == needed, "F-31"',
        "F-31",
    ),
    Mutant(
        "NaN refused, infinities not",
        "(word >> dtype.fraction) & ones != ones",
        "word >> dtype.fraction & ones != ones or word << 1 == ones << dtype.fraction + 1",
        "F-29",
    ),
    Mutant(
        "an encoder that checks nothing",
        "if parse(data, frame.schema, no_limits) != frame:",
        "if False:",
        "E-02",
    ),
    Mutant(
        "scales written big-endian",
        '"<I", f32_bits(content.scale))\n    data += b',
        '">I", f32_bits(content.scale))\n    data += b',
        "E-01",
    ),
    Mutant(
        "the highest minor version written",
        'b"FMRN", 1, minor, embed_schema',
        'b"FMRN", 1, 3, embed_schema',
        "E-01",
    ),
    # 6.8 and 6.9 Codings
    Mutant(
        "probabilities rounded down", "(512 * sum(its) + len(its)) // (2", "(512 * sum(its)) // (2", "6.8"
    ),
    Mutant("buckets twice as wide", "GAUSSIAN else 20), 15)", "GAUSSIAN else 21), 15)", "6.8"),
    Mutant(
        "Gaussian buckets as wide as uniform ones", "(19 if distribution == GAUSSIAN else 20)", "20", "6.8"
    ),
    Mutant("no bucket 15", "GAUSSIAN else 20), 15)", "GAUSSIAN else 20), 14)", "6.8"),
    Mutant("bits the other way round", "bits.append(int(s < p))", "bits.append(int(s >= p))", "6.8"),
    Mutant(
        "the last states of coding 1 not looked at",
        "require(not words and states == [2**16] * 8,",
        "require(not words,",
        "C-03",
    ),
    Mutant(
        "states that no element uses not looked at",
        "states == [2**16] * 8,",
        "states[: n - 65536 * b] == [2**16] * min(8, n - 65536 * b),",
        "C-03",
    ),
    Mutant("coded even where it is longer", "if len(wire) >= len(content.payload):", "if False:", "E-01"),
    Mutant(
        "halves cut off instead of rounded",
        "words = [round_float(x, half) |",
        "words = [f32_bits(float(abs(x))) >> 16 if content.coding == IN_BFLOAT16 else round_float(x, half) |",
        "E-01",
    ),
    Mutant("-0.0 lost in 16 bits", "| (word & 2**15) << 16", "", "6.5"),
    Mutant(
        "a lower minor version than the codings need is enough",
        'require(minor == needed, "F-31"',
        'require((minor > 0) == (needed > 0), "F-31"',
        "F-31",
    ),
    # 6.10 and 6.11 Coding 4
    Mutant("coding 4 in version 1.1", "RANS12: 2, RANS14", "RANS12: 1, RANS14", "F-31"),
    Mutant("the nearest index is the one below", "sum(8192 * sum(its) >=", "sum(8192 * sum(its) >", "6.11"),
    Mutant("an empty bucket has k = 39", "out.append(last)", "out.append(last if its else 39)", "6.11"),
    Mutant(
        "16 buckets of Bernoulli noise", "return 1 if distribution == BERNOULLI else 16", "return 16", "6.11"
    ),
    Mutant(
        "k not compared with the bits",
        'require(indices(buckets, bits, distribution) == table, "C-09"',
        'require(True, "C-09"',
        "C-09",
    ),
    Mutant(
        "no padding of k looked at",
        'require(at % 8 == 0 or wire[size - 1] >> at % 8 == 0, "C-05"',
        'require(True, "C-05"',
        "C-05",
    ),
    Mutant("half a word dropped", "require(left % 2 == 0 and 0 <= left", "require(0 <= left", "C-06"),
    Mutant("any state", 'require(numbers[0] >= 2**16, "C-07"', 'require(True, "C-07"', "C-07"),
    Mutant(
        "the end of a block not looked at",
        "done = self.x == 2**16 and self.read == len(self.words)",
        "done = True",
        "C-08",
    ),
    Mutant(
        "the last state of coding 4 not looked at",
        "done = self.x == 2**16 and self.read == len(self.words)",
        "done = self.read == len(self.words)",
        "C-08",
    ),
    # 6.12 to 6.14 Grids
    Mutant(
        "grids in version 1.2", "3 if content.kind == GRID else", "2 if content.kind == GRID else", "F-31"
    ),
    Mutant("kind 3 in every version", "GRID} if minor >= 3 else", "GRID} if True else", "F-16"),
    Mutant(
        "grids of integers",
        "fitting |= {GRID} if tensor.dtype in GRIDS else set()",
        "fitting |= {GRID}",
        "F-17",
    ),
    Mutant(
        "any type of a grid", "set(GRIDS) if kind == GRID else", "set(DTYPES) if kind == GRID else", "F-18"
    ),
    Mutant("any step that is finite", "bits % 2**23 == 0 and 127 + least", "127 + least", "F-24"),
    Mutant(
        "the steps of float32 for every dtype",
        "least, largest = GRIDS[dtype]",
        "least, largest = GRIDS[1]",
        "F-24",
    ),
    Mutant(
        "the bounds of float32 for every dtype", "abs(z) <= GRIDS[dtype][0]", "abs(z) <= GRIDS[1][0]", "F-32"
    ),
    Mutant(
        "the absolute value of -2^31 wraps",
        "abs(z) <= GRIDS",
        "(z if z == -(2**31) else abs(z)) <= GRIDS",
        "F-32",
    ),
    Mutant(
        "integers are not checked if coded",
        "check_integers(payload, tensor.dtype)",
        "coded or check_integers(payload, tensor.dtype)",
        "F-32",
    ),
    Mutant(
        "-0.0 for a 0 of a grid",
        "round_float(Fraction(step) * z, kind)",
        "round_float(Fraction(step) * z, kind) or 1 << 8 * kind.size - 1",
        "6.12",
    ),
    Mutant(
        "signs exchanged",
        "return (2 * m - 1 if z > 0 else 2 * m), plain",
        "return (2 * m - 1 if z < 0 else 2 * m), plain",
        "E-01",
    ),
    Mutant(
        "high plain bits first",
        "[Plain(r % 2**16, 16), Plain(r >> 16, d - 16)]",
        "[Plain(r >> 16, d - 16), Plain(r % 2**16, 16)]",
        "E-01",
    ),
    Mutant(
        "what is missing goes to the last of the largest",
        "counts.index(max(counts))",
        "len(counts) - 1 - counts[::-1].index(max(counts))",
        "6.14",
    ),
    Mutant(
        "rare symbols have no frequency",
        "max(1, TOTAL * c // len(symbols)) if c",
        "TOTAL * c // len(symbols) if c",
        "6.14",
    ),
    Mutant(
        "frequencies not compared with the integers",
        "require(grid_frequencies(found) == table,",
        "require(True,",
        "C-14",
    ),
    Mutant(
        "no padding of f looked at",
        'require(at % 8 == 0 or wire[size - 1] >> at % 8 == 0, "C-10"',
        'require(True, "C-10"',
        "C-10",
    ),
    Mutant(
        "half a word dropped from a grid", "require(left % 2 == 0 and left >= 0", "require(left >= 0", "C-11"
    ),
    Mutant("any state of a grid", 'require(numbers[0] >= 2**16, "C-12"', 'require(True, "C-12"', "C-12"),
    Mutant(
        "the end of a grid's block not looked at",
        'require(self.x == 2**16 and left == 0, "C-13"',
        'require(True, "C-13"',
        "C-13",
    ),
    Mutant(
        "the last state of a grid not looked at",
        'require(self.x == 2**16 and left == 0, "C-13"',
        'require(left == 0, "C-13"',
        "C-13",
    ),
    Mutant(
        "plain bits read no word",
        "        self.x >>= b\n        self._refill()",
        "        self.x >>= b",
        "6.14",
    ),
    # 8 Aggregation
    Mutant(
        "rounding twice in the mean",
        "float(total) / float(weight) * float(step_value)",
        "f32_round(Fraction(float(total) / float(weight))) * float(step_value)",
        "A-03",
    ),
    Mutant(
        "product before division",
        "float(total) / float(weight) * float(step_value)",
        "float(total) * float(step_value) / float(weight)",
        "A-03",
    ),
    Mutant(
        "the mean of masked tensors rounded only once",
        "Fraction(float(total) / float(weight) * float(step_value))",
        "Fraction(total, weight) * step_value",
        "A-03",
    ),
    Mutant("f64(S) not rounded", "float(total) / float(weight) *", "total / weight *", "A-03"),
    Mutant(
        "subnormal means flushed to zero",
        "return round_float(Fraction(float(total) / float(weight) * float(step_value)), F32)",
        "word = round_float(Fraction(float(total) / float(weight) * float(step_value)), F32)\n"
        "    return word if word >> 23 & 255 else 0",
        "A-03",
    ),
    Mutant(
        "integer ties rounded up",
        "return round(exact) % (1 << 8 * kind.size)",
        "return math.floor(exact + Fraction(1, 2)) % (1 << 8 * kind.size)",
        "A-04",
    ),
    Mutant(
        "dense mean by way of a double",
        "exact: Fraction = kind.quantum * total / weight",
        "exact = Fraction(float(kind.quantum * total)) / weight",
        "A-04",
    ),
    Mutant(
        "a rest 80 bits below the first is lost in a dense mean",
        "exact: Fraction = kind.quantum * total / weight",
        "units = Fraction(total, weight)\n"
        "    cut = max(math.floor(abs(units)).bit_length() - 80, -80)\n"
        "    exact = math.floor(units / Fraction(2) ** cut) * Fraction(2) ** cut * kind.quantum",
        "A-04",
    ),
    Mutant(
        "a remainder is lost in a dense mean",
        "exact: Fraction = kind.quantum * total / weight",
        "exact = kind.quantum * (total // weight if total >= 0 else -(-total // weight))",
        "A-04",
    ),
    Mutant(
        "-0.0 as the mean of a dense tensor",
        "return word if word % (1 << 8 * kind.size - 1) else 0",
        "return word",
        "A-04",
    ),
    Mutant(
        "weights cut to 32 bits",
        '"A-01", f"weight: expected 1 to 2^39 - 1, got {weight}")',
        '"A-01", "")\n    weight %= 2**32',
        "A-01",
    ),
    Mutant("weights above 32 bits refused", "MAX_WEIGHT = 2**39 - 1", "MAX_WEIGHT = 2**32 - 1", "A-01"),
    Mutant("the sums of a grid have no weight", "weight * z for z in", "z for z in", "A-03"),
    Mutant(
        "a grid summed as a mask of its step",
        "Sums((row,), GRID_DISTRIBUTION, content.scale)",
        "Sums((row,), UNIFORM, content.scale)",
        "8.5",
    ),
    Mutant("version 1.0 of every partial sum", 'b"FMRS", 1, minor, 0', 'b"FMRS", 1, 0, 0', "8.5"),
    Mutant(
        "distribution 4 in version 1.0", "grid = minor >= 1 and distribution", "grid = distribution", "P-09"
    ),
    Mutant(
        "version 1.1 without a grid", "require(minor == int(grids),", "require(minor >= int(grids),", "P-16"
    ),
    Mutant("scales not compared", "require(x[1:] == y[1:], ", "require(x[1:2] == y[1:2], ", "A-02"),
    Mutant(
        "rounds not compared in a merge",
        "(a.base_model, a.round) == (b.base_model, b.round)",
        "a.base_model == b.base_model",
        "A-06",
    ),
    Mutant("rows of zeros kept", "if any(row)]", "]", "8.5"),
    Mutant("frames not counted in a merge", "frames=a.frames + b.frames", "frames=a.frames", "8.5"),
    Mutant(
        "the bound of Gaussian sums that of uniform ones", "GAUSSIAN: 13291661", "GAUSSIAN: 2**24 - 1", "P-15"
    ),
    # 8.6 Tallies
    *(Mutant(*row) for row in TALLIES),
]


OF_MANY = [
    (
        Mutant(
            f"the sum of lengths is {what}",
            "end = reader.at + sum(length for _, length in entries) + 4",
            f"end = reader.at + {text} + 4\n    reader.take = lambda size, number, what: b''",
            "F-25",
        ),
        "many/lengths-*",
    )
    for what, text in (
        ("that of 64 bits", "sum(length for _, length in entries) % 2**64"),
        ("signed", "(sum(length for _, length in entries) + 2**63) % 2**64 - 2**63"),
    )
] + [
    (
        Mutant(
            "the sum of elements is that of 64 bits",
            "total = sum(tensor.elements for tensor in embedded)",
            "total = sum(tensor.elements for tensor in embedded) % 2**64",
            "S-07",
        ),
        "many/schema-of-2-64-*",
    ),
    (
        Mutant(
            "the sum of elements is signed",
            "total = sum(tensor.elements for tensor in embedded)",
            "total = (sum(tensor.elements for tensor in embedded) + 2**63) % 2**64 - 2**63",
            "S-07",
        ),
        "many/schema-of-2-63-*",
    ),
    (
        Mutant(
            "an encoder with one block",
            "for first in range(0, n, 65536):\n        states",
            "for first in range(0, 1):\n        states",
            "E-01",
        ),
        "large/uniform-binary-rans:encode",
    ),
]
"""Mutants that only large requests show, and the checks of these."""


class ShortWords(Reference):
    """A path for 64 words and more that drops the upper half of the stream."""

    def ask(self, request: Request) -> Result:
        words = {"bernoulli": 32}.get(getattr(request, "distribution", ""), 1)
        count = request.count if isinstance(request, Words | Noise) else 0
        if isinstance(request, Sample):
            count = len(request.update) // 4
        if isinstance(request, Words | Noise | Sample) and count >= 64 * words:
            request = dataclasses.replace(request, stream=request.stream % 2**32)
        return super().ask(request)


class Refuses(Reference):
    """Refuses everything with one code."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code

    def ask(self, request: Request) -> Result:
        raise Refused(self.code)


def changed_oracle(old: str = "", new: str = "", *more: tuple[str, str]) -> ModuleType:
    """Another copy of the oracle, with one text replaced, or several."""
    source = SOURCE
    for before, after in [(old, new), *more] if old else more:
        assert source.count(before) == 1, f"{before!r} occurs {source.count(before)} times"
        source = source.replace(before, after)
    spec = importlib.util.spec_from_loader("changed_oracle", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = oracle.__file__  # from where the table is found
    sys.modules[spec.name] = module  # where typing looks for the names in its annotations
    exec(compile(source, "changed_oracle", "exec"), module.__dict__)
    return module


def without_check(number: str) -> ModuleType:
    """A copy of the oracle in which one numbered check never fires."""
    module = changed_oracle()
    complete = module.require

    def require(condition: bool, at: str, detail: str) -> None:
        if at != number:
            complete(condition, at, detail)

    module.require = require  # type: ignore[attr-defined]
    return module


class Changed(Reference):
    """A changed oracle under test: what it stumbles over is a crash of its own."""

    def ask(self, request: Request) -> Result:
        try:
            return super().ask(request)
        except (Refused, Unsupported):
            raise
        except Exception as error:
            raise Broken(repr(error)) from error

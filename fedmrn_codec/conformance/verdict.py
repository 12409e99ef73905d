"""The requirement that a wrong answer violates, and where it differs from the expected answer."""

from __future__ import annotations

from typing import NamedTuple

from . import oracle
from .fields import Field, frame_fields, partial_fields, tally_fields
from .layout import field_at, first_difference
from .request import (
    AddTallies,
    Aggregate,
    Count,
    Decode,
    Digest,
    Encode,
    Merge,
    MergeTallies,
    Noise,
    Request,
    Result,
    Sample,
    Words,
)
from .target import Outcome, Refused

GROUPS = {
    **dict.fromkeys(("aggregate", "merge"), ("P", "A", "F", "S")),
    "tally": ("A", "F", "S"),
    **dict.fromkeys(("merge_tallies", "add_tallies"), ("T", "A", "S")),
}
"""The letters of the checks that an operation on sums makes."""

ALSO = {"F-24": ("N-03",), "F-28": ("M-01",), "P-11": ("N-03",), "T-14": ("N-03",)}
"""Checks that also cover a MUST of another section."""

CODED = {
    oracle.RANS: ("6.8", "C-01", "C-02", "C-03", "C-04"),
    oracle.RANS12: ("6.11", "C-05", "C-06", "C-07", "C-08", "C-09"),
    oracle.RANS14: ("6.14", "C-10", "C-11", "C-12", "C-13", "C-14"),
}
"""The section of each entropy coding, and its checks, all of which have the code `coding`."""

BLOCK = 65536
"""The elements of a block of an entropy-coded payload (spec 6.8)."""


WIDE = oracle.Options(None, None, None, 2**32, 2**32, 2**80)
"""A reader's options without limits."""


class Finding(NamedTuple):
    """A failure: the MUSTs or sections that are violated, and a sentence about it."""

    musts: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"[{', '.join(self.musts)}] {self.text}"


def verdict(request: Request, expected: Outcome, found: Outcome) -> Finding | None:
    """The finding about a wrong answer; None if the answer is right."""
    if isinstance(expected, Refused):
        return _wrong_refusal(request, expected, found)
    if isinstance(found, Refused):
        return refused_valid(request, found)
    if found == expected:
        return None
    if isinstance(request, Words | Noise):
        return _wrong_numbers(request, expected, found)
    if isinstance(request, Digest):
        return Finding(("5.4",), _differ("digest", _one(expected, "digest"), _one(found, "digest")))
    if isinstance(request, Decode):
        return _wrong_tensors(request, expected, found)
    if isinstance(request, Sample):
        return _wrong_mask(request, expected, found)
    if isinstance(request, Encode):
        return _wrong_frame(request, expected, found)
    if isinstance(request, Count | MergeTallies):
        return _wrong_tally(request, expected, found)
    return _wrong_sums(request, expected, found)


def _one(result: Result, name: str) -> bytes:
    value = result[name]
    assert isinstance(value, bytes)
    return value


def _differ(what: str, expected: bytes, got: bytes) -> str:
    return f"{what}: expected {_shown(expected)}, got {_shown(got)}"


def _shown(data: bytes) -> str:
    if not data:
        return "no bytes"
    return data.hex() if len(data) <= 32 else f"{data[:32].hex()}... ({len(data)} bytes)"


# --- refusals ---------------------------------------------------------------------------------------


def _wrong_refusal(request: Request, expected: Refused, found: Outcome) -> Finding | None:
    musts = (expected.number, *ALSO.get(expected.number, ()))
    refusal = f"a refusal with the code `{expected.code}`" if expected.code else "a refusal"
    if not isinstance(found, Refused):
        return Finding(musts, f"expected {refusal}, got an answer: invalid input is accepted")
    if not expected.code or found.code == expected.code:
        return None
    if found.code not in oracle.CODES.values():
        return Finding(musts, f"expected {refusal}, got `{found.code}`, which is not a code of the format")
    return Finding(musts, f"expected {refusal}, got `{found.code}`: another check is made first, or instead")


def refused_valid(request: Request, found: Refused) -> Finding:
    """The finding about the refusal of valid input."""
    if found.code == "request":
        text = "expected an answer, got the error `request`: the request is one that CONFORMANCE 3 describes"
        return Finding(("CONFORMANCE 3", *_subject(request)), text)
    if isinstance(request, Encode):
        return Finding(("E-01",), f"expected a frame, got the refusal `{found.code}`")
    text = f"expected an answer, got the refusal `{found.code}`: valid input is refused"
    if found.code == "coding" and isinstance(request, MergeTallies | AddTallies):
        return Finding(CODED[oracle.RANS14], text)
    if found.code == "coding" and (coded := _first_coded(request)):
        place, coding = coded
        return Finding(CODED[coding], f"{place}: {text}")
    if isinstance(request, Words | Noise | Sample):
        scale = ("N-03",) if found.code == "scale" and not isinstance(request, Words) else ()
        return Finding((*scale, *_subject(request)), text)
    groups = GROUPS.get(request.op, ("F", "S"))
    numbers = tuple(n for n, code in oracle.CODES.items() if code == found.code and n[0] in groups)
    return Finding(numbers or ("7.1",), text)


def _subject(request: Request) -> tuple[str, ...]:
    """What an operation on words, noise or an update is about."""
    return {"words": ("N-02", "2.1"), "noise": ("N-04",), "sample": ("M-04",)}.get(request.op, ())


def _first_coded(request: Request) -> tuple[str, int] | None:
    """The first entropy-coded tensor of the request's frames, in words, and its coding."""
    frames = (request.frame,) if isinstance(request, Decode) else getattr(request, "frames", ())
    raw: bytes | None = getattr(request, "schema", None)
    schema = None if raw is None else oracle.parse_schema(raw)
    for k, data in enumerate(frames):
        frame = oracle.parse(data, schema, WIDE)
        for i, (tensor, content) in enumerate(zip(frame.schema, frame.contents, strict=True)):
            if content.coding in CODED:
                place = f"tensor {i}, {tensor.name!r}, {in_coding(content.coding, tensor)}"
                return (f"frame {k}, {place}" if len(frames) > 1 else place), content.coding
    return None


def in_coding(coding: int, tensor: oracle.Tensor) -> str:
    """The coding of a tensor, its elements and blocks, in words."""
    blocks = -(-tensor.elements // BLOCK)
    return f"coding {coding}, {tensor.elements} elements in {blocks} block{'s' if blocks > 1 else ''}"


# --- words and noise --------------------------------------------------------------------------------


def _wrong_numbers(request: Words | Noise, expected: Result, found: Result) -> Finding:
    number, name = ("N-02", "words") if isinstance(request, Words) else ("N-04", "noise")
    a, b = _one(expected, name), _one(found, name)
    if len(a) != len(b):
        return Finding((number,), f"{name}: expected {len(a)} bytes, got {len(b)}")
    i = first_difference(a, b) // 4
    place = f"seed {request.seed:#x}, stream {request.stream:#x}, position {request.start + i}"
    noise = (
        f"{request.distribution}, scale bits {request.scale:#010x}, " if isinstance(request, Noise) else ""
    )
    wrong = sum(a[k : k + 4] != b[k : k + 4] for k in range(0, len(a), 4))
    text = f"{name} at {noise}{place}: expected {_word(a, i)}, got {_word(b, i)}"
    return Finding((number,), f"{text}; {wrong} of {request.count} differ")


def _word(data: bytes, i: int) -> str:
    return f"{int.from_bytes(data[4 * i : 4 * i + 4], 'little'):08x}"


# --- masks ------------------------------------------------------------------------------------------


def _wrong_tensors(request: Decode, expected: Result, found: Result) -> Finding:
    schema = None if request.schema is None else oracle.parse_schema(request.schema)
    frame = oracle.parse(request.frame, schema, WIDE)
    a, b = expected["tensors"], found["tensors"]
    if len(a) != len(b):
        return Finding(("6.1",), f"expected {len(a)} tensors, got {len(b)}")
    i = next(i for i in range(len(a)) if a[i] != b[i])
    want, got = a[i], b[i]
    assert isinstance(want, bytes)
    assert isinstance(got, bytes)
    tensor, content = frame.schema[i], frame.contents[i]
    name = f"tensor {i}, {tensor.name!r}"
    if len(want) != len(got):
        section = "M-02" if tensor.masked else "6.5"
        return Finding((section,), f"{name}: expected {len(want)} bytes, got {len(got)}")
    if content.kind == oracle.GRID:
        return _wrong_grid(name, content, tensor, want, got)
    if not tensor.masked:
        return Finding(("6.5",), _differ(f"{name}, dense, byte {first_difference(want, got)}", want, got))
    return _wrong_update(name, content, frame.seed, i, tensor.elements, want, got)


def _wrong_grid(
    name: str, content: oracle.Content, tensor: oracle.Tensor, want: bytes, got: bytes
) -> Finding:
    at = first_difference(want, got)
    if content.coding == oracle.RAW:
        return Finding(("6.12",), _differ(f"{name}, grid, byte {at}", want, got))
    size = oracle.DTYPES[tensor.dtype].size
    i = at // size
    element = slice(i * size, (i + 1) * size)
    if not any(want[element]) and got[element] == bytes(size - 1) + b"\x80":
        return Finding(("6.12",), f"{name}, grid, element {i}: -0.0 instead of +0.0")
    place = f"{name}, grid, {in_coding(content.coding, tensor)}, element {i} in block {i // BLOCK}, byte {at}"
    return Finding(("6.14", "6.12", "C-13", "C-14"), _differ(place, want, got))


def _wrong_update(
    name: str, content: oracle.Content, seed: int, stream: int, n: int, want: bytes, got: bytes
) -> Finding:
    at = first_difference(want, got) // 4
    bit = content.payload[at // 8] >> at % 8 & 1
    kind = "binary" if content.kind == oracle.BINARY else "signed"
    expected, found = (int.from_bytes(data[4 * at : 4 * at + 4], "little") for data in (want, got))
    text = f"{name}, element {at}, bit {bit} of a {kind} mask: expected {expected:08x}, got {found:08x}"
    if found == 0x80000000:
        return Finding(("M-02",), f"{text}: -0.0 instead of +0.0")
    if n <= 4096 and got == oracle.decode_mask(_reversed(content, n), seed, stream, n):
        return Finding(("M-02", "4.1"), f"{text}: the bits of a byte are read from the most significant bit")
    other = 0 if kind == "binary" and bit else expected ^ 1 << 31
    if content.coding in CODED and (found == other or (kind == "binary" and not bit)):
        section, *checks = CODED[content.coding]
        text += f": the other bit; coding {content.coding}, block {at // BLOCK}"
        return Finding((section, *checks[-2:], "M-02"), text)
    kept = bit or content.kind == oracle.SIGNED
    if kept and found << 1 != expected << 1 and found:
        return Finding(("N-04", "M-02"), f"{text}: the noise itself differs")
    return Finding(("M-02",), text)


def _reversed(content: oracle.Content, n: int) -> oracle.Content:
    """The mask with the bits of every byte in reverse order."""
    flipped = bytes(int(f"{byte:08b}"[::-1], 2) for byte in content.payload)
    bits = [flipped[i // 8] >> i % 8 & 1 for i in range(n)]
    return content._replace(payload=oracle.pack(bits))


def _wrong_mask(request: Sample, expected: Result, found: Result) -> Finding:
    a, b = _one(expected, "mask"), _one(found, "mask")
    n = len(request.update) // 4
    if len(a) != len(b):
        return Finding(("M-04", "4.1"), f"mask of {n} elements: expected {len(a)} bytes, got {len(b)}")
    at = first_difference(a, b)
    if n % 8 and at == len(a) - 1 and a[-1] == b[-1] % (1 << n % 8):
        text = f"padding of the mask of {n} elements: expected last byte {a[-1]:#04x}, got {b[-1]:#04x}"
        return Finding(("M-01",), text)
    i = next(i for i in range(8 * at, 8 * at + 8) if (a[at] ^ b[at]) >> i % 8 & 1)
    text = f"{request.kind} mask, bit {i} of {n}: expected {a[at] >> i % 8 & 1}; {_differ('mask', a, b)}"
    if n % 8 == 0 and bytes(int(f"{byte:08b}"[::-1], 2) for byte in b) == a:
        return Finding(
            ("M-04", "4.1"), f"{text}: the bits of a byte are written from the most significant bit"
        )
    return Finding(("M-04",), text)


# --- frames and sums --------------------------------------------------------------------------------


def _wrong_frame(request: Encode, expected: Result, found: Result) -> Finding:
    a, b = _one(expected, "frame"), _one(found, "frame")
    field, text = _in_field(frame_fields(a, oracle.parse_schema(request.schema)), a, b)
    return Finding(("E-01", "5.4" if field.name == "schema_digest" else field.section), text)


def _in_field(fields: list[Field], expected: bytes, found: bytes) -> tuple[Field, str]:
    at = first_difference(expected, found)
    field = field_at(fields, at)
    a, b = expected[field.begin : field.end], found[field.begin : field.end]
    length = f"; expected {len(expected)} bytes, got {len(found)}" if len(expected) != len(found) else ""
    return field, _differ(f"{field.name} at byte {at}", a, b) + length


def _wrong_tally(request: Count | MergeTallies, expected: Result, found: Result) -> Finding:
    a, b = _one(expected, "tally"), _one(found, "tally")
    field, text = _in_field(tally_fields(a, oracle.parse_schema(request.schema)), a, b)
    number = {"8.4": "8.4", "5.4": "5.4"}.get(field.section, "E-05")
    return Finding((number, "8.6"), f"tally: {text}")


def _wrong_sums(request: Aggregate | Merge | AddTallies, expected: Result, found: Result) -> Finding:
    schema = oracle.parse_schema(request.schema)
    a, b = _one(expected, "partial"), _one(found, "partial")
    if a != b:
        field, text = _in_field(partial_fields(a, schema), a, b)
        musts = {"8.2": ("A-03", "8.2"), "8.4": ("A-04", "8.4")}.get(field.section, ("8.5",))
        musts = ("A-01", "8.5") if field.name == "weight" else musts
        if isinstance(request, AddTallies):
            musts = ("A-10", *musts)
        return Finding(musts, f"partial sum: {text}")
    means, others = expected["mean"], found["mean"]
    if len(means) != len(others):
        return Finding(("8.1",), f"expected {len(means)} means, got {len(others)}")
    i = next(i for i in range(len(means)) if means[i] != others[i])
    want, got, tensor = means[i], others[i], schema[i]
    assert isinstance(want, bytes)
    assert isinstance(got, bytes)
    size = oracle.DTYPES[tensor.dtype].size
    at = first_difference(want, got) // size
    one, other = (int.from_bytes(data[at * size : (at + 1) * size], "little") for data in (want, got))
    sort = "masked" if tensor.masked else oracle.DTYPES[tensor.dtype].name
    text = f"mean of tensor {i}, {tensor.name!r}, {sort}, element {at}"
    text += f": expected {one:0{2 * size}x}, got {other:0{2 * size}x}"
    return Finding(("A-03",) if tensor.masked else ("A-04",), text)

"""The vectors of `spec/vectors` as checks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

from ..primitives.codes import MaskKind
from . import oracle, places
from .check import Case
from .reference import DISTRIBUTIONS
from .request import Aggregate, Decode, Digest, Encode, Merge, Noise, Part, Request, Sample, Words
from .target import Outcome, Refused
from .vector_files import load

ONE = 0x3F800000
DTYPE_CODES = {dtype.name: code for code, dtype in oracle.DTYPES.items()}
SCHEMA_CHECKS = ("S-01", "S-02", "S-03", "S-04", "S-05", "S-06")

Vector = dict[str, Any]


def words() -> Iterator[Case]:
    """`philox.json`: blocks and words (spec 2)."""
    for v in load("philox"):
        if v["op"] == "words":
            request, expected = Words(**_place(v)), v["words"]
        else:
            c, k = ([number(w) for w in v[name]] for name in ("counter", "key"))
            start = 4 * (c[0] | c[1] << 32)
            request = Words(seed=k[0] | k[1] << 32, stream=c[2] | c[3] << 32, start=start, count=4)
            expected = v["output"]
        yield case(v, request, {"words": struct.pack(f"<{len(expected)}I", *map(number, expected))})


def noise() -> Iterator[Case]:
    """`noise.json`: noise by position, and the draws of chosen words (spec 3)."""
    for v in load("noise"):
        if v["op"] == "noise":
            scale = number(v["scale"])
            request = Noise(distribution=v["distribution"], scale=scale, **_place(v))
            yield case(v, request, {"noise": bytes.fromhex(v["noise"])})
        else:
            pairs = zip(v["words"], v["draws"], strict=True)
            steps = tuple(_draw(v["distribution"], number(word), q) for word, q in pairs)
            yield Case(f"{v['id']}:noise", _musts(v), steps)


def _draw(distribution: str, word: int, q: int) -> tuple[Request, Outcome]:
    """The noise of scale 1 at a position of this word, which is an exact multiple of the draw."""
    assert distribution != "bernoulli"  # each of its words holds 32 elements
    shift = oracle.STEP_SHIFT[DISTRIBUTIONS[distribution]]
    at = places.place(word)._asdict()
    request = Noise(distribution=distribution, scale=ONE, count=1, **at)
    return request, {"noise": struct.pack("<f", q / 2**shift)}


def masks() -> Iterator[Case]:
    """`bits.json` without sampling (spec 4.1, 4.2)."""
    for v in load("bits"):
        if v["op"] == "decode":
            frame, schema = _one_mask(v, number(v["stream"]), v["count"], bytes.fromhex(v["mask"]))
            empty = (b"",) * number(v["stream"])
            request = Decode(frame=frame, schema=schema)
            yield case(v, request, {"tensors": (*empty, bytes.fromhex(v["update"]))})
        elif v["op"] == "unpack":
            request = _unpacking(v["count"], bytes.fromhex(v["mask"]))
            yield case(v, request, Refused(v["code"], "F-28"))
        elif v["op"] == "pack":
            bits = [int(bit) for bit in v["bits"]]
            update = struct.pack(f"<{len(bits)}f", *_signs(bits))
            yield case(v, _unpacking(len(bits), bytes.fromhex(v["mask"])), {"tensors": (update,)})


PACKING = {"kind": "signed", "distribution": "bernoulli", "scale": hex(ONE), "seed": "0x7"}


def _signs(bits: list[int]) -> list[float]:
    """The update of a signed mask with Bernoulli noise of scale 1."""
    noise = (oracle.noise(oracle.BERNOULLI, 1.0, 7, 0, i) for i in range(len(bits)))
    return [value if bit else -value for bit, value in zip(bits, noise, strict=True)]


def _unpacking(count: int, mask: bytes) -> Decode:
    frame, schema = _one_mask(PACKING, 0, count, mask)
    return Decode(frame=frame, schema=schema)


def _one_mask(v: Vector, stream: int, count: int, mask: bytes) -> tuple[bytes, bytes]:
    """A frame whose last tensor has this mask, and its schema; empty tensors before it give the stream."""
    before = tuple(oracle.Tensor(f"empty {i}", False, oracle.FLOAT32, (0,)) for i in range(stream))
    schema = (*before, oracle.Tensor("w", True, oracle.FLOAT32, (count,)))
    scale = oracle.f32_from_bits(number(v["scale"]))
    kind = MaskKind.of(v["kind"], "kind")
    right = oracle.Content(bytes(len(mask)), kind, DISTRIBUTIONS[v["distribution"]], scale)
    contents = (*(oracle.Content(b"") for _ in before), right)
    frame = oracle.encode(oracle.Frame(number(v["seed"]), 0, 0, schema, contents))
    body = frame[: len(frame) - 4 - len(mask)] + mask
    return body + struct.pack("<I", zlib.crc32(body)), oracle.schema_bytes(schema)


def digests() -> Iterator[Case]:
    """`schema.json`, and the schemas of `invalid.json` given by the caller (spec 5, 7.3)."""
    for v in load("schema"):
        request = Digest(schema=bytes.fromhex(v["bytes"]))
        yield case(v, request, {"digest": bytes.fromhex(v["digest"])})
    for v in load("invalid"):
        (number,) = v["spec"]
        frame = bytes.fromhex(v["frame"])
        if number in SCHEMA_CHECKS:
            length = int.from_bytes(frame[48:52], "little")
            yield case(v, Digest(schema=frame[52 : 52 + length]), Refused(v["code"], number))


def frames() -> Iterator[Case]:
    """`frames.json`, read (spec 6)."""
    for v in load("frames"):
        schema = bytes.fromhex(v["schema_bytes"]) if v["caller_has_schema"] else None
        request = Decode(frame=bytes.fromhex(v["frame"]), schema=schema, **_options(v))
        yield case(v, request, {"tensors": all_bytes(v["decoded"])})


def refusals() -> Iterator[Case]:
    """`invalid.json` (spec 7)."""
    for v in load("invalid"):
        raw = None if v["schema"] is None else schema(v)
        request = Decode(frame=bytes.fromhex(v["frame"]), schema=raw, **_options(v))
        yield case(v, request, Refused(v["code"], v["spec"][0]))


def samples() -> Iterator[Case]:
    """`bits.json`: sampling, and the packing of what was sampled (spec 4.1, 4.3)."""
    for v in load("bits"):
        if v["op"] == "sample":
            stream, count = number(v["stream"]), v["count"]
            private = number(v.get("private_seed", 0))
            words = (oracle.philox_word(private, stream, i) for i in range(count))
            draws = v["r"] if "r" in v else [word >> 8 for word in words]
            request = _sampling(v, stream, bytes.fromhex(v["update"]), draws)
            yield case(v, request, {"mask": bytes.fromhex(v["mask"])})
        elif v["op"] == "pack":
            bits = [int(bit) for bit in v["bits"]]
            update = struct.pack(f"<{len(bits)}f", *_signs(bits))  # p is 1 or -1: r does not matter
            request = _sampling(PACKING, 0, update, [2**23] * len(bits))
            yield case(v, request, {"mask": bytes.fromhex(v["mask"])})


def _sampling(v: Vector, stream: int, update: bytes, draws: list[int]) -> Sample:
    return Sample(
        kind=v["kind"],
        distribution=v["distribution"],
        scale=number(v["scale"]),
        seed=number(v["seed"]),
        stream=stream,
        update=update,
        draws=struct.pack(f"<{len(draws)}I", *draws),
    )


def encodings() -> Iterator[Case]:
    """`frames.json`, written (spec 6)."""
    for v in load("frames"):
        request = Encode(
            schema=bytes.fromhex(v["schema_bytes"]),
            seed=number(v["seed"]),
            base_model=number(v["base_model"]),
            round=number(v["round"]),
            embed_schema=v["embed_schema"],
            tensors=tuple(map(_part, v["tensors"])),
        )
        yield case(v, request, {"frame": bytes.fromhex(v["frame"])})


def means() -> Iterator[Case]:
    """`aggregate.json`: means and merges (spec 8)."""
    for v in load("aggregate"):
        raw = schema(v)
        if v["op"] == "mean":
            given = {name: number(v.get(name, 0)) for name in ("round", "base_model")}
            weights = tuple(map(number, v["weights"]))
            request: Request = Aggregate(schema=raw, frames=all_bytes(v["frames"]), weights=weights, **given)
        else:
            parts = v["parts"] if v["op"] == "merge" else [v["partial"]]
            request = Merge(schema=raw, partials=all_bytes(parts))
        if v["result"] == "invalid":
            yield case(v, request, Refused(v["code"], v["spec"][0]))
            continue
        partial = bytes.fromhex(v["merged" if v["op"] == "merge" else "partial"])
        sums: Outcome = {"mean": all_bytes(v["mean"]), "partial": partial}
        yield case(v, request, sums)
        if v["op"] == "mean":
            yield case(v, Merge(schema=raw, partials=(partial,)), sums)


def bad_partials() -> Iterator[Case]:
    """`partials_invalid.json` (spec 8.5)."""
    for v in load("partials_invalid"):
        request = Merge(schema=schema(v), partials=(bytes.fromhex(v["partial"]),))
        yield case(v, request, Refused(v["code"], v["spec"][0]))


def case(v: Vector, request: Request, expected: Outcome) -> Case:
    """The check of one request of a vector."""
    return Case(f"{v['id']}:{request.op}", _musts(v), ((request, expected),))


def _musts(v: Vector) -> tuple[str, ...]:
    """What the vector is about: numbered MUSTs first, then sections."""
    return tuple(sorted(v["spec"], key=lambda name: name[0].isdigit()))


def number(value: int | str) -> int:
    """A number of a vector."""
    return int(value, 0) if isinstance(value, str) else value


def all_bytes(texts: list[str]) -> tuple[bytes, ...]:
    """The bytes of hexadecimal texts."""
    return tuple(map(bytes.fromhex, texts))


def _place(v: Vector) -> dict[str, int]:
    return {name: number(v[name]) for name in ("seed", "stream", "start", "count")}


def _options(v: Vector) -> dict[str, Any]:
    return {name: number(value) for name, value in v["options"].items()}


def schema(v: Vector) -> bytes:
    """The bytes of a vector's schema."""
    return oracle.schema_bytes(
        tuple(
            oracle.Tensor(
                t["name"], t["role"] == "masked", DTYPE_CODES[t["dtype"]], tuple(map(number, t["shape"]))
            )
            for t in v["schema"]
        )
    )


def _part(line: Vector) -> Part:
    payload = bytes.fromhex(line["payload"])
    if line["kind"] == "dense":
        return Part(kind="dense", payload=payload, coding=line.get("coding", "raw"))
    return Part(
        kind=line["kind"],
        payload=payload,
        coding=line.get("coding", "raw"),
        distribution=line.get("distribution"),
        scale=number(line["scale"]),
    )

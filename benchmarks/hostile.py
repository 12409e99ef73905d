"""What a frame costs that is refused, beside an honest one of its length: CPU time, and memory at the peak.

The frames are all invalid test vectors, and frames that are made to cost much: each damaged where a reader
finds it last, with an embedded schema of many tensors, elements of all exponents, or payloads that decode to
much more than they are. The honest frame has the same schema, codings and length, but for the damage.
"""

from __future__ import annotations

import json
import statistics
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import fedmrn_codec as fm

from .plan import Plan
from .tables import Section, Table, Target, number

VECTORS = Path(__file__).parents[1] / "spec" / "vectors" / "invalid.json"
NOISE = fm.Bernoulli(0.01)
SLACK = 2**14
"""Bytes that a refusal may take in any case: an error, its text and its traceback."""

FLAGS, SCHEMA = 6, 48
"""The offsets of the byte whose bit 0 says that a schema follows, and of that schema (spec 6.2, 6.3)."""

MOST_TIME, MOST_MEMORY = 3, 2
"""The targets, as multiples of an honest frame."""

Check = Callable[[], object]


@dataclass(frozen=True)
class Attack:
    """A check of a hostile frame, and that of an honest one.

    Attributes
    ----------
    size : int
        The bytes of the hostile frame.
    """

    name: str
    size: int
    refused: Check
    honest: Check


def refusal(call: Check) -> str:
    """The code with which a call refuses a frame; empty if it accepts it."""
    try:
        call()
    except fm.FrameError as error:
        return error.code
    return ""


def cpu(call: Check, least: float) -> float:
    """CPU seconds of one call, by all threads of this process; it is repeated for at least so many."""
    times, begin = 0, time.process_time()
    while True:
        with suppress(fm.FrameError):
            call()
        times += 1
        if (spent := time.process_time() - begin) >= least:
            return spent / times


def peak(call: Check) -> int:
    """The most bytes that a call held at once; the first call, which imports and compiles, is not counted."""
    refusal(call)
    tracemalloc.start()
    try:
        with suppress(fm.FrameError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def time_ratio(attack: Attack, rounds: int, least: float = 2e-3) -> float:
    """The CPU time of the refusal, in that of the honest check: the median over rounds of both.

    BLAS has one thread: its others would be counted while they wait for work, whatever the frame is.
    """
    with threadpool_limits(1, "blas"):
        for call in (attack.refused, attack.honest):
            cpu(call, 0)
        pairs = ((cpu(attack.refused, least), cpu(attack.honest, least)) for _ in range(rounds))
        return statistics.median(refused / honest for refused, honest in pairs)


def memory_ratio(attack: Attack) -> float:
    """The same of the memory; what both need at least is left out."""
    return max(peak(attack.refused) - SLACK, 0) / max(peak(attack.honest), SLACK)


def resealed(frame: bytes, offset: int = 0, new: bytes = b"") -> bytes:
    """The frame with some bytes replaced, and a checksum that is right."""
    body = frame[:offset] + new + frame[offset + len(new) : -4]
    return body + zlib.crc32(body).to_bytes(4, "little")


def constructed(size: int) -> Iterator[Attack]:
    """Frames that are made to cost much, for a model of this many elements."""
    schema = fm.Schema([fm.Tensor("w", (size,), masked=True), fm.Tensor("d", (size // 8,), dtype="float64")])
    bits, exponents = np.arange(size) % 50 == 0, np.arange(size // 8) % 1000 - 700
    dense = {"d": np.ldexp(1.0, exponents)}
    policy = fm.Policy(
        schema=schema,
        noise=NOISE,
        round=1,
        base_model=0,
        seeds={1: 3},
        max_weight=1,
        codings=["raw", "rans", "rans12"],
        max_norm=1e150,
    )
    for coding in ("raw", "rans", "rans12"):
        options = {"seed": 3, "noise": NOISE, "round": 1, "coding": coding}
        frame = fm.encode_bits({"w": bits}, schema, dense=dense, **options)
        end = len(frame) - 4
        entry = fm.inspect(frame, schema).tensors[0]
        for name, bad in (
            ("an element is NaN, the last one", resealed(frame, end - 8, np.float64(np.nan).tobytes())),
            ("the checksum is wrong", frame[:-1] + bytes([frame[-1] ^ 1])),
            ("the norm is too large", resealed(frame, end - 8, np.float64(1e151).tobytes())),
            ("the mask's last bytes", resealed(frame, entry.offset + entry.length - 2, b"\xff\xff")),
        ):
            calls = (partial(policy.check, data, client=1, weight=1) for data in (bad, frame))
            if coding == "raw" and name.startswith("the mask"):
                continue  # every bit of a raw mask is allowed
            yield Attack(f"{coding}: {name}", len(bad), *calls)
    yield from embedded(size)


def embedded(size: int) -> Iterator[Attack]:
    """Frames whose schema is most of them."""
    many = fm.Schema(fm.Tensor(f"{i:x}", (), dtype="bool") for i in range(min(size // 16, 2**16)))
    update = {tensor.name: np.zeros((), bool) for tensor in many}
    frame = fm.encode(update, many, seed=1, noise={}, mask={}, embed_schema=True)
    digest = resealed(frame, 32, bytes(16))
    yield Attack(
        "schema of many tensors: another digest",
        len(frame),
        partial(fm.verify, digest),
        partial(fm.verify, frame),
    )
    last = resealed(frame, len(frame) - 5, b"\2")
    yield Attack(
        "schema of many tensors: the last bool",
        len(frame),
        partial(fm.verify, last),
        partial(fm.verify, frame),
    )


def vectors() -> Iterator[Attack]:
    """The invalid test vectors, beside a valid frame of their schema that is at least as long."""
    for case in json.loads(VECTORS.read_text())["cases"]:
        frame, options = bytes.fromhex(case["frame"]), case["options"]
        expected = {k: _number(v) for k, v in options.items() if not k.startswith("max_")}
        limits = fm.Limits(**{k: _number(v) for k, v in options.items() if k.startswith("max_")})
        schema = None if case["schema"] is None else _schema(case["schema"])
        refused = partial(fm.verify, frame, schema, limits=limits, **expected)
        yield Attack(case["id"], len(frame), refused, _honest(schema, frame))


def _honest(schema: fm.Schema | None, hostile: bytes) -> Check:
    """The check of a frame that is at least as long: the same tensors and codings, and one to fill it."""
    carried = bool(hostile[FLAGS : FLAGS + 1] and hostile[FLAGS] & 1)
    tensors: Iterable[fm.Tensor] = schema or []
    if schema is None and carried:
        length = int.from_bytes(hostile[SCHEMA : SCHEMA + 4], "little")
        with suppress(fm.FrameError):
            tensors = fm.Schema.from_bytes(hostile[SCHEMA + 4 : SCHEMA + 4 + length])
    own = [t for t in tensors if t.size < 2**17]
    filling = fm.Tensor("filling of the frame", (len(hostile),), dtype="uint8")
    whole = fm.Schema([*own, filling])
    update = {t.name: np.zeros(t.shape, t.type.numpy) for t in whole}
    entries: tuple[fm.Entry, ...] = ()
    with suppress(fm.FrameError):
        entries = fm.inspect(hostile, schema).tensors
    embedded = {"embed_schema": schema is None or carried}
    if any(entry.kind == "grid" for entry in entries):
        frame = fm.encode_grid(update, whole, step=1.0, **embedded)
    else:
        coding = next((entry.coding for entry in entries if entry.coding in ("rans", "rans12")), "raw")
        bits = {t.name: np.arange(t.size).reshape(t.shape) % 50 == 0 for t in own if t.masked}
        dense = {t.name: update[t.name] for t in whole if not t.masked}
        frame = fm.encode_bits(bits, whole, dense=dense, seed=1, noise=NOISE, coding=coding, **embedded)
    return partial(fm.verify, frame, None if schema is None else whole)


def _schema(entries: list[dict[str, Any]]) -> fm.Schema:
    shapes = [tuple(map(_number, entry["shape"])) for entry in entries]
    pairs = zip(entries, shapes, strict=True)
    return fm.Schema(fm.Tensor(e["name"], shape, e["role"] == "masked", e["dtype"]) for e, shape in pairs)


def _number(value: int | str) -> int:
    return int(value, 0) if isinstance(value, str) else value


def run(plan: Plan) -> Section:
    """A table of the frames that are made to cost much, and of the vectors that cost most."""
    rows, times, memory = [], [], []
    worst: tuple[float, Attack] | None = None
    for attack in constructed(plan.size // 16):
        times.append(time_ratio(attack, plan.rounds))
        memory.append(memory_ratio(attack))
        rows.append([attack.name, f"{attack.size:,}", number(times[-1]), number(memory[-1])])
    tried = list(vectors())
    for attack in tried:
        ratio = time_ratio(attack, min(plan.rounds, 3), least=5e-4)
        memory.append(memory_ratio(attack))
        if worst is None or ratio > worst[0]:
            worst = ratio, attack
    assert worst is not None
    times.append(worst[0])
    label = f"{len(tried)} vectors; the most time: {worst[1].name}"
    rows.append([label, f"{worst[1].size:,}", number(worst[0]), number(max(memory[-len(tried) :]))])
    title = "Refused frames, in the costs of an honest frame of the same length"
    table = Table(title, ("refused for", "bytes", "CPU time", "memory"), rows)
    return Section(
        [table],
        [
            Target(
                "refused frames: CPU time of an honest one, at most", max(times), MOST_TIME, at_least=False
            ),
            Target(
                "refused frames: memory of an honest one, at most", max(memory), MOST_MEMORY, at_least=False
            ),
        ],
    )

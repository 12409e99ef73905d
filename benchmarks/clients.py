"""Summing the frames of many clients: exactly, or decoded and added in float32; and checking them before."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

import fedmrn_codec as fm

from .frames import BACKEND, NOISE, SEED, float32_bytes, made_frame, schema_of
from .plan import Plan, every_thread
from .tables import Section, Table, Target, number
from .timing import Timings, Work, adding, measure

DECODED, EXACT, DENSE = "decode each, add in float32", "Aggregator.add_many", "float32 updates, added"
ALIKE = f"{EXACT}, equal weights"
WEIGHT = 600
"""The weight of the first client."""
MASKS = 8
"""The number of different masks. Seeds differ from frame to frame; the time does not depend on the bits."""


def run(plan: Plan) -> Section:
    """Time by number of clients, for whole frames and for masks alone; and the acceptance targets."""
    schema = schema_of(plan.model)
    masked = fm.Schema(tensor for tensor in schema if tensor.masked)
    (whole, timings), (alone, _) = (
        by_count(schema, "whole frames", plan),
        by_count(masked, "masks alone", plan),
    )
    name = f"{plan.clients[-1]} {plan.model.upper()} frames: time of '{DECODED}'"
    target = Target(name, timings.ratio(EXACT, DECODED), 0.6, at_least=False)
    return Section([whole, alone], [target, check_then_add(plan)])


def check_then_add(plan: Plan) -> Target:
    """Compare `Request.check` followed by `Aggregator.add` with `add` alone, for a frame of coding 1."""
    frame = made_frame(plan.model, coding="rans")
    request = fm.Request(SEED, NOISE, "binary", 0, 0, schema_of(plan.model))
    first, second = request.aggregator(), request.aggregator()
    works = {
        "check, add": adding(lambda: first.add(request.check(frame), WEIGHT)),
        "add": adding(lambda: second.add(frame, WEIGHT)),
    }
    ratio = measure(works, plan.rounds, plan.limit).ratio("check, add", "add")
    name = f"'check' followed by 'add' of a coded {plan.model.upper()} frame: time of 'add' alone"
    return Target(name, ratio, 1.1, at_least=False)


def by_count(schema: fm.Schema, what: str, plan: Plan) -> tuple[Table, Timings]:
    """A table by number of clients, and the times for the largest number."""
    frames = list(itertools.islice(endless_frames(schema), plan.clients[-1]))
    rows: dict[str, list[str]] = {}
    for count in plan.clients:
        timings = measure(works(schema, frames[:count]), plan.rounds, plan.limit)
        for name in timings.seconds:
            rows.setdefault(name, [name]).append(number(timings.ratio(name, DECODED)))
        rows.setdefault("ms", [f"{DECODED}, ms"]).append(number(1e3 * timings.median(DECODED)))
    title = f"Time to sum the frames of so many clients, relative to '{DECODED}': {what}"
    masked = sum(tensor.size for tensor in schema if tensor.masked)
    notes = [f"{plan.model.upper()}, {masked:,} masked elements; one thread unless stated; includes the mean"]
    return Table(title, ("clients", *map(str, plan.clients)), list(rows.values()), notes), timings


def works(schema: fm.Schema, frames: Sequence[bytes]) -> dict[str, Work]:
    """The ways to compute the mean."""
    dense = np.zeros(float32_bytes(schema) // 4, np.float32)
    weights, alike = weights_of(len(frames)), [WEIGHT] * len(frames)
    out = {
        DECODED: Work(lambda: sum_decoded(schema, frames, weights), 1),
        EXACT: Work(lambda: sum_exactly(schema, frames, weights), 1),
        ALIKE: Work(lambda: sum_exactly(schema, frames, alike), 1),
        DENSE: Work(lambda: sum_dense(dense, len(frames)), 1),
    }
    if every_thread() > 1:
        out[f"{EXACT}, all threads"] = Work(lambda: sum_exactly(schema, frames, weights), every_thread())
    return out


def weights_of(count: int) -> range:
    """Weights that all differ, like numbers of samples."""
    return range(WEIGHT, WEIGHT + count)


def endless_frames(schema: fm.Schema) -> Iterator[bytes]:
    """Frames of random binary masks, each with a different seed."""
    rng = np.random.default_rng(0)
    masks = [
        {t.name: rng.integers(0, 2, t.shape, np.uint8) != 0 for t in schema if t.masked} for _ in range(MASKS)
    ]
    dense = {
        t.name: rng.normal(0, 0.01, t.shape).astype(t.dtype)
        if "float" in t.dtype
        else np.ones(t.shape, t.dtype)
        for t in schema
        if not t.masked
    }
    for seed in itertools.count():
        yield fm.encode_bits(masks[seed % MASKS], schema, seed=seed, noise=NOISE, dense=dense)


def sum_exactly(schema: fm.Schema, frames: Iterable[bytes], weights: Iterable[int]) -> dict[str, np.ndarray]:
    """Sum the frames as the codec does."""
    server = fm.Aggregator(schema, noise=NOISE, backend=BACKEND)
    server.add_many(frames, weights)
    return server.mean()


def sum_decoded(schema: fm.Schema, frames: Iterable[bytes], weights: Iterable[int]) -> dict[str, np.ndarray]:
    """Sum as with any codec of single updates: decode, multiply by the weight, add; divide at the end."""
    sums = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in schema}
    total = 0
    for frame, weight in zip(frames, weights, strict=True):
        for name, array in fm.decode(frame, schema, backend=BACKEND).items():
            values = array if array.dtype == np.float32 else array.astype(np.float32)
            values *= np.float32(weight)
            sums[name] += values
        total += weight
    return {name: values / np.float32(total) for name, values in sums.items()}


def sum_dense(update: np.ndarray, count: int) -> np.ndarray:
    """Sum without a codec: the updates arrive as float32."""
    sums = np.zeros_like(update)
    for _ in range(count):
        sums += update * np.float32(WEIGHT)
    sums /= np.float32(WEIGHT * count)
    return sums

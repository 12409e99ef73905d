"""What a server does with the frames of many clients: sums them exactly, or adds decoded ones in float32."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

import fedmrn_codec as fm

from .models import NOISE, float32_bytes, schema_of
from .plan import Plan, every_thread
from .tables import Section, Table, Target, number
from .timing import Timings, Work, measure

DECODED, EXACT, DENSE = "decode each, add in float32", "Aggregator.add_many", "float32 updates, added"
ALIKE = f"{EXACT}, equal weights"
WEIGHT = 600
"""Of the first client."""
MASKS = 8
"""Different masks; the seeds differ from frame to frame, and time does not depend on the bits."""


def run(plan: Plan) -> Section:
    """Time by number of clients, of whole frames and of masks alone, and the line of acceptance."""
    schema = schema_of(plan.model)
    masked = fm.Schema(tensor for tensor in schema if tensor.masked)
    (whole, timings), (alone, _) = (
        by_count(schema, "whole frames", plan),
        by_count(masked, "masks alone", plan),
    )
    name = f"{plan.clients[-1]} {plan.model.upper()} frames: time of '{DECODED}'"
    target = Target(name, timings.ratio(EXACT, DECODED), 0.6, at_least=False)
    return Section([whole, alone], [target])


def by_count(schema: fm.Schema, what: str, plan: Plan) -> tuple[Table, Timings]:
    """A table by number of clients, and the times at the largest number."""
    frames = list(itertools.islice(endless_frames(schema), plan.clients[-1]))
    rows: dict[str, list[str]] = {}
    for count in plan.clients:
        timings = measure(works(schema, frames[:count]), plan.rounds, plan.limit)
        for name in timings.seconds:
            rows.setdefault(name, [name]).append(number(timings.ratio(name, DECODED)))
        rows.setdefault("ms", [f"{DECODED}, ms"]).append(number(1e3 * timings.median(DECODED)))
    title = f"Time to sum so many clients' frames, of '{DECODED}' = 1: {what}"
    masked = sum(tensor.size for tensor in schema if tensor.masked)
    notes = [
        f"{plan.model.upper()}, {masked:,} masked elements; one thread unless all are named; with the mean"
    ]
    return Table(title, ("clients", *map(str, plan.clients)), list(rows.values()), notes), timings


def works(schema: fm.Schema, frames: Sequence[bytes]) -> dict[str, Work]:
    """The ways to a mean."""
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
    """Weights that all differ, as numbers of samples do."""
    return range(WEIGHT, WEIGHT + count)


def endless_frames(schema: fm.Schema) -> Iterator[bytes]:
    """Frames of random binary masks, each with another seed."""
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
    """The codec's own way."""
    server = fm.Aggregator(schema, noise=NOISE)
    server.add_many(frames, weights)
    return server.mean()


def sum_decoded(schema: fm.Schema, frames: Iterable[bytes], weights: Iterable[int]) -> dict[str, np.ndarray]:
    """As with any codec of single updates: decode, multiply by the weight, add; divide at the end."""
    sums = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in schema}
    total = 0
    for frame, weight in zip(frames, weights, strict=True):
        for name, array in fm.decode(frame, schema).items():
            values = array if array.dtype == np.float32 else array.astype(np.float32)
            values *= np.float32(weight)
            sums[name] += values
        total += weight
    return {name: values / np.float32(total) for name, values in sums.items()}


def sum_dense(update: np.ndarray, count: int) -> np.ndarray:
    """With no codec: the updates come as float32."""
    sums = np.zeros_like(update)
    for _ in range(count):
        sums += update * np.float32(WEIGHT)
    sums /= np.float32(WEIGHT * count)
    return sums

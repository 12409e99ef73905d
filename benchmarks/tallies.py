"""Tallies: adding one beside adding its frames, and the packing of counts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec import backends

from .frames import BACKEND, SEED, schema_of
from .plan import Plan
from .tables import Section, Table, number
from .timing import Work, measure

NOISE = fm.Bernoulli(0.01)
FRAMES, TALLY, COUNTING = (
    "Aggregator.add of each frame",
    "Aggregator.add_tally of their tally",
    "Tally.add of each frame",
)
BITS = 1, 4, 7, 10
"""Bits of a count: of 1, 15, 127 and 1,023 frames at most."""


def run(plan: Plan) -> Section:
    """Time by number of frames, and the speed of packing by bits of a count."""
    return Section([by_count(plan), packing(plan)], [])


def by_count(plan: Plan) -> Table:
    """Adding the bytes of a tally, and making it, relative to adding its frames."""
    schema = schema_of(plan.model)
    frames = frames_of_one_seed(schema, plan.clients[-1])
    rows: dict[str, list[str]] = {}
    for count in plan.clients:
        data = tally_of(schema, frames[:count]).to_bytes()
        timings = measure(works(schema, frames[:count], data), plan.rounds, plan.limit)
        for name in timings.seconds:
            rows.setdefault(name, [name]).append(number(timings.ratio(name, FRAMES)))
        rows.setdefault("ms", [f"{FRAMES}, ms"]).append(number(1e3 * timings.median(FRAMES)))
        share = len(data) / sum(map(len, frames[:count]))
        rows.setdefault("bytes", ["bytes of the tally, of those of its frames"]).append(number(share))
    title = f"Time to add frames of one seed, relative to '{FRAMES}'"
    masked = sum(tensor.size for tensor in schema if tensor.masked)
    what = f"{plan.model.upper()}, {masked:,} masked elements, signed Bernoulli masks"
    notes = [f"{what}; one thread; without the mean"]
    return Table(title, ("frames", *map(str, plan.clients)), list(rows.values()), notes)


def works(schema: fm.Schema, frames: Sequence[bytes], data: bytes) -> dict[str, Work]:
    """The ways to add frames of one seed."""

    def each() -> bytes:
        server = fm.Aggregator(schema, noise=NOISE, backend=BACKEND)
        for frame in frames:
            server.add(frame, 1)
        return server.to_bytes()

    def tallied() -> bytes:
        server = fm.Aggregator(schema, noise=NOISE, backend=BACKEND)
        server.add_tally(data)
        return server.to_bytes()

    if each() != tallied():
        raise AssertionError("a tally has other sums than its frames")
    return {
        FRAMES: Work(each, 1),
        TALLY: Work(tallied, 1),
        COUNTING: Work(lambda: tally_of(schema, frames), 1),
    }


def tally_of(schema: fm.Schema, frames: Sequence[bytes]) -> fm.Tally:
    """The tally of frames of weight 1."""
    tally = fm.Tally(schema, noise=NOISE, backend=BACKEND)
    for frame in frames:
        tally.add(frame)
    return tally


def frames_of_one_seed(schema: fm.Schema, count: int) -> list[bytes]:
    """Frames of random signed masks, of eight different updates."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(min(count, 8)):
        bits = {t.name: rng.integers(0, 2, t.shape, np.uint8) != 0 for t in schema if t.masked}
        dense = {t.name: np.ones(t.shape, t.dtype) for t in schema if not t.masked}
        made.append(fm.encode_bits(bits, schema, seed=SEED, noise=NOISE, mask="signed", dense=dense))
    return list(itertools.islice(itertools.cycle(made), count))


def packing(plan: Plan) -> Table:
    """Packing and unpacking of counts, in millions of counts a second."""
    rows = {"pack": ["pack"], "unpack": ["unpack"]}
    for bits in BITS:
        timings = measure(packing_works(plan.size, bits), plan.rounds, plan.limit)
        for name, row in rows.items():
            row.append(number(plan.size / timings.median(name) / 1e6))
    title = f"Packing of {plan.size:,} counts, in millions a second"
    return Table(title, ("bits of a count", *map(str, BITS)), list(rows.values()), ["one thread"])


def packing_works(size: int, bits: int) -> dict[str, Work]:
    """Packing and unpacking as many random counts."""
    packer = backends.count_packer(BACKEND)
    counts = np.random.default_rng(0).integers(0, 2**bits, size).astype(np.min_scalar_type(2**bits - 1))
    payload, out = packer.pack(counts, bits), np.empty_like(counts)
    return {
        "pack": Work(lambda: packer.pack(counts, bits), 1),
        "unpack": Work(lambda: packer.unpack(payload, bits, out), 1),
    }

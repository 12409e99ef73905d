"""The server's model on its way to the clients: a round stage by stage, and the coding of grids.

A stage is timed beside a copy of the model in memory and beside zstd-3 of the float32 difference of two
versions. `python -m benchmarks.downlink SIZE` prints the peak memory of the stages of a server.
"""

from __future__ import annotations

import copy
import itertools
import sys
from dataclasses import dataclass

import numpy as np
import zstandard

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.format import rans14

from .memory import peaks_of
from .peak import MIB, growth
from .plan import Plan
from .tables import Section, Table, Target, number
from .timing import Work, measure

SPREAD, CHANGE = 0.05, 0.001
"""The standard deviations of the weights, and of what a round changes."""

MISSED = 10
"""Rounds that the client of the second frame has missed."""

COPY, ZSTD = "copy of the model", "zstd-3 of the float32 difference"
SUM, MEAN, ADVANCE = "sum of one frame of masks", "mean", "advance: round, id, frame for the last version"
FRAME, APPLY = f"frame for a client that missed {MISSED} rounds", "client: apply the frame of one round"

SCALES = 0.15, 0.2, 0.3, 0.5, 1.0, 3.0, 10.0, 30.0
"""Of the Laplace distribution that integers are rounded from."""

FAST, SPARSE = 1e8, 0.2
"""The elements a second and the least entropy, in bits an element, of the targets."""


@dataclass(frozen=True)
class Round:
    """A server after some rounds: its own model, and one frame of masks for the next mean."""

    schema: fm.Schema
    server: np.ndarray
    down: fm.Downlink
    masks: bytes

    @classmethod
    def after(cls, rounds: int, size: int) -> Round:
        """The state after so many rounds."""
        schema = fm.Schema([fm.Tensor("w", (size,), masked=True)])
        rng = np.random.default_rng(7)
        server = rng.standard_normal(size, np.float32) * np.float32(SPREAD)
        down = fm.Downlink(schema, {"w": server})
        for _ in range(rounds):
            server = changed(server, rng)
            down.advance({"w": server})
        update = {"w": rng.standard_normal(size, np.float32) * np.float32(CHANGE)}
        masks = fm.encode(update, schema, seed=1, noise=fm.Bernoulli(8 * CHANGE), coding="rans12")
        return cls(schema, server, down, masks)


def changed(server: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The server's model one round later."""
    change: np.ndarray = rng.standard_normal(len(server), np.float32) * np.float32(CHANGE)
    return server + change


def run(plan: Plan) -> Section:
    """Both tables, and the targets."""
    stages, mean = stage_table(max(plan.size, plan.sizes[-1]), plan)
    codings, overhead, speed = coding_table(plan)
    targets = [
        Target("the mean: times as long as a copy of the model", mean, 4, at_least=False),
        Target(
            f"rans14: bits, of the entropy, largest from {SPARSE} bits on", overhead, 1.015, at_least=False
        ),
        Target("rans14: M elements/s decoded on one thread, least", speed / 1e6, FAST / 1e6),
    ]
    return Section([stages, codings], targets)


def stage_table(size: int, plan: Plan) -> tuple[Table, float]:
    """The stages of a round as ratios, and the ratio of the mean to a copy."""
    state = Round.after(MISSED + 1, size)
    down, total = state.down, fm.Aggregator(state.schema, noise=fm.Bernoulli(8 * CHANGE))
    total.add(state.masks, 1)
    moving = fm.Downlink.from_bytes(down.to_bytes(), state.schema)
    servers = [changed(state.server, np.random.default_rng(8)), state.server]
    client, frames = fm.Replica(state.schema), []
    client.apply(moving.frame())
    for server in servers:  # there and back
        before = moving.model_id
        moving.advance({"w": server})
        frames.append(moving.frame(before))
    old, target = moving.model["w"], np.empty(size, np.float32)
    difference = (servers[0] - old).tobytes()
    compressor = zstandard.ZstdCompressor(3)
    turns = {ADVANCE: itertools.cycle(servers), APPLY: itertools.cycle(frames)}

    works = {
        COPY: Work(lambda: np.copyto(target, old)),
        ZSTD: Work(lambda: compressor.compress(difference)),
        SUM: Work(lambda: total.add(state.masks, 1)),
        MEAN: Work(total.mean),
        ADVANCE: Work(lambda: moving.advance({"w": next(turns[ADVANCE])})),
        FRAME: Work(lambda: fresh(down).frame(down.versions[-MISSED])),
        APPLY: Work(lambda: client.apply(next(turns[APPLY]))),
    }
    times = measure(works, plan.rounds, plan.limit)
    sizes = {
        ZSTD: len(compressor.compress(difference)),
        SUM: len(state.masks),
        ADVANCE: len(frames[0]),
        FRAME: len(down.frame(down.versions[-MISSED])),
        APPLY: len(frames[0]),
    }
    peaks = dict(
        zip((SUM, MEAN, ADVANCE, FRAME), peaks_of(str(size), module="benchmarks.downlink"), strict=True)
    )
    rows = [
        [
            name,
            number(times.ratio(name, COPY)),
            f"{times.ratio(name, ZSTD):.2f}",
            f"{8 * sizes[name] / size:.2f}" if name in sizes else "",
            f"{peaks[name] / (4 * size):.1f}" if name in peaks else "",
        ]
        for name in works
    ]
    heads = ("stage", "time, copies of the model", "of zstd-3", "bits a parameter", "peak memory, models")
    notes = [f"a model of {4 * size / MIB:.0f} MiB; server and client in one process, all threads"]
    return Table(f"A round for {size:,} parameters", heads, rows, notes), times.ratio(MEAN, COPY)


def fresh(down: fm.Downlink) -> fm.Downlink:
    """A downlink of the same state that has made no frame yet."""
    out = copy.copy(down)
    out._frames = {}
    return out


def coding_table(plan: Plan) -> tuple[Table, float, float]:
    """The coding at several entropies; its largest overhead, and its least speed, where the targets hold."""
    size = min(2**22, plan.size)
    coder, rows, overheads, speeds = backends.grid_coder("numba"), [], [], []
    for scale in SCALES:
        z = np.rint(np.random.default_rng(3).laplace(0, scale, size)).astype(np.int32)
        _, counts = np.unique(z, return_counts=True)
        entropy = float((counts * np.log2(size / counts)).sum())
        payload = rans14.encode(coder, z)
        assert payload is not None
        raw = z.tobytes()
        packed = zstandard.ZstdCompressor(3).compress(raw)
        works = {
            "rans14": Work(lambda p=payload: rans14.decode(coder, p, size, "'w'", 0), 1),  # type: ignore[misc]
            "encode": Work(lambda z=z: rans14.encode(coder, z), 1),  # type: ignore[misc]
            "zstd": Work(lambda p=packed: zstandard.ZstdDecompressor().decompress(p), 1),  # type: ignore[misc]
        }
        times = measure(works, plan.rounds, plan.limit / 20)
        speed = {name: size / times.median(name) for name in works}
        overhead = 8 * len(payload) / entropy
        if entropy >= SPARSE * size:
            overheads.append(overhead)
            speeds.append(speed["rans14"])
        cells = f"{entropy / size:.3f}", f"{100 * (overhead - 1):.2f} %", f"{8 * len(packed) / size:.2f}"
        rows.append([f"{scale:g}", *cells, *(number(speed[name] / 1e6) for name in works)])
    heads = (
        *("scale", "entropy, bits", "rans14: overhead", "zstd-3, bits"),
        *("rans14: decoded, M elements/s", "encoded", "zstd-3: decoded"),
    )
    notes = [f"{size:,} integers, rounded from a Laplace distribution of this scale; one thread"]
    return Table("Coding of grids", heads, rows, notes), max(overheads), min(speeds)


def main(size: int) -> None:
    """Print the peak memory of each stage of the server, in bytes."""
    state = Round.after(MISSED + 1, size)
    total = fm.Aggregator(state.schema, noise=fm.Bernoulli(8 * CHANGE))
    server = changed(state.server, np.random.default_rng(8))
    print(growth(lambda: total.add(state.masks, 1)))
    print(growth(total.mean))
    print(growth(lambda: state.down.advance({"w": server})))
    print(growth(lambda: state.down.frame(state.down.versions[-MISSED])))


if __name__ == "__main__":
    main(int(sys.argv[1]))

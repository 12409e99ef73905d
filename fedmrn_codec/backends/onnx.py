"""The ONNX backend: ONNX Runtime runs the graphs of `onnx_graphs`, block by block.

A graph is built and loaded at its first use. `threads` distributes the blocks; ONNX Runtime uses one thread.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnxruntime

from ..primitives import mask
from ..primitives.noise import DISTRIBUTIONS, Noise
from . import numpy as plain
from . import onnx_graphs
from .threads import spread

BLOCK = 2**16
"""Elements of one call; a multiple of 8, so that a block begins with a whole byte of a mask."""

ERROR_AND_ABOVE = 3


def words(seed: int, stream: int, start: int, count: int) -> np.ndarray:
    out = np.empty(count, np.uint32)

    def work(begin: int, end: int) -> None:
        out[begin:end] = _run("words", None, None, seed, stream, start + begin, count=_i64(end - begin))

    spread(work, count, BLOCK)
    return out


def noise(noise: Noise, seed: int, stream: int, start: int, count: int) -> np.ndarray:
    out = np.empty(count, np.float32)

    def work(begin: int, end: int) -> None:
        place = seed, stream, start + begin
        out[begin:end] = _run("noise", noise, None, *place, count=_i64(end - begin), scale=_scale(noise))

    spread(work, count, BLOCK)
    return out


def decode(noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, out: np.ndarray) -> None:
    def work(begin: int, end: int) -> None:
        bits = payload[begin // 8 : (end + 7) // 8]
        inputs = {"count": _i64(end - begin), "scale": _scale(noise), "payload": bits}
        out[begin:end] = _run("decode", noise, kind, seed, stream, begin, **inputs)

    spread(work, len(out), BLOCK)


def accumulate(
    noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, weight: int, sums: np.ndarray
) -> None:
    def work(begin: int, end: int) -> None:
        bits, part = payload[begin // 8 : (end + 7) // 8], sums[begin:end]
        inputs = {"payload": bits, "weight": _i64(weight), "sums": part}
        part[:] = _run("accumulate", noise, kind, seed, stream, begin, **inputs)

    spread(work, len(sums), BLOCK)


def sample(
    noise: Noise, kind: int, seed: int, stream: int, update: np.ndarray, draws: int | np.ndarray
) -> np.ndarray:
    out = np.empty((len(update) + 7) // 8, np.uint8)

    def work(begin: int, end: int) -> None:
        inputs = {"update": update[begin:end], "scale": _scale(noise)}
        if isinstance(draws, int):
            operation, inputs["private_seed"] = "sample-seeded", _u64(draws)
        else:
            operation, inputs["draws"] = "sample", draws[begin:end].astype(np.uint32, copy=False)
        out[begin // 8 : (end + 7) // 8] = _run(operation, noise, kind, seed, stream, begin, **inputs)

    spread(work, len(update), BLOCK)
    return out


def decode_grid(integers: np.ndarray, step: np.float32, out: np.ndarray) -> None:
    session = _session("grid-decode", None, None)

    def work(begin: int, end: int) -> None:
        out[begin:end] = session.run(None, {"integers": integers[begin:end], "scale": np.asarray(step)})[0]

    spread(work, len(out), BLOCK)


def mean(sums: np.ndarray, total: int, step: np.float32, out: np.ndarray) -> None:
    plain.mean(sums, total, step, out)


def accumulate_grid(integers: np.ndarray, weight: int, sums: np.ndarray) -> None:
    session = _session("grid-accumulate", None, None)

    def work(begin: int, end: int) -> None:
        inputs = {"integers": integers[begin:end], "weight": _i64(weight), "sums": sums[begin:end]}
        sums[begin:end] = session.run(None, inputs)[0]

    spread(work, len(sums), BLOCK)


def accumulate_counts(
    noise: Noise,
    kind: int,
    seed: int,
    stream: int,
    counts: np.ndarray,
    frames: int,
    weight: int,
    sums: np.ndarray,
) -> None:
    def work(begin: int, end: int) -> None:
        factors, part = mask.factors(counts[begin:end], frames, kind), sums[begin:end]
        inputs = {"factors": factors, "weight": _i64(weight), "sums": part}
        part[:] = _run("accumulate-counts", noise, None, seed, stream, begin, **inputs)

    spread(work, len(sums), BLOCK)


def _run(
    operation: str,
    noise: Noise | None,
    kind: int | None,
    seed: int,
    stream: int,
    start: int,
    **inputs: np.ndarray,
) -> Any:
    """Run a graph and return its output."""
    session = _session(operation, None if noise is None else noise.code, kind)
    place = {"seed": _u64(seed), "stream": _u64(stream), "start": _u64(start)}
    return session.run(None, place | inputs)[0]


@cache
def _session(operation: str, code: int | None, kind: int | None) -> Any:
    """The loaded graph of an operation, distribution code and mask kind."""
    model = onnx_graphs.build(operation, None if code is None else DISTRIBUTIONS[code], kind)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options(), providers=["CPUExecutionProvider"]
    )


def options() -> Any:
    """The settings of a session: one thread, a log of errors only, all optimisations.

    The optimisations leave the float operations of these graphs unchanged, which `tests/backends` checks.
    """
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = chosen.inter_op_num_threads = 1
    chosen.log_severity_level = ERROR_AND_ABOVE
    return chosen


def _u64(value: int) -> np.ndarray:
    return np.array(value, np.uint64)


def _i64(value: int) -> np.ndarray:
    return np.array(value, np.int64)


def _scale(noise: Noise) -> np.ndarray:
    return np.array(noise.scale, np.float32)

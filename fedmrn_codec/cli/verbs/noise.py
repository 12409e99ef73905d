"""`fedmrn noise`: the noise of a stream, to compare another implementation with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated

import numpy as np

from ... import errors
from ...face import decoding
from ...primitives.noise import Noise, noise_text
from .. import files, options, tensors
from ..dense import Dense
from ..output import document, report
from ..tensors import TensorFile

CHUNK = 2**20
JSON_LIMIT = 2**20
"""The most values in a JSON document, which is built in memory."""


def noise(
    noise: options.Noisy,
    seed: Annotated[int, options.integer("--seed", 64, "The seed.")],
    stream: Annotated[int, options.integer("--stream", 64, "The tensor's position in the schema.")] = 0,
    start: Annotated[int, options.integer("--start", 64, "The position of the first element.")] = 0,
    count: Annotated[int, options.integer("--count", 64, "The number of elements.")] = 10,
    output: Annotated[
        str | None,
        options.output("Write the values to a file: .npz, .safetensors, or else raw little-endian float32."),
    ] = None,
    backend: options.Backend = None,
    as_json: options.Json = False,
) -> None:
    """Print the noise of a stream: position, value and float32 bits of each element."""
    if start + count > 2**64:
        raise errors.ArgumentError("--start plus --count", "at most 2^64", start + count)
    place = {
        "noise": noise_text(noise),
        "seed": seed,
        "stream": stream,
        "start": start,
        "count": count,
    }
    chunks = _chunks(noise, seed, stream, start, count, backend)
    if output is not None:
        files.check_output(output)
        _write(output, chunks)
        text = f"wrote {files.shown(output)}: {count:,} values"
        report(place | {"file": output}, text, as_json=as_json, beside_data=output == files.PIPE)
    elif as_json:
        if count > JSON_LIMIT:
            raise errors.ArgumentError(
                "--count", f"at most {JSON_LIMIT} with --json (no limit with -o)", count
            )
        values = np.concatenate([*chunks, np.empty(0, np.float32)])
        bits = [f"{word:08x}" for word in values.view(np.uint32).tolist()]
        document(place | {"values": values.tolist(), "bits": bits})
    else:
        _print(chunks, start)


def _chunks(
    noise: Noise, seed: int, stream: int, start: int, count: int, backend: str | None
) -> Iterator[np.ndarray]:
    for at in range(start, start + count, CHUNK):
        size = min(CHUNK, start + count - at)
        yield decoding.noise(noise, seed=seed, stream=stream, start=at, count=size, backend=backend)


def _print(chunks: Iterator[np.ndarray], element: int) -> None:
    for values in chunks:
        for value, bits in zip(values.tolist(), values.view(np.uint32).tolist(), strict=True):
            print(f"{element}\t{value:.9g}\t{bits:08x}")
            element += 1


def _write(output: str, chunks: Iterator[np.ndarray]) -> None:
    if os.path.splitext(output)[1].lower() in (".npz", ".safetensors"):
        values = np.concatenate([*chunks, np.empty(0, np.float32)])
        format = tensors.output_format(output)
        tensors.save(output, TensorFile({"noise": Dense("float32", values)}, format), format)
        return
    with files.writing(output) as file:
        for values in chunks:
            file.write(values.astype("<f4", copy=False).tobytes())

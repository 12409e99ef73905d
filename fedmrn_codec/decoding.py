"""Decode, inspect and verify: a frame to a model update; and the noise by itself."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from . import backends, errors, frame
from . import mask as masks
from .arguments import U64, unsigned
from .frame import Expected, Info
from .limits import DEFAULT_LIMITS, Limits
from .noise import Noise, checked_noise
from .schema import Schema, Tensor

if TYPE_CHECKING:
    from typing_extensions import Buffer


def decode(
    data: Buffer,
    schema: Schema | None = None,
    *,
    names: Collection[str] | None = None,
    round: int | None = None,
    base_model: int | None = None,
    seed: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    backend: str | None = None,
) -> dict[str, np.ndarray]:
    """Decode a frame (spec 4.2, 6, 7).

    Parameters
    ----------
    data : bytes, bytearray, memoryview, mmap or any contiguous buffer
    schema : Schema, optional
        The model's; required unless the frame embeds one.
    names : collection of str, optional
        Decode only these tensors.
    round, base_model, seed : int, optional
        Refuse a frame with another value.
    limits : Limits
    backend : {"numba", "numpy"}, optional
        The bits do not depend on it.

    Returns
    -------
    dict of str to numpy.ndarray
        In schema order; new, writable arrays of the schema's shapes and dtypes (float32 for masked tensors,
        uint16 bits for bfloat16).

    Raises
    ------
    FrameError
        The subclass of the first check of spec 7 that fails.
    ArgumentError
        A name that the schema does not have.
    """
    view, info, tensors = open_frame(data, Expected(schema, round, base_model, seed), limits)
    run = backends.get(backend)
    wanted = _wanted(names, tensors)
    out: dict[str, np.ndarray] = {}
    for stream, (tensor, entry) in enumerate(zip(tensors, info.tensors, strict=True)):
        if tensor.name not in wanted:
            continue
        content = frame.payload(view, info, stream, backend)
        if entry.noise is None:
            out[tensor.name] = content.reshape(tensor.shape).copy()
            continue
        values = np.empty(tensor.size, np.float32)
        run.decode(entry.noise, masks.KINDS[entry.kind], info.seed, stream, content, values)
        out[tensor.name] = values.reshape(tensor.shape)
    return out


def decode_bits(
    data: Buffer,
    schema: Schema | None = None,
    *,
    round: int | None = None,
    base_model: int | None = None,
    seed: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    backend: str | None = None,
) -> dict[str, np.ndarray]:
    """The mask bits of a frame, without their noise: what `encode_bits` takes.

    The arguments and errors are those of `decode`.

    Returns
    -------
    dict of str to numpy.ndarray
        Bool arrays of the masked tensors' shapes, in schema order: True keeps the noise.
    """
    view, info, tensors = open_frame(data, Expected(schema, round, base_model, seed), limits)
    return {
        tensor.name: masks.unpack(frame.payload(view, info, stream, backend), tensor.size).reshape(
            tensor.shape
        )
        for stream, tensor in enumerate(tensors)
        if tensor.masked
    }


def verify(
    data: Buffer,
    schema: Schema | None = None,
    *,
    round: int | None = None,
    base_model: int | None = None,
    seed: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    backend: str | None = None,
) -> Info:
    """Make every check of spec 7 without decoding; the arguments and errors are those of `decode`."""
    view, info, tensors = open_frame(data, Expected(schema, round, base_model, seed), limits)
    for stream in range(len(tensors)):
        frame.payload(view, info, stream, backend)
    return info


def inspect(data: Buffer, schema: Schema | None = None, *, limits: Limits = DEFAULT_LIMITS) -> Info:
    """What a frame says of itself, without touching a payload or the checksum.

    Raises
    ------
    FrameError
        A check of spec 7 up to [F-26] fails. Without a schema, those that need one are left out.
    """
    return frame.parse(frame.as_view(data), Expected(schema), limits, need_schema=False)


def noise(
    noise: Noise, *, seed: int, stream: int = 0, start: int = 0, count: int, backend: str | None = None
) -> np.ndarray:
    """The noise of elements `start` to `start + count - 1` of a tensor (spec 3).

    Parameters
    ----------
    noise : Noise
    seed, stream : int
        Unsigned 64-bit; the stream is the tensor's position in the schema.
    start, count : int
        start + count is at most 2^64.

    Returns
    -------
    numpy.ndarray of float32, shape (count,)
    """
    return backends.get(backend).noise(checked_noise(noise), *_place(seed, stream, start, count))


def philox_words(
    *, seed: int, stream: int = 0, start: int = 0, count: int, backend: str | None = None
) -> np.ndarray:
    """Words `start` to `start + count - 1` of a stream (spec 2): uint32, shape (count,).

    Parameters are those of `noise`.
    """
    return backends.get(backend).words(*_place(seed, stream, start, count))


def open_frame(
    data: Buffer, expected: Expected, limits: Limits
) -> tuple[memoryview, Info, tuple[Tensor, ...]]:
    """A frame whose checks up to [F-27] have passed: its bytes, its facts, its tensors."""
    view = frame.as_view(data)
    info = frame.parse(view, expected, limits)
    frame.check_checksum(view)
    assert info.schema is not None
    return view, info, info.schema.tensors


def _place(seed: int, stream: int, start: int, count: int) -> tuple[int, int, int, int]:
    start, count = unsigned(start, U64, "start"), unsigned(count, U64, "count")
    if start + count > U64:
        raise errors.ArgumentError("start + count", start + count, "the limit is 2^64")
    return unsigned(seed, U64, "seed"), unsigned(stream, U64, "stream"), start, count


def _wanted(names: Collection[str] | None, tensors: tuple[Tensor, ...]) -> set[str]:
    known = {t.name for t in tensors}
    if names is None:
        return known
    if isinstance(names, str):
        raise errors.ArgumentError("names", repr(names), "required: a collection of names")
    if unknown := set(names) - known:
        raise errors.ArgumentError("names", sorted(unknown), "which the schema does not have")
    return set(names)

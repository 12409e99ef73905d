"""Reading frames: decode, decode_bits, verify and inspect; and the noise and words alone."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .. import backends, errors
from ..format.checked import CheckedFrame
from ..format.frame import Buffer, Info, as_view
from ..format.limits import DEFAULT_LIMITS, Limits
from ..format.parsing import Expected, parse
from ..format.schema import Schema, Tensor
from ..primitives import mask as masks
from ..primitives.arguments import U64, unsigned
from ..primitives.noise import Noise, checked_noise


def decode(
    data: Buffer | CheckedFrame,
    schema: Schema | None = None,
    *,
    names: Collection[str] | None = None,
    round: int | None = None,
    base_model: int | None = None,
    seed: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    backend: str | None = None,
) -> dict[str, np.ndarray]:
    """Check a frame and decode it to the update (spec 4.2, 6, 7).

    Parameters
    ----------
    data : bytes, bytearray, memoryview, mmap or any contiguous buffer; or CheckedFrame
    schema : Schema, optional
        The model's; required unless the frame embeds one.
    names : collection of str, optional
        Decode only these tensors. The payloads of others are not checked.
    round, base_model, seed : int, optional
        Refuse a frame with another value.
    limits : Limits
        Upper bounds of the frame's counts and lengths.
    backend : {"numba", "numpy", "torch", "onnx"}, optional
        Default: numba if it is installed, but numpy for the first elements. The bits do not depend on it.

    Returns
    -------
    dict of str to numpy.ndarray
        In schema order: new, writable arrays of the schema's shapes and dtypes (uint16 bits for bfloat16).

    Raises
    ------
    FrameError
        A check of spec 7 fails; the first one that fails determines the subclass.
    ArgumentError
        `names` has a name that the schema does not have, or the backend does not exist.
    """
    checked = CheckedFrame.open(data, Expected(schema, round, base_model, seed), limits)
    backends.get(backend)  # refuses an unknown one before anything is decoded
    chosen = checked_names(names, checked.checked_schema)
    out: dict[str, np.ndarray] = {}
    for stream, tensor in enumerate(checked.checked_schema):
        if tensor.name not in chosen:
            continue
        out[tensor.name] = decode_tensor(checked, stream, tensor, backend)
    return out


def decode_tensor(
    checked: CheckedFrame, stream: int, tensor: Tensor, backend: str | None = None
) -> np.ndarray:
    """One tensor of a frame, that of the schema's place `stream`, as `decode` gives it."""
    entry, content = checked.tensors[stream], checked.elements(stream, backend)
    if entry.noise is None:
        return (content.copy() if entry.step is None else content).reshape(tensor.shape)
    values = np.empty(tensor.size, np.float32)
    kernels = backends.get(backend)
    kernels.decode(entry.noise, entry.mask_kind, checked.seed, stream, content, values)
    return values.reshape(tensor.shape)


def decode_bits(
    data: Buffer | CheckedFrame,
    schema: Schema | None = None,
    *,
    round: int | None = None,
    base_model: int | None = None,
    seed: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    backend: str | None = None,
) -> dict[str, np.ndarray]:
    """Check a frame and decode the bits of its masks, without noise: the inverse of `encode_bits`.

    Parameters, except `names`, and errors are as in `decode`. Other payloads are not checked.

    Returns
    -------
    dict of str to numpy.ndarray
        Bool arrays of the shapes of the tensors sent as masks, in schema order: True keeps the noise.
    """
    checked = CheckedFrame.open(data, Expected(schema, round, base_model, seed), limits)
    return {
        tensor.name: masks.unpack(checked.payload(stream, backend), tensor.size).reshape(tensor.shape)
        for stream, tensor in enumerate(checked.checked_schema)
        if checked.tensors[stream].noise
    }


def verify(
    data: Buffer | CheckedFrame,
    schema: Schema | None = None,
    *,
    round: int | None = None,
    base_model: int | None = None,
    seed: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    backend: str | None = None,
) -> CheckedFrame:
    """Check a frame with all its payloads (spec 7). Parameters, except `names`, and errors as in `decode`.

    Returns
    -------
    CheckedFrame
        All its payloads are checked; `decode` and `Aggregator.add` accept it in place of the bytes.
    """
    checked = CheckedFrame.open(data, Expected(schema, round, base_model, seed), limits)
    checked.payloads(backend)
    return checked


def inspect(data: Buffer, schema: Schema | None = None, *, limits: Limits = DEFAULT_LIMITS) -> Info:
    """Parse the header and table of a frame; payloads and checksum are not read.

    Parameters
    ----------
    schema : Schema, optional
        Without one here and in the frame, the checks that need a schema are left out.

    Raises
    ------
    FrameError
        One of [F-01] to [F-26] and [F-31] fails; the first one that fails determines the subclass.
    """
    return parse(as_view(data), Expected(schema), limits, need_schema=False)


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
    backend : {"numba", "numpy", "torch", "onnx"}, optional
        As in `decode`.

    Returns
    -------
    numpy.ndarray of float32, shape (count,)

    Raises
    ------
    ArgumentError
        An argument is out of range.
    """
    return backends.get(backend).noise(checked_noise(noise), *_place(seed, stream, start, count))


def philox_words(
    *, seed: int, stream: int = 0, start: int = 0, count: int, backend: str | None = None
) -> np.ndarray:
    """Words `start` to `start + count - 1` of a stream (spec 2): uint32, shape (count,).

    Parameters, except `noise`, and errors are those of the function `noise`.
    """
    return backends.get(backend).words(*_place(seed, stream, start, count))


def _place(seed: int, stream: int, start: int, count: int) -> tuple[int, int, int, int]:
    start, count = unsigned(start, U64, "start"), unsigned(count, U64, "count")
    if start + count > U64:
        raise errors.ArgumentError("start + count", "at most 2^64", start + count)
    return unsigned(seed, U64, "seed"), unsigned(stream, U64, "stream"), start, count


def checked_names(names: Collection[str] | None, schema: Schema) -> set[str]:
    """Check the names of the tensors to decode; None stands for all.

    Raises
    ------
    ArgumentError
        A name is not one of the schema's, or `names` is a string.
    """
    known = {tensor.name for tensor in schema}
    if names is None:
        return known
    if isinstance(names, str):
        raise errors.ArgumentError("names", "a collection of names", repr(names))
    try:
        chosen = set(names)
    except TypeError:  # not iterable, or an item is not hashable
        raise errors.ArgumentError("names", "a collection of names", repr(names)) from None
    if unknown := chosen - known:
        raise errors.ArgumentError("names", "names of the schema", sorted(unknown, key=repr))
    return chosen

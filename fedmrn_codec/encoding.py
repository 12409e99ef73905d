"""Encode: a model update to a frame."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from . import backends, codings, errors, frame, rans
from . import mask as masks
from .arguments import U32, U64, masked_noise, masked_values, unsigned
from .dtypes import is_finite
from .noise import Noise
from .schema import Schema, Tensor


def encode(
    update: Mapping[str, Any],
    schema: Schema,
    *,
    seed: int,
    noise: Noise | Mapping[str, Noise],
    mask: str | Mapping[str, str] = "binary",
    round: int = 0,
    base_model: int = 0,
    embed_schema: bool = False,
    coding: str | Mapping[str, str] = "raw",
    dense_coding: str | Mapping[str, str] = "raw",
    private_seed: int | None = None,
    draws: Mapping[str, np.ndarray] | None = None,
    backend: str | None = None,
) -> bytes:
    """Encode an update; the bits of masked tensors are sampled (spec 4.3, 6).

    Parameters
    ----------
    update : mapping of str to array
        One array for each tensor of the schema, by name, in any order: trained minus base value. Shape and
        dtype are the schema's (float32 for masked tensors; uint16 bits for bfloat16); any memory layout.
    schema : Schema
    seed : int
        Of the noise; unsigned 64-bit. Give every client and round another one.
    noise : Noise, or mapping of name to Noise
        For all masked tensors, or for each by name.
    mask : {"binary", "signed"}, or mapping of name to one of them
    round, base_model : int
        Unsigned 32 and 64 bits; 0 means "not given".
    embed_schema : bool
        Write the schema into the frame, so that it decodes without one.
    coding : {"raw", "rans"}, or mapping of name to one of them
        "rans" sends a mask in fewer than one bit an element, wherever that is shorter (spec 6.8): binary
        masks of trained updates, hardly ever signed ones. The decoded bits are the same. Frames of raw
        tensors alone are readable by decoders of version 1.0.
    dense_coding : {"raw", "float16", "bfloat16"}, or mapping of name to one of them
        Round dense float32 tensors to 16 bits, to nearest, ties to even; they decode to float32.
    private_seed : int, optional
        Unsigned 64-bit, must differ from `seed`. By default drawn from the operating system; give one only
        where a run must repeat, and keep it secret, [M-03].
    draws : mapping of name to integer array, optional
        The integers r below 2^24 themselves, for tests.
    backend : {"numba", "numpy"}, optional
        Default: the fastest that is installed. The bytes do not depend on it.

    Returns
    -------
    bytes

    Raises
    ------
    UpdateError
        A tensor is missing, unknown, of another shape or dtype, or holds a NaN or an infinity, [E-02].
    ArgumentError
        Any other argument is out of range.
    """
    arrays = _checked_arrays(update, schema, [t.name for t in schema])
    run = backends.get(backend)
    seed = unsigned(seed, U64, "seed")
    if private_seed is None:
        private_seed = secrets.randbelow(U64)
    elif unsigned(private_seed, U64, "private_seed") == seed:
        raise errors.ArgumentError("private_seed", private_seed, "it must differ from the public seed")
    plan = _masking(schema, noise, mask)
    payloads = dict(arrays)
    for stream, tensor in enumerate(schema):
        if tensor.masked:
            source = private_seed if draws is None else _checked_draws(draws, tensor)
            payloads[tensor.name] = run.sample(
                plan[tensor.name][0], plan[tensor.name][1], seed, stream, arrays[tensor.name], source
            )
    spelled = _spelled(schema, payloads, plan, seed, coding, dense_coding, backend)
    return _build(schema, spelled, plan, seed, round, base_model, embed_schema)


def encode_bits(
    bits: Mapping[str, Any],
    schema: Schema,
    *,
    seed: int,
    noise: Noise | Mapping[str, Noise],
    mask: str | Mapping[str, str] = "binary",
    dense: Mapping[str, Any] | None = None,
    round: int = 0,
    base_model: int = 0,
    embed_schema: bool = False,
    coding: str | Mapping[str, str] = "raw",
    dense_coding: str | Mapping[str, str] = "raw",
    backend: str | None = None,
) -> bytes:
    """Encode masks whose bits the caller has chosen (spec 6).

    Parameters
    ----------
    bits : mapping of str to array of bool
        One array for each masked tensor, of its shape: True keeps the noise.
    dense : mapping of str to array
        One array for each dense tensor, as in `encode`.
    schema, seed, noise, mask, round, base_model, embed_schema, coding, dense_coding, backend
        As in `encode`.

    Returns
    -------
    bytes

    Raises
    ------
    UpdateError, ArgumentError
        As in `encode`.
    """
    masked = [t.name for t in schema if t.masked]
    payloads = _checked_arrays(dense or {}, schema, [t.name for t in schema if not t.masked])
    _check_names(bits, masked, "bits")
    for tensor in schema:
        if tensor.masked:
            payloads[tensor.name] = masks.pack(_checked_bits(bits[tensor.name], tensor))
    plan = _masking(schema, noise, mask)
    seed = unsigned(seed, U64, "seed")
    spelled = _spelled(schema, payloads, plan, seed, coding, dense_coding, backend)
    return _build(schema, spelled, plan, seed, round, base_model, embed_schema)


def _check_names(given: Mapping[str, Any], required: list[str], field: str) -> None:
    if not isinstance(given, Mapping):
        raise errors.UpdateError(field, type(given).__name__, "required: a mapping of names to arrays")
    if missing := [name for name in required if name not in given]:
        raise errors.UpdateError(field, f"nothing for {missing}", "the schema has them")
    if extra := [name for name in given if name not in set(required)]:
        raise errors.UpdateError(field, extra, "the schema does not have them here")


def _checked_arrays(given: Mapping[str, Any], schema: Schema, names: list[str]) -> dict[str, np.ndarray]:
    """Flat little-endian arrays of these tensors; inputs stay as they are, [E-02]."""
    _check_names(given, names, "update")
    wanted = set(names)
    return {t.name: _checked_array(given[t.name], t) for t in schema if t.name in wanted}


def _checked_array(value: Any, tensor: Tensor) -> np.ndarray:
    array = np.asarray(value)
    _check_shape(array, tensor)
    if array.dtype.newbyteorder("=") != tensor.type.numpy.newbyteorder("="):
        held = " (its bits, as uint16)" if tensor.dtype == "bfloat16" else ""
        raise errors.UpdateError(
            f"dtype of {tensor.name!r}", array.dtype, f"the schema says {tensor.dtype}{held}"
        )
    flat = np.ascontiguousarray(array, tensor.type.numpy).reshape(-1)
    if tensor.dtype == "bool":
        flat = flat.view(np.uint8) != 0  # NumPy's bools may hold any byte, the format's do not
    if not is_finite(flat, tensor.type):
        raise errors.UpdateNonFiniteError(f"{tensor.name!r}", "a NaN or an infinity", "required: finite")
    return flat


def _checked_bits(value: Any, tensor: Tensor) -> np.ndarray:
    array = np.asarray(value)
    _check_shape(array, tensor)
    if array.dtype != np.bool_:
        raise errors.UpdateError(f"bits of {tensor.name!r}", array.dtype, "required: bool")
    return array


def _checked_draws(draws: Mapping[str, np.ndarray], tensor: Tensor) -> np.ndarray:
    if tensor.name not in draws:
        raise errors.ArgumentError("draws", f"nothing for {tensor.name!r}", "the schema has it")
    array = np.asarray(draws[tensor.name])
    _check_shape(array, tensor)
    if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() >= 2**24)):
        raise errors.ArgumentError(
            f"draws of {tensor.name!r}", array.dtype, "required: integers from 0 to 2^24 - 1"
        )
    return np.ascontiguousarray(array, np.uint32).reshape(-1)


def _check_shape(array: np.ndarray, tensor: Tensor) -> None:
    if array.shape != tensor.shape:
        raise errors.UpdateError(f"shape of {tensor.name!r}", array.shape, f"the schema says {tensor.shape}")


def _masking(
    schema: Schema, noise: Noise | Mapping[str, Noise], mask: str | Mapping[str, str]
) -> dict[str, tuple[Noise, int]]:
    """Noise and kind of each masked tensor."""
    kinds = masked_values(schema, mask, "mask")
    return {
        name: (its_noise, masks.kind_code(kinds[name]))
        for name, its_noise in masked_noise(schema, noise).items()
    }


class _Spelled(NamedTuple):
    """A payload and its coding."""

    data: np.ndarray
    coding: int


def _spelled(
    schema: Schema,
    payloads: Mapping[str, np.ndarray],
    plan: Mapping[str, tuple[Noise, int]],
    seed: int,
    coding: str | Mapping[str, str],
    dense_coding: str | Mapping[str, str],
    backend: str | None,
) -> dict[str, _Spelled]:
    """The payloads in the codings that were asked for; a mask stays raw where that is as short."""
    asked = codings.chosen(schema, coding, True) | codings.chosen(schema, dense_coding, False)
    out = {}
    for stream, tensor in enumerate(schema):
        name, data = tensor.name, payloads[tensor.name]
        out[name] = _Spelled(data, codings.RAW)
        how = asked.get(name, "raw")
        if how == "rans":
            short = rans.compress(backends.coder(backend), plan[name][0], seed, stream, data, tensor.size)
            out[name] = out[name] if short is None else _Spelled(short, codings.RANS)
        elif how != "raw":
            out[name] = _Spelled(codings.narrow(data, name, how), codings.CODES[how])
    return out


def _build(
    schema: Schema,
    payloads: Mapping[str, _Spelled],
    plan: Mapping[str, tuple[Noise, int]],
    seed: int,
    round: int,
    base_model: int,
    embed_schema: bool,
) -> bytes:
    entries = []
    for tensor in schema:
        data, coding = payloads[tensor.name]
        if tensor.masked:
            its_noise, kind = plan[tensor.name]
            entries.append(frame.masked_entry(kind, its_noise, coding, data.nbytes))
        else:
            entries.append(frame.dense_entry(tensor.type, coding, data.nbytes))
    return frame.build(
        schema,
        entries,
        [payloads[t.name].data for t in schema],
        seed=seed,
        base_model=unsigned(base_model, U64, "base_model"),
        round=unsigned(round, U32, "round"),
        embed_schema=embed_schema,
    )

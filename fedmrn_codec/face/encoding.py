"""Encode: a model update to a frame."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import backends, errors
from ..format import codings, frame, rans
from ..format.mask_spec import MaskSpec, mask_specs
from ..format.schema import Schema
from ..primitives.arguments import U32, U64, unsigned
from ..primitives.codes import Coding
from ..primitives.noise import Noise
from .arrays import checked_arrays, checked_draws, packed_bits


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
    contents = checked_arrays(update, schema, dense_only=False)
    seed, specs = unsigned(seed, U64, "seed"), mask_specs(schema, noise, mask)
    if private_seed is None:
        private_seed = secrets.randbelow(U64)
    elif unsigned(private_seed, U64, "private_seed") == seed:
        raise errors.ArgumentError("private_seed", "another value than the public seed", private_seed)
    kernels = backends.get(backend)
    for stream, tensor in enumerate(schema):
        if tensor.masked:
            source = private_seed if draws is None else checked_draws(draws, tensor)
            values = contents[tensor.name]
            contents[tensor.name] = kernels.sample(*specs[tensor.name], seed, stream, values, source)
    settings = seed, round, base_model, embed_schema, coding, dense_coding, backend
    return _frame_of(schema, contents, specs, *settings)


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
    contents = checked_arrays(dense or {}, schema, dense_only=True) | packed_bits(bits, schema)
    seed, specs = unsigned(seed, U64, "seed"), mask_specs(schema, noise, mask)
    settings = seed, round, base_model, embed_schema, coding, dense_coding, backend
    return _frame_of(schema, contents, specs, *settings)


def _frame_of(
    schema: Schema,
    contents: Mapping[str, np.ndarray],
    specs: Mapping[str, MaskSpec],
    seed: int,
    round: int,
    base_model: int,
    embed_schema: bool,
    coding: str | Mapping[str, str],
    dense_coding: str | Mapping[str, str],
    backend: str | None,
) -> bytes:
    """The frame of packed masks and dense elements, in the codings that are asked for (spec 6).

    A mask stays raw where coding 1 would not make it shorter.
    """
    round, base_model = unsigned(round, U32, "round"), unsigned(base_model, U64, "base_model")
    asked = codings.chosen(schema, coding, masked=True) | codings.chosen(schema, dense_coding, masked=False)
    entries, payloads = [], []
    for stream, tensor in enumerate(schema):
        payload, used = contents[tensor.name], asked.get(tensor.name, Coding.RAW)
        if used == Coding.RANS:
            coder, its_noise = backends.coder(backend), specs[tensor.name].noise
            shorter = rans.encode(coder, its_noise, seed, stream, payload, tensor.size)
            payload, used = (payload, Coding.RAW) if shorter is None else (shorter, used)
        elif used != Coding.RAW:
            payload = codings.narrow(payload, tensor.name, used)
        if tensor.masked:
            entries.append(frame.masked_entry(*specs[tensor.name], used, payload.nbytes))
        else:
            entries.append(frame.dense_entry(tensor.type, used, payload.nbytes))
        payloads.append(payload)
    return frame.build(
        schema,
        entries,
        payloads,
        seed=seed,
        base_model=base_model,
        round=round,
        embed_schema=embed_schema,
    )

"""Writing frames: encode and encode_bits."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import backends, errors
from ..format import codings, frame
from ..format.codings import CodingValue
from ..format.mask_spec import MaskSpec, MaskValue, mask_specs
from ..format.schema import Schema
from ..primitives.arguments import U32, U64, unsigned
from ..primitives.codes import Coding
from ..primitives.noise import Noise
from .arrays import checked_arrays, checked_draws, packed_bits
from .damping import checked_damping, damped


def encode(
    update: Mapping[str, Any],
    schema: Schema,
    *,
    seed: int,
    noise: Noise | Mapping[str, Noise],
    mask: MaskValue | Mapping[str, MaskValue] = "binary",
    round: int = 0,
    base_model: int = 0,
    embed_schema: bool = False,
    coding: CodingValue | Mapping[str, CodingValue] = "raw",
    dense_coding: CodingValue | Mapping[str, CodingValue] = "raw",
    private_seed: int | None = None,
    draws: Mapping[str, np.ndarray] | None = None,
    damping: float = 1.0,
    norm: float | None = None,
    backend: str | None = None,
) -> bytes:
    """Encode an update as a frame; the mask bits of masked tensors are sampled (spec 4.3, 6).

    Parameters
    ----------
    update : mapping of str to array
        The trained model minus the base model: an array for each tensor of the schema, in any order and
        memory layout, of the schema's shape and dtype (uint16 bits for bfloat16).
    schema : Schema
    seed : int
        Of the noise; unsigned 64-bit. Every client and round needs a different one.
    noise : Noise, or mapping of str to Noise
        Of all masked tensors, or of each by name.
    mask : {"binary", "signed"} or MaskKind, or mapping of str to one of them
    round, base_model : int
        Unsigned, of 32 and 64 bits; 0 means "not given".
    embed_schema : bool
        Write the schema into the frame, so that it can be decoded without one.
    coding : {"raw", "rans", "rans12"} or Coding, or mapping of str to one of them
        Of masked tensors. "rans" and "rans12" entropy-code a mask if that makes it shorter (spec 6.8, 6.11),
        which they do for binary masks of trained updates, and rarely for signed ones. "rans12" is the shorter
        one where few bits are set or tensors are small. The decoded bits are the same. A frame whose tensors
        are all raw can be read by decoders of version 1.0, one without "rans12" by those of version 1.1.
    dense_coding : {"raw", "float16", "bfloat16"} or Coding, or mapping of str to one of them
        Of dense float32 tensors. The latter two round to 16 bits, to nearest, ties to even (spec 6.9).
    private_seed : int, optional
        Of the sampling; unsigned 64-bit, must differ from `seed`. Default: random numbers of the operating
        system. Give one only where an experiment must be repeatable, and keep it secret, [M-03].
    draws : mapping of str to array of integers, optional
        The integers r below 2^24 of each masked tensor (spec 4.3), instead of a private seed, for tests.
    damping : float
        Above 0 and at most 1: masked elements are clipped at `damping` times the scale. Below 1, every bit of
        a mask is drawn with a probability between (1 - damping) / 2 and (1 + damping) / 2, and only signed
        masks over Bernoulli noise are allowed. Frame and decoder do not change, and within the bound the
        frame still equals the update on average.
    norm : float, optional
        With a damping below 1: the largest Euclidean norm of all masked elements together, each divided by
        its scale. A longer update is multiplied by the factor that makes it as long as that.
    backend : {"numba", "numpy", "torch", "onnx"}, optional
        Default: numba if it is installed, but numpy for the first elements. The bytes do not depend on it.

    Returns
    -------
    bytes

    Raises
    ------
    UpdateError
        An array is missing, unknown, of another shape or dtype, or holds a NaN, an infinity or a value that
        its coding rounds to an infinity, [E-02].
    ArgumentError
        Another argument is of another type or out of range.
    """
    contents = checked_arrays(update, schema, dense_only=False)
    seed, specs = unsigned(seed, U64, "seed"), mask_specs(schema, noise, mask)
    damping, norm = checked_damping(damping, norm, schema, noise, mask)
    if damping < 1:
        contents |= damped(contents, specs, damping, norm)
    if private_seed is None:
        private_seed = secrets.randbelow(U64)
    elif (private_seed := unsigned(private_seed, U64, "private_seed")) == seed:
        raise errors.ArgumentError("private_seed", "a value other than the public seed", private_seed)
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
    mask: MaskValue | Mapping[str, MaskValue] = "binary",
    dense: Mapping[str, Any] | None = None,
    round: int = 0,
    base_model: int = 0,
    embed_schema: bool = False,
    coding: CodingValue | Mapping[str, CodingValue] = "raw",
    dense_coding: CodingValue | Mapping[str, CodingValue] = "raw",
    backend: str | None = None,
) -> bytes:
    """Encode given mask bits as a frame, without sampling (spec 6).

    Parameters
    ----------
    bits : mapping of str to array of bool
        One array for each masked tensor, of its shape: True keeps the noise.
    dense : mapping of str to array
        One array for each dense tensor, as in `encode`.
    schema, seed, noise, mask, round, base_model, embed_schema, coding, dense_coding, backend : as in `encode`

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
    coding: CodingValue | Mapping[str, CodingValue],
    dense_coding: CodingValue | Mapping[str, CodingValue],
    backend: str | None,
) -> bytes:
    """The frame of packed masks and dense elements in the caller's codings (spec 6).

    A mask that entropy coding does not make shorter is raw.
    """
    round, base_model = unsigned(round, U32, "round"), unsigned(base_model, U64, "base_model")
    chosen = codings.chosen(schema, coding, masked=True) | codings.chosen(schema, dense_coding, masked=False)
    entries, payloads = [], []
    for stream, tensor in enumerate(schema):
        payload, used = contents[tensor.name], chosen.get(tensor.name, Coding.RAW)
        if used in codings.ENTROPY:
            coder, its_noise = backends.coder(backend, used), specs[tensor.name].noise
            shorter = codings.ENTROPY[used].encode(coder, its_noise, seed, stream, payload, tensor.size)
            payload, used = (payload, Coding.RAW) if shorter is None else (shorter, used)
        elif used != Coding.RAW:
            payload = codings.narrow(payload, tensor.name, used)
        if tensor.masked:
            entries.append(frame.masked_entry(*specs[tensor.name], used, payload.nbytes))
        else:
            entries.append(frame.dense_entry(tensor.type, used, payload.nbytes))
        payloads.append(payload)
    return frame.build(
        schema, entries, payloads, seed=seed, base_model=base_model, round=round, embed_schema=embed_schema
    )

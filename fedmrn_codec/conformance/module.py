"""A Python module under test, which has the public functions of `fedmrn_codec`."""

from __future__ import annotations

import importlib
import math
import struct
import traceback
from types import ModuleType
from typing import Any

import numpy as np

from ..primitives.codes import MaskKind
from . import oracle
from .request import (
    PROFILES,
    AddTallies,
    Aggregate,
    Count,
    Decode,
    Digest,
    Encode,
    Merge,
    MergeTallies,
    Noise,
    Part,
    Request,
    Result,
    Sample,
    Words,
)
from .target import Broken, Refused, Unsupported

FACE = {
    "decode": ("Schema", "Limits", "Uniform", "Gaussian", "Bernoulli", "decode", "noise", "philox_words"),
    "encode": ("Schema", "Tensor", "Uniform", "Gaussian", "Bernoulli", "encode", "encode_bits"),
    "aggregate": ("Schema", "Aggregator"),
    "tally": ("Schema", "Aggregator", "Tally"),
}
"""The names that a module must have for a profile."""

FLOATS = {oracle.DTYPES[code].name: code for code in oracle.GRIDS}
"""The codes of the dtypes that a grid may have."""

NEAR = 64
"""Streams below this are reached through a schema whose first tensors are empty."""


class ModuleTarget:
    """A Python module under test, with one of its backends.

    An exception with an attribute `code` is a refusal; other exceptions are failures. If the module hangs, so
    does the kit.

    Parameters
    ----------
    module : str or module
        A module, or its name.
    backend : str, optional
        Passed to every function that takes a backend.

    Raises
    ------
    ImportError
        There is no such module.
    """

    def __init__(self, module: str | ModuleType, backend: str | None = None) -> None:
        self.m: Any = importlib.import_module(module) if isinstance(module, str) else module
        self.backend: dict[str, str] = {} if backend is None else {"backend": backend}
        self.name = self.m.__name__ + (f" ({backend})" if backend else "")
        self.version = str(getattr(self.m, "__version__", "unknown"))
        self.profiles = tuple(p for p in PROFILES if all(hasattr(self.m, name) for name in FACE[p]))

    def ask(self, request: Request) -> Result:
        """Answer a request."""
        try:
            answer: Result = getattr(self, f"_{request.op}")(request)
            return answer
        except (Refused, Unsupported):
            raise
        except Exception as error:
            raise _answer_of(error) from error

    def ask_past_refusals(self, r: Aggregate) -> Result:
        """The sums of the frames that are not refused (spec 8.1, [A-05])."""
        try:
            total = self._aggregator(r)
            for frame, weight in zip(r.frames, r.weights, strict=True):
                try:
                    total.add(frame, weight)
                except Exception as error:
                    if not isinstance(getattr(error, "code", None), str):
                        raise
            return self._sums(total)
        except Exception as error:
            raise _answer_of(error) from error

    def close(self) -> None:
        """Nothing to release."""

    def _schema(self, raw: bytes) -> Any:
        """The caller's schema, to which no limits apply (spec 7.3)."""
        return self.m.Schema.from_bytes(raw, self.m.Limits(2**32, 2**32, 2**80))

    def _noise_of(self, distribution: str, scale: int) -> Any:
        (value,) = struct.unpack("<f", struct.pack("<I", scale))
        return getattr(self.m, distribution.capitalize())(value)

    def _words(self, r: Words) -> Result:
        if r.start + r.count > 2**64:
            raise Unsupported("`philox_words` has no words beyond 2^64")
        place = {"seed": r.seed, "stream": r.stream, "start": r.start, "count": r.count}
        return {"words": _bytes(self.m.philox_words(**place, **self.backend))}

    def _noise(self, r: Noise) -> Result:
        noise = self._noise_of(r.distribution, r.scale)
        place = {"seed": r.seed, "stream": r.stream, "start": r.start, "count": r.count}
        return {"noise": _bytes(self.m.noise(noise, **place, **self.backend))}

    def _digest(self, r: Digest) -> Result:
        return {"digest": self._schema(r.schema).digest}

    def _decode(self, r: Decode) -> Result:
        arrays = self.m.decode(
            r.frame,
            None if r.schema is None else self._schema(r.schema),
            round=r.round,
            base_model=r.base_model,
            seed=r.seed,
            limits=self.m.Limits(r.max_tensors, r.max_schema_bytes, r.max_elements),
            **self.backend,
        )
        return {"tensors": tuple(map(_bytes, arrays.values()))}

    def _sample(self, r: Sample) -> Result:
        noise = self._noise_of(r.distribution, r.scale)
        update, draws = np.frombuffer(r.update, "<f4"), np.frombuffer(r.draws, "<u4")
        if r.stream >= NEAR:
            return {"mask": self._far_mask(r, noise, update.astype("=f4"), draws.astype("=u4"))}
        before = [self.m.Tensor(f"empty {i}", (0,)) for i in range(r.stream)]
        schema = self.m.Schema([*before, self.m.Tensor("u", (len(update),), masked=True)])
        arrays = {tensor.name: np.zeros(0, np.float32) for tensor in before} | {"u": update}
        frame = self.m.encode(
            arrays, schema, seed=r.seed, noise=noise, mask=r.kind, draws={"u": draws}, **self.backend
        )
        return {"mask": frame[len(frame) - 4 - (len(update) + 7) // 8 : -4]}

    def _far_mask(self, r: Sample, noise: Any, update: np.ndarray, draws: np.ndarray) -> bytes:
        """The mask from the backend itself, since no schema has so many tensors."""
        if not hasattr(self.m, "backends"):
            raise Unsupported(f"no schema reaches stream {r.stream}, and the module has no `backends`")
        kernels = self.m.backends.get(self.backend.get("backend"))
        return _bytes(kernels.sample(noise, MaskKind.of(r.kind, "kind"), r.seed, r.stream, update, draws))

    def _encode(self, r: Encode) -> Result:
        schema = self._schema(r.schema)
        if any(part.kind == "grid" for part in r.tensors):
            return {"frame": self._grids(r, schema)}
        parts = {tensor.name: (tensor, part) for tensor, part in zip(schema, r.tensors, strict=True)}
        masked = {name: part for name, (_, part) in parts.items() if part.kind != "dense"}
        plain = {name: part for name, (_, part) in parts.items() if part.kind == "dense"}
        dense = {name: _elements(parts[name][0], part) for name, part in plain.items()}
        codings = {  # only where needed: a module of version 1.0 does not have these arguments
            argument: {name: part.coding for name, part in those.items() if part.coding != "raw"}
            for argument, those in (("coding", masked), ("dense_coding", plain))
        }
        frame = self.m.encode_bits(
            {name: _bits(parts[name][0], part) for name, part in masked.items()},
            schema,
            seed=r.seed,
            noise={name: self._noise_of(p.distribution or "", p.scale or 0) for name, p in masked.items()},
            mask={name: part.kind for name, part in masked.items()},
            dense=dense,
            round=r.round,
            base_model=r.base_model,
            embed_schema=r.embed_schema,
            **{argument: names for argument, names in codings.items() if names},
        )
        return {"frame": frame}

    def _grids(self, r: Encode, schema: Any) -> bytes:
        """A frame in which every float tensor is a grid."""
        parts = dict(zip((tensor.name for tensor in schema), r.tensors, strict=True))
        floats = {tensor.name: tensor for tensor in schema if tensor.dtype in FLOATS}
        grids = {name: part for name, part in parts.items() if part.kind == "grid"}
        if not hasattr(self.m, "encode_grid") or set(grids) != set(floats):
            raise Unsupported(
                "`encode_grid` makes frames in which every float tensor is a grid, and no other"
            )
        codings = {name: part.coding for name, part in grids.items() if part.coding != "raw"}
        frame: bytes = self.m.encode_grid(
            {tensor.name: _elements(tensor, _as_elements(tensor, parts[tensor.name])) for tensor in schema},
            schema,
            step={name: oracle.f32_from_bits(part.scale or 0) for name, part in grids.items()},
            seed=r.seed,
            round=r.round,
            base_model=r.base_model,
            embed_schema=r.embed_schema,
            coding={name: codings.get(name, "raw") for name in grids},
        )
        return frame

    def _aggregate(self, r: Aggregate) -> Result:
        total = self._aggregator(r)
        for frame, weight in zip(r.frames, r.weights, strict=True):
            total.add(frame, weight)
        return self._sums(total)

    def _aggregator(self, r: Aggregate) -> Any:
        expected = {"round": r.round or None, "base_model": r.base_model or None}
        return self.m.Aggregator(self._schema(r.schema), **expected, **self.backend)

    def _merge(self, r: Merge) -> Result:
        schema = self._schema(r.schema)
        first, *others = (self.m.Aggregator.from_bytes(p, schema, **self.backend) for p in r.partials)
        for other in others:
            first.merge(other)
        return self._sums(first)

    def _tally(self, r: Count) -> Result:
        expected = {"round": r.round or None, "base_model": r.base_model or None}
        total = self.m.Tally(self._schema(r.schema), weight=r.weight, **expected, **self.backend)
        for frame in r.frames:
            total.add(frame)
        return {"tally": total.to_bytes(r.coding or "raw")}

    def _merge_tallies(self, r: MergeTallies) -> Result:
        schema = self._schema(r.schema)
        first, *others = [self.m.Tally.from_bytes(data, schema, **self.backend) for data in r.tallies]
        for other in others:
            first.merge(other)
        return {"tally": first.to_bytes(r.coding or "raw")}

    def _add_tallies(self, r: AddTallies) -> Result:
        expected = {"round": r.round or None, "base_model": r.base_model or None}
        total = self.m.Aggregator(self._schema(r.schema), **expected, **self.backend)
        for data in r.tallies:
            total.add_tally(data, seed=r.seed)
        return self._sums(total)

    def _sums(self, total: Any) -> Result:
        return {"mean": tuple(map(_bytes, total.mean().values())), "partial": total.to_bytes()}


def _answer_of(error: Exception) -> Refused | Broken:
    """A refusal if the exception has a code of the format, or of a wrong argument; else a failure."""
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return Refused(code.removeprefix("argument_"))
    return Broken("".join(traceback.format_exception(error)[-3:]).strip())


def _bytes(array: Any) -> bytes:
    """The elements of an array, little-endian."""
    given = np.asarray(array)
    return given.astype(given.dtype.newbyteorder("<"), copy=False).tobytes()


def _as_elements(tensor: Any, part: Part) -> Part:
    """A grid as the elements of the tensor's dtype, which are exact if the format allows the grid."""
    if part.kind != "grid":
        return part
    scale = oracle.f32_from_bits(part.scale or 0)
    if not math.isfinite(scale) or len(part.payload) % 4:
        raise Unsupported("`encode_grid` takes elements, which such a grid does not have")
    return Part(kind="dense", payload=oracle.grid_values(part.payload, scale, FLOATS[tensor.dtype]))


def _elements(tensor: Any, part: Part) -> np.ndarray:
    """A dense payload as an array of the tensor's dtype, and of its shape if the sizes agree."""
    held = {"bfloat16": "uint16"}.get(tensor.dtype, tensor.dtype)
    flat = np.frombuffer(part.payload, np.dtype(held).newbyteorder("<"))
    return flat.reshape(tensor.shape) if flat.size == math.prod(tensor.shape) else flat


def _bits(tensor: Any, part: Part) -> np.ndarray:
    """A packed mask as an array of bools of the tensor's shape; no other length or padding."""
    size = math.prod(tensor.shape)
    bits = np.unpackbits(np.frombuffer(part.payload, np.uint8), bitorder="little").view(np.bool_)
    if len(bits) != (size + 7) // 8 * 8 or bits[size:].any():
        raise Unsupported("`encode_bits` takes bools, so a mask cannot have another length or padding")
    return bits[:size].reshape(tensor.shape)

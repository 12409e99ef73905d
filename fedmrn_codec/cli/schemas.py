"""Reading a schema from JSON, from a frame that embeds it, or from a file of tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from .. import errors
from ..face import decoding
from ..format import frame
from ..format.limits import DEFAULT_LIMITS, Limits
from ..format.schema import Schema, Tensor
from . import files, tensors
from .dense import Dense
from .problems import FileProblem, about
from .tensors import Format, TensorFile

LARGE, PER_BYTE = 2**28, 64
"""Elements of a schema that a frame embeds: of any frame, and for each of its bytes."""


def load(path: str | None, masked: Sequence[str] = (), format: Format | None = None) -> Schema | None:
    """Read the schema in a file; None without a path.

    Parameters
    ----------
    path : str, optional
        A file of JSON, a frame, or a file of tensors.
    masked : sequence of str
        As in `derive`; for a file of tensors only.
    format : Format, optional
        The format of the file of tensors.
    """
    if path is None:
        return None
    data = files.read(path)
    if data[:4] == frame.MAGIC:
        _check_no_globs(masked)
        return embedded(path, data)
    if format is None and _looks_like_json(path, data[:64]):
        _check_no_globs(masked)
        return _from_json(path, data)
    return derive(tensors.parse(path, data, format), masked)


def limits(data: bytes, known: Schema | None = None) -> Limits:
    """The limits for a file whose schema is not known: the elements of a large model, or 64 for each byte.

    A frame that embeds its schema could otherwise ask for some thousand times the memory that it takes.
    """
    if known is not None:
        return DEFAULT_LIMITS
    return Limits(max_elements=max(LARGE, PER_BYTE * len(data)))


def embedded(path: str, data: bytes) -> Schema:
    """The schema that a frame embeds."""
    with about(path):
        info = decoding.inspect(data)
        if info.schema is None:
            raise errors.NoSchemaError("schema", "a frame that embeds its schema", "none embedded", 6)
    return info.schema


def derive(content: TensorFile, masked: Sequence[str] = ()) -> Schema:
    """The schema of a file's tensors, sorted by name, so that their order in the file does not matter.

    Parameters
    ----------
    content : TensorFile
    masked : sequence of str
        Globs: a tensor is masked if one of them matches its name. Without any, float32 tensors of two or more
        dimensions are masked.

    Raises
    ------
    ArgumentError
        A glob matches no tensor, or matches one that is not float32.
    """
    for glob in masked:
        if not any(fnmatchcase(name, glob) for name in content.tensors):
            raise errors.ArgumentError("--masked", "a pattern that matches a tensor", repr(glob))

    def is_masked(name: str, held: Dense) -> bool:
        if masked:
            return any(fnmatchcase(name, glob) for glob in masked)
        return held.dtype == "float32" and held.array.ndim >= 2

    return Schema(
        Tensor(name, held.array.shape, is_masked(name, held), held.dtype)
        for name, held in sorted(content.tensors.items())
    )


def to_text(schema: Schema) -> str:
    """The schema as JSON, one line for each tensor."""
    return "[" + ",".join(f"\n  {json.dumps(t)}" for t in schema.to_json()) + "\n]"


def fit(path: str, content: TensorFile, schema: Schema, *, extra: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a file, checked against the schema's names, shapes and dtypes.

    With `extra`, tensors that are not in the schema are left out instead of refused.
    """
    out: dict[str, np.ndarray] = {}
    with about(path):
        for tensor in schema:
            if tensor.name not in content.tensors:
                raise errors.UpdateError(
                    "tensors", "every name of the schema", f"nothing for {tensor.name!r}"
                )
            _check_tensor(tensor, content.tensors[tensor.name], content.format)
            out[tensor.name] = content.tensors[tensor.name].array
        if not extra and (unknown := sorted(set(content.tensors) - set(out))):
            raise errors.UpdateError("tensors", "names of the schema alone", unknown)
    return out


def _check_tensor(tensor: Tensor, held: Dense, format: Format) -> None:
    if held.array.shape != tensor.shape:
        raise errors.UpdateError(
            f"shape of {tensor.name!r}", f"{tensor.shape}, as in the schema", held.array.shape
        )
    bits = format is Format.NPZ and (held.dtype, tensor.dtype) == ("uint16", "bfloat16")
    if held.dtype != tensor.dtype and not bits:
        raise errors.UpdateError(f"dtype of {tensor.name!r}", f"{tensor.dtype}, as in the schema", held.dtype)


def _check_no_globs(masked: Sequence[str]) -> None:
    if masked:
        raise errors.ArgumentError("--masked", "none, since the schema says what is masked", list(masked))


def _looks_like_json(path: str, start: bytes) -> bool:
    return tensors.by_suffix(path) is None and (path.endswith(".json") or start.lstrip()[:1] in (b"[", b"{"))


def _from_json(path: str, data: bytes) -> Schema:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileProblem(path, f"not valid JSON: {error}") from error
    with about(path):
        if not isinstance(content, list):
            raise errors.SchemaError("schema", "a list of tensors", type(content).__name__)
        return Schema.from_json(content)

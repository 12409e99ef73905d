"""The state of a `Downlink` as bytes: an archive of its frames, and of JSON about them."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import errors
from ..format.schema import Schema
from ..primitives.arguments import U64, unsigned
from ..primitives.grid import BOUNDS

VERSION = 1


class State(NamedTuple):
    """What a `Downlink` keeps, beside its schema.

    Attributes
    ----------
    dtypes : dict of str to str
        Of each float tensor in the model.
    keep : int
    fixed : dict of str to int, or None
        The exponents that its caller has chosen.
    errors : dict of str to float
        The mean square of what rounding has changed, for each float tensor.
    history : list of int
        The ids of the former versions, oldest first.
    frames : list of bytes
        That of the whole model, and the one that follows each former version.
    """

    dtypes: dict[str, str]
    keep: int
    fixed: dict[str, int] | None
    errors: dict[str, float]
    history: Sequence[int]
    frames: Sequence[bytes]


def pack(state: State) -> bytes:
    """The bytes of a state."""
    about = {"version": VERSION, **state._asdict()}
    frames = about.pop("frames")
    arrays: dict[str, Any] = {f"frame{k}": np.frombuffer(frame, np.uint8) for k, frame in enumerate(frames)}
    out = io.BytesIO()
    np.savez(out, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
    return out.getvalue()


def unpack(data: bytes, schema: Schema) -> State:
    """The inverse of `pack`; the frames are not checked.

    Raises
    ------
    ArgumentError
        The bytes are not those of `pack`, of another version, or not of this schema.
    """
    try:
        return _checked(*_read(data), schema)
    except MemoryError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types for damaged bytes
        expected, got = "the bytes of Downlink.to_bytes", f"{type(error).__name__}: {error}"
        raise errors.ArgumentError("downlink state", expected, got) from None


def _read(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        about = json.loads(_member(archive, "about"))
        return about, [_member(archive, f"frame{k}") for k in range(1 + len(about["history"]))]


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of an array of uint8, which is not compressed: so no state takes more memory than it has."""
    if archive.getinfo(f"{name}.npy").compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name!r} is compressed")
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"format of {name!r}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        content: bytes = file.read()
    if dtype != np.uint8 or shape != (len(content),):
        raise ValueError(f"{name!r} has {len(content)} bytes, and says {dtype} of shape {shape}")
    return content


def _checked(about: dict[str, Any], frames: list[bytes], schema: Schema) -> State:
    """The state, whose parts have the right types and names; else ValueError, KeyError or TypeError."""
    if about["version"] != VERSION:
        raise ValueError(f"version {about['version']}")
    dtypes, fixed, rounding = (about[name] for name in ("dtypes", "fixed", "errors"))
    allowed = {t.name: set(BOUNDS) if t.masked else {t.dtype} for t in schema if t.type.is_float}
    for field, found in (("dtypes", dtypes), ("fixed", fixed), ("errors", rounding)):
        if found is not None and set(found) != set(allowed):
            raise ValueError(f"{field} of {sorted(found)}")
    for name, dtype in dtypes.items():
        if dtype not in allowed[name]:
            raise ValueError(f"dtype {dtype!r} of {name!r}")
        if fixed is not None and not BOUNDS[dtype].allows(math.ldexp(1.0, fixed[name])):
            raise ValueError(f"exponent {fixed[name]} of {name!r}")
        if not 0 <= float(rounding[name]) < math.inf:
            raise ValueError(f"error {rounding[name]} of {name!r}")
    history = [unsigned(each, U64, "id of a version") for each in about["history"]]
    if len(set(history)) < len(history):
        raise ValueError("a version twice")
    return State(dtypes, unsigned(about["keep"], U64, "keep"), fixed, rounding, history, frames)

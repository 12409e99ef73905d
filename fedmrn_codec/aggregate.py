"""The exact weighted mean of many frames (spec 8)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import backends, errors, frame
from .arguments import masked_noise
from .decoding import open_frame
from .exact import ExactSum
from .frame import Expected, Info
from .limits import DEFAULT_LIMITS, Limits
from .mask import KINDS
from .noise import DISTRIBUTIONS, MAX_DRAW, Noise
from .schema import Schema, Tensor

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .backends import Backend

MAGIC, MAJOR, MINOR = b"FMRS", 1, 0
QUEUE = 16
"""Masks that are summed in one pass."""

MAX_WEIGHT = 2**39 - 1
HEADER = struct.Struct("<4sBBHQQII16sQ")
MASKED = struct.Struct("<B3sf")


class _Header(NamedTuple):
    """The fields of a partial sum's header (spec 8.5)."""

    magic: bytes
    major: int
    minor: int
    flags: int
    weight: int
    base_model: int
    round: int
    tensor_count: int
    digest: bytes
    frames: int


class MaskedSum:
    """The integer sums of one masked tensor: weight * q * m (spec 8.2).

    Masks wait, packed, until there are `QUEUE` of them: a pass over the sums takes them together.

    Attributes
    ----------
    noise : Noise or None
        Of the first frame, unless the aggregator's caller fixed it; None before.
    sums : numpy.ndarray of int64, shape (size,)
        Of what does not wait.
    """

    def __init__(self, size: int, noise: Noise | None) -> None:
        self.noise, self.sums = noise, np.zeros(size, np.int64)
        self._waiting = 0
        self._facts = np.empty((2, QUEUE), np.int64), np.empty(QUEUE, np.uint64)
        self._masks = np.empty((QUEUE, 0), np.uint8)

    def add(self, run: Backend, stream: int, kind: int, seed: int, payload: np.ndarray, weight: int) -> None:
        """Add a packed mask, now or later; `payload` may change afterwards."""
        if self._masks.shape[1] != len(payload):
            self._masks = np.empty((QUEUE, len(payload)), np.uint8)
        numbers, seeds = self._facts
        numbers[:, self._waiting] = kind, weight
        seeds[self._waiting] = seed
        self._masks[self._waiting] = payload
        self._waiting += 1
        if self._waiting == QUEUE:
            self.settle(run, stream)

    def settle(self, run: Backend, stream: int) -> None:
        """Add the masks that wait."""
        n, (numbers, seeds) = self._waiting, self._facts
        if n:
            assert self.noise is not None
            kinds, weights = numbers[:, :n]
            backends.accumulate_many(
                run, self.noise, kinds, seeds[:n], stream, self._masks[:n], weights, self.sums
            )
        self._waiting = 0

    def rest(self, run: Backend, stream: int) -> None:
        """Add the masks that wait, and give their room back: what comes next may need it."""
        self.settle(run, stream)
        self._masks = np.empty((QUEUE, 0), np.uint8)

    def mean(self, total: int) -> np.ndarray:
        """Division first, then the product, then one rounding: float32, shape (size,), [A-03]."""
        assert self.noise is not None
        quotient = self.sums.astype(np.float64) / np.float64(total)
        with np.errstate(under="ignore"):
            return (quotient * np.float64(self.noise.step)).astype(np.float32)


class Aggregator:
    """Adds up frames of one schema and gives their weighted mean, the same bits in any order (spec 8).

    Memory: 10 bytes a masked element, a few times 8 a dense one, whatever the number of frames.

    Parameters
    ----------
    schema : Schema
    noise : Noise or mapping of str to Noise, optional
        Of all masked tensors, or of each by name; frames with another distribution or scale are refused. By
        default the first frame decides; a server that does not trust its clients should say.
    round, base_model : int, optional
        Refuse frames with another value. 0 and None ask nothing.
    limits : Limits
    backend : {"numba", "numpy"}, optional
        The bits do not depend on it.
    """

    def __init__(
        self,
        schema: Schema,
        *,
        noise: Noise | Mapping[str, Noise] | None = None,
        round: int | None = None,
        base_model: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        backend: str | None = None,
    ) -> None:
        self.schema, self.limits = schema, limits
        self.expected = Expected(schema, round or None, base_model or None)
        self.weight = 0
        self.frames = 0
        self._backend, self._backend_name = backends.get(backend), backend
        required = {} if noise is None else masked_noise(schema, noise)
        self._tensors = [
            MaskedSum(t.size, required.get(t.name)) if t.masked else ExactSum(t.type, t.size) for t in schema
        ]

    def add(self, data: Buffer, weight: int, *, seed: int | None = None) -> Info:
        """Add a frame. One that is refused changes nothing.

        Parameters
        ----------
        data : bytes-like
        weight : int
            Positive; the client's number of samples, [A-01].
        seed : int, optional
            Refuse a frame with another seed.

        Returns
        -------
        Info
            What the frame says of itself.

        Raises
        ------
        FrameError
            As `fedmrn_codec.decode`; or the noise is not the aggregator's, [A-02].
        AggregateError
            The weight is no positive integer, or the sum of weights would pass 2^39 - 1.
        """
        weight = self._checked_weight(weight)
        expected = Expected(self.schema, self.expected.round, self.expected.base_model, seed)
        view, info, tensors = open_frame(data, expected, self.limits)
        contents = [frame.payload(view, info, stream, self._backend_name) for stream in range(len(tensors))]
        for tensor, entry, state in zip(tensors, info.tensors, self._tensors, strict=True):
            if isinstance(state, MaskedSum):
                _check_noise(tensor, state.noise, entry.noise)
        for stream, (entry, content, state) in enumerate(
            zip(info.tensors, contents, self._tensors, strict=True)
        ):
            if isinstance(state, ExactSum):
                state.add(content, weight)
                continue
            state.noise = entry.noise
            state.add(self._backend, stream, KINDS[entry.kind], info.seed, content, weight)
        self.weight += weight
        self.frames += 1
        return info

    def merge(self, other: Aggregator) -> None:
        """Add what another aggregator has summed; `other` stays as it is.

        Raises
        ------
        AggregateError
            The two have different schemas, rounds or base models, or too much weight together.
        FrameError
            The two have different noise, [A-02].
        """
        if not isinstance(other, Aggregator):
            raise errors.AggregateError("merge", type(other).__name__, "required: Aggregator")
        if other.expected != self.expected:
            raise errors.AggregateError(
                "merge", "another schema, round or base model", "required: the same on both sides"
            )
        if other.frames == 0:
            return
        self._settle()
        other._settle()
        self._checked_weight(other.weight)
        for tensor, mine, its in zip(self.schema, self._tensors, other._tensors, strict=True):
            if isinstance(mine, MaskedSum) and isinstance(its, MaskedSum):
                _check_noise(tensor, mine.noise, its.noise)
        for mine, its in zip(self._tensors, other._tensors, strict=True):
            if isinstance(mine, MaskedSum) and isinstance(its, MaskedSum):
                mine.noise = its.noise
                mine.sums += its.sums
            elif isinstance(mine, ExactSum) and isinstance(its, ExactSum):
                mine.merge(its)
        self.weight += other.weight
        self.frames += other.frames

    def mean(self) -> dict[str, np.ndarray]:
        """The weighted mean of the frames so far, by name, in schema order; shapes and dtypes as `decode`.

        Raises
        ------
        AggregateError
            No frame has been added.
        """
        self._need_frames()
        self._settle()
        return {
            t.name: state.mean(self.weight).reshape(t.shape)
            for t, state in zip(self.schema, self._tensors, strict=True)
        }

    def to_bytes(self) -> bytes:
        """What has been summed so far, as a partial sum (spec 8.5).

        Raises
        ------
        AggregateError
            No frame has been added.
        """
        self._need_frames()
        self._settle()
        parts = [
            HEADER.pack(
                MAGIC,
                MAJOR,
                MINOR,
                0,
                self.weight,
                self.expected.base_model or 0,
                self.expected.round or 0,
                len(self.schema),
                self.schema.digest,
                self.frames,
            )
        ]
        for state in self._tensors:
            if isinstance(state, MaskedSum):
                assert state.noise is not None
                parts.append(MASKED.pack(state.noise.code, bytes(3), state.noise.scale))
                parts.append(state.sums.astype("<i8").tobytes())
                continue
            rows = state.canonical_rows()
            parts.append(struct.pack("<I", len(rows)))
            for limb, row in rows:
                parts.append(struct.pack("<I", limb) + row.astype("<i8").tobytes())
        body = b"".join(parts)
        return body + frame.CHECKSUM.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(
        cls, data: Buffer, schema: Schema, *, limits: Limits = DEFAULT_LIMITS, backend: str | None = None
    ) -> Aggregator:
        """An aggregator that goes on from a partial sum (spec 8.5).

        Raises
        ------
        FrameError
            The subclass of the first of [P-01] to [P-15] that fails.
        """
        view = frame.as_view(data)
        header = _parse_header(view, schema)
        out = cls(schema, round=header.round, base_model=header.base_model, limits=limits, backend=backend)
        reader = _Reader(view, HEADER.size)
        for i, tensor in enumerate(schema):
            if tensor.masked:
                out._tensors[i] = _read_masked(reader, tensor)
            else:
                out._tensors[i] = _read_dense(reader, tensor)
        if reader.left:
            raise errors.TrailingError(
                "partial sum", f"{reader.left} bytes more", "required: none", reader.at
            )
        frame.check_checksum(view)
        for tensor, state in zip(schema, out._tensors, strict=True):
            _check_sums(tensor, state, header.weight)
        out.weight, out.frames = header.weight, header.frames
        return out

    def _checked_weight(self, weight: int) -> int:
        try:
            number = weight.__index__()
        except AttributeError:
            raise errors.AggregateError("weight", repr(weight), "required: a positive integer") from None
        if number < 1 or isinstance(weight, bool):
            raise errors.AggregateError("weight", repr(weight), "required: a positive integer")
        if self.weight + number > MAX_WEIGHT:
            raise errors.AggregateError("sum of weights", self.weight + number, "the limit is 2^39 - 1")
        return number

    def _settle(self) -> None:
        """Sum the masks that wait."""
        for stream, state in enumerate(self._tensors):
            if isinstance(state, MaskedSum):
                state.rest(self._backend, stream)

    def _need_frames(self) -> None:
        if not self.frames:
            raise errors.AggregateError("frames", 0, "required: at least 1")


def _check_noise(tensor: Tensor, mine: Noise | None, its: Noise | None) -> None:
    """[A-02]."""
    if mine is not None and mine != its:
        raise errors.NoiseError(f"noise of {tensor.name!r}", its, f"required: {mine}")


def _parse_header(view: memoryview, schema: Schema) -> _Header:
    """[P-01] to [P-08]."""
    least = HEADER.size + frame.CHECKSUM.size
    if len(view) < least:
        raise errors.TruncatedError("partial sum", f"{len(view)} bytes", f"required: at least {least}", 0)
    header = _Header(*HEADER.unpack_from(view))
    if header.magic != MAGIC:
        raise errors.MagicError("magic", header.magic, f"required: {MAGIC!r}", 0)
    if (header.major, header.minor) != (MAJOR, MINOR):
        raise errors.VersionError("version", f"{header.major}.{header.minor}", f"known: {MAJOR}.{MINOR}", 4)
    if header.flags:
        raise errors.ReservedError("flags", f"{header.flags:#06x}", "required: 0", 6)
    if not 1 <= header.weight <= MAX_WEIGHT:
        raise errors.WeightError("weight", header.weight, "required: 1 to 2^39 - 1", 8)
    if not 1 <= header.frames <= header.weight:
        raise errors.FramesError("frames", header.frames, f"required: 1 to {header.weight}", 48)
    if header.digest != schema.digest:
        raise errors.SchemaMismatchError(
            "schema digest", header.digest.hex(), f"the caller's is {schema.digest.hex()}", 32
        )
    if header.tensor_count != len(schema):
        raise errors.TensorCountError(
            "tensor count", header.tensor_count, f"the schema has {len(schema)}", 28
        )
    return header


class _Reader:
    """Takes parts off a partial sum, up to its checksum; running out of them is [P-01]."""

    def __init__(self, view: memoryview, at: int) -> None:
        self.view, self.at, self.end = view, at, len(view) - frame.CHECKSUM.size

    @property
    def left(self) -> int:
        return self.end - self.at

    def take(self, size: int, field: str) -> memoryview:
        if size > self.left:
            raise errors.TruncatedError(field, f"{self.left} bytes left", f"it needs {size}", self.at)
        self.at += size
        return self.view[self.at - size : self.at]

    def sums(self, count: int, field: str) -> np.ndarray:
        return np.frombuffer(self.take(8 * count, field), "<i8").astype(np.int64)


def _read_masked(reader: _Reader, tensor: Tensor) -> MaskedSum:
    """[P-09] to [P-11]."""
    at, name = reader.at, repr(tensor.name)
    code, reserved, scale = MASKED.unpack(reader.take(MASKED.size, f"noise of {name}"))
    if code not in DISTRIBUTIONS:
        raise errors.UnknownDistributionError(
            f"distribution of {name}", code, f"known: 1 to {max(DISTRIBUTIONS)}", at
        )
    if any(reserved):
        raise errors.ReservedError(f"reserved bytes of {name}", reserved.hex(), "required: 0", at + 1)
    if not DISTRIBUTIONS[code].allows(scale):
        raise errors.FrameScaleError(
            f"scale of {name}", scale, f"required: {DISTRIBUTIONS[code].bounds()}", at + 4
        )
    sums = reader.sums(tensor.size, f"sums of {name}")
    out = MaskedSum(0, DISTRIBUTIONS[code](scale))
    out.sums = sums
    return out


def _read_dense(reader: _Reader, tensor: Tensor) -> ExactSum:
    """[P-12]."""
    out, last, name = ExactSum(tensor.type, tensor.size), -1, repr(tensor.name)
    for _ in range(int.from_bytes(reader.take(4, f"rows of {name}"), "little")):
        at = reader.at
        limb = int.from_bytes(reader.take(4, f"row of {name}"), "little")
        if not last < limb < tensor.type.limbs:
            raise errors.RowsError(
                f"row of {name}", limb, f"required: {last + 1} to {tensor.type.limbs - 1}, ascending", at
            )
        out.rows[limb] = reader.sums(tensor.size, f"row {limb} of {name}")
        last = limb
    return out


def _check_sums(tensor: Tensor, state: MaskedSum | ExactSum, weight: int) -> None:
    """[P-15]."""
    masked = isinstance(state, MaskedSum)
    rows = [state.sums] if isinstance(state, MaskedSum) else list(state.rows.values())
    limit = weight * (state.noise.largest_draw if isinstance(state, MaskedSum) and state.noise else MAX_DRAW)
    for row in rows:
        largest = max(abs(int(row.min())), abs(int(row.max()))) if row.size else 0
        if largest > limit:
            raise errors.SumsError(f"sums of {tensor.name!r}", largest, f"the limit is {limit}")
        if not masked and largest == 0:
            raise errors.SumsError(f"a row of {tensor.name!r}", "only zeros", "required: left out")

"""The codec and its alternatives on arrays of one size: encoding an update, and decoding and adding it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import zstandard

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.sums.state import BATCH, MaskedSum
from reference_fl.messages import Part
from reference_fl.methods import drive, eden
from reference_fl.methods.onebit import pack_signs, unpack_signs

from . import idioms
from .timing import Work

SEED, PRIVATE_SEED, STREAM, WEIGHT = 7, 99, 0, 600
NOISE = fm.Uniform(float(idioms.SCALE))
MINE, NUMPY_BACKEND, COPY = "fedmrn, numba", "fedmrn, numpy", "memory copy"
NUMPY, TORCH, BITARRAY = "NumPy idiom", "torch idiom", "bitarray idiom"
EDEN, DRIVE, FLOAT16, ZSTD = "EDEN", "DRIVE", "float16 cast", "zstd of float32"
ZSTD_LEVEL = 3


@dataclass(frozen=True)
class Contender:
    """One way to send an update.

    Attributes
    ----------
    encode : callable
        Returns what is sent: bytes or an array.
    add : callable
        Decodes a message of `encode`, adds it to sums, and returns the sums.
    bits : float
        Bits sent for each parameter.
    threads : bool
        Whether it can use more than one thread.
    frames : int
        The number of messages that one call of `add` adds.
    """

    encode: Callable[[], object]
    add: Callable[[], np.ndarray]
    bits: float
    threads: bool = False
    frames: int = 1

    def work(self, verb: str, threads: int) -> Work:
        """One of the two operations, "encode" or "add", to be timed."""
        return Work(getattr(self, verb), threads, self.frames if verb == "add" else 1)


def update_of(size: int) -> np.ndarray:
    """An update with some values outside the range of the noise: float32."""
    return np.random.default_rng(0).normal(0, 0.005, size).astype(np.float32)


def codec(
    size: int,
    noise: fm.Noise = NOISE,
    mask: int = fm.MaskKind.BINARY,
    backend: str = "numba",
    update: np.ndarray | None = None,
) -> Contender:
    """The codec's kernels, called as an aggregator calls them: exact sums in int64, weights that differ.

    Packed masks are collected until a batch is full, which the compiled backend adds in one pass.
    """
    update = update_of(size) if update is None else update
    kernels, compiled = backends.get(backend), backend == "numba"
    payload = kernels.sample(noise, mask, SEED, STREAM, update, PRIVATE_SEED)
    state, frames = MaskedSum(size, noise), BATCH if compiled else 1
    state.reserve(len(payload))

    def add() -> np.ndarray:
        for weight in range(WEIGHT, WEIGHT + frames):
            state.add(kernels, STREAM, mask, SEED, payload, weight)
        state.flush(kernels, STREAM)
        return state.sums

    def encode() -> np.ndarray:
        return kernels.sample(noise, mask, SEED, STREAM, update, PRIVATE_SEED)

    return Contender(encode, add, 1.0, compiled, frames)


def others(size: int) -> dict[str, Contender]:
    """All alternatives to this codec."""
    update, sums = update_of(size), np.zeros(size, np.float32)
    return {
        NUMPY: _idiom(idioms.numpy_encode, idioms.numpy_add, update, sums),
        TORCH: _idiom(idioms.torch_encode, idioms.torch_add, update, sums, True),
        BITARRAY: _idiom(idioms.bitarray_encode, idioms.bitarray_add, update, sums),
        EDEN: rotated(update, sums, eden.scale, eden.CENTROID),
        DRIVE: rotated(update, sums, drive.unbiased, 1.0),
        FLOAT16: _float16(update, sums),
        ZSTD: _zstd(update, sums),
        COPY: _copy(update, sums),
    }


def every(size: int) -> dict[str, Contender]:
    """This codec first, then the others."""
    return {MINE: codec(size), NUMPY_BACKEND: codec(size, backend="numpy"), **others(size)}


def kinds(size: int) -> dict[str, Contender]:
    """This codec with each of its distributions and mask kinds."""
    noises = fm.Uniform(0.01), fm.Gaussian(0.01), fm.Bernoulli(0.01)
    masks = {"binary": fm.MaskKind.BINARY, "signed": fm.MaskKind.SIGNED}
    return {f"{n.name}, {mask}": codec(size, n, code) for mask, code in masks.items() for n in noises}


def _idiom(
    encode: Callable[[np.ndarray, int, int], bytes],
    add: Callable[[bytes, int, np.ndarray], np.ndarray],
    update: np.ndarray,
    sums: np.ndarray,
    threads: bool = False,
) -> Contender:
    packed = encode(update, SEED, PRIVATE_SEED)
    return Contender(
        partial(encode, update, SEED, PRIVATE_SEED), partial(add, packed, SEED, sums), 1.0, threads
    )


def rotated(
    update: np.ndarray, sums: np.ndarray, scale: Callable[[np.ndarray], float], unit: float
) -> Contender:
    """EDEN or DRIVE, as in this project's baselines."""
    size = len(update)
    packed = pack_signs(update, SEED, STREAM, scale)
    part = Part(memoryview(packed), 0)

    def add() -> np.ndarray:
        values = unpack_signs(part, size, SEED, STREAM, unit)
        values *= np.float32(WEIGHT)
        return np.add(sums, values, out=sums)

    return Contender(
        lambda: pack_signs(update, SEED, STREAM, scale), add, 8 * len(packed) / max(size, 1), True
    )


def _float16(update: np.ndarray, sums: np.ndarray) -> Contender:
    halves = update.astype(np.float16)
    return Contender(
        lambda: update.astype(np.float16), lambda: np.add(sums, halves.astype(np.float32), out=sums), 16.0
    )


def _zstd(update: np.ndarray, sums: np.ndarray) -> Contender:
    packer, unpacker = zstandard.ZstdCompressor(ZSTD_LEVEL), zstandard.ZstdDecompressor()
    packed = packer.compress(update)

    def add() -> np.ndarray:
        return np.add(sums, np.frombuffer(unpacker.decompress(packed), np.float32), out=sums)

    return Contender(lambda: packer.compress(update), add, 8 * len(packed) / max(len(update), 1))


def _copy(update: np.ndarray, sums: np.ndarray) -> Contender:
    def copy() -> np.ndarray:
        np.copyto(sums, update)
        return sums

    return Contender(copy, copy, 32.0)

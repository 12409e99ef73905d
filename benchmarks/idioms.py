"""Idioms: masked updates without a codec, in a few lines of NumPy, torch or bitarray.

Each idiom is a pair: `encode(update, seed, private_seed)` returns packed bits; `add(packed, seed, sums)` adds
the masked noise to `sums` in place and returns them. The noise is uniform, the masks are binary. The noise is
not that of the format: it comes from NumPy's Philox generator or from torch's Mersenne Twister.
"""

from __future__ import annotations

import numpy as np
import torch
from bitarray import bitarray
from numpy.random import Generator, Philox

SCALE = np.float32(0.01)


def numpy_noise(seed: int, size: int) -> np.ndarray:
    """Uniform noise from NumPy's generator: float32."""
    noise = Generator(Philox(seed)).random(size, np.float32)
    noise *= 2 * SCALE
    noise -= SCALE
    return noise


def numpy_bits(update: np.ndarray, seed: int, private_seed: int) -> np.ndarray:
    """The sampled mask: bool. A noise of exactly 0, which a format should exclude, also gives a bit."""
    draws = Generator(Philox(private_seed)).random(len(update), np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits: np.ndarray = draws < update / numpy_noise(seed, len(update))
    return bits


def numpy_encode(update: np.ndarray, seed: int, private_seed: int) -> bytes:
    """Sample, then `packbits`."""
    return np.packbits(numpy_bits(update, seed, private_seed), bitorder="little").tobytes()


def numpy_add(packed: bytes, seed: int, sums: np.ndarray) -> np.ndarray:
    """`random`, `unpackbits`, multiply, add."""
    noise = numpy_noise(seed, len(sums))
    noise *= np.unpackbits(np.frombuffer(packed, np.uint8), count=len(sums), bitorder="little")
    sums += noise
    return sums


def bitarray_encode(update: np.ndarray, seed: int, private_seed: int) -> bytes:
    """As the NumPy idiom, but packed by bitarray."""
    bits = bitarray(endian="little")
    bits.pack(numpy_bits(update, seed, private_seed).tobytes())
    return bits.tobytes()


def bitarray_add(packed: bytes, seed: int, sums: np.ndarray) -> np.ndarray:
    """As the NumPy idiom, but unpacked by bitarray."""
    bits = bitarray(endian="little")
    bits.frombytes(packed)
    noise = numpy_noise(seed, len(sums))
    noise *= np.frombuffer(bits.unpack(), np.uint8, len(sums))
    sums += noise
    return sums


def torch_noise(seed: int, size: int) -> torch.Tensor:
    """Uniform noise from torch's CPU generator: float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, generator=generator).mul_(2 * float(SCALE)).sub_(float(SCALE))


def torch_encode(update: np.ndarray, seed: int, private_seed: int) -> bytes:
    """Sample, then shift and sum eight bits to a byte."""
    size = len(update)
    draws = torch.rand(size, generator=torch.Generator().manual_seed(private_seed))
    bits = torch.zeros(-(-size // 8) * 8, dtype=torch.uint8)
    bits[:size] = draws < torch.from_numpy(update) / torch_noise(seed, size)
    shifted = bits.view(-1, 8) << torch.arange(8, dtype=torch.uint8)
    return shifted.sum(1, dtype=torch.uint8).numpy().tobytes()


def torch_add(packed: bytes, seed: int, sums: np.ndarray) -> np.ndarray:
    """`rand`, shift and mask, multiply, add."""
    raw = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    bits = ((raw[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).view(-1)[: len(sums)]
    torch.from_numpy(sums).add_(torch_noise(seed, len(sums)).mul_(bits))
    return sums

"""The torch backend: functions on tensors of any device, and the backend protocol on NumPy arrays.

The protocol's functions call those on tensors, which share the arrays' memory. All arithmetic is in integers,
in blocks, except the float32 product of spec 3.1 and the comparison of spec 4.3, whose operations torch runs
one by one, not fused. `torch.set_flush_denormal` must be off, [N-01].

A word is held as the int32 with the same bits, since torch has few operations on uint32. A device needs int64
and, for Gaussian noise, float64, which MPS lacks. The host must be little-endian.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from ..primitives.codes import MaskKind
from ..primitives.noise import MAX_DRAW, Bernoulli, Gaussian, Noise, gaussian_table
from ..primitives.philox import LOW, MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1
from . import numpy as plain

Device = torch.device | str

BLOCK, ALONE_BLOCK, DEVICE_BLOCK = 2**15 - 32, 2**17, 2**22
"""Elements processed at a time, multiples of 32: with several CPU threads, with one, on an accelerator. From
2^15 elements on, torch splits each operation over its CPU threads, which wait for each other after each of a
hundred operations; on a busy machine that takes tens of times as long."""

GATHER = sum(1 << 56 - 7 * i for i in range(8))


# --- the functions on tensors ---------------------------------------------------------------------------


@torch.no_grad()
def words_tensor(seed: int, stream: int, start: int, count: int, *, device: Device = "cpu") -> Tensor:
    """Words `start` to `start + count - 1`: int64 from 0 to 2^32 - 1, shape (count,) (spec 2)."""
    out = torch.empty(count, dtype=torch.int64, device=device)
    for at, size in _blocks(out):
        out[at : at + size] = _words(seed, stream, start + at, size, out.device)
    return out.bitwise_and_(LOW)


@torch.no_grad()
def noise_tensor(
    noise: Noise, seed: int, stream: int, start: int, count: int, *, device: Device = "cpu"
) -> Tensor:
    """Noise of elements `start` to `start + count - 1`: float32, shape (count,) (spec 3)."""
    out = torch.empty(count, dtype=torch.float32, device=device)
    for at, size in _blocks(out):
        out[at : at + size] = _values(noise, _draws(noise, seed, stream, start + at, size, out.device))
    return out


@torch.no_grad()
def decode_into(noise: Noise, kind: int, seed: int, stream: int, payload: Tensor, out: Tensor) -> None:
    """Write noise * mask into `out` (spec 4.2).

    Parameters
    ----------
    payload : uint8, shape (ceil(n / 8),), on the device of `out`
    out : float32, shape (n,)
    """
    for at, size in _blocks(out):
        out[at : at + size] = _values(noise, _masked(noise, kind, seed, stream, payload, at, size))


@torch.no_grad()
def add_into(
    noise: Noise, kind: int, seed: int, stream: int, payload: Tensor, scale: float, out: Tensor
) -> None:
    """Add scale * noise * mask to `out`, block by block: one float32 product, then one sum.

    Parameters
    ----------
    payload : uint8, shape (ceil(n / 8),), on the device of `out`
    scale : float
        Rounded to float32.
    out : floating-point, shape (n,)
        The sum is computed in its dtype, or in float32 if that is wider, and rounded once.
    """
    for at, size in _blocks(out):
        values = _values(noise, _masked(noise, kind, seed, stream, payload, at, size))
        out[at : at + size] += values if scale == 1 else values.mul_(scale)


@torch.no_grad()
def accumulate_into(
    noise: Noise, kind: int, seed: int, stream: int, payload: Tensor, weight: int, sums: Tensor
) -> None:
    """Add weight * q * m to `sums` (spec 8.2).

    Parameters
    ----------
    payload : uint8, shape (ceil(n / 8),), on the device of `sums`
    sums : int64, shape (n,)
    """
    for at, size in _blocks(sums):
        draws = _masked(noise, kind, seed, stream, payload, at, size)
        sums[at : at + size].add_(draws, alpha=weight)


@torch.no_grad()
def accumulate_counts_into(
    noise: Noise, kind: int, seed: int, stream: int, counts: Tensor, frames: int, weight: int, sums: Tensor
) -> None:
    """Add to `sums` what `accumulate_into` adds for `frames` masks of one seed and weight (spec 8.6).

    Parameters
    ----------
    counts : integers of at most `frames`, shape (n,), on the device of `sums`
        The number of masks whose bit is set.
    sums : int64, shape (n,)
    """
    for at, size in _blocks(sums):
        factors = counts[at : at + size].to(torch.int64)
        if kind == MaskKind.SIGNED:
            factors = factors.mul(2).sub_(frames)
        draws = _draws(noise, seed, stream, at, size, sums.device).to(torch.int64)
        sums[at : at + size].add_(draws.mul_(factors), alpha=weight)


@torch.no_grad()
def sample_tensor(
    noise: Noise, kind: int, seed: int, stream: int, update: Tensor, draws: int | Tensor
) -> Tensor:
    """The packed mask of `update`: uint8, shape (ceil(n / 8),), on its device (spec 4.3).

    Parameters
    ----------
    update : float32, shape (n,)
    draws : int, or integers below 2^24, shape (n,), on the device of `update`
    """
    out = torch.empty((len(update) + 7) // 8, dtype=torch.uint8, device=update.device)
    for at, size in _blocks(update):
        if isinstance(draws, int):
            private = (_words(draws, stream, at, size, update.device) >> 8).bitwise_and_(2**24 - 1)
        else:
            private = draws[at : at + size]
        p = update[at : at + size] / _values(noise, _draws(noise, seed, stream, at, size, update.device))
        threshold = p.mul_(2**24) if kind == MaskKind.BINARY else p.add_(1).mul_(2**23)
        out[at // 8 : (at + size + 7) // 8] = _pack(private.float() < threshold)
    return out


# --- the backend protocol, on NumPy arrays -----------------------------------------------------------


def words(seed: int, stream: int, start: int, count: int) -> np.ndarray:
    out = np.empty(count, np.uint32)
    held = torch.from_numpy(out.view(np.int32))
    for at, size in _blocks(held):
        held[at : at + size] = _words(seed, stream, start + at, size, held.device)
    return out


def decode_grid(integers: np.ndarray, step: np.float32, out: np.ndarray) -> None:
    held = torch.from_numpy(out)
    for at, size in _blocks(held):
        torch.mul(shared(integers[at : at + size]), float(step), out=held[at : at + size])


def mean(sums: np.ndarray, total: int, step: np.float32, out: np.ndarray) -> None:
    plain.mean(sums, total, step, out)


def accumulate_grid(integers: np.ndarray, weight: int, sums: np.ndarray) -> None:
    held = torch.from_numpy(sums)
    for at, size in _blocks(held):
        held[at : at + size].add_(shared(integers[at : at + size]).to(torch.int64), alpha=weight)


def accumulate_counts(
    noise: Noise,
    kind: int,
    seed: int,
    stream: int,
    counts: np.ndarray,
    frames: int,
    weight: int,
    sums: np.ndarray,
) -> None:
    # torch has few operations on uint16 and uint32; counts are below 2^24.
    held = counts if counts.itemsize == 1 else counts.astype(np.int32, copy=False)
    accumulate_counts_into(noise, kind, seed, stream, shared(held), frames, weight, torch.from_numpy(sums))


def noise(noise: Noise, seed: int, stream: int, start: int, count: int) -> np.ndarray:
    out: np.ndarray = noise_tensor(noise, seed, stream, start, count).numpy()
    return out


def decode(noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, out: np.ndarray) -> None:
    decode_into(noise, kind, seed, stream, shared(payload), torch.from_numpy(out))


def accumulate(
    noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, weight: int, sums: np.ndarray
) -> None:
    accumulate_into(noise, kind, seed, stream, shared(payload), weight, torch.from_numpy(sums))


def sample(
    noise: Noise, kind: int, seed: int, stream: int, update: np.ndarray, draws: int | np.ndarray
) -> np.ndarray:
    source = draws if isinstance(draws, int) else shared(draws.astype(np.uint32, copy=False).view(np.int32))
    out: np.ndarray = sample_tensor(noise, kind, seed, stream, shared(update), source).numpy()
    return out


def shared(array: np.ndarray) -> Tensor:
    """A tensor that shares the memory of an array, and must not be written to.

    torch has no read-only tensors and warns of read-only arrays, so it gets the memory as writable.
    """
    if not array.flags.writeable:
        interface = dict(array.__array_interface__)
        interface["data"] = interface["data"][0], False
        array = np.asarray(SimpleNamespace(__array_interface__=interface, owner=array))
    return torch.from_numpy(array)


# --- the steps ---------------------------------------------------------------------------


def _blocks(over: Tensor) -> Iterator[tuple[int, int]]:
    """(start, size) of each block of a flat tensor."""
    block = DEVICE_BLOCK
    if over.device.type == "cpu":
        block = ALONE_BLOCK if torch.get_num_threads() == 1 else BLOCK
    count = len(over)
    return ((at, min(block, count - at)) for at in range(0, count, block))


def _words(seed: int, stream: int, start: int, count: int, device: torch.device) -> Tensor:
    """Words of a stream, as int32 with their bits: shape (count,) (spec 2.1)."""
    first = start // 4
    blocks = _philox(seed, stream, first, -(-(start + count) // 4) - first, device)
    return blocks.view(-1)[start - 4 * first :][:count]


def _philox(seed: int, stream: int, first: int, count: int, device: torch.device) -> Tensor:
    """Blocks `first` to `first + count - 1`, as int32 of shape (count, 4) (spec 2.2, 2.3).

    Numbers below 2^32 are held in int64; products wrap modulo 2^64, and the mask after the shift removes the
    sign. Only the lower halves of c1 and c3 matter, which are only used in exclusive ors.
    """
    even, odd, products = torch.empty((3, 2, count), dtype=torch.int64, device=device)
    block = torch.arange(count, dtype=torch.int64, device=device).add_(_signed(first))
    torch.bitwise_and(block, LOW, out=even[0])
    torch.bitwise_right_shift(block, 32, out=odd[0])
    even[1], odd[1] = stream & LOW, stream >> 32
    for r in range(ROUNDS):
        torch.mul(even[1], MULTIPLIER_1, out=products[0])
        torch.mul(even[0], MULTIPLIER_0, out=products[1])
        torch.bitwise_right_shift(products, 32, out=even)
        even.bitwise_xor_(odd)
        even[0].bitwise_xor_(((seed & LOW) + r * WEYL_0) & LOW)
        even[1].bitwise_xor_(((seed >> 32) + r * WEYL_1) & LOW)
        even.bitwise_and_(LOW)
        odd, products = products, odd
    out = torch.empty((count, 4), dtype=torch.int32, device=device)
    for lane, source in enumerate((even[0], odd[0], even[1], odd[1])):
        out[:, lane].copy_(source)  # modulo 2^32
    return out


def _signed(value: int) -> int:
    """The signed 64-bit integer with the same bits."""
    return (value + 2**63) % 2**64 - 2**63


def _draws(noise: Noise, seed: int, stream: int, start: int, count: int, device: torch.device) -> Tensor:
    """The integer draws q (spec 3): int32, shape (count,)."""
    if isinstance(noise, Bernoulli):
        first = start // 32
        w = _words(seed, stream, first, -(-(start + count) // 32) - first, device)
        bits = (w[:, None] >> torch.arange(32, dtype=torch.int32, device=device)).bitwise_and_(1)
        return bits.view(-1)[start - 32 * first :][:count].mul_(2).sub_(1)
    w = _words(seed, stream, start, count, device)
    return _gaussian(w) if isinstance(noise, Gaussian) else _uniform(w)


def _uniform(words: Tensor) -> Tensor:
    """Uniform draws (spec 3.2); the mask makes the arithmetic shift logical, and the last bit 0."""
    return (words >> 7).bitwise_and_(2**25 - 2).sub_(MAX_DRAW)


def _gaussian(words: Tensor) -> Tensor:
    """Gaussian draws (spec 3.4); the bits of x as float64 contain octave, segment and place in sequence."""
    upper, drop = _table(words.device)
    bits = (words & (2**31 - 1)).double().mul_(2).add_(1).view(torch.int64)
    k = (bits >> 46).sub_(1023 * 64)
    place = (bits >> 30).bitwise_and_(0xFFFF).int()
    down = drop.index_select(0, k).mul_(place).add_(2**15).bitwise_right_shift_(16)
    magnitude = upper.index_select(0, k).sub_(down).clamp_(min=1)
    sign = words >> 31
    return magnitude.bitwise_xor_(sign).sub_(sign)


@cache
def _table(device: torch.device) -> tuple[Tensor, Tensor]:
    """T[k] and T[k] - T[k+1] of spec 3.4 on a device, for k = 0 to 2047: int32."""
    table = torch.from_numpy(gaussian_table().astype(np.int32)).to(device)
    return table[:-1], table[:-1] - table[1:]


def _masked(
    noise: Noise, kind: int, seed: int, stream: int, payload: Tensor, start: int, count: int
) -> Tensor:
    """Draws times mask, q * m (spec 4.2): int32, shape (count,); a binary mask gives the integer 0."""
    bits = _unpack(payload[start // 8 : (start + count + 7) // 8])[:count]
    draws = _draws(noise, seed, stream, start, count, payload.device)
    return draws.mul_(bits if kind == MaskKind.BINARY else bits.mul_(2).sub_(1))


def _values(noise: Noise, draws: Tensor) -> Tensor:
    """Noise from draws: one exact conversion and one rounded product (spec 3.1)."""
    return draws.float().mul_(float(noise.step))


def _unpack(payload: Tensor) -> Tensor:
    """The bits of packed bytes, 0 or 1: int32, shape (8 * bytes,) (spec 4.1)."""
    return _bits_of_bytes(payload.device).index_select(0, payload.int()).view(-1)


@cache
def _bits_of_bytes(device: torch.device) -> Tensor:
    """The bits of each byte from 0 to 255: int32, shape (256, 8)."""
    byte, bit = (torch.arange(n, dtype=torch.int32, device=device) for n in (256, 8))
    return (byte[:, None] >> bit) & 1


def _pack(bits: Tensor) -> Tensor:
    """Booleans of shape (n,) as packed bytes (spec 4.1): uint8, shape (ceil(n / 8),).

    Eight booleans, read as a little-endian integer, are its bits 0, 8, 16, ...; one product gathers them in
    the top byte, where no two of its terms overlap.
    """
    padded = torch.nn.functional.pad(bits, (0, -len(bits) % 8)) if len(bits) % 8 else bits
    return (padded.view(torch.int64) * GATHER).bitwise_right_shift_(56).to(torch.uint8)

"""Entropy coding of masks: codings 1 and 4 compared with the ideal, zstd-19 on packed bits, and constriction.

The ideal is the entropy of the bits, given one probability for each tensor, or one for each of the 16 buckets
of |q| that the format uses; sending the probabilities is not counted. The coders of constriction, ANS and
range coding, get the format's probability of each bit as an input: computing it, sending it and generating
the noise are not in their times and bytes. Codings 1 and 4 do generate their noise, count the bits, and check
what they decode. zstd codes each tensor by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import constriction
import numpy as np
import zstandard

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.backends.numpy import draws_of
from fedmrn_codec.backends.rans_parts import BUCKETS, shift
from fedmrn_codec.format import codings, rans

from .frames import float32_bytes, made_frame, schema_of, trained_frames
from .plan import Plan
from .tables import Section, Table, Target, number
from .timing import Work, measure

OURS, TWELVE, PACKED, ONE_EACH, IDEAL = (
    "coding 1",
    "coding 4",
    "packed bits",
    "ideal, one probability",
    "ideal, 16 buckets",
)
ZSTD, ANS, RANGE = "zstd-19 of packed bits", "constriction, ANS", "constriction, range coder"
LEVEL, NETWORK = 19, 100e6
MODEL = "cnn4"


@dataclass(frozen=True)
class Mask:
    """One masked tensor of a frame, with the buckets that the coders condition on.

    Attributes
    ----------
    packed : numpy.ndarray of uint8
    bits : numpy.ndarray of int32
    buckets : numpy.ndarray of int64
        The bucket of each element's |q|, 0 to 15.
    """

    noise: fm.Noise
    seed: int
    stream: int
    size: int
    packed: np.ndarray
    bits: np.ndarray
    buckets: np.ndarray

    @property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of set bits and of elements in each bucket."""
        ones = np.bincount(self.buckets, self.bits, BUCKETS).astype(np.int64)
        return ones, np.bincount(self.buckets, minlength=BUCKETS)

    @property
    def probabilities(self) -> np.ndarray:
        """The probability that each element's bit is set, as the format quantises it: float32."""
        values: np.ndarray = (rans.probabilities(*self.counts)[self.buckets] / 256).astype(np.float32)
        return values


@dataclass(frozen=True)
class Coder:
    """A way to code one mask; `decode` takes what `encode` returns."""

    encode: Callable[[], Any]
    decode: Callable[[Any], np.ndarray]


def run(plan: Plan) -> Section:
    """Sizes and speeds on one thread, and the acceptance targets."""
    if plan.run is None:
        frames, schema, what = [made_frame(MODEL)], schema_of(MODEL), f"made masks for {MODEL.upper()}"
    else:
        frames, schema, what = trained_frames(plan.run, plan.frames)
    masks = [mask for frame in frames for mask in masks_of(frame, schema)]
    coders = {name: [make(mask) for mask in masks] for name, make in CODERS.items()}
    coded = {name: [coder.encode() for coder in each] for name, each in coders.items()}
    sizes = {name: size_of(coded[name]) for name in coders}
    encoding = measure(
        {name: Work(lambda each=each: [c.encode() for c in each], 1) for name, each in coders.items()},  # type: ignore[misc]
        plan.rounds,
        plan.limit,
    )
    decoding = measure(
        {name: Work(lambda name=name: decoded(coders[name], coded[name]), 1) for name in coders},  # type: ignore[misc]
        plan.rounds,
        plan.limit,
    )
    elements, ideal = sum(mask.size for mask in masks), sum(map(conditional, masks))
    seconds = decoding.median(OURS)
    network = 8 * sizes[OURS] / seconds / NETWORK
    targets = [
        Target(
            "coding 1: bits, of the ideal with 16 buckets", 8 * sizes[OURS] / ideal, 1.015, at_least=False
        ),
        Target("coding 1: bytes, of zstd-19 on packed bits", sizes[OURS] / sizes[ZSTD], 0.92, at_least=False),
        Target("coding 1: million elements/s decoded, one thread", elements / seconds / 1e6, 100),
        Target("coding 1: bits/s taken in, decoding on one thread, of 100 Mbit/s", network, 1),
        signed_stays_raw(),
        whole_frames(frames, schema),
    ]
    rows = ideals(masks) + [
        [
            name,
            f"{8 * size / elements:.4f}",
            number(elements / encoding.median(name) / 1e6),
            number(elements / decoding.median(name) / 1e6),
        ]
        for name, size in sizes.items()
    ]
    heads = "coder", "bits an element", "encoded, M elements/s", "decoded, M elements/s"
    notes = [f"{what}: {len(masks)} tensors, {elements:,} elements; one thread"]
    return Section([Table("Masks under one bit", heads, rows, notes)], targets)


def masks_of(frame: bytes, schema: fm.Schema) -> list[Mask]:
    """The masks of a frame, in any coding."""
    checked = fm.verify(frame, schema)
    bits, masks = fm.decode_bits(checked), []
    for stream, (tensor, entry) in enumerate(zip(schema, checked.tensors, strict=True)):
        if entry.noise is None:
            continue
        flat = bits[tensor.name].reshape(-1)
        size = np.abs(draws_of(entry.noise, checked.seed, stream, 0, tensor.size))
        buckets = np.minimum(size >> shift(entry.noise), BUCKETS - 1).astype(np.int64)
        packed = np.packbits(flat, bitorder="little")
        masks.append(
            Mask(entry.noise, checked.seed, stream, tensor.size, packed, flat.astype(np.int32), buckets)
        )
    return masks


def ours(mask: Mask, coding: fm.Coding = fm.Coding.RANS) -> Coder:
    """Coding 1 or 4, or packed bits where these are shorter, as in a frame."""
    kernels = backends.coder(backends.installed()[0], coding)
    place, steps = (mask.noise, mask.seed, mask.stream), codings.ENTROPY[coding]

    def encode() -> np.ndarray:
        short = steps.encode(kernels, *place, mask.packed, mask.size)
        return mask.packed if short is None else short

    def decode(data: np.ndarray) -> np.ndarray:
        if len(data) == len(mask.packed):
            return data
        return steps.decode(kernels, *place, data, mask.size, "mask", 0)

    return Coder(encode, decode)


def zstd(mask: Mask) -> Coder:
    """The dictionary coder that is commonly used, at a slow level with high compression."""
    packer, unpacker = zstandard.ZstdCompressor(LEVEL), zstandard.ZstdDecompressor()
    return Coder(
        lambda: packer.compress(mask.packed), lambda data: np.frombuffer(unpacker.decompress(data), np.uint8)
    )


def packing(mask: Mask) -> Coder:
    """One bit for each element: `packbits`, `unpackbits`."""
    flat = mask.bits.astype(np.bool_)

    def decode(data: np.ndarray) -> np.ndarray:
        np.unpackbits(data, count=mask.size, bitorder="little")
        return data

    return Coder(lambda: np.packbits(flat, bitorder="little"), decode)


def ans(mask: Mask) -> Coder:
    """The stack coder of constriction."""
    stack = constriction.stream.stack.AnsCoder
    return _constriction(mask, stack, stack.encode_reverse, stack)


def range_coder(mask: Mask) -> Coder:
    """The queue coder of constriction."""
    queue = constriction.stream.queue
    return _constriction(mask, queue.RangeEncoder, queue.RangeEncoder.encode, queue.RangeDecoder)


def _constriction(mask: Mask, encoder: Any, push: Any, decoder: Any) -> Coder:
    model, probabilities = constriction.stream.model.Bernoulli(perfect=False), mask.probabilities

    def encode() -> np.ndarray:
        coder = encoder()
        push(coder, mask.bits, model, probabilities)
        words: np.ndarray = coder.get_compressed()
        return words

    def decode(words: np.ndarray) -> np.ndarray:
        bits = decoder(words).decode(model, probabilities)
        return np.packbits(bits.astype(np.bool_), bitorder="little")

    return Coder(encode, decode)


CODERS: dict[str, Callable[[Mask], Coder]] = {
    OURS: ours,
    TWELVE: partial(ours, coding=fm.Coding.RANS12),
    PACKED: packing,
    ZSTD: zstd,
    ANS: ans,
    RANGE: range_coder,
}


def decoded(coders: list[Coder], coded: list[Any]) -> list[np.ndarray]:
    """The packed masks, decoded from what was sent."""
    return [coder.decode(data) for coder, data in zip(coders, coded, strict=True)]


def size_of(coded: list[Any]) -> int:
    """Bytes, without the probabilities; constriction's words have 32 bits."""
    return sum(memoryview(data).nbytes for data in coded)


def entropy(ones: np.ndarray, totals: np.ndarray) -> float:
    """The entropy in bits for these numbers of set bits and of elements, summed over the entries."""
    p = np.divide(ones, totals, out=np.zeros(len(totals)), where=totals > 0)
    inner = (p > 0) & (p < 1)
    p, totals = p[inner], totals[inner]
    return float(-(totals * (p * np.log2(p) + (1 - p) * np.log2(1 - p))).sum())


def conditional(mask: Mask) -> float:
    """The entropy of a mask in bits, given the bucket of |q|."""
    return entropy(*mask.counts)


def ideals(masks: list[Mask]) -> list[list[str]]:
    """Rows with the lower bounds for coders that use these probabilities."""
    elements = sum(mask.size for mask in masks)
    single = sum(entropy(np.array([mask.bits.sum()]), np.array([mask.size])) for mask in masks)
    both = {ONE_EACH: single, IDEAL: sum(map(conditional, masks))}
    return [[name, f"{bits / elements:.4f}", "", ""] for name, bits in both.items()]


def whole_frames(frames: list[bytes], schema: fm.Schema) -> Target:
    """The size of the same updates with coding 1 and float16, compared with float32."""
    small = sum(len(smallest(frame, schema)) for frame in frames)
    name = "frames with coding 1 and float16 dense: times smaller than float32"
    return Target(name, len(frames) * float32_bytes(schema) / small, 40)


def smallest(frame: bytes, schema: fm.Schema) -> bytes:
    """Encode a frame again with every coding that makes it smaller."""
    checked = fm.verify(frame, schema)
    bits, arrays = fm.decode_bits(checked), fm.decode(checked)
    masked = {t.name: e for t, e in zip(schema, checked.tensors, strict=True) if e.noise is not None}
    return fm.encode_bits(
        bits,
        schema,
        seed=checked.seed,
        noise={name: entry.noise for name, entry in masked.items() if entry.noise is not None},
        mask={name: entry.kind for name, entry in masked.items()},
        dense={name: array for name, array in arrays.items() if name not in bits},
        coding="rans",
        dense_coding="float16",
    )


def signed_stays_raw() -> Target:
    """The share of signed masks that stay raw when coding 1 is requested, because it does not help."""
    info = fm.inspect(made_frame(MODEL, mask="signed", coding="rans"))
    codings = [entry.coding for entry in info.tensors if entry.noise is not None]
    return Target(
        "signed masks left raw when coding 1 is asked for, share", codings.count("raw") / len(codings), 1
    )

"""Hypothesis strategies of positions, schemas, updates and frames; small, since the oracle is slow."""

from __future__ import annotations

import hashlib
import math
import struct
from fractions import Fraction

from hypothesis import strategies as st

from . import oracle
from .oracle import DTYPES, FLOAT32, Content, Frame, Schema, Tensor

ELEMENTS = 2**48  # spec 9.1
EDGES = (2**24, 2**31, 2**32, 2**34, 2**35, 2**40, 2**47)

distributions = st.sampled_from([oracle.UNIFORM, oracle.GAUSSIAN, oracle.BERNOULLI])
kinds = st.sampled_from([oracle.BINARY, oracle.SIGNED])
u64s = st.sampled_from([7, 0, 2**32, 2**32 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
u32s = st.sampled_from([0, 1, 2**32 - 1]) | st.integers(0, 2**32 - 1)
weights = st.integers(1, 9) | st.sampled_from([600, 2**24 + 1, 2**29, 2**31, 2**32, 2**32 + 1, 2**36 - 1])


def positions(limit: int) -> st.SearchStrategy[int]:
    """Positions near 0, near powers of two, and anywhere up to `limit`."""
    edges = [edge for edge in (*EDGES, limit) if edge <= limit]
    about = st.builds(lambda edge, back: max(edge - back, 0), st.sampled_from(edges), st.integers(0, 140))
    return st.integers(0, 140) | about | st.integers(0, limit)


def scales(distribution: int) -> st.SearchStrategy[int]:
    """The bits of an allowed scale (spec 3.5)."""
    least, largest = oracle.SCALES[distribution]
    return st.sampled_from([0x3C23D70A, 0x3F800000, least, largest]) | st.integers(least, largest)


@st.composite
def noises(draw: st.DrawFn) -> tuple[int, float]:
    """A distribution and a scale."""
    distribution = draw(distributions)
    return distribution, oracle.f32_from_bits(draw(scales(distribution)))


# --- schemas ----------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
small_shapes = st.one_of(
    st.tuples(st.integers(0, 9)),
    st.just(()),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.just(0), st.sampled_from([1, 2**40])),
)
shapes = small_shapes | st.tuples(st.sampled_from([17, 32, 33, 128, 129, 130]))


@st.composite
def tensors(draw: st.DrawFn, of: st.SearchStrategy[tuple[int, ...]] = shapes) -> Tensor:
    """One tensor."""
    masked = draw(st.booleans())
    dtype = FLOAT32 if masked else draw(st.sampled_from(list(DTYPES)))
    return Tensor(draw(names), masked, dtype, draw(of))


schemas: st.SearchStrategy[Schema] = st.lists(tensors(), max_size=3, unique_by=lambda t: t.name).map(tuple)


# --- updates and frames -----------------------------------------------------------------------------


def special_words(dtype: int) -> list[int]:
    """Elements that are hard to handle, as the unsigned integers of their bytes."""
    kind = DTYPES[dtype]
    bits = 8 * kind.size
    if dtype == oracle.BOOL:
        return [0, 1]
    if not kind.fraction:
        return [0, 1, 3, 2**bits - 1, 2 ** (bits - 1) - 1, 2 ** (bits - 1)]
    one = (2 ** (kind.exponent - 1) - 1) << kind.fraction
    largest = (((1 << kind.exponent) - 1) << kind.fraction) - 1
    least = 1 << kind.fraction
    words = [0, one, one + 1, one | least >> 1, 1, least - 1, least, largest]
    return [word | sign << (bits - 1) for sign in (0, 1) for word in words]


def _finite(raw: bytes, dtype: int) -> bytes:
    """The bytes with every value that a frame cannot hold replaced by a similar one."""
    kind = DTYPES[dtype]
    words = oracle.words_of(raw, dtype)
    if dtype == oracle.BOOL:
        words = [word & 1 for word in words]
    words = [word if oracle.is_finite(word, kind) else word ^ 1 << kind.fraction for word in words]
    return b"".join(word.to_bytes(kind.size, "little") for word in words)


def elements(dtype: int, n: int) -> st.SearchStrategy[bytes]:
    """The payload of a dense tensor."""
    size = DTYPES[dtype].size
    few = st.lists(st.sampled_from(special_words(dtype)), min_size=n, max_size=n)
    special = few.map(lambda words: b"".join(word.to_bytes(size, "little") for word in words))
    return special | st.binary(min_size=n * size, max_size=n * size).map(lambda raw: _finite(raw, dtype))


def packed_masks(n: int) -> st.SearchStrategy[bytes]:
    """Masks of n elements, with padding 0."""

    def cut(raw: bytes) -> bytes:
        return raw if n % 8 == 0 else raw[:-1] + bytes([raw[-1] % (1 << n % 8)])

    return st.binary(min_size=math.ceil(n / 8), max_size=math.ceil(n / 8)).map(cut)


@st.composite
def contents(draw: st.DrawFn, tensor: Tensor, noise: tuple[int, float] | None = None) -> Content:
    """The content of a tensor; the noise is drawn if it is not given."""
    if not tensor.masked:
        return Content(draw(elements(tensor.dtype, tensor.elements)))
    distribution, scale = noise or draw(noises())
    return Content(draw(packed_masks(tensor.elements)), draw(kinds), distribution, scale)


@st.composite
def steps(draw: st.DrawFn, dtype: int) -> float:
    """An allowed step of a grid (spec 6.12)."""
    _, least, largest = oracle.GRIDS[dtype]
    near = st.integers(max(-20, least), min(4, largest))
    return float(2.0 ** draw(near | st.sampled_from([least, largest]) | st.integers(least, largest)))


@st.composite
def integers(draw: st.DrawFn, dtype: int, n: int) -> bytes:
    """The raw payload of a grid: small integers, the ends of the classes of 6.14, or any."""
    most = oracle.GRIDS[dtype][0]
    ends = [z for e in range(5, 25) for z in (2**e, 2**e - 1, 5 * 2 ** (e - 2)) if z <= most]
    small, end = st.integers(-3, 3), st.sampled_from([-z for z in ends] + ends)
    one = draw(st.sampled_from([st.just(0), small, small | end, end, st.integers(-most, most)]))
    return struct.pack(f"<{n}i", *draw(st.lists(one, min_size=n, max_size=n)))


@st.composite
def grid_contents(draw: st.DrawFn, tensor: Tensor, step: float | None = None) -> Content:
    """The content of a float tensor as a grid; the step is drawn if it is not given."""
    step = draw(steps(tensor.dtype)) if step is None else step
    coding = draw(st.sampled_from([oracle.RAW, oracle.RANS14]))
    return Content(draw(integers(tensor.dtype, tensor.elements)), oracle.GRID, scale=step, coding=coding)


def any_contents(tensor: Tensor) -> st.SearchStrategy[Content]:
    """The content of a tensor, as a grid or otherwise."""
    return contents(tensor) | grid_contents(tensor) if tensor.dtype in oracle.GRIDS else contents(tensor)


Column = tuple[Tensor, tuple[Content, ...]]
"""A tensor, and its content in each of several frames."""


@st.composite
def columns(
    draw: st.DrawFn, frames: int, of: st.SearchStrategy[tuple[int, ...]], grids: bool = False
) -> Column:
    """A tensor in several frames, with one noise, or one step; a dense one may have several steps."""
    tensor = draw(tensors(of))
    if grids and tensor.dtype in oracle.GRIDS and draw(st.booleans()):
        if not tensor.masked:
            return tensor, tuple(draw(any_contents(tensor)) for _ in range(frames))
        step = draw(steps(tensor.dtype))
        return tensor, tuple(draw(grid_contents(tensor, step)) for _ in range(frames))
    noise = draw(noises()) if tensor.masked else None
    return tensor, tuple(draw(contents(tensor, noise)) for _ in range(frames))


def tables(
    frames: int = 1,
    least: int = 1,
    of: st.SearchStrategy[tuple[int, ...]] = shapes,
    grids: bool = False,
) -> st.SearchStrategy[list[Column]]:
    """The tensors of several frames of one schema, as columns, since these shrink better than frames."""
    some = columns(frames, of, grids)
    return st.lists(some, min_size=least, max_size=3, unique_by=lambda column: column[0].name)


def frame_of(table: list[Column], i: int = 0, seed: int = 7, base_model: int = 0, round: int = 0) -> Frame:
    """Frame i of a table."""
    schema, held = tuple(tensor for tensor, _ in table), tuple(column[i] for _, column in table)
    return Frame(seed, base_model, round, schema, held)


@st.composite
def frames(draw: st.DrawFn, least: int = 1) -> Frame:
    """One frame."""
    table = draw(tables(least=least))
    return frame_of(table, 0, draw(u64s), draw(u64s), draw(u32s))


# --- codings ----------------------------------------------------------------------------------------

SHORT = st.integers(520, 700)
"""Numbers of elements at which coding 1 is shorter than raw, if few bits are set."""


@st.composite
def rare_masks(draw: st.DrawFn, n: int) -> bytes:
    """Packed masks of n bits, few of them set, or few of them clear."""
    most, tag = draw(st.integers(0, 24)), draw(st.binary(max_size=2))
    bits = [int(byte < most) for byte in hashlib.shake_128(tag).digest(n)]
    return oracle.pack([1 - bit for bit in bits] if draw(st.booleans()) else bits)


@st.composite
def halves(draw: st.DrawFn, coding: int, n: int) -> bytes:
    """Float32 elements, n of them, whose values fit in 16 bits."""
    return oracle.widen(draw(elements(oracle.HALF_DTYPE[coding], n)), coding)


@st.composite
def coded_frames(draw: st.DrawFn) -> Frame:
    """A frame with a mask in coding 1 or 4, where shorter, and a dense tensor in coding 2 or 3."""
    coder = draw(st.sampled_from(list(oracle.CODERS)))
    n, m = draw(SHORT if coder == oracle.RANS else SHORT | st.integers(36, 60)), draw(st.integers(0, 5))
    schema = (Tensor("w", True, FLOAT32, (n,)), Tensor("x", False, FLOAT32, (m,)))
    mask = Content(draw(rare_masks(n)), draw(kinds), *draw(noises()), coder)
    coding = draw(st.sampled_from(list(oracle.HALF_DTYPE)))
    contents = mask, Content(draw(halves(coding, m)), coding=coding)
    if draw(st.booleans()):
        schema, contents = schema[::-1], contents[::-1]
    return Frame(draw(u64s), 0, 0, schema, contents)


# --- grids ------------------------------------------------------------------------------------------

GRID_SIZES = st.integers(0, 9) | st.integers(20, 60)
"""Numbers of elements: too few for coding 5, and enough for it."""


@st.composite
def grid_frames(draw: st.DrawFn, alone: bool = False) -> Frame:
    """A frame with one to three grids, and other contents; if alone, then no other floats."""
    masked = st.booleans().map(lambda masked: (masked, FLOAT32))
    dense = st.sampled_from(list(oracle.GRIDS)).map(lambda dtype: (False, dtype))
    columns = []
    for i in range(draw(st.integers(1, 3))):
        tensor = Tensor(f"grid {i}", *draw(masked | dense), (draw(GRID_SIZES),))
        columns.append((tensor, draw(grid_contents(tensor))))
    for i in range(draw(st.integers(0, 2))):
        other = draw(tensors(small_shapes))._replace(name=f"other {i}")
        if not (alone and other.dtype in oracle.GRIDS):
            columns.append((other, draw(contents(other))))
    columns = draw(st.permutations(columns))
    schema, held = tuple(tensor for tensor, _ in columns), tuple(content for _, content in columns)
    return Frame(draw(st.just(0) | u64s), draw(u64s), draw(u32s), schema, held)


# --- sampling ---------------------------------------------------------------------------------------


@st.composite
def sampled(draw: st.DrawFn, kind: int, noise: float) -> tuple[int, int]:
    """The bits of an f32 update, and r; the threshold is often at r or close to it."""
    r = draw(st.sampled_from([0, 1, 2**23, 2**24 - 1]) | st.integers(0, 2**24 - 1))
    if draw(st.integers(0, 3)) == 0:
        word = struct.unpack("<I", draw(elements(FLOAT32, 1)))[0]
        return word, r
    target = r + draw(st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 1e6, -1e6]))
    p = target / 2**24 if kind == oracle.BINARY else target / 2**23 - 1
    word = oracle.round_float(Fraction(p) * Fraction(noise), oracle.F32)
    return (word if oracle.is_finite(word, oracle.F32) else 0), r


# --- sums -------------------------------------------------------------------------------------------


@st.composite
def tied_sums(draw: st.DrawFn, tensor: Tensor, weight: int) -> oracle.Sums:
    """Sums whose means are on or near the middle of two values, where rounding is hard."""
    kind, n = DTYPES[tensor.dtype], tensor.elements
    if not tensor.masked:
        middles = [_middle(draw(st.sampled_from(special_words(tensor.dtype))), kind) for _ in range(n)]
        totals = [round(middle / kind.quantum * weight) + draw(st.integers(-1, 1)) for middle in middles]
        return oracle.Sums(tuple(zip(*(_limbs(total, kind.limbs) for total in totals), strict=True)))
    distribution, scale = draw(noises())
    step, bound = oracle.step(distribution, scale), weight * oracle.LARGEST_DRAW[distribution]
    if draw(st.integers(0, 3)) == 0:
        distribution, scale = oracle.GRID_DISTRIBUTION, draw(steps(FLOAT32))
        step, bound = Fraction(scale), weight * (2**24 - 1)
    row = []
    for _ in range(n):
        near = bound * step / weight * Fraction(draw(st.integers(-4096, 4096)), 4096)
        middle = _middle(oracle.round_float(near, oracle.F32), oracle.F32) if near else near
        row.append(max(-bound, min(bound, round(middle * weight / step))))
    return oracle.Sums((tuple(row),), distribution, scale)


def _middle(word: int, kind: oracle.Dtype) -> Fraction:
    """The middle of a value and its neighbour away from 0; the value itself if it has none."""
    value = oracle.exact_value(word, kind)
    if not kind.fraction:
        return value + Fraction(1 if value >= 0 else -1, 2)
    neighbour = word + 1
    return (value + oracle.exact_value(neighbour, kind)) / 2 if oracle.is_finite(neighbour, kind) else value


def _limbs(total: int, count: int) -> list[int]:
    """The limbs of a sum, all with its sign; the last one is not bounded (spec 8.4)."""
    sign, rest = (-1 if total < 0 else 1), abs(total)
    digits = []
    for _ in range(count - 1):
        rest, digit = divmod(rest, oracle.DIGIT)
        digits.append(sign * digit)
    return [*digits, sign * rest]

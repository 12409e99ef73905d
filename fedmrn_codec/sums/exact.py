"""Exact weighted sums of dense elements, and their means, which are rounded once (spec 8.3, 8.4)."""

from __future__ import annotations

import math

import numpy as np

from .. import errors
from ..primitives.dtypes import Dtype, is_finite, round_to_bfloat16, widen_bfloat16
from .limb import LimbSums

LIMB = 24
"""Bits of a digit, in one limb. A digit times the largest sum of weights (2^39 - 1) fits in an int64."""

BATCH, BATCH_BYTES = 16, 2**18
"""Arrays that are summed together, and the bytes of the largest array that waits for others."""

MOST_IN_DOUBLES = 2**29
"""The largest sum of weights for which a float64 holds every sum of weighted digits exactly."""

BLOCK = 2**14
"""Elements, of all arrays of a batch together, that are summed at a time; it bounds the memory."""

WIDE_BLOCK = 2**13
"""The same for float64, whose elements may have sums in any of 88 limbs."""

FEW_LIMBS = 4
"""Lowest limbs of the elements up to which a pass for each is faster than adding element by element."""


class ExactSum:
    """The exact sum of weight * x over arrays x of one dtype and size, as integers in limbs (spec 8.4).

    The sum does not depend on the order of `add` and `merge`. A limb takes memory once a sum needs it; for
    float64, only the elements that need it do. Small arrays are summed in batches, since a NumPy call for
    each takes longer than its additions.

    Parameters
    ----------
    dtype : Dtype
    size : int
        Number of elements.
    """

    def __init__(self, dtype: Dtype, size: int) -> None:
        self.dtype, self.size = dtype, size
        self._limbs: dict[int, LimbSums] = {}
        self._batch: list[np.ndarray] = []
        self._weights: list[int] = []

    @property
    def rows(self) -> dict[int, np.ndarray]:
        """The sums of each limb, by limb: int64, shape (size,)."""
        return {limb: sums.part(slice(0, self.size)) for limb, sums in self.limbs.items()}

    @property
    def limbs(self) -> dict[int, LimbSums]:
        """The sums by limb."""
        self.flush()
        return self._limbs

    def add(self, values: np.ndarray, weight: int) -> None:
        """Add weight * values: shape (size,), of the dtype's NumPy form, finite; no reference is kept."""
        alone = values.nbytes > BATCH_BYTES
        self._batch.append(values if alone else values.copy())
        self._weights.append(weight)
        if alone or len(self._batch) == BATCH:
            self.flush()

    def flush(self) -> None:
        """Sum the arrays of the batch; if this is stopped half-way, the sums are of no more use."""
        batch, self._batch = self._batch, []
        weights, self._weights = np.array(self._weights, np.int64), []
        step = (WIDE_BLOCK if self._wide else BLOCK) // max(len(batch), 1)
        for begin in range(0, self.size if batch else 0, step):
            part = slice(begin, begin + step)
            values = np.stack([array[part] for array in batch])
            if self._narrow and int(weights.sum()) <= MOST_IN_DOUBLES:
                self._sum_narrow(values, weights, part)
            else:
                self._sum(values.reshape(-1), np.repeat(weights, values.shape[1]), part)
        if batch and self._wide:
            for sums in self._limbs.values():
                sums.finish()

    @property
    def _narrow(self) -> bool:
        return self.dtype.precision is not None and self.dtype.precision <= LIMB

    @property
    def _wide(self) -> bool:
        """Whether elements of an array may be spread over so many limbs that most sums of a limb are 0."""
        return self.dtype.name == "float64"

    def _sum_narrow(self, values: np.ndarray, weights: np.ndarray, part: slice) -> None:
        """Add weights * values, of shapes (k,) and (k, n), to a part of the sums, in float64.

        From the highest limb down, the digit is the integer part of the quotient by the limb's unit. Digits
        have 24 bits; they, the remainders and the weighted sums are exact, in any order of additions.
        """
        wide = widen_bfloat16(values) if self.dtype.name == "bfloat16" else values
        remainder = wide.astype(np.float64)
        limb = (math.frexp(float(np.abs(remainder).max(initial=0)))[1] - 1 - self.dtype.exponent) // LIMB
        factors = weights.astype(np.float64)
        while remainder.any():
            unit = math.ldexp(1.0, LIMB * limb + self.dtype.exponent)
            digits = np.trunc(remainder * (1 / unit))
            self.row(limb)[part] += (factors @ digits).astype(np.int64)
            remainder -= digits * unit
            limb -= 1

    def _sum(self, values: np.ndarray, weights: np.ndarray, part: slice) -> None:
        """Add weights * values, both of shape (k * n,), to a part of the sums, in integers."""
        negative, magnitude, position = decompose(values, self.dtype)
        low = position // LIMB
        shift = (position - LIMB * low).astype(np.uint64)
        signed = weights * (1 - 2 * negative.astype(np.int64))
        carried = np.zeros(len(values), np.uint64)
        mask = np.uint64(2**LIMB - 1)
        digits = -(-int(magnitude.max(initial=0)).bit_length() // LIMB)
        length = min(self.size, part.stop) - part.start
        used = magnitude != 0
        lowest, highest = (int(low[used].min()), int(low[used].max())) if used.any() else (0, 0)
        table = np.zeros((highest - lowest + digits + 1, length), np.int64)
        limbs = range(lowest, highest + 1)
        places = np.where(used, low - lowest, 0) * length + np.arange(len(low)) % length
        for k in range(digits + 1):  # the shift moves bits into one more
            chunk = ((magnitude >> np.uint64(LIMB * k)) & mask if k < digits else np.uint64(0)) << shift
            digit = (chunk & mask) | carried
            carried = chunk >> np.uint64(LIMB)
            product = signed * digit.astype(np.int64)
            if len(limbs) > FEW_LIMBS:
                np.add.at(table.reshape(-1), places + k * length, product)
                continue
            for limb in limbs:
                share = product if len(limbs) == 1 else np.where(low == limb, product, 0)
                table[limb - lowest + k] += share.reshape(-1, length).sum(0)
        for row in np.flatnonzero(table.any(axis=1)):
            self._limb(lowest + int(row)).add(part.start, table[row])

    def row(self, limb: int) -> np.ndarray:
        """The sums of a limb, to be written to: int64, shape (size,); a limb without sums gets zeros."""
        return self._limb(limb).array()

    def add_row(self, limb: int, begin: int, sums: np.ndarray) -> None:
        """Add sums of a limb to the elements from `begin` on: int64, shape (k,)."""
        self._limb(limb).add(begin, sums)

    def _limb(self, limb: int) -> LimbSums:
        if limb not in self._limbs:
            self._limbs[limb] = LimbSums(self.size)
            if not self._wide:
                self._limbs[limb].array()
        return self._limbs[limb]

    def merge(self, other: ExactSum, weight: int = 1) -> None:
        """Add weight * the sums of `other`, of the same dtype and size."""
        for limb, sums in other.limbs.items():
            self._limb(limb).merge(sums, weight)

    def canonical_rows(self) -> list[tuple[int, np.ndarray]]:
        """The limbs whose sums are not all 0, in ascending order, with their sums (spec 8.5)."""
        return [(limb, row) for limb, row in sorted(self.rows.items()) if row.any()]

    def mean(self, total: int) -> np.ndarray:
        """The sum divided by `total`, rounded once to the dtype: shape (size,) (spec 8.3); checks [A-07]."""
        out = np.zeros(self.size, self.dtype.numpy)
        with np.errstate(over="ignore"):
            if self._narrow:
                rows = self.canonical_rows()
                out, doubtful = _filtered_mean(rows, total, self.dtype, out)
                if doubtful.size:
                    out[doubtful] = self._exact_means([(k, row[doubtful]) for k, row in rows], total)
            else:
                limbs = sorted(self.limbs.items())
                for begin in range(0, self.size if limbs else 0, WIDE_BLOCK):
                    part = slice(begin, begin + WIDE_BLOCK)
                    out[part] = self._exact_means([(k, sums.part(part)) for k, sums in limbs], total)
        if not is_finite(out, self.dtype):
            raise _beyond_range(self.dtype)
        return out

    def _exact_means(self, rows: list[tuple[int, np.ndarray]], total: int) -> list[float | int]:
        """The means of some elements, from their sums by limb; it takes time for sums other than 0 only."""
        exact = [0] * len(rows[0][1])
        for limb, row in rows:
            at = np.flatnonzero(row)
            for i, digits in zip(at.tolist(), row[at].tolist(), strict=True):
                exact[i] += digits << (LIMB * limb)
        return [self._exact_mean(each, total) for each in exact]

    def _exact_mean(self, exact: int, total: int) -> float | int:
        quotient, exponent = nearest(exact, total, self.dtype.precision)
        if not self.dtype.is_float:
            least, largest = integer_range(self.dtype)
            if not least <= quotient <= largest:
                raise _beyond_range(self.dtype)
            return quotient
        try:
            value = math.ldexp(quotient, exponent + self.dtype.exponent)
        except OverflowError:
            raise _beyond_range(self.dtype) from None
        return int(round_to_bfloat16(np.asarray(value))) if self.dtype.name == "bfloat16" else value


def decompose(values: np.ndarray, dtype: Dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write each element as sign * M * 2^(position + dtype.exponent) (spec 8.4).

    Returns
    -------
    negative : bool, magnitude M : uint64, position : int64
        Each of shape (n,).
    """
    if not dtype.is_float:
        negative = values < 0
        magnitude = values.astype(np.uint64)  # two's complement: -x is 2^64 - x
        magnitude = np.where(negative, np.uint64(0) - magnitude, magnitude)
        return negative, magnitude, np.zeros(len(values), np.int64)
    bits = (
        values.astype(dtype.numpy.newbyteorder("="), copy=False).view(f"u{values.itemsize}").astype(np.uint64)
    )
    assert dtype.precision is not None
    mantissa, sign = np.uint64(dtype.precision - 1), np.uint64(8 * values.itemsize - 1)
    field = (bits >> mantissa) & np.uint64(2 ** int(sign - mantissa) - 1)
    fraction = bits & np.uint64(2 ** int(mantissa) - 1)
    one = np.minimum(field, 1)  # 0 for zeros and subnormals, whose exponent is that of the least normals
    return bits >> sign != 0, fraction | (one << mantissa), (field - one).astype(np.int64)


def integer_range(dtype: Dtype) -> tuple[int, int]:
    """The least and the largest value of a dtype of integers or of bool."""
    if dtype.name == "bool":
        return 0, 1
    info = np.iinfo(dtype.name)
    return int(info.min), int(info.max)


def _beyond_range(dtype: Dtype) -> errors.SumsError:
    """The error of [A-07]."""
    return errors.SumsError(
        f"mean of a {dtype.name} tensor", f"values in the range of {dtype.name}", "a larger magnitude"
    )


def nearest(numerator: int, denominator: int, precision: int | None) -> tuple[int, int]:
    """Round numerator / denominator to q * 2^e, to nearest, ties to even, in integers: the pair (q, e).

    q has at most `precision` bits, and e >= 0. If `precision` is None, e is 0 and q the nearest integer.
    """
    size = abs(numerator)
    e = 0 if precision is None else max(size.bit_length() - denominator.bit_length() - precision, 0)
    if precision is not None and size // (denominator << e) >= 2**precision:
        e += 1
    q, remainder = divmod(size, denominator << e)
    half = 2 * remainder - (denominator << e)
    q += half > 0 or (half == 0 and q & 1)
    return (-q if numerator < 0 else q), e


def _filtered_mean(
    rows: list[tuple[int, np.ndarray]], total: int, dtype: Dtype, out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The means computed in float64, and the indices of those whose rounding its error bound leaves open."""
    value, bound = np.zeros(len(out)), np.zeros(len(out))
    for limb, row in rows:
        term = np.ldexp(row.astype(np.float64), LIMB * limb + dtype.exponent)
        value += term
        bound += np.abs(term)
    value /= total
    bound *= (len(rows) + 4) * 2.0**-52 / total
    low, high = _narrow(value - bound, dtype), _narrow(value + bound, dtype)
    return low + out, np.flatnonzero(low != high)  # adding 0 turns -0.0 into +0.0


def _narrow(value: np.ndarray, dtype: Dtype) -> np.ndarray:
    """Round float64 once to a dtype of at most 24 bits of precision."""
    if dtype.name == "bfloat16":
        bits = round_to_bfloat16(value)
        return np.where(bits == 0x8000, np.uint16(0), bits)  # -0.0 becomes +0.0
    with np.errstate(over="ignore"):
        return value.astype(dtype.numpy)

"""The sums of one limb (spec 8.4), which take memory for those elements only that have a sum."""

from __future__ import annotations

import numpy as np

MOST_PARTS = 16
"""Parts in which the sums of few elements are kept until they are joined."""


class LimbSums:
    """The sums of one limb of all elements: int64, 0 at first.

    While at most half of them are not 0, those are kept with their indices; then all are, in an array. So
    what a frame costs is bounded by a few times its bytes. Arrays alone would cost 88 limbs, 704 bytes for
    each element of 8, for a single float64 tensor with all exponents.

    Parameters
    ----------
    size : int
        Number of elements.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._all: np.ndarray | None = None
        self._few: list[tuple[np.ndarray, np.ndarray]] = []  # indices, which ascend, and sums
        self._whole = 0  # of the parts in _few, those of finished arrays; the indices of the others ascend
        self._count, self._most = 0, size // 2

    def add(self, begin: int, sums: np.ndarray) -> None:
        """Add to the elements from `begin` on: int64, shape (k,)."""
        if self._all is not None:
            self._all[begin : begin + len(sums)] += sums
            return
        if len(self._few) > self._whole and self._few[-1][0][-1] >= begin:
            self.finish()  # what was added before was another array, and the indices of a part ascend
        at = np.flatnonzero(sums != 0)
        self._add_few(at + begin, sums[at])

    def finish(self) -> None:
        """Join what has been added since the last call, to elements that ascend."""
        if len(self._few) - self._whole > 1:
            added = self._few[self._whole :]
            joined = np.concatenate([at for at, _ in added]), np.concatenate([sums for _, sums in added])
            self._few[self._whole :] = [joined]
        self._whole = len(self._few)
        if self._whole > MOST_PARTS:
            self._compact()

    def merge(self, other: LimbSums, weight: int = 1) -> None:
        """Add weight * the sums of `other`, of the same size."""
        self.finish()
        if other._all is not None:
            self.add(0, other._all if weight == 1 else weight * other._all)
        for at, sums in list(other._few):  # a copy, since `other` may be this one
            self._add_few(at, sums if weight == 1 else weight * sums)
            self.finish()

    def array(self) -> np.ndarray:
        """All sums as the array in which they are kept from now on: int64, shape (size,)."""
        if self._all is None:
            self._keep_all(self.part(slice(0, self._size)))
        assert self._all is not None
        return self._all

    def part(self, part: slice) -> np.ndarray:
        """The sums of a slice of the elements, not to be written to: int64."""
        if self._all is not None:
            return self._all[part]
        begin, end, _ = part.indices(self._size)
        out = np.zeros(end - begin, np.int64)
        for at, sums in self._few:
            first, last = np.searchsorted(at, (begin, end))
            out[at[first:last] - begin] += sums[first:last]
        return out

    def _add_few(self, at: np.ndarray, sums: np.ndarray) -> None:
        """Add sums other than 0 with their indices, which ascend."""
        if self._all is not None:
            self._all[at] += sums
        elif len(at):
            self._few.append((at, sums))
            self._count += len(at)
            if self._count > self._most:
                self._compact()

    def _compact(self) -> None:
        """Join the sums of each element, and decide in which of the two forms they are kept."""
        joined = self.part(slice(0, self._size))
        at = np.flatnonzero(joined != 0)
        if len(at) > self._size // 2:
            self._keep_all(joined)
            return
        self._few, self._whole, self._count = [(at, joined[at])], 1, len(at)
        # Not for every element more: frames could have all limbs joined again and again with few of them.
        self._most = max(self._size // 2, len(at) + self._size // 8)

    def _keep_all(self, sums: np.ndarray) -> None:
        self._all, self._few, self._whole, self._count = sums, [], 0, 0

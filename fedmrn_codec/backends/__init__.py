"""The backends: a module each, with the same functions in the same order, which give the same bits.

Backends work on flat arrays and check nothing: their caller has checked sizes, ranges and payloads.

May import `primitives`.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Protocol, cast

import numpy as np

from .. import errors
from ..primitives.codes import Coding
from ..primitives.noise import Noise
from .rans_parts import Coded

MODULES = {
    "numba": ("numba",),
    "numpy": ("numpy",),
    "torch": ("torch",),
    "onnx": ("onnx", "onnxruntime"),
}
"""The packages that each backend needs, in order of preference. Those after NumPy are never the default."""


class Backend(Protocol):
    """The functions that every backend module has.

    `seed` and `stream` are unsigned 64-bit Python integers; `kind` is a code of spec 4.2; `payload` holds
    a packed mask (uint8, spec 4.1) of elements 0 to n - 1 of the stream.
    """

    def words(self, seed: int, stream: int, start: int, count: int) -> np.ndarray:
        """Words `start` to `start + count - 1`: uint32, shape (count,) (spec 2)."""

    def noise(self, noise: Noise, seed: int, stream: int, start: int, count: int) -> np.ndarray:
        """Noise of elements `start` to `start + count - 1`: float32, shape (count,) (spec 3)."""

    def decode(
        self, noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, out: np.ndarray
    ) -> None:
        """Write noise * mask into `out`: float32, shape (n,) (spec 4.2)."""

    def accumulate(
        self,
        noise: Noise,
        kind: int,
        seed: int,
        stream: int,
        payload: np.ndarray,
        weight: int,
        sums: np.ndarray,
    ) -> None:
        """Add weight * draw * mask, all integers, to `sums`: int64, shape (n,) (spec 8.2)."""

    def sample(
        self, noise: Noise, kind: int, seed: int, stream: int, update: np.ndarray, draws: int | np.ndarray
    ) -> np.ndarray:
        """The packed mask of `update` (float32, shape (n,)): uint8 (spec 4.3).

        `draws` is an array of the n integers r (uint32), or the private seed that they are made from.
        """

    def decode_grid(self, integers: np.ndarray, step: np.float32, out: np.ndarray) -> None:
        """Write integers (int32, shape (n,)) times step into `out`: float32, shape (n,) (spec 6.12)."""

    def accumulate_grid(self, integers: np.ndarray, weight: int, sums: np.ndarray) -> None:
        """Add weight * integers (int32, shape (n,)) to `sums`: int64, shape (n,) (spec 8.2)."""

    def accumulate_counts(
        self,
        noise: Noise,
        kind: int,
        seed: int,
        stream: int,
        counts: np.ndarray,
        frames: int,
        weight: int,
        sums: np.ndarray,
    ) -> None:
        """Add to `sums` what `accumulate` adds for `frames` masks of one seed and weight (spec 8.6).

        `counts` is the number of masks whose bit is set: uint8, uint16 or uint32 below 2^24, shape (n,).
        """

    def mean(self, sums: np.ndarray, total: int, step: np.float32, out: np.ndarray) -> None:
        """Write sums / total * step, in float64, into `out`: float32, shape (n,), [A-03]."""


class Coder(Protocol):
    """The steps of codings 1 and 4 (spec 6.8, 6.11), a module for each.

    `noise`, `seed`, `stream` and `payload` are as in `Backend`; `size` is n. `probabilities` is an array of
    shape (16,) of integers, in units of 2^-8 in coding 1 and of 2^-12 in coding 4.
    """

    def count(
        self, noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of set bits and of elements in each bucket of |q|: int64, shape (16,) each."""

    def encode(
        self, noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int, probabilities: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Code a mask with these probabilities: the states, counts and words of `Coded`."""

    def decode(
        self, noise: Noise, seed: int, stream: int, coded: Coded, out: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Write the packed mask into `out` (uint8).

        Returns the indices of the blocks that do not end in the initial states, and `count` of the mask.
        """


class GridCoder(Protocol):
    """The steps of coding 5 (spec 6.14), a module for each; `integers` is int32 of shape (n,)."""

    def count(self, integers: np.ndarray) -> np.ndarray:
        """The number of elements with each symbol: int64, shape (215,)."""

    def encode(
        self, integers: np.ndarray, frequencies: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Code integers with frequencies (uint32, shape (215,)): states, counts and words of `Coded`."""

    def decode(self, coded: Coded, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Write the integers into `out` (int32, shape (n,)).

        Returns the indices of the blocks that do not end in the initial state, and `count` of the integers.
        """


class CountPacker(Protocol):
    """Counts of `bits` bits each, 1 to 24, as packed bytes (spec 8.6), a module for each; n is their number.

    Counts are uint8, uint16 or uint32, the narrowest type of `bits` bits.
    """

    def pack(self, counts: np.ndarray, bits: int) -> np.ndarray:
        """The packed counts, with padding bits of 0: uint8, shape (ceil(n * bits / 8),)."""

    def unpack(self, payload: np.ndarray, bits: int, out: np.ndarray) -> None:
        """Write the counts of packed bytes into `out`, shape (n,)."""


def installed() -> list[str]:
    """The names of the backends whose packages are installed, in order of preference; imports none."""
    return [name for name, packages in MODULES.items() if all(map(importlib.util.find_spec, packages))]


@cache
def _automatic() -> Backend:
    from .automatic import AutomaticBackend

    return AutomaticBackend()


@cache
def _automatic_coder(coding: Coding) -> Coder:
    from .automatic import AutomaticCoder

    return AutomaticCoder(coding)


@cache
def _automatic_grid_coder() -> GridCoder:
    from .automatic import AutomaticGridCoder

    return AutomaticGridCoder()


@cache
def _automatic_count_packer() -> CountPacker:
    from .automatic import AutomaticCountPacker

    return AutomaticCountPacker()


@cache
def _load(name: str) -> Backend:
    return cast(Backend, importlib.import_module(f".{name}", __name__))


def get(name: str | None = None) -> Backend:
    """The backend with this name; by default NumPy's, or where Numba is installed `automatic`, which is both.

    Raises
    ------
    BackendError
        There is no such backend, or a package that it needs is not installed.
    """
    if name is None:
        return _automatic() if "numba" in installed() else _load("numpy")
    if name not in MODULES:
        raise errors.BackendError("backend", f"one of {', '.join(MODULES)}", repr(name))
    try:
        return _load(name)
    except ImportError as error:  # also of a package that refuses the versions of others
        expected = f"its packages (pip install 'fedmrn-codec[{name}]')"
        raise errors.BackendError(f"backend {name!r}", expected, error) from None


def accumulate_many(
    backend: Backend,
    noise: Noise,
    kinds: np.ndarray,
    seeds: np.ndarray,
    stream: int,
    payloads: np.ndarray,
    weights: np.ndarray,
    sums: np.ndarray,
) -> None:
    """`Backend.accumulate` of k frames, in one pass over the sums if the backend has a function for that.

    Parameters
    ----------
    kinds, weights : numpy.ndarray of int64, shape (k,)
    seeds : numpy.ndarray of uint64, shape (k,)
    payloads : numpy.ndarray of uint8, shape (k, bytes)
    """
    at_once = getattr(backend, "accumulate_many", None)
    if at_once is not None and len(kinds) > 1:
        at_once(noise, kinds, seeds, stream, payloads, weights, sums)
        return
    for kind, seed, payload, weight in zip(kinds, seeds, payloads, weights, strict=True):
        backend.accumulate(noise, int(kind), int(seed), stream, payload, int(weight), sums)


def grid_coder(backend: str | None = None) -> GridCoder:
    """The steps of coding 5: those of NumPy or of Numba, chosen as in `coder`."""
    if backend is None and "numba" in installed():
        return _automatic_grid_coder()
    name = "numpy" if backend == "numpy" or "numba" not in installed() else "numba"
    return cast(GridCoder, importlib.import_module(f".{name}_rans14", __name__))


def count_packer(backend: str | None = None) -> CountPacker:
    """The packing of counts: that of NumPy or of Numba, chosen as in `coder`."""
    if backend is None and "numba" in installed():
        return _automatic_count_packer()
    name = "numpy" if backend == "numpy" or "numba" not in installed() else "numba"
    return cast(CountPacker, importlib.import_module(f".{name}_counts", __name__))


def coder(backend: str | None = None, coding: Coding = Coding.RANS) -> Coder:
    """The steps of a coding of masks: compiled if Numba is installed and the backend is not "numpy".

    The default begins with NumPy, as in `get`.
    """
    if backend is None and "numba" in installed():
        return _automatic_coder(coding)
    name = "numpy" if backend == "numpy" or "numba" not in installed() else "numba"
    steps: Coder = importlib.import_module(f".{name}_{coding.label}", __name__)
    return steps

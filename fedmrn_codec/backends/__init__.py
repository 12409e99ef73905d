"""The backends: one small module each, the same verbs in the same order, the same bits.

A backend works on flat arrays and trusts its caller: sizes, ranges and payloads have been checked.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Protocol, cast

import numpy as np

from .. import errors
from ..primitives.noise import Noise
from .rans_parts import Coded

MODULES = {
    "numba": ("numba",),
    "numpy": ("numpy",),
    "torch": ("torch",),
    "onnx": ("onnx", "onnxruntime"),
}
"""Backend name -> the packages it needs, the preferred one first. Those after NumPy are used by name only."""


class Backend(Protocol):
    """What every backend module provides.

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
        """Add weight * q * m to `sums`: int64, shape (n,) (spec 8.2)."""

    def sample(
        self, noise: Noise, kind: int, seed: int, stream: int, update: np.ndarray, draws: int | np.ndarray
    ) -> np.ndarray:
        """The packed mask of `update` (float32, shape (n,)): uint8 (spec 4.3).

        `draws` holds the n integers r, or is the private seed that they come from.
        """


class Coder(Protocol):
    """The steps of coding 1 of masks (spec 6.8); `rans` holds them together. Arguments as for `Backend`."""

    def count(
        self, noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Set bits and elements of each bucket of |q|: int64, shape (16,) each."""

    def encode(
        self, noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int, probabilities: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The states, the numbers of words and the words of a mask's blocks, as in `rans.Coded`."""

    def decode(
        self, noise: Noise, seed: int, stream: int, coded: Coded, out: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Write the packed mask into `out`.

        Return the numbers of the blocks that do not end as they must, and what `count` gives for `out`.
        """


def installed() -> list[str]:
    """Names of the backends whose packages are installed, the preferred one first; imports none."""
    return [name for name, packages in MODULES.items() if all(map(importlib.util.find_spec, packages))]


@cache
def _load(name: str) -> Backend:
    return cast(Backend, importlib.import_module(f".{name}", __name__))


def get(name: str | None = None) -> Backend:
    """The backend of this name; None takes the preferred one that is installed.

    Raises
    ------
    BackendError
        If there is no such backend, or its package is missing.
    """
    if name is None:
        name = installed()[0]
    if name not in MODULES:
        raise errors.BackendError("backend", f"one of {', '.join(MODULES)}", repr(name))
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        raise errors.BackendError(
            "backend",
            f"its package, as installed by fedmrn-codec[{name}]",
            f"{name!r} without its package ({error})",
        ) from None


def accumulate_many(
    run: Backend,
    noise: Noise,
    kinds: np.ndarray,
    seeds: np.ndarray,
    stream: int,
    payloads: np.ndarray,
    weights: np.ndarray,
    sums: np.ndarray,
) -> None:
    """`Backend.accumulate` of k frames, in one pass over the sums where a backend has a verb of this name.

    Parameters
    ----------
    kinds, weights : numpy.ndarray of int64, shape (k,)
    seeds : numpy.ndarray of uint64, shape (k,)
    payloads : numpy.ndarray of uint8, shape (k, bytes)
    """
    together = getattr(run, "accumulate_many", None)
    if together is not None and len(kinds) > 1:
        together(noise, kinds, seeds, stream, payloads, weights, sums)
        return
    for kind, seed, payload, weight in zip(kinds, seeds, payloads, weights, strict=True):
        run.accumulate(noise, int(kind), int(seed), stream, payload, int(weight), sums)


def coder(backend: str | None = None) -> Coder:
    """The steps of coding 1: compiled if Numba is installed, unless it is NumPy that was asked for."""
    name = "numpy_rans" if backend == "numpy" or "numba" not in installed() else "numba_rans"
    steps: Coder = importlib.import_module(f".{name}", __name__)
    return steps

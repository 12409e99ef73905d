"""The default where Numba is installed: NumPy for the first elements of a process, then Numba.

Numba takes time before its first result: to import it and load compiled code from the disk, or, where nothing
has been compiled before, to compile. NumPy is used until it has worked about as long as that takes. So small
frames never wait, and a process with many of them still gets the faster backend. The bits are the same.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from typing import Any

import numpy as np

from ..primitives.codes import Coding
from ..primitives.noise import Noise
from . import Backend, Coder, CountPacker, GridCoder, accumulate_many
from .rans_parts import Coded

log = logging.getLogger("fedmrn_codec")

LOAD = 2**23
"""The elements that NumPy handles in the time of importing Numba and loading code, 0.25 s of one core."""

WORK = 8
"""The elements of the other functions that NumPy handles in the time of one that it codes for a grid."""

COMPILE = 2**28
"""The elements that NumPy handles in the time of compiling, 7 s of one core."""


class Automatic:
    """Chooses between a module of NumPy and one of Numba, call by call.

    Parameters
    ----------
    plain, compiled : str
        Their names.
    kernels : dict of str to (str, str)
        Function -> the module and the name of the compiled kernel that it calls.
    """

    served = 0
    """Elements that NumPy has handled in this process."""

    def __init__(self, plain: str, compiled: str, kernels: dict[str, tuple[str, str]]) -> None:
        self._plain, self._compiled, self._kernels = plain, compiled, kernels
        self._ready: set[str] = set()

    def choose(self, function: str, elements: int) -> Any:
        """The module for a call with so many elements."""
        if function not in self._ready:
            total = Automatic.served + elements
            if total <= LOAD or not _numba_works() or (total <= COMPILE and not self._has_code(function)):
                Automatic.served = total
                return _module(self._plain)
            self._ready.add(function)
        return _module(self._compiled)

    def _has_code(self, function: str) -> bool:
        from .compiled import has_code

        module, kernel = self._kernels[function]
        return has_code(getattr(_module(module), kernel))


class AutomaticBackend(Automatic):
    """The functions of `Backend`."""

    def __init__(self) -> None:
        functions = ("noise", "decode", "accumulate", "accumulate_counts", "sample", "mean")
        kernels = {name: ("numba", f"_{name}") for name in functions}
        super().__init__("numpy", "numba", kernels | {"words": ("numba", "fill")})

    def words(self, seed: int, stream: int, start: int, count: int) -> np.ndarray:
        chosen: Backend = self.choose("words", count)
        return chosen.words(seed, stream, start, count)

    def noise(self, noise: Noise, seed: int, stream: int, start: int, count: int) -> np.ndarray:
        chosen: Backend = self.choose("noise", count)
        return chosen.noise(noise, seed, stream, start, count)

    def decode(
        self, noise: Noise, kind: int, seed: int, stream: int, payload: np.ndarray, out: np.ndarray
    ) -> None:
        self.choose("decode", len(out)).decode(noise, kind, seed, stream, payload, out)

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
        chosen: Backend = self.choose("accumulate", len(sums))
        chosen.accumulate(noise, kind, seed, stream, payload, weight, sums)

    def accumulate_many(
        self,
        noise: Noise,
        kinds: np.ndarray,
        seeds: np.ndarray,
        stream: int,
        payloads: np.ndarray,
        weights: np.ndarray,
        sums: np.ndarray,
    ) -> None:
        chosen: Backend = self.choose("accumulate", len(seeds) * len(sums))
        accumulate_many(chosen, noise, kinds, seeds, stream, payloads, weights, sums)

    def sample(
        self, noise: Noise, kind: int, seed: int, stream: int, update: np.ndarray, draws: int | np.ndarray
    ) -> np.ndarray:
        chosen: Backend = self.choose("sample", len(update))
        return chosen.sample(noise, kind, seed, stream, update, draws)

    def decode_grid(self, integers: np.ndarray, step: np.float32, out: np.ndarray) -> None:
        chosen: Backend = self.choose("decode", len(out))
        chosen.decode_grid(integers, step, out)

    def accumulate_grid(self, integers: np.ndarray, weight: int, sums: np.ndarray) -> None:
        chosen: Backend = self.choose("accumulate", len(sums))
        chosen.accumulate_grid(integers, weight, sums)

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
        chosen: Backend = self.choose("accumulate_counts", len(sums))
        chosen.accumulate_counts(noise, kind, seed, stream, counts, frames, weight, sums)

    def mean(self, sums: np.ndarray, total: int, step: np.float32, out: np.ndarray) -> None:
        chosen: Backend = self.choose("mean", len(out))
        chosen.mean(sums, total, step, out)


class AutomaticCoder(Automatic):
    """The functions of `Coder`, for one coding; all codings count in the same way."""

    def __init__(self, coding: Coding) -> None:
        compiled = f"numba_{coding.label}"
        kernels = {name: (compiled, f"_{name}") for name in ("encode", "decode")}
        super().__init__(f"numpy_{coding.label}", compiled, kernels | {"count": ("numba_rans", "_count")})

    def count(
        self, noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        chosen: Coder = self.choose("count", size)
        return chosen.count(noise, seed, stream, payload, size)

    def encode(
        self, noise: Noise, seed: int, stream: int, payload: np.ndarray, size: int, probabilities: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen: Coder = self.choose("encode", size)
        return chosen.encode(noise, seed, stream, payload, size, probabilities)

    def decode(
        self, noise: Noise, seed: int, stream: int, coded: Coded, out: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen: Coder = self.choose("decode", size)
        return chosen.decode(noise, seed, stream, coded, out, size)


class AutomaticGridCoder(Automatic):
    """The functions of `GridCoder`."""

    def __init__(self) -> None:
        kernels = {name: ("numba_rans14", f"_{name}") for name in ("count", "encode", "decode")}
        super().__init__("numpy_rans14", "numba_rans14", kernels)

    def count(self, integers: np.ndarray) -> np.ndarray:
        chosen: GridCoder = self.choose("count", len(integers))
        return chosen.count(integers)

    def encode(
        self, integers: np.ndarray, frequencies: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen: GridCoder = self.choose("encode", WORK * len(integers))
        return chosen.encode(integers, frequencies)

    def decode(self, coded: Coded, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chosen: GridCoder = self.choose("decode", WORK * len(out))
        return chosen.decode(coded, out)


class AutomaticCountPacker(Automatic):
    """The functions of `CountPacker`."""

    def __init__(self) -> None:
        kernels = {name: ("numba_counts", f"_{name}") for name in ("pack", "unpack")}
        super().__init__("numpy_counts", "numba_counts", kernels)

    def pack(self, counts: np.ndarray, bits: int) -> np.ndarray:
        chosen: CountPacker = self.choose("pack", len(counts))
        return chosen.pack(counts, bits)

    def unpack(self, payload: np.ndarray, bits: int, out: np.ndarray) -> None:
        chosen: CountPacker = self.choose("unpack", len(out))
        chosen.unpack(payload, bits, out)


@cache
def _numba_works() -> bool:
    """Whether Numba can be imported: its versions refuse those of NumPy that they do not know."""
    try:
        importlib.import_module("numba")
    except ImportError as error:
        log.warning("Numba is installed and cannot be imported; NumPy is used, which is slower: %s", error)
        return False
    return True


def _module(name: str) -> Any:
    return importlib.import_module(f".{name}", __package__)

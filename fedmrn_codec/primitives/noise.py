"""The noise distributions (spec 3): an integer draw, made of random words, times a float32 step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from .. import errors

GAUSSIAN_TABLE_SHA256 = "dd66b5cfd76836da9b554bd89e3ccd03b8e70a5a015b51e5d4ca9a2b4963deb9"
MAX_DRAW = 2**24 - 1
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Noise:
    """A distribution with its scale; base class of `Uniform`, `Gaussian` and `Bernoulli`.

    Parameters
    ----------
    scale : float
        Rounded to float32.

    Raises
    ------
    ScaleError
        The rounded scale is outside the bounds of spec 3.5, [N-03].
    """

    scale: float

    code: ClassVar[int]
    name: ClassVar[str]
    step_exponent: ClassVar[int]
    largest_draw: ClassVar[int]
    unit_energy: ClassVar[float]
    least: ClassVar[float]
    largest: ClassVar[float]

    def __post_init__(self) -> None:
        try:
            with np.errstate(over="ignore"):
                scale = float(np.float32(self.scale))
        except (TypeError, ValueError, OverflowError):
            raise errors.ScaleError("noise scale", "a number", repr(self.scale)) from None
        if not self.allows(scale):
            raise errors.ScaleError("noise scale", self.bounds(), self.scale)
        object.__setattr__(self, "scale", scale)

    @classmethod
    def allows(cls, scale: float) -> bool:
        """Whether a float32 scale is within the bounds of spec 3.5; False for NaN."""
        return cls.least <= scale <= cls.largest

    @classmethod
    def bounds(cls) -> str:
        """The bounds of spec 3.5, as text for an error message."""
        return f"{cls.least:.6g} to {cls.largest:.6g} for {cls.name} noise"

    @property
    def step(self) -> np.float32:
        """The float32 that a draw is multiplied by (spec 3.1); the scaling is exact."""
        return np.float32(np.ldexp(self.scale, self.step_exponent))

    @property
    def energy(self) -> float:
        """The expected square of an element of the noise."""
        return self.unit_energy * self.scale**2


class Uniform(Noise):
    """Uniform noise on (-scale, scale) (spec 3.2)."""

    code, name, step_exponent, largest_draw = 1, "uniform", -24, MAX_DRAW
    unit_energy = 1 / 3
    least, largest = 2.0**-102, LARGEST


class Gaussian(Noise):
    """Gaussian noise of standard deviation `scale` (spec 3.4)."""

    code, name, step_exponent, largest_draw = 2, "gaussian", -21, 13_291_661
    unit_energy = 1.0
    least, largest = 2.0**-105, 2.0**125


class Bernoulli(Noise):
    """Noise that is -scale or +scale (spec 3.3)."""

    code, name, step_exponent, largest_draw = 3, "bernoulli", 0, 1
    unit_energy = 1.0
    least, largest = 2.0**-126, LARGEST


DISTRIBUTIONS: dict[int, type[Noise]] = {cls.code: cls for cls in (Uniform, Gaussian, Bernoulli)}
BY_NAME = {cls.name: cls for cls in DISTRIBUTIONS.values()}


@cache
def gaussian_table() -> np.ndarray:
    """The quantile table T of spec 3.4: uint32 of shape (2049,), read-only."""
    data = Path(__file__).with_name("data").joinpath("gaussian.bin").read_bytes()
    if hashlib.sha256(data).hexdigest() != GAUSSIAN_TABLE_SHA256:
        raise ImportError(
            "fedmrn_codec/primitives/data/gaussian.bin: expected the SHA-256 of spec 3.4, got another; "
            "install fedmrn-codec again"
        )
    table = np.frombuffer(data, "<u4").astype(np.uint32)
    table.flags.writeable = False
    return table


def uniform_draws(words: np.ndarray) -> np.ndarray:
    """The draws q of uniform noise, one per word (spec 3.2): uint32 to int32, shape (n,)."""
    q: np.ndarray = np.int32(2) * (words >> np.uint32(8)).astype(np.int32) - np.int32(MAX_DRAW)
    return q


def bernoulli_draws(words: np.ndarray) -> np.ndarray:
    """The draws q of Bernoulli noise, 32 per word (spec 3.3): uint32 (n,) to int32 (32 * n,)."""
    bits = (words[:, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    return 2 * bits.reshape(-1).astype(np.int32) - np.int32(1)


def gaussian_draws(words: np.ndarray) -> np.ndarray:
    """The draws q of Gaussian noise, one per word (spec 3.4): uint32 to int32, shape (n,)."""
    table = gaussian_table()
    x = ((words & np.uint32(2**31 - 1)) << np.uint32(1)) | np.uint32(1)
    octave = (np.frexp(x.astype(np.float64))[1] - 1).astype(np.uint32)
    m = x << (np.uint32(31) - octave)
    segment, place = (m >> np.uint32(25)) & np.uint32(63), (m >> np.uint32(9)) & np.uint32(0xFFFF)
    k = 64 * octave + segment
    drop = ((table[k] - table[k + np.uint32(1)]) * place + np.uint32(2**15)) >> np.uint32(16)
    magnitude = np.maximum(table[k] - drop, np.uint32(1)).astype(np.int32)
    q: np.ndarray = np.where(words >> np.uint32(31), -magnitude, magnitude)
    return q


def checked_noise(noise: object) -> Noise:
    """Check that an argument is a noise, and return it.

    Raises
    ------
    ArgumentError
        It is not.
    """
    if not isinstance(noise, Noise):
        raise errors.ArgumentError("noise", "Uniform, Gaussian or Bernoulli", repr(noise))
    return noise


def noise_text(noise: Noise) -> str:
    """The noise as text that `parse_noise` reads, such as "uniform:0.01"; the scale survives exactly."""
    return f"{noise.name}:{np.float32(noise.scale)!s}"


def parse_noise(text: str) -> Noise:
    """The noise that a text such as "uniform:0.01" describes.

    Raises
    ------
    ArgumentError
        The text has another form, or the distribution is unknown.
    ScaleError
        The scale is no number, or outside its bounds, [N-03].
    """
    name, _, scale = text.partition(":")
    if name not in BY_NAME or not scale:
        raise errors.ArgumentError("noise", f"NAME:SCALE, NAME of {', '.join(BY_NAME)}", repr(text))
    return BY_NAME[name](scale)  # type: ignore[arg-type]  # float32 reads text

"""Rules that set each tensor's noise scale from what an aggregator knows after a round.

Each is a candidate; which of them is good is what this package exists to find out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedmrn_codec.face.adaptive import DENSITY, density_for

from .masks import BUCKETS, bucket_energies

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """A round's frames as an aggregator sees them; arrays have one place a masked tensor.

    Attributes
    ----------
    kind, distribution : str
    frames : int
        K.
    square_weights : float
        Sum of the squares of the frames' weights: 1/K if all weigh the same.
    scale : numpy.ndarray
        Of the round's noise.
    elements, set_bits : numpy.ndarray
        Shape (tensors, 16): counts over all frames, by size of the noise.
    frame_energy, mean_energy : numpy.ndarray
        Sum of squares of a frame's update, averaged over the frames; sum of squares of the mean update.
    """

    kind: str
    distribution: str
    frames: int
    square_weights: float
    scale: Array
    elements: Array
    set_bits: Array
    frame_energy: Array
    mean_energy: Array

    @property
    def sizes(self) -> Array:
        """Elements of each tensor."""
        return np.asarray(self.elements.sum(1) / self.frames)

    @property
    def density(self) -> Array:
        """Share of set bits."""
        return np.asarray(self.set_bits.sum(1) / self.elements.sum(1))

    @property
    def signal_energy(self) -> Array:
        """What the frames have in common: an unbiased estimate of the energy of their expectation.

        It may be negative by chance; NaN with one frame.
        """
        if self.square_weights >= 1:
            return np.full(len(self.scale), math.nan)
        return (self.mean_energy - self.square_weights * self.frame_energy) / (1 - self.square_weights)

    @property
    def unclipped(self) -> Array:
        """Estimate of the share of updates smaller than nearly the largest noise; NaN where bits do not tell.

        Over symmetric noise 2 t P(bit = 1 | |noise| = t) = E min(|u|, t), whose slope in t is P(|u| > t).
        """
        if self.kind != "binary" or self.distribution == "bernoulli":
            return np.full(len(self.scale), math.nan)
        t = np.sqrt(bucket_energies(self.distribution).numpy())
        g = 2 * t * self.set_bits / np.maximum(self.elements, 1)
        return np.asarray(1 - (g[:, -1] - g[:, -5]) / (t[-1] - t[-5]))


@dataclass(frozen=True)
class Start:
    """What a rule knows before round 1: shapes and the standard deviation of each tensor's weights."""

    shapes: list[tuple[int, ...]]
    spread: Array

    @property
    def usual(self) -> Array:
        """1/sqrt(3 fan-in), the spread with which PyTorch's layers start."""
        return 1 / np.sqrt(3.0 * np.array([math.prod(shape[1:]) for shape in self.shapes]))

    @property
    def reference(self) -> Array:
        """The spread; of a tensor of equal weights the smaller of 1/sqrt(3 fan-in) and the others' median."""
        positive = self.spread[self.spread > 0]
        others = np.minimum(self.usual, np.median(positive)) if len(positive) else self.usual
        return np.where(self.spread > 0, self.spread, others)


class Rule(Protocol):
    """A rule: `scales` for the coming round, `observe` after it."""

    scales: Array

    def observe(self, seen: Observation) -> None:
        """Set the scales of the next round."""


class Fixed:
    """One scale for all tensors (the paper's 0.01), or a multiple of each tensor's spread.

    Options: `fixed`, the scale; or `std`, the multiple.
    """

    def __init__(self, start: Start, fixed: float = 0.0, std: float = 1.0) -> None:
        self.scales = np.full(len(start.shapes), fixed) if fixed else std * start.reference

    def observe(self, seen: Observation) -> None:
        """Change nothing."""


class Steered:
    """A signal of each tensor is steered to a target by bounded steps, within bounds around its spread.

    Options: `density`, `snr` or `clip`, the target; `std`, the start as a multiple of the spread; `low` and
    `high`, the bounds as multiples of it; `gain`; `step`, the largest factor of a round.
    """

    def __init__(
        self,
        start: Start,
        density: float = 0.0,
        snr: float = 0.0,
        clip: float = 0.0,
        std: float = 1.0,
        low: float = 1e-6,
        high: float = 1e6,
        gain: float = 0.5,
        step: float = 2.0,
        off: float = 1.0,
    ) -> None:
        self.density, self.snr, self.clip = density, snr, clip
        self.gain, self.step = gain, step
        self.bounds = low * start.reference, high * start.reference
        self.scales = off * std * start.reference

    def observe(self, seen: Observation) -> None:
        """One bounded step of each tensor."""
        wanted = np.nan_to_num(self._wanted(seen), nan=0.0, posinf=1.0, neginf=-1.0)
        factor = np.exp(np.clip(self.gain * wanted, -math.log(self.step), math.log(self.step)))
        self.scales = np.clip(self.scales * factor, *self.bounds)

    def _wanted(self, seen: Observation) -> Array:
        """The logarithm of how much larger the scale should be."""
        if self.density:
            return np.log(np.maximum(seen.density, 1e-6) / self.density)
        if self.clip:
            return (1 - seen.unclipped - self.clip) * 4
        noise = seen.square_weights * (seen.frame_energy - np.maximum(seen.signal_energy, 0))
        ratio = np.maximum(seen.signal_energy, 1e-3 * noise) / np.maximum(noise, 1e-30)
        return np.log(ratio / self.snr)


class Adaptive:
    """The proposed rule: as much noise as a target asks, and never more than the weights tolerate.

    The target of binary masks is a density; that of signed masks is the share of a frame's energy that all
    frames have in common, and within two standard errors of it nothing changes; nor does a scale fall where
    two standard errors are more than the target, since no share can be told from none there. The noise that
    the masks leave in the mean of the round, sqrt(sum of squared weights * energy of a frame / elements), may
    be at most `budget` times the size of the weights. That size begins as the larger of their spread and
    1/sqrt(3 fan-in), and grows with the energy of the means, up to `grow` times.

    With `common`, the density of binary masks counts as at least the share of energy in common: where only a
    few elements have an update at all, that share is their own density, which the tensor's cannot show. With
    `clients`, the target is that of ten clients, and changes with their number as `AdaptiveNoise`'s does.

    Options: `adaptive`, the target; `budget`; `std`, the start as a multiple of the spread; `off`, a factor
    on the start, for trials of a bad one; `gain` of the logarithm; `step`, the largest factor of a round;
    `low` and `high`, the bounds of a scale as multiples of the spread.
    """

    def __init__(
        self,
        start: Start,
        adaptive: float,
        budget: float = 0.5,
        grow: float = 1.0,
        common: float = 0.0,
        clients: float = 0.0,
        std: float = 1.0,
        off: float = 1.0,
        gain: float = 0.5,
        step: float = 4.0,
        low: float = 1e-4,
        high: float = 10.0,
    ) -> None:
        self.target, self.budget, self.gain, self.step = adaptive, budget, gain, step
        self.common, self.clients = common, clients
        self.size, self.grow = np.maximum(start.spread, start.usual), grow
        self.bounds = low * start.reference, high * start.reference
        self.growth = np.zeros(len(self.size))
        self.scales = np.clip(off * std * start.reference, *self.bounds)

    def observe(self, seen: Observation) -> None:
        """One bounded step of each tensor."""
        self.growth += seen.mean_energy / seen.sizes
        weights = np.minimum(np.sqrt(self.size**2 + self.growth), self.grow * self.size)
        noise = np.sqrt(seen.square_weights * seen.frame_energy / seen.sizes)
        spare = np.log(self.budget * weights / np.maximum(noise, 1e-30))
        share, error = self._common(seen)
        binary = seen.kind == "binary"
        wanted = self._binary(seen, share - error) if binary else self._signed(share, error)
        limit = math.log(self.step)
        change = np.clip(np.minimum(self.gain * wanted, spare), -limit, limit)
        self.scales = np.clip(self.scales * np.exp(change), *self.bounds)

    def _binary(self, seen: Observation, share: Array) -> Array:
        density = (seen.set_bits.sum(1) + 0.5) / (seen.elements.sum(1) + 1)
        target = self.target * (density_for(seen.square_weights) / DENSITY if self.clients else 1)
        return np.asarray(np.log((np.maximum(density, share) if self.common else density) / target))

    def _signed(self, share: Array, error: Array) -> Array:
        above = np.log(np.maximum((share - error) / self.target, 1))
        below = np.log(np.minimum(np.maximum(share + error, 1e-9) / self.target, 1))
        return above + np.where(error > self.target, 0, below)

    @staticmethod
    def _common(seen: Observation) -> tuple[Array, Array]:
        """The share of a frame's energy that all frames have in common, and two standard errors of it."""
        if seen.square_weights >= 1:
            return np.zeros(len(seen.scale)), np.full(len(seen.scale), np.inf)
        energy = np.maximum(seen.frame_energy, 1e-30)
        used = seen.set_bits.sum(1) / seen.frames if seen.kind == "binary" else seen.sizes
        error = 2 * np.sqrt(2 / np.maximum(used, 1)) * seen.square_weights / (1 - seen.square_weights)
        return seen.signal_energy / energy, error


RULES: dict[str, type[Steered] | type[Adaptive] | type[Fixed]] = {
    "density": Steered,
    "snr": Steered,
    "clip": Steered,
    "adaptive": Adaptive,
    "fixed": Fixed,
    "std": Fixed,
}


def make_rule(options: dict[str, float], start: Start) -> Rule:
    """The rule that the options name; `std` names one only where no other does."""
    for key, rule in RULES.items():
        if key in options:
            return rule(start, **options)
    raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {', '.join(options) or 'none'}")


__all__ = ["BUCKETS", "Adaptive", "Fixed", "Observation", "Rule", "Start", "Steered", "make_rule"]

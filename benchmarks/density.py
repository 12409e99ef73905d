"""Entropy coding of masks by the density of set bits: each coding's overhead, and the speed of its decoder.

The masks are those that `fm.encode` samples for updates with Laplace values: the scale of the noise is chosen
such that about the wanted share of bits is set. The overhead is the length of the payload, in bits, above the
entropy of the mask given the bucket of |q| (spec 6.8); sending the probabilities is not part of the entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.format import codings

from .coding import conditional, masks_of
from .plan import Plan
from .tables import Section, Table, Target, number
from .timing import Work, measure

NOISES = fm.Bernoulli, fm.Uniform
SIZES = 4_608, 65_536, 401_408, 2_000_000
DENSITIES = 0.5, 0.2, 0.1, 0.05, 0.02, 0.01
CODINGS = [coding.label for coding in codings.MASKED if coding is not codings.RAW]
SEED, PRIVATE_SEED = 7, 99

LARGE, SPARSE = 65_536, 0.02
"""The targets hold for tensors with this many elements or more, and for this density or more."""

WIDEST = 1e3
"""The largest spread of an update, in units of the scale, that the search for a density considers."""


@dataclass(frozen=True)
class Coded:
    """A mask in one coding.

    Attributes
    ----------
    overhead : float
        The length of the payload divided by the entropy of the mask, less 1.
    speed : float
        Million elements a second of `verify` on one thread.
    stored : str
        The coding of the payload: raw if the coding asked for is not shorter.
    """

    overhead: float
    speed: float
    stored: str


@dataclass(frozen=True)
class Case:
    """The mask of one update, and what each coding makes of it, by label."""

    noise: fm.Noise
    size: int
    wanted: float
    density: float
    entropy: float
    coded: dict[str, Coded]

    @property
    def cells(self) -> list[str]:
        """The cells of its row."""
        each = [self.coded[label] for label in CODINGS]
        return [
            self.noise.name,
            f"{self.size:,}",
            f"{self.wanted:g}",
            f"{self.density:.4f}",
            f"{self.entropy:.4f}",
            *(f"{100 * c.overhead:.2f} %" + " (raw)" * (c.stored == "raw") for c in each),
            *(number(c.speed) for c in each),
        ]


def run(plan: Plan) -> Section:
    """The overhead of each coding, and the targets of the last."""
    sizes = [size for size in SIZES if size <= plan.size]
    cases = [case_of(kind, size, density, plan) for kind in NOISES for size in sizes for density in DENSITIES]
    heads = (
        *("noise", "elements", "density", "set bits", "entropy, bits an element"),
        *(f"{label}: overhead" for label in CODINGS),
        *(f"{label}: decoded, M elements/s" for label in CODINGS),
    )
    notes = ["masks of Laplace updates; overhead: bits above the entropy given the bucket; one thread"]
    return Section([Table("Masks by density", heads, [case.cells for case in cases], notes)], targets(cases))


def targets(cases: list[Case]) -> list[Target]:
    """The largest overhead of the last coding where the targets hold, and its speed beside the first's."""
    first, last = CODINGS[0], CODINGS[-1]
    held = [case for case in cases if case.size >= LARGE and case.wanted >= SPARSE]
    if not held:
        return []
    worst = max(case.coded[last].overhead for case in held)
    both = [c.coded for c in held if "raw" not in (c.coded[first].stored, c.coded[last].stored)]
    name = f"{last}: bits, of the entropy, largest for {LARGE:,} elements and density {SPARSE} or more"
    speeds = sorted(coded[last].speed / coded[first].speed for coded in both)
    return [
        Target(name, 1 + worst, 1.015, at_least=False),
        Target(f"{last}: decoding, times as fast as {first}, median", speeds[len(speeds) // 2], 0.7),
    ]


def case_of(kind: type[fm.Noise], size: int, wanted: float, plan: Plan) -> Case:
    """Sample a mask with about this share of set bits, and encode it in each coding."""
    schema = fm.Schema([fm.Tensor("w", (size,), masked=True)])
    values = np.random.default_rng(size).laplace(size=size)
    noise, unit = kind(0.01), 0.01 * spread_of(values, kind, wanted)
    update = {"w": (values * unit).astype(np.float32)}
    frames = {
        label: fm.encode(update, schema, seed=SEED, noise=noise, coding=label, private_seed=PRIVATE_SEED)
        for label in CODINGS
    }
    (mask,) = masks_of(frames[CODINGS[0]], schema)
    entropy = conditional(mask)
    works = {
        label: Work(lambda frame=frame: fm.verify(frame, schema), 1)  # type: ignore[misc]
        for label, frame in frames.items()
    }
    times = measure(works, plan.rounds, plan.limit / 60)
    infos = {label: fm.inspect(frame, schema) for label, frame in frames.items()}
    coded = {
        label: Coded(
            8 * info.mask_bytes / entropy - 1, size / times.median(label) / 1e6, info.tensors[0].coding
        )
        for label, info in infos.items()
    }
    return Case(noise, size, wanted, float(mask.bits.mean()), entropy / size, coded)


def spread_of(values: np.ndarray, kind: type[fm.Noise], wanted: float) -> float:
    """The factor for `values`, at most `WIDEST`, with which a scale of 1 sets about this share of bits."""
    low, high = 1 / WIDEST, WIDEST
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if density_of(middle * values, kind) < wanted else (low, middle)
    return low


def density_of(values: np.ndarray, kind: type[fm.Noise]) -> float:
    """The expected share of set bits of a binary mask, for noise of scale 1 (spec 4.3).

    A bit is set only if the noise has the sign of the value v, and then with the probability min(|v / n|, 1):
    on average over n, min(|v|, 1) for Bernoulli noise, and r * (1 - log r) with r = min(|v|, 1) for uniform.
    """
    r = np.clip(np.abs(values), 1e-12, 1)
    return float((r if kind is fm.Bernoulli else r * (1 - np.log(r))).mean() / 2)

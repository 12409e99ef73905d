"""How well updates fit the scale of their noise: the shares that show a scale too small or too large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np

from ..face.models import Arrays
from ..format.checked import CheckedFrame
from ..format.mask_spec import masked_values
from ..format.schema import Schema
from ..primitives import mask as masks
from ..primitives.codes import MaskKind
from ..primitives.noise import Noise

MOST_CLIPPED = 0.5
"""The clipped share above which a scale is too small; where `AdaptiveNoise` sets it, it is far lower."""

LEAST_USED = 0.002
"""The used share below which a scale is too large. Under `AdaptiveNoise` it is about 0.1."""

DENSITY = 1e-4, 0.45
"""The density of binary masks below which a scale is too large, and above which it is too small.

Over Bernoulli noise it is half of the used share, since half of the noise has the wrong sign; and lower where
most elements have no update, as in embeddings, which a server cannot tell from a scale that is too large.
"""

LARGER, SMALLER = "use a larger scale", "use a smaller scale"

SAMPLE, CHUNK = 2**17, 256
"""The shares of larger tensors are measured on chunks of elements, so that they cost little."""


class Misfit(NamedTuple):
    """What is wrong with a scale, with the number, and what to do about a fixed one."""

    found: str
    remedy: str


class Fit(NamedTuple):
    """How the masked elements of one update compare with the scale of their noise.

    Attributes
    ----------
    clipped : float
        The share of elements whose absolute value is larger than the scale. Uniform and Bernoulli noise
        always clip them, Gaussian noise with a probability of at least 68 %.
    used : float
        The mean of min(absolute value / scale, 1) over the elements that are not 0; 0 if all are.
    """

    clipped: float
    used: float

    def misfit(self) -> Misfit | None:
        """What is wrong with the scale; None if nothing is, or if the update is 0."""
        if self.clipped > MOST_CLIPPED:
            return _too_small(self.clipped)
        if 0 < self.used < LEAST_USED:
            found = f"the update's masked elements are on average {self.used:.0e} of the scale of the noise"
            return Misfit(f"{found}, so nearly no mask bit depends on them", SMALLER)
        return None


def fit_of(update: Arrays, schema: Schema, noise: Noise | Mapping[str, Noise]) -> Fit:
    """The fit of an update to the noise of its masked tensors; zeros if it has no masked elements.

    Tensors of more than 262,143 elements are measured on a sample of them.

    Parameters
    ----------
    update : mapping of str to array
        Finite floats.
    schema : Schema
    noise : Noise, or mapping of str to Noise
    """
    elements, clipped, used, updated = 0.0, 0.0, 0.0, 0.0
    for name, each in masked_values(schema, noise, "noise").items():
        flat = np.asarray(update[name]).reshape(-1)
        share = np.abs(_sample(flat)).astype(np.float32)
        with np.errstate(over="ignore"):
            share /= np.float32(each.scale)
        times = flat.size / max(share.size, 1)
        elements += flat.size
        updated += times * np.count_nonzero(share)
        clipped += times * np.count_nonzero(share > 1)
        used += times * float(np.minimum(share, 1, out=share).sum())
    return Fit(clipped / max(elements, 1), used / max(updated, 1))


def _sample(flat: np.ndarray) -> np.ndarray:
    """All elements of a small tensor; of a large one `SAMPLE` or more, in chunks at equal distances."""
    every = flat.size // SAMPLE
    return flat if every < 2 else flat[: flat.size // CHUNK * CHUNK].reshape(-1, CHUNK)[::every]


class RoundFit:
    """The fit of a round, as a server sees it: from the masks, and from what clients say that was clipped."""

    def __init__(self) -> None:
        self._bits: dict[str, tuple[int, int]] = {}
        self._clipped: list[float] = []

    @classmethod
    def of(cls, frame: CheckedFrame, clipped: float | None = None) -> Self:
        """The fit of one frame; parameters as in `add`."""
        fit = cls()
        fit.add(frame, clipped)
        return fit

    def add(self, frame: CheckedFrame, clipped: float | None = None) -> None:
        """Count the set bits of an accepted frame; `clipped` is the share that its client reports, if any."""
        for stream, (tensor, entry) in enumerate(zip(frame.checked_schema, frame.tensors, strict=True)):
            if entry.kind == MaskKind.BINARY.label and tensor.size:
                ones, elements = self._bits.get(tensor.name, (0, 0))
                ones += masks.count(frame.payload(stream))
                self._bits[tensor.name] = ones, elements + tensor.size
        if clipped is not None:
            self._clipped.append(clipped)

    @property
    def clipped(self) -> float | None:
        """The mean of the clipped shares that were reported."""
        return sum(self._clipped) / len(self._clipped) if self._clipped else None

    def metrics(self) -> dict[str, float]:
        """The share of set bits, "density.NAME" of each tensor with binary masks; "clipped" if reported."""
        found = {f"density.{name}": ones / elements for name, (ones, elements) in self._bits.items()}
        return found if self.clipped is None else {**found, "clipped": self.clipped}

    def misfit(self) -> Misfit | None:
        """What is wrong with the scale, or None."""
        if self.clipped is not None and self.clipped > MOST_CLIPPED:
            return _too_small(self.clipped)
        if not self._bits:
            return None
        ones, elements = (sum(column) for column in zip(*self._bits.values(), strict=True))
        density, (least, most) = ones / elements, DENSITY
        if density > most:
            found = (
                f"{percent(density)} of the mask bits are set, and 50 % is the most that clipped updates set"
            )
            return Misfit(found, LARGER)
        if density < least:
            return Misfit(
                f"{percent(density)} of the mask bits are set, so masks say nearly nothing", SMALLER
            )
        return None


def _too_small(clipped: float) -> Misfit:
    found = f"about {percent(round(clipped, 1))} of the update's masked elements are larger than the scale"
    return Misfit(f"{found} of the noise and are clipped", LARGER)


def percent(share: float) -> str:
    """A share as text, such as "90 %" or "0.05 %"."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{share:.0%}".replace("%", " %")

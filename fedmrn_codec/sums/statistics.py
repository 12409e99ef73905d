"""What the masks of a round show of the updates behind them, without showing any single update."""

from __future__ import annotations

from dataclasses import dataclass

from ..primitives.codes import MaskKind
from ..primitives.noise import Noise
from .state import MaskedSum


@dataclass(frozen=True)
class MaskStatistics:
    """Counts and energies of the masks of one tensor that an aggregator has added.

    An energy is the sum of the squares of a tensor's elements.

    Attributes
    ----------
    noise : Noise
    elements : int
        Of the tensor.
    binary_frames, signed_frames : int
        The number of frames, by mask kind.
    set_bits : int
        Of all binary masks.
    square_weights : float
        The sum of the squares of the frames' weights, where the weights add up to 1: 1/K for K equal ones.
    frame_energy : float
        The mean energy of a frame's noise times mask. Exact for Bernoulli noise and, up to sampling, for
        signed masks; for binary masks over other noise an upper bound: their set bits prefer small noise.
    mean_energy : float
        The energy of the weighted mean.
    """

    noise: Noise
    elements: int
    binary_frames: int
    signed_frames: int
    set_bits: int
    square_weights: float
    frame_energy: float
    mean_energy: float

    @property
    def density(self) -> float:
        """The share of set bits in binary masks; 0 if there are none."""
        return self.set_bits / max(self.binary_frames * self.elements, 1)


def statistics_of(state: MaskedSum, total: int, square_weights: float) -> MaskStatistics:
    """The statistics of a masked tensor to which frames were added; its batch must be flushed.

    Parameters
    ----------
    state : MaskedSum
    total : int
        The sum of the weights.
    square_weights : float
        As in `MaskStatistics`.
    """
    assert isinstance(state.noise, Noise)
    binary, signed = state.frames[MaskKind.BINARY], state.frames[MaskKind.SIGNED]
    set_bits, elements = state.set_bits[MaskKind.BINARY], state.sums.size
    kept = (set_bits + signed * elements) / (binary + signed)
    step = float(state.noise.step) / total
    return MaskStatistics(
        noise=state.noise,
        elements=elements,
        binary_frames=binary,
        signed_frames=signed,
        set_bits=set_bits,
        square_weights=square_weights,
        frame_energy=kept * state.noise.energy,
        mean_energy=state.energy() * step**2,
    )

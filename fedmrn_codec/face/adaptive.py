"""The noise of each masked tensor, set by the server from the masks that it sees (docs/noise_rule.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

import numpy as np

from .. import errors
from ..format.schema import Schema, Tensor
from ..primitives.arguments import check_version
from ..primitives.codes import MaskKind
from ..primitives.noise import BY_NAME, Noise
from ..sums.statistics import MaskStatistics
from .aggregation import Aggregator
from .models import Arrays, check_schema

VERSION = 1
"""Of the entries of `AdaptiveNoise.to_json`."""

DENSITY, CLIENTS, MOST = 0.05, 10, 40
"""The share of set bits in binary masks of ten clients, and the clients above which it falls no further."""

COMMON = 0.01
"""The share of a frame's energy that all frames have in common, to which signed masks are steered."""

GAIN, LARGEST_STEP = 0.5, math.log(4.0)
"""How much of the distance to the target one round covers, and the largest change of the log of a scale."""

LOW, HIGH = 1e-4, 10.0
"""The bounds of a scale, as multiples of the spread of the tensor's first weights."""

START = {MaskKind.BINARY: 1.0, MaskKind.SIGNED: 0.2}
"""The scale of the first round, as a multiple of that spread."""

BUDGET = {MaskKind.BINARY: 0.5, MaskKind.SIGNED: 0.1}
"""The noise that the mean of a round may have, an element, as a multiple of the size of the weights."""


@dataclass(frozen=True)
class _State:
    """What the rule keeps of one tensor.

    Attributes
    ----------
    scale : float
        Of the noise in the coming round.
    spread : float
        The standard deviation of the first weights, or what stands for it where they are all equal.
    size : float
        The larger of the spread and 1 / sqrt(3 fan-in): how large weights of such a tensor usually are.
    """

    scale: float
    spread: float
    size: float


class AdaptiveNoise:
    """The noise of each masked tensor, steered from round to round; nothing needs to be tuned.

    The scale of round 1 comes from the spread of each tensor's own weights. After each round `observe` moves
    it by a bounded step: binary masks to 5 % set bits, to more in rounds of fewer than ten clients, whose
    mean has more noise, and to less in larger ones, or to the density that `bits` allows; signed masks to
    where what the frames have in common is 1 % of their energy; and never to more noise than the weights
    tolerate. The rule reads what an aggregator knows, never a client's update. It draws no random numbers.
    docs/noise_rule.md derives it, and has the results.

    Parameters
    ----------
    schema : Schema
    model : mapping of str to array
        The global model before round 1. Only the spread of each masked tensor is used.
    mask : {"binary", "signed"} or MaskKind
    distribution : {"bernoulli", "uniform", "gaussian"}
        At the same number of bits, Bernoulli noise adds the least error.
    bits : float, optional
        Of a masked parameter, above 0 and at most 1, for binary masks with a coding that compresses them.
        Steers to the density at which a bit has this entropy; other noise than Bernoulli costs fewer bits.

    Attributes
    ----------
    schema : Schema
    mask, distribution : str
    bits : float or None
    rounds : int
        The number of rounds that have been observed.

    Raises
    ------
    ArgumentError
        The mask kind or the distribution is unknown, or `bits` is out of range or given for signed masks.
    SchemaError
        The model lacks a tensor of the schema, or has another shape or dtype.
    UpdateError
        The weights of a masked tensor are not finite.

    Examples
    --------
    >>> schema = fm.Schema([fm.Tensor("weight", (2, 2), masked=True)])
    >>> model = {"weight": np.array([[0.1, -0.1], [0.3, -0.3]], np.float32)}
    >>> rule = fm.AdaptiveNoise(schema, model)
    >>> rule.noise
    {'weight': Bernoulli(scale=0.2236068)}
    """

    def __init__(
        self,
        schema: Schema,
        model: Arrays,
        *,
        mask: str | MaskKind = "binary",
        distribution: str = "bernoulli",
        bits: float | None = None,
    ) -> None:
        check_schema(schema, model)
        masked = [tensor for tensor in schema if tensor.masked]
        spreads = _spreads({tensor.name: model[tensor.name] for tensor in masked}, masked)
        self._set_options(schema, mask, distribution, bits)
        self.rounds = 0
        self._states = {
            tensor.name: self._start(spread, max(spread, _usual(tensor)))
            for tensor, spread in zip(masked, spreads, strict=True)
        }

    def _set_options(
        self, schema: Schema, mask: str | MaskKind, distribution: str, bits: float | None
    ) -> None:
        self.schema, self._kind = schema, MaskKind.of(mask, "mask")
        if distribution not in BY_NAME:
            raise errors.ArgumentError("distribution", f"one of {', '.join(BY_NAME)}", repr(distribution))
        if bits is not None and self._kind == MaskKind.SIGNED:
            raise errors.ArgumentError("bits", "none for signed masks, which take 1 bit", bits)
        self.mask, self.distribution = self._kind.label, distribution
        self.bits = None if bits is None else _number(bits, "bits", 1.0)
        self._density = None if self.bits is None else density_of(self.bits)

    def _start(self, spread: float, size: float) -> _State:
        return _State(self._allowed(START[self._kind] * spread, spread), spread, size)

    @property
    def noise(self) -> dict[str, Noise]:
        """The noise of the coming round, of each masked tensor by name, in the order of the schema."""
        return {name: BY_NAME[self.distribution](state.scale) for name, state in self._states.items()}

    def observe(self, aggregator: Aggregator) -> None:
        """Set the noise of the next round, after all frames of this one have been added.

        A round without frames changes nothing. The aggregator does not change.

        Parameters
        ----------
        aggregator : Aggregator
            Of `schema`. Frames of any number of clients, with the noise of `noise` and masks of one kind.

        Raises
        ------
        AggregateError
            The aggregator has another schema, frames with another noise or mask kind, or sums from
            `from_bytes`, which have no statistics. Nothing has changed then.
        """
        if not isinstance(aggregator, Aggregator):
            raise errors.AggregateError("observe", "an Aggregator", type(aggregator).__name__)
        if aggregator.schema != self.schema:
            raise errors.AggregateError("schema", "that of the rule", "another")
        if not aggregator.frames:
            return
        seen, noise = aggregator.statistics(), self.noise
        for name, statistics in seen.items():
            self._check(name, statistics, noise[name])
        states = {name: self._next(self._states[name], statistics) for name, statistics in seen.items()}
        self._states, self.rounds = states, self.rounds + 1  # together, since an interrupt may come

    def _check(self, name: str, seen: MaskStatistics, noise: Noise) -> None:
        if seen.noise != noise:
            raise errors.AggregateError(f"noise of {name!r}", f"{noise}, the rule's", seen.noise)
        others = seen.signed_frames if self._kind == MaskKind.BINARY else seen.binary_frames
        if others:
            raise errors.AggregateError(f"masks of {name!r}", f"{self.mask} ones only", f"{others} of others")

    def _next(self, state: _State, seen: MaskStatistics) -> _State:
        """One bounded step of a tensor's scale (docs/noise_rule.md, section 2)."""
        if not seen.elements:
            return state
        wanted = self._wanted(seen)
        noise = math.sqrt(seen.square_weights * seen.frame_energy / seen.elements)
        if noise > 0:
            wanted = min(wanted, math.log(BUDGET[self._kind]) + math.log(state.size) - math.log(noise))
        factor = math.exp(min(max(wanted, -LARGEST_STEP), LARGEST_STEP))
        return _State(self._allowed(state.scale * factor, state.spread), state.spread, state.size)

    def _wanted(self, seen: MaskStatistics) -> float:
        """The change of the logarithm of the scale that the target asks for."""
        share, error = _common(seen, self._kind)
        if self._kind == MaskKind.BINARY:
            density = (seen.set_bits + 0.5) / (seen.binary_frames * seen.elements + 1)
            target = density_for(seen.square_weights) if self._density is None else self._density
            return GAIN * math.log(max(density, share - error) / target)
        if share - error > COMMON:
            return GAIN * math.log((share - error) / COMMON)
        if error > COMMON:  # so few elements or frames that a small share cannot be told from none
            return 0.0
        return GAIN * min(math.log(max(share + error, 1e-9) / COMMON), 0.0)

    def _allowed(self, scale: float, spread: float) -> float:
        """A scale within the bounds of the rule and of the distribution, as a float32."""
        cls = BY_NAME[self.distribution]
        bounded = min(max(scale, LOW * spread), HIGH * spread)
        return float(np.float32(min(max(bounded, cls.least), cls.largest)))

    def to_json(self) -> dict[str, Any]:
        """The state of the rule for `json.dumps`, for a server that may be stopped between two rounds."""
        tensors = {
            name: {"scale": state.scale, "spread": state.spread, "size": state.size}
            for name, state in self._states.items()
        }
        return {
            "version": VERSION,
            "mask": self.mask,
            "distribution": self.distribution,
            "bits": self.bits,
            "rounds": self.rounds,
            "schema": self.schema.to_json(),
            "tensors": tensors,
        }

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> Self:
        """The rule whose state `to_json` gave.

        Raises
        ------
        CodecError
            An entry is missing, of another type or out of range, or of another version.
        """
        check_version(entries, VERSION, "state of AdaptiveNoise")
        out = cls.__new__(cls)
        try:
            schema, tensors = Schema.from_json(entries["schema"]), entries["tensors"]
            out._set_options(schema, entries["mask"], entries["distribution"], entries["bits"])
            names = [tensor.name for tensor in schema if tensor.masked]
            out._states = {name: _state(name, tensors[name]) for name in names}
            out.rounds = int(_number(entries["rounds"], "rounds", 2.0**53, least=0.0))
        except (KeyError, TypeError) as error:
            raise errors.ArgumentError("state of AdaptiveNoise", "what to_json gave", repr(error)) from None
        return out

    def __repr__(self) -> str:
        bits = "" if self.bits is None else f", bits={self.bits:g}"
        return f"AdaptiveNoise({self.mask} {self.distribution}{bits}, {len(self._states)} tensors)"


def density_for(square_weights: float) -> float:
    """The target for binary masks of K clients: 5 % times sqrt(10 / K), and at least 2.5 %.

    `square_weights` is the sum of the squares of the weights, 1/K for K equal ones.
    """
    return DENSITY * math.sqrt(CLIENTS * max(square_weights, 1 / MOST))


def density_of(bits: float) -> float:
    """The density, at most 1/2, at which a bit has an entropy of `bits`, which is above 0 and at most 1."""
    low, high = 0.0, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        if _entropy(middle) < bits:
            low = middle
        else:
            high = middle
    return high


def _entropy(p: float) -> float:
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p) if 0 < p < 1 else 0.0


def _usual(tensor: Tensor) -> float:
    """1 / sqrt(3 fan-in), the standard deviation with which layers usually start."""
    fan_in = math.prod(tensor.shape[1:]) if len(tensor.shape) > 1 else tensor.size
    return 1 / math.sqrt(3.0 * max(fan_in, 1))


def _spreads(weights: Arrays, masked: list[Tensor]) -> list[float]:
    """The standard deviation of each tensor's weights; where it is 0, what stands for it.

    A tensor of equal weights, such as LoRA's B of zeros, gets the smaller of the usual spread of such a
    tensor and the median of the others.
    """
    found = []
    for name, array in weights.items():
        with np.errstate(over="ignore", invalid="ignore"):
            spread = float(np.std(array.astype(np.float64))) if array.size else 0.0
        if not math.isfinite(spread):
            raise errors.UpdateError(f"weights of {name!r}", "finite ones", "a NaN or an infinity")
        found.append(float(np.float32(spread)))
    others = median(positive) if (positive := [spread for spread in found if spread > 0]) else math.inf
    return [spread or min(_usual(tensor), others) for tensor, spread in zip(masked, found, strict=True)]


def _common(seen: MaskStatistics, kind: MaskKind) -> tuple[float, float]:
    """The share of a frame's energy that all frames have in common, and two standard errors of it."""
    squares = seen.square_weights
    if squares >= 1 or seen.frame_energy <= 0:
        return 0.0, math.inf
    share = (seen.mean_energy / seen.frame_energy - squares) / (1 - squares)
    used = seen.set_bits / seen.binary_frames if kind == MaskKind.BINARY else seen.elements
    return share, 2 * math.sqrt(2 / max(used, 1)) * squares / (1 - squares)


def _state(name: str, entries: Mapping[str, Any]) -> _State:
    largest = float(np.finfo(np.float32).max)
    values = (
        _number(entries[field], f"{field} of {name!r}", largest) for field in ("scale", "spread", "size")
    )
    return _State(*values)


def _number(value: object, field: str, most: float, least: float = math.ulp(0.0)) -> float:
    """A finite number from `least` to `most`; by default it must be positive."""
    number = math.nan
    if isinstance(value, int | float | np.generic) and not isinstance(value, bool):
        with suppress(OverflowError):  # an integer beyond the floats
            number = float(value)
    if not least <= number <= most:
        bound = "above 0" if least > 0 else f"at least {least:g}"
        raise errors.ArgumentError(field, f"a number {bound} and at most {most:g}", repr(value))
    return number

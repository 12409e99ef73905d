"""Inputs of the backends' functions, and a method that calls one of them."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec.backends import get
from fedmrn_codec.primitives import mask
from fedmrn_codec.primitives.codes import MaskKind
from fedmrn_codec.primitives.noise import DISTRIBUTIONS, LARGEST

KINDS = [MaskKind.BINARY, MaskKind.SIGNED]
VERBS = ["words", "noise", "decode", "accumulate", "counts", "sample", "sample-seeded"]
U64 = st.integers(0, 2**64 - 1)
EDGES = [2**16, 2**32, 2**34, 2**63, 2**64]


@st.composite
def noises(draw):
    """Noise of any distribution and any allowed scale, more often the bounds, 0.01 and 1."""
    cls = DISTRIBUTIONS[draw(st.sampled_from(sorted(DISTRIBUTIONS)))]
    any_scale = st.floats(cls.least, cls.largest, width=32)
    return cls(draw(st.sampled_from([0.01, 1.0, cls.least, cls.largest]) | any_scale))


def starts(count):
    """First elements anywhere below 2^64 - count, more often around powers of 2, beyond 2^34 too."""
    last = 2**64 - count
    near = st.tuples(st.sampled_from(EDGES), st.integers(-300, 300)).map(lambda edge: sum(edge))
    return st.integers(0, last) | near.map(lambda start: min(max(start, 0), last))


@dataclass
class Case:
    """The arguments of all backend functions; arrays are random, of length `size` and seed `number`."""

    noise: fm.Noise
    kind: int = MaskKind.BINARY
    seed: int = 7
    stream: int = 0
    start: int = 0
    size: int = 100
    weight: int = 600
    private: int = 99
    number: int = 0
    frames: int = 10
    payload: np.ndarray = field(init=False)
    update: np.ndarray = field(init=False)
    draws: np.ndarray = field(init=False)
    sums: np.ndarray = field(init=False)
    counts: np.ndarray = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(self.number)
        self.payload = mask.pack(rng.random(self.size) < 0.5)
        self.draws = rng.integers(0, 2**24, self.size, np.uint32)
        self.draws[rng.random(self.size) < 0.1] = 0
        self.sums = rng.integers(-(2**50), 2**50, self.size)
        self.update = self._update(rng)
        self.counts = rng.integers(0, self.frames + 1, self.size).astype(np.min_scalar_type(self.frames))
        for array in (self.payload, self.draws, self.update, self.sums, self.counts):
            array.flags.writeable = False

    def _update(self, rng):
        """The noise times -2 to 2, some exact multiples; and zeros, subnormals and the largest floats."""
        noise = get("numpy").noise(self.noise, self.seed, self.stream, 0, self.size)
        share = rng.uniform(-2, 2, self.size)
        exact = rng.random(self.size) < 0.3
        share[exact] = rng.choice([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 1 - 2.0**-24, 2.0**-24], exact.sum())
        with np.errstate(over="ignore", under="ignore"):
            update = (noise * share).astype(np.float32)
        odd = rng.random(self.size) < 0.1
        update[odd] = rng.choice([0.0, -0.0, 1e-45, -1e-45, 1e-39, LARGEST, -LARGEST], odd.sum())
        return np.where(np.isfinite(update), update, np.float32(1))

    def run(self, name, verb):
        """The bytes of the result of a backend's function."""
        backend, place = get(name), (self.seed, self.stream)
        if verb == "words":
            return backend.words(*place, self.start, self.size).tobytes()
        if verb == "noise":
            return backend.noise(self.noise, *place, self.start, self.size).tobytes()
        if verb == "decode":
            out = np.full(self.size, np.nan, np.float32)
            backend.decode(self.noise, self.kind, *place, self.payload, out)
            return out.tobytes()
        if verb == "accumulate":
            sums = self.sums.copy()
            backend.accumulate(self.noise, self.kind, *place, self.payload, self.weight, sums)
            return sums.tobytes()
        if verb == "counts":
            sums, weight = self.sums.copy(), min(self.weight, (2**39 - 1) // self.frames)
            given = self.counts, self.frames, weight
            backend.accumulate_counts(self.noise, self.kind, *place, *given, sums)
            return sums.tobytes()
        draws = self.draws if verb == "sample" else self.private
        return backend.sample(self.noise, self.kind, *place, self.update, draws).tobytes()


@st.composite
def cases(draw, largest=5000):
    """Cases with any noise, place, size up to `largest`, and weight."""
    size = draw(st.integers(0, largest) | st.sampled_from([0, 1, 7, 8, 9, 31, 32, 33, 1024, 1025]))
    return Case(
        draw(noises()),
        draw(st.sampled_from(KINDS)),
        draw(U64),
        draw(U64),
        draw(starts(size)),
        min(size, largest),
        draw(st.integers(1, 2**39 - 1)),
        draw(U64),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.sampled_from([1, 10, 255, 256, 40_000, 65_535, 65_536, 2**24 - 1])),
    )

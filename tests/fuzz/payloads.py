"""The harness of the entropy codings alone: payloads, without the frame around them."""

import random
import struct
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.errors import FrameError
from fedmrn_codec.format import rans, rans12, rans14
from fedmrn_codec.primitives.codes import Coding

from . import seeds
from .harness import Harness, equal, joined, outcome_of
from .mutator import any_bytes, number, with_number

HEAD = struct.Struct("<BBHIQ")
MODULES: tuple[tuple[ModuleType, Coding], ...] = (
    (rans, Coding.RANS), (rans12, Coding.RANS12), (rans14, Coding.RANS14),
)  # fmt: skip
MOST = 3 * 65536
MOST_NUMPY = 2048
"""Elements that NumPy is asked to decode, since it takes some 10 microseconds each; Numba takes all."""


class Case(NamedTuple):
    """A payload, and what its decoder is told: the first 16 bytes of an input."""

    coding: int
    noise: int
    encode: int
    size: int
    seed: int
    payload: bytes

    @classmethod
    def read(cls, data: bytes) -> "Case":
        head = HEAD.unpack(data[: HEAD.size].ljust(HEAD.size, b"\0"))
        return cls(head[0] % 3, head[1] % 3, head[2] % 2, head[3] % MOST, head[4], data[HEAD.size :])

    def write(self) -> bytes:
        return HEAD.pack(*self[:5]) + self.payload


class Codings(Harness):
    """Decode a payload with NumPy and Numba; encode what it gives; encode any mask, and decode it again."""

    name = "codings"

    def __init__(self, names: Sequence[str] | None = None) -> None:
        installed = [name for name in ("numpy", "numba") if name in backends.installed()]
        self.names = installed if names is None else list(names)

    def seeds(self) -> Sequence[bytes]:
        return joined(_valid(), seeds.finds(self.name))

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        case = Case.read(rng.choice(pool))
        for _ in range(rng.choice((1, 1, 2, 3))):
            how = rng.randrange(12)
            if how == 0:
                case = case._replace(size=max(0, case.size + rng.choice((-8, -1, 1, 8))) % MOST)
            elif how == 1:
                case = case._replace(seed=number(rng, case.seed, 8), noise=rng.randrange(3))
            elif how == 2:
                case = case._replace(encode=rng.randrange(2))
            elif how == 3:
                case = case._replace(payload=with_number(rng, case.payload, len(case.payload) - 4, 4))
            elif how < 6 and case.payload:  # the table of probabilities is at the front
                head = any_bytes(rng, case.payload[:48])
                case = case._replace(payload=head + case.payload[48:])
            else:
                case = case._replace(payload=any_bytes(rng, case.payload))
        return case.write()

    def check(self, data: bytes) -> object:
        case = Case.read(data)
        size = 8 * len(case.payload) if case.encode else case.size
        names = [name for name in self.names if name != "numpy" or size <= MOST_NUMPY]
        found = {
            name: self._encoded(case, name) if case.encode else self._decoded(case, name) for name in names
        }
        if not found:
            return "large"
        first, *others = names
        for name in others:
            equal(f"{name} as {first}", found[first], found[name])
        return case.coding, case.noise, found[first][0]

    def _decoded(self, case: Case, backend: str) -> tuple[Any, ...]:
        module, coding = MODULES[case.coding]
        size = case.size
        payload = np.frombuffer(case.payload, np.uint8)
        raw = 4 * size if module is rans14 else (size + 7) // 8
        if not module.shortest(size) <= len(payload) < raw:
            return ("length",)
        try:
            content = _decode(module, coding, case, payload, backend)
        except FrameError as error:
            return outcome_of(error), str(error)
        again = _encode(module, coding, case, content, backend)
        equal("a decoded payload, encoded", case.payload, None if again is None else again.tobytes())
        return "accepted", content.tobytes()

    def _encoded(self, case: Case, backend: str) -> tuple[Any, ...]:
        module, coding = MODULES[case.coding]
        if module is rans14:
            content = np.frombuffer(case.payload[: len(case.payload) // 4 * 4], "<i4") >> case.seed % 25
            content = np.clip(content, 1 - 2**24, 2**24 - 1).astype(np.int32)
            case = case._replace(size=len(content))
        else:
            content = np.frombuffer(case.payload, np.uint8)
            case = case._replace(size=8 * len(content))
        if not len(content):
            return ("empty",)
        coded = _encode(module, coding, case, content, backend)
        if coded is None:
            return ("raw",)
        again = _decode(module, coding, case, coded, backend)
        equal("an encoded payload, decoded", content.tobytes(), again.tobytes())
        return "encoded", coded.tobytes()


def _decode(module: Any, coding: Coding, case: Case, payload: np.ndarray, backend: str) -> np.ndarray:
    if module is rans14:
        out: np.ndarray = module.decode(backends.grid_coder(backend), payload, case.size, "'w'", 0)
    else:
        place = seeds.NOISES[case.noise], case.seed, 0, payload, case.size, "'w'", 0
        out = module.decode(backends.coder(backend, coding), *place)
    return out


def _encode(module: Any, coding: Coding, case: Case, content: np.ndarray, backend: str) -> np.ndarray | None:
    if module is rans14:
        out: np.ndarray | None = module.encode(backends.grid_coder(backend), content)
    else:
        place = seeds.NOISES[case.noise], case.seed, 0, content, case.size
        out = module.encode(backends.coder(backend, coding), *place)
    return out


def _valid() -> list[bytes]:
    """The entropy-coded payloads of the valid frames, and raw ones to encode."""
    out = []
    for data in (*seeds.made_frames(), *seeds.large_frames()):
        frame = fm.verify(data, seeds.schema_of(data), backend="numpy")
        for entry, tensor in zip(frame.tensors, frame.checked_schema, strict=True):
            for i, (_, coding) in enumerate(MODULES):
                if entry.coding == coding.label:
                    noise = (
                        0 if entry.noise is None else [type(n) for n in seeds.NOISES].index(type(entry.noise))
                    )
                    payload = data[entry.offset : entry.offset + entry.length]
                    out.append(Case(i, noise, 0, tensor.size, frame.seed, payload).write())
    rng = random.Random(1)
    for i in range(3):
        for noise in range(3):
            few = bytes(rng.choice((0, 0, 0, 1, 16)) for _ in range(200))
            out.append(Case(i, noise, 1, 0, 9, few).write())
    return out

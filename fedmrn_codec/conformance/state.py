"""[A-05]: a refused frame does not change the sum of an aggregator.

In the line protocol an aggregator ends at a refusal, so this check is for Python modules only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from . import oracle
from .check import Failure
from .layout import with_checksum
from .reference import Reference
from .request import Aggregate, Result
from .target import Outcome, Refused, Target, Unsupported, outcome
from .verdict import Finding, verdict

UNIFORM = (oracle.UNIFORM, oracle.f32_from_bits(0x3C23D70A))
SCHEMA = (
    oracle.Tensor("weight", True, oracle.FLOAT32, (9,)),
    oracle.Tensor("bias", False, oracle.FLOAT32, (2,)),
    oracle.Tensor("flag", False, oracle.BOOL, (3,)),
    oracle.Tensor("last", True, oracle.FLOAT32, (3,)),
)


@runtime_checkable
class Resumes(Protocol):
    """A target whose aggregator can continue after a refusal."""

    def ask_past_refusals(self, request: Aggregate) -> Result:
        """The sums of the frames that are not refused."""


def _frame(seed: int, noise: tuple[int, float] = UNIFORM, round: int = 4) -> bytes:
    contents = (
        oracle.Content(b"\xa5\1", oracle.BINARY, *noise),
        oracle.Content(bytes.fromhex("0000803f000000c0")),
        oracle.Content(b"\1\0\1"),
        oracle.Content(b"\5", oracle.SIGNED, *UNIFORM),
    )
    return oracle.encode(oracle.Frame(seed, 0, round, SCHEMA, contents))


def _changed(frame: bytes, at: int, value: int, *, right: bool = True) -> bytes:
    data = frame[:at] + bytes([value]) + frame[at + 1 :]
    return with_checksum(data) if right else data


def bad_frames() -> dict[str, tuple[bytes, int]]:
    """Frames that an aggregator refuses, with their weights, by the reason."""
    good = _frame(3)
    return {
        "checksum": (_changed(good, 8, 99, right=False), 1),
        "padding": (_changed(good, len(good) - 5, 0xFF), 1),
        "bool": (_changed(good, len(good) - 8, 2), 1),
        "round": (_frame(3, round=5), 1),
        "noise": (_frame(3, (oracle.UNIFORM, 0.5)), 1),
        "weight": (good, 0),
        "weights": (good, oracle.MAX_WEIGHT),
    }


@dataclass(frozen=True)
class Unmoved:
    """Two good frames with a bad frame between them, which must not change the sum."""

    id: str = "state/refused-frames:aggregate"
    profile: str = "aggregate"
    musts: tuple[str, ...] = ("A-05",)

    def run(self, target: Target) -> Failure | None:
        """Run the check; return the failure of the first bad frame that changes the sum, or None."""
        if not isinstance(target, Resumes):
            raise Unsupported("[A-05]: the line protocol cannot continue after a refusal")
        frames, schema = (_frame(1), _frame(2)), oracle.schema_bytes(SCHEMA)
        good = Aggregate(schema=schema, frames=frames, weights=(3, 5), round=4)
        expected = outcome(Reference(), good)
        for what, (bad, weight) in bad_frames().items():
            request = dataclasses.replace(good, frames=(frames[0], bad, frames[1]), weights=(3, weight, 5))
            try:
                found: Outcome = target.ask_past_refusals(request)
            except Refused as refusal:
                found = refusal
            finding = verdict(good, expected, found)
            if finding:
                text = f"a frame refused for its {what} changes the sum: {finding}"
                return Failure(Finding(self.musts, text), request)
        return None


def checks() -> Iterator[Unmoved]:
    """The one check of an aggregator's state."""
    yield Unmoved()

"""What a harness is, and the loop that runs one: inputs, findings, and the inputs to change further."""

import hashlib
import random
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedmrn_codec.errors import CodecError

MOST_FINDINGS = 20
"""Different findings after which a run of a harness ends."""

MOST_NEW = 4000
"""Inputs with a new outcome that are kept, to be changed further."""


class Harness:
    """A reader under test.

    Attributes
    ----------
    name : str
    """

    name = ""

    def seeds(self) -> Sequence[bytes]:
        """The inputs to begin with."""
        raise NotImplementedError

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        """A new input, made of some of the pool."""
        raise NotImplementedError

    def check(self, data: bytes) -> object:
        """Give the input to the reader; any exception is a finding.

        Returns
        -------
        hashable
            What became of it, roughly: an input with a new outcome is worth changing further.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release what the harness holds."""


@dataclass
class Finding:
    """An input that a reader does not stand, and the exception."""

    harness: str
    data: bytes
    error: str
    times: int = 1

    def write(self, folder: Path) -> Path:
        """Write the input and the exception; the path of the input."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.harness}-{hashlib.sha256(self.data).hexdigest()[:12]}"
        path.write_bytes(self.data)
        path.with_suffix(".txt").write_text(self.error)
        return path


@dataclass
class Result:
    """What came of a run of a harness.

    Attributes
    ----------
    executions : int
    findings : list of Finding
        One for each place at which an exception was raised.
    new : list of bytes
        Inputs with outcomes that no seed has.
    skipped : str
        Why the harness did not run; empty if it did.
    """

    harness: str
    executions: int = 0
    findings: list[Finding] = field(default_factory=list)
    new: list[bytes] = field(default_factory=list)
    skipped: str = ""


def run(
    harness: Harness,
    *,
    seconds: float | None = None,
    count: int | None = None,
    seed: int = 0,
    most_findings: int = MOST_FINDINGS,
) -> Result:
    """Give seeds and changed inputs to a harness until the time, or the number of inputs, is up.

    A warning is a finding, as in the tests. With a number and no time, the same seed gives the same inputs.
    """
    rng, result = random.Random(f"{harness.name} {seed}"), Result(harness.name)
    pool, outcomes, places = list(harness.seeds()), set[object](), dict[str, Finding]()
    end = None if seconds is None else time.monotonic() + seconds

    def check(data: bytes) -> bool:
        """Whether the outcome is new."""
        result.executions += 1
        try:
            outcome = harness.check(data)
        except Exception as error:
            place = place_of(error)
            if place in places:
                places[place].times += 1
            else:
                text = "".join(traceback.format_exception(error))
                places[place] = Finding(harness.name, data, text)
            return False
        is_new = outcome not in outcomes
        outcomes.add(outcome)
        return is_new

    def goes_on() -> bool:
        return (
            (end is None or time.monotonic() < end)
            and (count is None or result.executions < count)
            and len(places) < most_findings
        )

    first = rng.sample(pool, len(pool))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="typer")
        while goes_on():
            if first and rng.randrange(2):
                check(first.pop())
                continue
            data = harness.change(rng, pool)
            if check(data) and len(result.new) < MOST_NEW:
                result.new.append(data)
                pool.append(data)
    result.findings = list(places.values())
    return result


def place_of(error: BaseException) -> str:
    """What tells findings apart: class and line of an exception, and the beginning of what a check says."""
    frames = traceback.extract_tb(error.__traceback__)
    said = str(error)[:50] if isinstance(error, AssertionError) else ""
    return (
        f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno} {said}" if frames else repr(error)
    )


# --- outcomes ---------------------------------------------------------------------------------------


def outcome_of(error: CodecError) -> tuple[str, str]:
    """The code of an error, and its field without the names that strangers choose."""
    return error.code, error.field.split(" of ")[0][:24]


def equal(what: str, expected: object, got: object) -> None:
    """Raise AssertionError unless two results are equal."""
    if expected != got:
        raise AssertionError(f"{what}: expected {_shown(expected)}, got {_shown(got)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:400]}..."


def bytes_of(arrays: Any) -> dict[str, tuple[Any, ...]]:
    """Arrays by name as values to compare: dtype, shape and bytes."""
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()}


def joined(*groups: Iterable[bytes]) -> list[bytes]:
    """All inputs of some groups, each once."""
    return list(dict.fromkeys(data for group in groups for data in group))

"""The work of `fedmrn aggregate`: add frames, partial sums and tallies of one schema to one aggregator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import errors
from ..face import decoding
from ..face.aggregation import Aggregator
from ..face.intake import Intake
from ..face.tally import Tally
from ..format.checked import CheckedFrame
from ..format.parsing import Expected
from ..format.schema import Schema
from ..primitives.noise import Noise
from . import files, policies, schemas, summaries
from .output import tracked
from .problems import REFUSED, InFile, about, describe


class Source:
    """A frame, a partial sum or a tally among the inputs.

    Its bytes are kept only if they cannot be read again.

    Parameters
    ----------
    path : str
        The path as the user wrote it, for messages.
    place : str, optional
        The path to read, if it differs: for a process with another working directory.
    frame : bool
        Take it for a frame, whatever it is.
    longest : int
        Bytes that are read of what cannot be read again; -1: all.
    """

    def __init__(
        self, path: str, place: str | None = None, *, frame: bool = False, longest: int = -1
    ) -> None:
        self.path, self._place = path, place or path
        self._kept = files.read(self._place, longest) if files.is_stream(self._place) else None
        start = files.read(self._place, summaries.START) if self._kept is None else self._kept
        self.is_sum = not frame and summaries.is_sum(start)
        self.is_tally = self.is_sum and summaries.is_tally(start)

    @property
    def is_stream(self) -> bool:
        """Whether only this process can read it."""
        return self._kept is not None

    def read(self, size: int = -1) -> bytes:
        """Read the bytes, or at most the first `size` of a file."""
        return files.read(self._place, size) if self._kept is None else self._kept


class Head(NamedTuple):
    """The header values that are kept of each frame."""

    seed: int
    round: int
    base_model: int


@dataclass
class Average:
    """Adds up sources; a refused source does not change the sum.

    What the caller has not stated is taken from the first source. A later one that differs is never left out:
    the first may be the wrong one, and all others would be left out for it.

    Parameters
    ----------
    expected : Expected
        The caller's schema, round and base model. Without a round or base model, those of the first partial
        sum or tally are used; without a schema, the first one that a frame embeds.
    noise : Noise, optional
        The expected noise; frames with other noise are refused.
    skip_bad : bool
        Leave out refused sources, and list them in `skipped`.
    backend : str, optional
    intake : Intake, optional
        Of a policy, which then states the schema, round and base model of `expected` too.
    of_part : bool
        Leave out also those that differ in what the caller has not stated; for a part of the sources, whose
        problems the caller looks at.
    """

    expected: Expected
    noise: Noise | None
    skip_bad: bool
    backend: str | None
    skipped: list[dict[str, Any]] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    intake: Intake | None = None
    of_part: bool = False
    first: str | None = None
    schema_from: str | None = None

    def run(self, sources: Sequence[Source], weights: Sequence[int]) -> Aggregator:
        """Add up all sources; `weights` has one weight for each frame.

        Raises
        ------
        InFile
            A source is refused, and `skip_bad` is false; or it differs in what the caller has not stated.
        AggregateError
            All frames are refused.
        """
        schema = self._schema(sources)
        frames = [source for source in sources if not source.is_sum]
        total = self._merge(schema, [source for source in sources if source.is_sum], self.backend)
        self.add(total, list(zip(frames, weights, strict=True)), self.backend)
        if not total.frames:
            raise errors.AggregateError("frames", "at least 1 that is not refused", 0)
        return total

    def add(self, total: Aggregator, frames: Sequence[tuple[Source, int]], backend: str | None) -> None:
        """Add frames with their weights, one after the other."""
        self._add_each(total, tracked(frames, "adding frames"))

    def _add_each(self, total: Aggregator, frames: Iterable[tuple[Source, int]]) -> None:
        for source, weight in frames:
            try:
                with about(source.path):
                    frame: bytes | CheckedFrame = (data := source.read(policies.read_size(self.intake)))
                    if self.intake is not None:
                        frame = policies.accept(self.intake, source.path, data, weight)
                    info = total.add(frame, weight)
            except InFile as error:
                self._skip(error)
            else:
                self.first = self.first or source.path
                self.heads.append(Head(info.seed, info.round, info.base_model))

    def notes(self) -> list[str]:
        """Remarks about frames that are valid but look like a mistake."""
        seeds, rounds = Counter(h.seed for h in self.heads), {h.round for h in self.heads}
        models = {h.base_model for h in self.heads}
        notes = []
        if twice := [seed for seed, times in seeds.items() if times > 1]:
            notes.append(f"several frames have the seed {twice[0]}: one frame twice, or the same noise")
        if len(rounds) > 1:
            notes.append(f"the frames are of different rounds: {_some(rounds)}; --round refuses others")
        if len(models) > 1:
            notes.append(
                f"the frames are for different base models: {_some(models)}; --base-model refuses others"
            )
        return notes

    def _merge(self, schema: Schema, sums: Sequence[Source], backend: str | None) -> Aggregator:
        """An aggregator that holds the partial sums and tallies."""
        total = None
        for source in sums:
            try:
                with about(source.path):
                    kind = Tally if source.is_tally else Aggregator
                    other = kind.from_bytes(source.read(), schema, backend=backend)
                    merged = total or self.start(schema, backend, other.expected)
                    if isinstance(other, Tally):
                        merged.add_tally(other)
                    else:
                        merged.merge(other)
                    total = merged
                    self.first = self.first or source.path
            except InFile as error:
                self._skip(error)
        return total or self.start(schema, backend, Expected())

    def start(self, schema: Schema, backend: str | None, other: Expected) -> Aggregator:
        """An empty sum, with the caller's expected values, or else those of `other`."""
        if self.intake is not None:
            return self.intake.policy.aggregator(backend=backend)
        own = self.expected
        return Aggregator(
            schema,
            noise=self.noise,
            round=other.round if own.round is None else own.round,
            base_model=other.base_model if own.base_model is None else own.base_model,
            backend=backend,
        )

    def _schema(self, sources: Sequence[Source]) -> Schema:
        """The caller's schema, or the first embedded one whose frame passes every check."""
        if self.expected.schema is not None:
            return self.expected.schema
        first: Exception = errors.ArgumentError(
            "--schema", "a schema, since partial sums and tallies do not embed one", "none"
        )
        for source in [source for source in sources if not source.is_sum]:
            try:
                with about(source.path):
                    data = source.read()
                    schema = decoding.verify(data, limits=schemas.limits(data)).schema
                    assert schema is not None
                    self.schema_from = source.path
                    return schema
            except InFile as error:
                first = first if isinstance(first, InFile) else error
                if not (self.skip_bad or isinstance(error.error, errors.NoSchemaError)):
                    raise
        raise first

    def _skip(self, error: InFile) -> None:
        code, problem = describe(error)
        if option := self.unstated(problem):
            raise self._disagreement(error, option)
        if not self.skip_bad or code != REFUSED:
            raise error
        self.skipped.append(problem)

    def unstated(self, problem: Mapping[str, Any]) -> str | None:
        """The option that would state what a refused source differs in; None if the caller has stated it."""
        if self.of_part or self.intake is not None:
            return None
        own, code, name = self.expected, problem["code"], str(problem["field"])
        candidates = {
            "--noise": code == "aggregate" and name.startswith("noise of ") and self.noise is None,
            "--schema": code == "schema_mismatch" and own.schema is None,
            "--round": (code == "round" or name in ("merge", "tally")) and own.round is None,
            "--base-model": (code == "base_model" or name in ("merge", "tally")) and own.base_model is None,
        }
        return next((option for option, differs in candidates.items() if differs), None)

    def _disagreement(self, error: InFile, option: str) -> InFile:
        """The error of a source that differs, with the file that it differs from and what to do."""
        cause = error.error
        other = self.schema_from if option == "--schema" else self.first
        expected = f"{cause.expected}, as in {other} ({option} says which of the two is right)"
        return InFile(error.file, type(cause)(cause.field, expected, cause.got, cause.offset))


def _some(values: set[int]) -> str:
    """The first few of a set, in order."""
    shown = [str(value) for value in sorted(values)[:5]]
    return ", ".join(shown) + (", ..." if len(values) > 5 else "")

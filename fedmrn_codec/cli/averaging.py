"""The work of `fedmrn aggregate`: frames and partial sums of one schema into one aggregator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import decoding, errors
from ..aggregate import Aggregator
from ..frame import Expected, Info
from ..noise import Noise
from ..schema import Schema
from . import facts, files, options
from .files import Bytes
from .problems import REFUSED, InFile, about, describe


class Source:
    """A frame or a partial sum among the inputs. Only what cannot be read again is kept in memory."""

    def __init__(self, path: str) -> None:
        data = files.read(path)
        self.path, self.is_partial = path, facts.is_partial(data)
        self._kept = data if files.is_stream(path) else None

    def read(self) -> Bytes:
        """The bytes, mapped if they are a file's."""
        return files.read(self.path) if self._kept is None else self._kept


@dataclass
class Average:
    """Adds up sources; one that is refused changes nothing.

    Parameters
    ----------
    expected : Expected
        The caller's schema, round and base model. Without a round or base model, those of the first partial
        sum hold; without a schema, the first one that a frame embeds.
    noise : Noise, optional
        Refuse other noise.
    skip_bad : bool
        Leave refused sources out, and list them in `skipped`.
    backend : str, optional
    """

    expected: Expected
    noise: Noise | None
    skip_bad: bool
    backend: str | None
    skipped: list[dict[str, Any]] = field(default_factory=list)
    infos: list[Info] = field(default_factory=list)

    def run(self, sources: Sequence[Source], weights: Sequence[int]) -> Aggregator:
        """The sum of all sources; `weights` are those of the frames.

        Raises
        ------
        InFile
            A source is refused, and `skip_bad` is false.
        AggregateError
            Nothing is left to sum.
        """
        schema = self._schema(sources)
        frames = [source for source in sources if not source.is_partial]
        elements = sum(t.size for t in schema if t.masked) * max(len(frames), 1)
        backend = options.fastest(self.backend, elements)
        total = self._merge(schema, [source for source in sources if source.is_partial], backend)
        for source, weight in zip(frames, weights, strict=True):
            try:
                with about(source.path):
                    self.infos.append(total.add(source.read(), weight))
            except InFile as error:
                self._skip(error)
        if not total.frames:
            raise errors.AggregateError("frames", 0, "required: at least 1 that is not refused")
        return total

    def notes(self) -> list[str]:
        """What a careful server wants to hear, though nothing is wrong with the bytes."""
        seeds, rounds = Counter(i.seed for i in self.infos), {i.round for i in self.infos}
        models = {i.base_model for i in self.infos}
        notes = []
        if twice := [seed for seed, times in seeds.items() if times > 1]:
            notes.append(f"several frames have the seed {twice[0]}: the same frame twice, or the same noise")
        if len(rounds) > 1:
            notes.append(f"the frames are of different rounds: {_some(rounds)}; --round refuses others")
        if len(models) > 1:
            notes.append(
                f"the frames are for different base models: {_some(models)}; --base-model refuses others"
            )
        return notes

    def _merge(self, schema: Schema, partials: Sequence[Source], backend: str | None) -> Aggregator:
        """An aggregator that holds the partial sums."""
        total = None
        for source in partials:
            try:
                with about(source.path):
                    other = Aggregator.from_bytes(source.read(), schema, backend=backend)
                    merged = total or self._start(schema, backend, other.expected)
                    merged.merge(other)
                    total = merged
            except InFile as error:
                self._skip(error)
        return total or self._start(schema, backend, Expected())

    def _start(self, schema: Schema, backend: str | None, other: Expected) -> Aggregator:
        pins = self.expected
        return Aggregator(
            schema,
            noise=self.noise,
            round=other.round if pins.round is None else pins.round,
            base_model=other.base_model if pins.base_model is None else pins.base_model,
            backend=backend,
        )

    def _schema(self, sources: Sequence[Source]) -> Schema:
        """The caller's schema, or the first embedded one whose frame passes every check."""
        if self.expected.schema is not None:
            return self.expected.schema
        first: Exception = errors.ArgumentError("--schema", "none", "a partial sum does not embed one")
        for source in [source for source in sources if not source.is_partial]:
            try:
                with about(source.path):
                    schema = decoding.verify(source.read()).schema
                    assert schema is not None
                    return schema
            except InFile as error:
                first = first if isinstance(first, InFile) else error
                if not (self.skip_bad or isinstance(error.error, errors.NoSchemaError)):
                    raise
        raise first

    def _skip(self, error: InFile) -> None:
        code, problem = describe(error)
        if not self.skip_bad or code != REFUSED:
            raise error
        self.skipped.append(problem)


def _some(values: set[int]) -> str:
    """The first few of a set, in order."""
    shown = [str(value) for value in sorted(values)[:5]]
    return ", ".join(shown) + (", ..." if len(values) > 5 else "")

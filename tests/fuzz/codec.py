"""Harnesses of the library's readers of frames, partial sums and tallies, in Python."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.errors import CodecError, FrameError

from . import seeds
from .harness import Harness, bytes_of, equal, joined, outcome_of
from .message import read
from .mutator import messages

MOST = 4096
"""Elements of a schema: NumPy takes some 10 microseconds to decode one that is entropy-coded."""

LIMITS = fm.Limits(max_elements=MOST)
"""Of frames with a schema of their own."""


def tried(call: Callable[[], Any]) -> tuple[Any, FrameError | None]:
    """The result of a call, or the error of bad bytes; any other exception is a finding."""
    try:
        return call(), None
    except FrameError as error:
        return None, error


class Messages(Harness):
    """A harness whose inputs are frames, partial sums or tallies."""

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        return messages(rng, pool)


@cache
def _policy(digest: bytes) -> fm.Policy:
    schema = seeds.schemas()[digest]
    return fm.Policy(
        schema=schema, noise=fm.Uniform(0.01), round=1, base_model=2, seeds=None, max_weight=100,
        kinds=("mask", "grid"), codings=("raw", "rans", "rans12", "rans14", "float16", "bfloat16"),
        embedded=True, max_value=1e6, max_norm=1e9, limits=LIMITS,
    )  # fmt: skip


class Frames(Messages):
    """`inspect`, `verify`, `decode`, `Request.check` and `Policy.check` with NumPy, and `Aggregator.add`."""

    name = "frames"

    def seeds(self) -> Sequence[bytes]:
        return joined(seeds.frames(), seeds.finds(self.name))

    def check(self, data: bytes) -> object:
        schema = seeds.schema_of(data)
        if schema is not None and schema.elements > MOST:
            return "large"
        checked, error = tried(lambda: fm.verify(data, schema, limits=LIMITS, backend="numpy"))
        _, seen = tried(lambda: fm.inspect(data, schema, limits=LIMITS))
        if seen is not None and (error is None or error.code != "no_schema"):
            equal("inspect and verify refuse for the same reason", error and str(error), str(seen))
        if schema is not None:
            self._check_terms(data, schema, error)
        if checked is None:
            assert error is not None
            return outcome_of(error)
        arrays = bytes_of(fm.decode(data, schema, limits=LIMITS, backend="numpy"))
        equal("decode of checked frame", arrays, bytes_of(fm.decode(checked, backend="numpy")))
        total = fm.Aggregator(checked.schema, backend="numpy")
        total.add(data, 5)
        again = fm.Aggregator.from_bytes(total.to_bytes(), checked.schema, backend="numpy")
        equal("mean of a partial sum", bytes_of(total.mean()), bytes_of(again.mean()))
        return tuple((e.kind, e.coding, e.dtype, type(e.noise)) for e in checked.tensors), checked.embedded

    @staticmethod
    def _check_terms(data: bytes, schema: fm.Schema, error: FrameError | None) -> None:
        """A server's checks accept no frame that `verify` refuses."""
        _, refusal = tried(lambda: _policy(schema.digest).check(data, client="a", weight=3))
        _, other = tried(lambda: _request(schema.digest).check(data))
        if error is not None and (refusal is None or other is None):
            raise AssertionError(f"accepted by a policy or a request, although: {error}")


@cache
def _request(digest: bytes) -> fm.Request:
    return fm.Request(7, fm.Uniform(0.01), "binary", 1, 2, seeds.schemas()[digest], limits=LIMITS)


class Backends(Messages):
    """`decode` and `Aggregator.add` on every installed backend: the same bytes, or the same error."""

    name = "backends"

    def __init__(self) -> None:
        self.names = backends.installed()

    def seeds(self) -> Sequence[bytes]:
        return joined(seeds.frames(), seeds.finds(self.name))

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        return messages(rng, pool, often=0.98)  # backends differ in payloads, not in headers

    def check(self, data: bytes) -> object:
        schema = seeds.schema_of(data)
        if schema is not None and schema.elements > MOST:
            return "large"
        found = {name: self._of(data, schema, name) for name in self.names}
        first, *others = self.names
        for name in others:
            equal(f"{name} as {first}", found[first], found[name])
        return found[first][0]

    @staticmethod
    def _of(data: bytes, schema: fm.Schema | None, name: str) -> tuple[Any, ...]:
        checked, error = tried(lambda: fm.verify(data, schema, limits=LIMITS, backend=name))
        if checked is None:
            assert error is not None
            return outcome_of(error), str(error), error.offset
        arrays = bytes_of(fm.decode(checked, backend=name))
        total = fm.Aggregator(checked.schema, backend=name)
        total.add(checked, 7)
        kinds = tuple((e.kind, e.coding, e.dtype) for e in checked.tensors)
        return kinds, arrays, total.to_bytes(), bytes_of(total.mean())


class Partials(Messages):
    """`Aggregator.from_bytes`, `mean`, `merge` and `to_bytes`: what is accepted has one form only."""

    name = "partials"

    def seeds(self) -> Sequence[bytes]:
        return joined(seeds.partials(), seeds.finds(self.name))

    def check(self, data: bytes) -> object:
        schema = seeds.schema_of(data)
        if schema is None:
            return "unknown schema"
        total, error = tried(lambda: fm.Aggregator.from_bytes(data, schema, backend="numpy"))
        if total is None:
            assert error is not None
            return outcome_of(error)
        equal("the bytes of an accepted partial sum", data, total.to_bytes())
        mean, far = tried(lambda: bytes_of(total.mean()))
        if far is not None:
            equal("the error of a mean", "sums", far.code)
        try:
            total.merge(fm.Aggregator.from_bytes(data, schema, backend="numpy"))
        except CodecError as error:
            equal("the error of a merge with itself", "aggregate", error.code)
            equal("a sum after a refused merge", data, total.to_bytes())
            return "heavy"
        doubled, _ = tried(lambda: bytes_of(total.mean()))
        small = (
            all(state.noise is not None for state in total._sums.masked.values()) and not total._sums.dense
        )
        return "accepted", mean is None, doubled is None, small


class Tallies(Messages):
    """`Tally.from_bytes`, `merge`, `to_bytes`, `Aggregator.add_tally`: one form for a choice of codings."""

    name = "tallies"

    def seeds(self) -> Sequence[bytes]:
        return joined(seeds.tallies(), seeds.finds(self.name))

    def check(self, data: bytes) -> object:
        schema = seeds.schema_of(data)
        if schema is None or schema.elements > MOST:
            return "unknown schema"
        tally, error = tried(lambda: fm.Tally.from_bytes(data, schema, backend="numpy"))
        if tally is None:
            assert error is not None
            return outcome_of(error)
        raw, coded = tally.to_bytes("raw"), tally.to_bytes("rans14")
        same_form(data, raw, coded)
        other = fm.Tally.from_bytes(coded, schema, seed=tally.seed, backend="numpy")
        place = {"round": tally.expected.round, "base_model": tally.expected.base_model}
        parts, whole = (fm.Aggregator(schema, backend="numpy", **place) for _ in range(2))
        parts.add_tally(data)
        try:
            tally.merge(other)
        except CodecError as error:
            equal("the error of a merge with itself", "aggregate", error.code)
            equal("a tally after a refused merge", raw, tally.to_bytes("raw"))
            return "heavy"
        parts.add_tally(other)
        whole.add_tally(tally.to_bytes("rans14"))
        equal("the sum of a merge", parts.to_bytes(), whole.to_bytes())
        return "accepted", raw == coded, tally.frames.bit_length()


def same_form(data: bytes, raw: bytes, coded: bytes) -> None:
    """Check that each tensor of a tally is as it is written, raw or with its counts coded."""
    tensors = seeds.tensors_of(data[32:48])
    got, *forms = (read(each, tensors) for each in (data, raw, coded))
    equal("the header of an accepted tally", got.head, forms[0].head)
    for part, *wanted in zip(got.parts, *(form.parts for form in forms), strict=True):
        if part not in wanted:
            raise AssertionError(f"accepted, but {part} is written as one of {wanted}")
    equal("what follows the parts", b"", got.rest)

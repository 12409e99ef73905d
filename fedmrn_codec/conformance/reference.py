"""The plain-integer oracle as a target, whose answers are the expected ones."""

from __future__ import annotations

import struct
from types import ModuleType
from typing import Any

from . import oracle
from .request import (
    PROFILES,
    AddTallies,
    Aggregate,
    Count,
    Decode,
    Digest,
    Encode,
    Merge,
    MergeTallies,
    Noise,
    Part,
    Request,
    Result,
    Sample,
    Words,
)
from .target import Refused

DISTRIBUTIONS = {"uniform": oracle.UNIFORM, "gaussian": oracle.GAUSSIAN, "bernoulli": oracle.BERNOULLI}
KINDS = {"dense": oracle.DENSE, "binary": oracle.BINARY, "signed": oracle.SIGNED, "grid": oracle.GRID}
CODINGS = {
    "raw": oracle.RAW,
    "rans": oracle.RANS,
    "float16": oracle.IN_FLOAT16,
    "bfloat16": oracle.IN_BFLOAT16,
    "rans12": oracle.RANS12,
    "rans14": oracle.RANS14,
}


class Reference:
    """Answers with the oracle, or with another module that has the same functions.

    Parameters
    ----------
    module : module
        By default `fedmrn_codec.conformance.oracle`; the kit's own tests pass modified copies of it.
    """

    name, version, profiles = "oracle", "1.0", tuple(PROFILES)

    def __init__(self, module: ModuleType = oracle) -> None:
        self.o: Any = module

    def ask(self, request: Request) -> Result:
        """Answer a request; `Refused` contains the number of the check."""
        try:
            answer: Result = getattr(self, f"_{request.op}")(request)
            return answer
        except self.o.Refusal as refusal:
            raise Refused(refusal.code, refusal.number) from None

    def close(self) -> None:
        """Nothing to release."""

    def _words(self, r: Words) -> Result:
        words = [self.o.philox_word(r.seed, r.stream, r.start + i) for i in range(r.count)]
        return {"words": struct.pack(f"<{r.count}I", *words)}

    def _noise(self, r: Noise) -> Result:
        code, scale = self._distribution(r)
        values = [self.o.noise(code, scale, r.seed, r.stream, r.start + i) for i in range(r.count)]
        return {"noise": struct.pack(f"<{r.count}f", *values)}

    def _distribution(self, r: Noise | Sample) -> tuple[int, float]:
        code = DISTRIBUTIONS[r.distribution]
        if not self.o.scale_allowed(code, r.scale):
            raise Refused("scale", "N-03")
        return code, self.o.f32_from_bits(r.scale)

    def _digest(self, r: Digest) -> Result:
        return {"digest": self.o.schema_digest(self.o.parse_schema(r.schema))}

    def _decode(self, r: Decode) -> Result:
        schema = None if r.schema is None else self.o.parse_schema(r.schema)
        return {"tensors": tuple(self.o.decode(r.frame, schema, self._options(r)))}

    def _options(self, r: Decode) -> Any:
        return self.o.Options(
            r.round, r.base_model, r.seed, r.max_tensors, r.max_schema_bytes, r.max_elements
        )

    def _sample(self, r: Sample) -> Result:
        (code, scale), kind, n = self._distribution(r), KINDS[r.kind], len(r.update) // 4
        if not all(self.o.is_finite(word, self.o.F32) for word in self.o.words_of(r.update, self.o.FLOAT32)):
            raise Refused("non_finite", "E-02")
        given = zip(struct.unpack(f"<{n}f", r.update), struct.unpack(f"<{n}I", r.draws), strict=True)
        noise = (self.o.noise(code, scale, r.seed, r.stream, i) for i in range(n))
        bits = [self.o.sample_bit(kind, u, v, draw) for (u, draw), v in zip(given, noise, strict=True)]
        return {"mask": self.o.pack(bits)}

    def _encode(self, r: Encode) -> Result:
        schema = self.o.parse_schema(r.schema)
        try:
            contents = tuple(self._content(part) for part in r.tensors)
            frame = self.o.Frame(r.seed, r.base_model, r.round, schema, contents)
            return {"frame": self.o.encode(frame, r.embed_schema)}
        except (ValueError, OverflowError, struct.error):  # the oracle's refusals are among them
            raise Refused("", "E-02") from None

    def _content(self, part: Part) -> Any:
        kind, coding = KINDS[part.kind], CODINGS[part.coding]
        if part.scale is None:
            return self.o.Content(part.payload, kind, coding=coding)
        scale = self.o.f32_from_bits(part.scale)
        distribution = 0 if part.distribution is None else DISTRIBUTIONS[part.distribution]
        return self.o.Content(part.payload, kind, distribution, scale, coding)

    def _aggregate(self, r: Aggregate) -> Result:
        schema = self.o.parse_schema(r.schema)
        options = self.o.Options(r.round or None, r.base_model or None)
        total = None
        for data, weight in zip(r.frames, r.weights, strict=True):
            so_far = total.weight if total else 0
            fits = weight >= 1 and so_far + weight <= self.o.MAX_WEIGHT
            self.o.require(fits, "A-01", f"weight {weight} after {so_far}")
            frame = self.o.parse(data, schema, options)
            part = self.o.sum_frame(frame, weight, r.base_model, r.round)
            total = self.o.merge(total, part) if total else part
        if total is None:
            raise Refused("aggregate", "A-05")
        return self._sums(total)

    def _merge(self, r: Merge) -> Result:
        schema = self.o.parse_schema(r.schema)
        return self._sums(self.o.merge_all([self.o.partial_from_bytes(p, schema) for p in r.partials]))

    def _tally(self, r: Count) -> Result:
        schema = self.o.parse_schema(r.schema)
        options = self.o.Options(r.round or None, r.base_model or None)
        first = total = None
        for n, data in enumerate(r.frames, 1):
            self.o.check_room(n, r.weight)
            frame = self.o.parse(data, schema, options)
            if total is None:
                first, total = frame, self.o.count_frame(frame, r.weight, r.base_model, r.round)
            else:
                total = self.o.count_more(total, first, frame)
        return self._tally_bytes(total, r.coding)

    def _merge_tallies(self, r: MergeTallies) -> Result:
        schema = self.o.parse_schema(r.schema)
        parts = [self.o.tally_from_bytes(data, schema) for data in r.tallies]
        return self._tally_bytes(self.o.merge_all_tallies(parts), r.coding)

    def _tally_bytes(self, total: Any, coding: str | None) -> Result:
        return {"tally": self.o.tally_to_bytes(total, CODINGS[coding or "raw"])}

    def _add_tallies(self, r: AddTallies) -> Result:
        schema, total = self.o.parse_schema(r.schema), None
        for data in r.tallies:
            tally = self.o.tally_from_bytes(data, schema, r.seed)
            total = self.o.add_tally(total, tally, r.base_model, r.round)
        return self._sums(total)

    def _sums(self, total: Any) -> Result:
        return {"mean": tuple(self.o.mean(total)), "partial": self.o.partial_to_bytes(total)}

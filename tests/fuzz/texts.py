"""Harnesses of the readers of text: requests, schemas and noise rules in JSON, policies in TOML."""

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.errors import CodecError
from fedmrn_codec.face import toml

from . import seeds
from .harness import Harness, equal, joined, outcome_of
from .mutator import any_bytes, document, documents

SMALL = [schema for schema in seeds.schemas().values() if schema.elements < 2000]


class Documents(Harness):
    """A harness whose inputs are JSON."""

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        return documents(rng, pool)

    def check(self, data: bytes) -> object:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return "no JSON"
        try:
            return self.read(value)
        except CodecError as error:
            return outcome_of(error)

    def read(self, value: Any) -> object:
        """Read a JSON value; CodecError if it is refused."""
        raise NotImplementedError


class Requests(Documents):
    """`Request.from_dict` of JSON, and `Schema.from_json`; what is accepted can be written and read again."""

    name = "requests"

    def seeds(self) -> Sequence[bytes]:
        out = []
        for i, schema in enumerate(SMALL):
            noise: Any = seeds.NOISES[i % 3]
            if i % 2:
                noise = {tensor.name: noise for tensor in schema if tensor.masked}
            request = fm.Request(2**63 + i, noise, ("binary", "signed")[i % 2], i, 2**64 - 1, schema)
            out.append(json.dumps(request.to_json()).encode())
        return joined(out, seeds.finds(self.name))

    def read(self, value: Any) -> object:
        if not isinstance(value, dict):
            schema = fm.Schema.from_json(value)
            equal("a schema, written and read", schema, fm.Schema.from_json(schema.to_json()))
            return "schema"
        request = fm.Request.from_dict(value)
        text = json.dumps(request.to_json())
        equal(
            "a request, written and read", text, json.dumps(fm.Request.from_dict(json.loads(text)).to_json())
        )
        return request.mask, request.coding, isinstance(request.noise, dict), len(request.schema.tensors) > 1


class Policies(Harness):
    """`Policy.from_toml`; what is accepted can be written and read again."""

    name = "policies"

    def seeds(self) -> Sequence[bytes]:
        out = []
        for i, schema in enumerate(SMALL):
            policy = fm.Policy(
                schema=schema, noise=seeds.NOISES[i % 3], round=i, base_model=2**64 - 1, max_weight=2**30,
                seeds=(None, 2**63, {"a": 1, "b": 2**64 - 1})[i % 3], max_value=(None, 2.5)[i % 2],
                max_norm=1e3,
            )  # fmt: skip
            out.append(policy.to_toml().encode())
        return joined(out, seeds.finds(self.name))

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        data = rng.choice(pool)
        if rng.randrange(4) == 0:
            return any_bytes(rng, data)
        try:
            value = toml.loads(data.decode(), "policy")
            for _ in range(rng.choice((1, 1, 2, 3))):
                value = document(rng, value)
            return toml.dumps(value).encode()
        except Exception:  # a value that TOML does not have
            return any_bytes(rng, data)

    def check(self, data: bytes) -> object:
        text = data.decode("utf-8", "replace")
        if "\n" not in text:
            return "a path"
        try:
            policy = fm.Policy.from_toml(text)
        except CodecError as error:
            return outcome_of(error)
        again = fm.Policy.from_toml(policy.to_toml())
        equal("a policy, written and read", policy, again)
        return policy.kinds, policy.codings, type(policy.seeds), type(policy.max_value)


class Rules(Documents):
    """`AdaptiveNoise.from_json`; what is accepted can be written and read again."""

    name = "rules"

    def __init__(self) -> None:
        self.schema = next(schema for schema in SMALL if sum(tensor.masked for tensor in schema) > 1)

    def seeds(self) -> Sequence[bytes]:
        model = {t.name: np.full(t.shape, 0.25, t.type.numpy) for t in self.schema if t.type.is_float}
        model |= {t.name: np.zeros(t.shape, t.type.numpy) for t in self.schema if not t.type.is_float}
        rule = fm.AdaptiveNoise(self.schema, model)
        return joined([json.dumps(rule.to_json()).encode()], seeds.finds(self.name))

    def read(self, value: Any) -> object:
        rule = fm.AdaptiveNoise.from_json(value)
        text = json.dumps(rule.to_json())
        equal(
            "a rule, written and read",
            text,
            json.dumps(fm.AdaptiveNoise.from_json(json.loads(text)).to_json()),
        )
        return len(rule.noise)

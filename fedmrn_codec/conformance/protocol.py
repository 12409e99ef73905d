"""The checks of how a program follows the line protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from . import oracle
from .check import Failure
from .program import CommandTarget
from .request import (
    PROFILE_OF,
    AddTallies,
    Aggregate,
    Count,
    Decode,
    Encode,
    Merge,
    MergeTallies,
    Noise,
    Part,
    Request,
    Sample,
    Words,
    to_wire,
)
from .run import FAILED, Record
from .target import Broken, Target, Unsupported
from .verdict import Finding

PROFILE = "protocol"
SECTION = ("CONFORMANCE 3",)
MALFORMED = "request"
"""The error for what is no request."""

SHOWN = 20
"""The number of wrong answers that one check lists."""

ONE = 0x3F800000
SCHEMA = (oracle.Tensor("w", True, oracle.FLOAT32, (9,)),)
RAW = oracle.schema_bytes(SCHEMA)
MASK = oracle.Content(b"\xa5\1", oracle.BINARY, oracle.UNIFORM, 1.0)
FRAME = oracle.Frame(7, 6, 4, SCHEMA, (MASK,))
PLACE = {"seed": 7, "stream": 1, "start": 5, "count": 3}


@dataclass(frozen=True)
class ProtocolCheck:
    """A check of the protocol, for programs only."""

    id: str
    test: Callable[[CommandTarget], str | None]
    profile: str = PROFILE
    musts: tuple[str, ...] = SECTION

    def run(self, target: Target) -> Failure | None:
        """Run the check; return the failure, or None."""
        assert isinstance(target, CommandTarget)
        wrong = self.test(target)
        return Failure(Finding(self.musts, wrong)) if wrong else None


def _unknown(target: CommandTarget) -> str | None:
    answer = target.exchange("an operation of a later version", {})
    if "unsupported" in answer:
        return None
    return "unknown operation: expected `unsupported`, got another answer"


def _end(target: CommandTarget) -> str | None:
    target.finish()
    return None


def _blank_lines(target: CommandTarget) -> str | None:
    """Blank lines before and after a request: the next answers are those of the requests."""
    number = target.sent + 1
    request = json.dumps({"id": number, "op": "hello"}).encode()
    for line in (b"\n" + request, b"\n \t\r\n" + request + b"\r", request):
        target.exchange_line(line, number)
    return None


LINES = {
    "no JSON": b"words, please",
    "half a JSON object": b'{"id": 1, "op": "hello"',
    "a JSON list": b'[{"id": 1, "op": "hello"}]',
    "a JSON number": b"1",
    "the JSON value null": b"null",
    "bytes that are no UTF-8": b'{"id": 1, "op": "\xff\xfe"}',
    "no id": b'{"op": "hello"}',
    "an id that is a string": b'{"id": "1", "op": "hello"}',
    "an unknown op and no id": b'{"op": "an operation of a later version"}',
    "an id of null": b'{"id": null, "op": "hello"}',
    "deep nesting": b"[" * 100_000,
}


def _no_requests(target: CommandTarget) -> str | None:
    for what, line in LINES.items():
        wrong = _not_refused(target.exchange_line(line, None))
        if wrong:
            return f"a line with {what}: {wrong}"
    number = target.sent + 1
    wrong = _not_refused(target.exchange_line(json.dumps({"id": number, "op": 5}).encode(), number))
    return f"an op that is a number: {wrong}" if wrong else None


def _not_refused(answer: dict[str, Any]) -> str | None:
    if answer.get("error") == MALFORMED:
        return None
    got = f"the error `{answer['error']}`" if "error" in answer else "another answer"
    return f"expected the error `{MALFORMED}`, got {got}"


def _good() -> tuple[Request, ...]:
    """A well-formed request of each operation with members that can be wrong in many ways."""
    partial = oracle.partial_to_bytes(oracle.sum_frame(FRAME, 1))
    tally = oracle.tally_to_bytes(oracle.count_frame(FRAME, 1))
    part = Part(kind="binary", payload=MASK.payload, distribution="uniform", scale=ONE)
    noise = {"distribution": "uniform", "scale": ONE}
    return (
        Words(**PLACE),
        Noise(distribution="uniform", scale=ONE, **PLACE),
        Decode(frame=oracle.encode(FRAME), schema=RAW, round=4, base_model=6, seed=7),
        Sample(kind="binary", seed=7, stream=1, update=bytes(8), draws=bytes(8), **noise),  # type: ignore[arg-type]
        Encode(schema=RAW, seed=7, base_model=6, round=4, embed_schema=False, tensors=(part,)),
        Aggregate(schema=RAW, frames=(oracle.encode(FRAME),), weights=(1,)),
        Merge(schema=RAW, partials=(partial,)),
        Count(schema=RAW, frames=(oracle.encode(FRAME),), weight=1, coding="raw"),
        MergeTallies(schema=RAW, tallies=(tally,), coding="rans14"),
        AddTallies(schema=RAW, tallies=(tally,), seed=7),
    )


NO_BASE64 = ("AAA", "AAA?", "QUJD\n", 5)
NO_U64 = ("0x10000000000000000", "0x", "-0x1", "seven", "7", "", 7)
NO_COUNT = (-1, 1.5, "1", True)
WRONG: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("seed", "stream", "base_model"), NO_U64),
    "start": ("0x40000000000000000", "", 5),
    "scale": ("0x100000000", "1.0", ONE),
    **dict.fromkeys(("count", "max_tensors", "max_schema_bytes", "max_elements"), NO_COUNT),
    "round": (*NO_COUNT, 2**32),
    "embed_schema": (0, "false"),
    "distribution": ("normal", 1),
    "kind": ("ternary", 1),
    "coding": ("zip", 0),
    **dict.fromkeys(("schema", "frame", "payload"), NO_BASE64),
    "update": (*NO_BASE64, "AAAA", "AAAAAA=="),
    "draws": (*NO_BASE64, "AAAAAA==", "AAAAAQAAAAE="),
    "frames": ("", [5], [None], []),
    "weights": ("1", [1], ["1.5"], [""], [None], [], ["1", "1"]),
    "weight": (1, "1.5", "", ["1"], "0x1"),
    **dict.fromkeys(("partials", "tallies"), ("", [5], [None], [])),
    "tensors": ({}, [5], [None]),
}
"""Values that are wrong for a member; null and no value come beside them, where they are wrong."""

OPTIONAL = {"schema", "round", "base_model", "seed", "coding"}
"""The members that may be null or absent; only those of `decode`, `coding`, and the seed of `add_tallies`."""

NO_CODING = ("rans", "float16")
"""Codings that `tally` and `merge_tallies` do not have."""


def _wrong_members(op: str, members: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The members with one of them wrong, and what is wrong."""
    for name in members:
        wrong = list(WRONG[name])
        if name == "coding" and op in ("tally", "merge_tallies"):
            wrong += NO_CODING
        may_be_null = op == "decode" or name == "coding" or (op, name) == ("add_tallies", "seed")
        if name not in OPTIONAL or not may_be_null:
            yield f"`{name}` is absent", {k: v for k, v in members.items() if k != name}
            wrong.append(None)
        for value in wrong:
            yield f"`{name}` is {json.dumps(value)}", {**members, name: value}


def _malformed_requests() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """An operation, what is wrong with the members of its request, and the members."""
    for request in _good():
        members = to_wire(request)
        for what, wrong in _wrong_members(request.op, members):
            yield request.op, what, wrong
        for part in members.get("tensors", ()):
            for what, wrong in _wrong_members(request.op, part):
                yield request.op, what, {**members, "tensors": [wrong]}
    # Positions whose sum with the count is too large, where each alone is in range.
    for request, most in ((_good()[0], 2**66), (_good()[1], 2**48)):
        for start, count in ((most - 2, 3), (most, 1)):
            members = to_wire(request) | {"start": hex(start), "count": count}
            yield request.op, f"start + count is {hex(start + count)}", members


def _malformed(target: CommandTarget) -> str | None:
    """All members that are not refused as they must be, not only the first one."""
    found = [*_wrongly_answered(target)]
    if len(found) > SHOWN:
        found = [*found[:SHOWN], f"and {len(found) - SHOWN} more"]
    return "; ".join(found) or None


def _wrongly_answered(target: CommandTarget) -> Iterator[str]:
    for op, what, members in _malformed_requests():
        if PROFILE_OF[op] in target.profiles:
            answer = target.exchange(op, members)
            if "unsupported" not in answer and (text := _not_refused(answer)):
                yield f"`{op}`, where {what}: {text}"


def _optional(target: CommandTarget) -> str | None:
    """Members of later versions are ignored, and null and no member mean the same."""
    if "decode" in target.profiles:
        (request,) = (r for r in _good() if r.op == "decode")
        members = to_wire(request) | {"round": None, "base_model": None, "seed": None}
        absent = {name: value for name, value in members.items() if value is not None}
        for what, given in (
            ("null for what is not expected", members),
            ("no member for what is not expected", absent),
            ("a member that the table does not have", {**members, "later": {"deep": [None]}}),
        ):
            if "error" in (answer := target.exchange("decode", given)):
                return f"`decode` with {what}: expected an answer, got the error `{answer['error']}`"
    if "encode" in target.profiles:
        (request,) = (r for r in _good() if r.op == "encode")
        members = to_wire(request)
        (part,) = members["tensors"]
        for what, coding in (("null for the coding", {"coding": None}), ("no coding", {})):
            parts = [{name: value for name, value in part.items() if name != "coding"} | coding]
            if "error" in (answer := target.exchange("encode", {**members, "tensors": parts})):
                return f"`encode` with {what}: expected an answer, got the error `{answer['error']}`"
    if "tally" in target.profiles:
        for request in _good()[-3:]:
            members = to_wire(request)
            for name in {"coding", "seed"} & set(members):
                absent = {key: value for key, value in members.items() if key != name}
                for what, given in ((f"null for `{name}`", {**absent, name: None}), (f"no `{name}`", absent)):
                    if "error" in (answer := target.exchange(request.op, given)):
                        got = f"got the error `{answer['error']}`"
                        return f"`{request.op}` with {what}: expected an answer, {got}"
    if not {"decode", "encode", "tally"} & set(target.profiles):
        raise Unsupported("no operation with members that may be null")
    return None


def first() -> Iterator[ProtocolCheck]:
    """The checks that run before all others."""
    yield ProtocolCheck("protocol/unknown-operation", _unknown)
    yield ProtocolCheck("protocol/blank-lines", _blank_lines)
    yield ProtocolCheck("protocol/no-requests", _no_requests)
    yield ProtocolCheck("protocol/malformed-members", _malformed)
    yield ProtocolCheck("protocol/optional-members", _optional)


def last() -> Iterator[ProtocolCheck]:
    """The checks that run after all others: the program ends when its input ends."""
    yield ProtocolCheck("protocol/end", _end)


def no_hello(broken: Broken) -> Record:
    """The record of a failed start."""
    message = str(Finding(SECTION, f"hello: {broken}"))
    return Record("protocol/hello", PROFILE, FAILED, 0.0, SECTION, message)


IDS = ("protocol/hello", *(check.id for check in (*first(), *last())))

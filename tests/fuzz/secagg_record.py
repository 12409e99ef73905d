"""Rounds of secure aggregation as they are if nobody interferes: every message, every state, and the sum."""

import random
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
from secagg_vectors import ROUNDS, drawn, randomness_of, terms_of

import fedmrn_codec as fm
from fedmrn_secagg import Client, Server
from fedmrn_secagg.client import vector_of
from fedmrn_secagg.layout import Layout
from fedmrn_secagg.terms import Terms

STEPS = ("keys", "shares", "masked", "reveal")
MOST_CLIENTS = 100
"""The largest roster that the clients of these rounds accept."""

Sections = tuple[list[int], list[int], list[int]]
"""The numbers of a vector in its three sections, not negative (spec/SECAGG.md 6.1)."""


class Member(NamedTuple):
    """A client: weight, frame, how many messages it sends, and what it draws."""

    weight: int
    frame: bytes
    messages: int
    secrets: list[bytes]
    coefficients: list[bytes]
    identity: fm.Key | None = None


class Record:
    """A round that was played to its end.

    Parameters
    ----------
    request : fm.Request
    options : dict
        Of both sides.
    members : mapping of int to Member
    degree : int or None
    graph_seed : bytes

    Attributes
    ----------
    sent : dict of str to dict of int to bytes
        The messages of each step.
    answers : dict of str to object
        What the server has answered; an aggregator at the end.
    saved : dict of str to dict of int to bytes
        The states of the clients before each step.
    survivors : tuple of int
    identities : dict of int to fm.Key, or None
    """

    def __init__(
        self,
        request: fm.Request,
        options: dict[str, Any],
        members: Mapping[int, Member],
        degree: int | None = None,
        graph_seed: bytes = bytes(32),
    ) -> None:
        self.request, self.options, self.members = request, options, dict(members)
        self.degree, self.graph_seed = degree, graph_seed
        private = {i: member.identity for i, member in members.items() if member.identity is not None}
        self.identities = {i: key.public for i, key in private.items()} or None
        self.terms = Terms(request, signed=self.identities is not None, **options)
        self.sent: dict[str, dict[int, bytes]] = {}
        self.answers: dict[str, Any] = {}
        self.saved: dict[str, dict[int, bytes]] = {}
        self._play()

    def _play(self) -> None:
        server, answer = self.server(), None
        states = {i: Client(i, self.request, **self.client_options(i)).to_bytes() for i in self.members}
        for number, step in enumerate(STEPS):
            ids = [i for i, member in self.members.items() if member.messages > number]
            self.saved[step] = {i: states[i] for i in ids}
            self.sent[step] = {}
            for i in ids:
                client = self.client(i, states[i])
                self.sent[step][i] = self.ask(client, step, self.given(answer, i))
                if step != STEPS[-1]:
                    states[i] = client.to_bytes()
            with drawn([self.graph_seed]):
                answer = getattr(server, step)(self.sent[step])
            self.answers[step] = answer
        self.survivors = server.survivors

    def server(self, begin: int = 0) -> Server:
        """A server that has got the messages of the steps before this one."""
        server = Server(
            self.request,
            clients=list(self.members),
            degree=self.degree,
            identities=self.identities,
            **self.options,
        )
        for step in STEPS[:begin]:
            with drawn([self.graph_seed]):
                getattr(server, step)(self.sent[step])
        return server

    def client_options(self, id: int) -> dict[str, Any]:
        """The arguments of a client."""
        own = {"weight": self.members[id].weight, "max_clients": MOST_CLIENTS}
        identity = {"identity": self.members[id].identity, "identities": self.identities}
        return {**self.options, **own, **(identity if self.identities else {})}

    def client(self, id: int, state: bytes) -> Client:
        """The client with a state."""
        return Client.from_bytes(state, self.request, **self.client_options(id))

    def ask(self, client: Client, step: str, given: Any, frame: bytes | None = None) -> bytes:
        """The message of a client for a step; it draws what it draws in the record."""
        member = self.members[client.id]
        if step == "masked":
            return client.masked(member.frame if frame is None else frame, given)
        if step == "reveal":
            return client.reveal(given)
        with drawn(member.secrets, member.coefficients):
            return client.keys() if step == "keys" else client.shares(given)

    @staticmethod
    def given(answer: Any, id: int) -> Any:
        """What the server has answered for a client."""
        return answer.get(id) if isinstance(answer, dict) else answer

    def before(self, step: str, id: int) -> Any:
        """What a client is given in a step."""
        return None if step == "keys" else self.given(self.answers[STEPS[STEPS.index(step) - 1]], id)

    @cached_property
    def exact(self) -> bool:
        """Whether the sum is that of the frames: dense floats on their grid, and within its range."""
        return bytes_of_mean(self.answers["reveal"]) == plain_mean(self, self.survivors)


def bytes_of_mean(aggregator: fm.Aggregator) -> Any:
    """The bytes of the mean of each tensor, frames and weight; or the code of the error."""
    try:
        mean = aggregator.mean()
    except fm.CodecError as error:
        return error.code
    arrays = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in mean.items()}
    return arrays, aggregator.weight


def plain_mean(record: Record, ids: Iterable[int]) -> Any:
    """The mean of an aggregator that has added the frames of these clients."""
    out = record.request.aggregator()
    for i in ids:
        out.add(record.members[i].frame, record.members[i].weight)
    return bytes_of_mean(out)


# --- sums in plain integers -------------------------------------------------------------------------


def layout_of(record: Record, clients: int) -> Layout:
    """The layout of vectors in a roster of so many clients."""
    return Layout(record.terms, clients)


def sections(body: bytes, layout: Layout) -> Sections:
    """The numbers in the body of a message `masked`."""
    first, second, third = layout.sizes
    string, bits = int.from_bytes(body[:first], "little"), layout.bits
    fields = [string >> at & (2**bits - 1) for at in range(0, 8 * first, bits)]
    words = [int.from_bytes(body[at : at + 4], "little") for at in range(first, first + second, 4)]
    begin = first + second
    longs = [int.from_bytes(body[at : at + 8], "little") for at in range(begin, begin + third, 8)]
    return fields, words, longs


def plus(one: Sections, other: Sections, sign: int, layout: Layout) -> Sections:
    """One plus or minus the other, number by number, modulo the power of two of each section."""
    first, second, third = (
        [(a + sign * b) % modulus for a, b in zip(p, q, strict=True)]
        for p, q, modulus in zip(one, other, (2**layout.bits, 2**32, 2**64), strict=True)
    )
    return first, second, third


def vector(record: Record, id: int, frame: bytes, layout: Layout) -> Sections:
    """The numbers of a client's vector without pads."""
    checked = fm.verify(frame, record.request.schema, limits=record.request.limits)
    found, _ = vector_of(checked, record.members[id].weight, layout)
    return sections(found.to_bytes(), layout)


def mean_of(record: Record, total: Sections, survivors: int, layout: Layout) -> Any:
    """The mean that a sum of vectors gives, as `bytes_of_mean`; None if no vectors have this sum ([X-10])."""
    terms, request = record.terms, record.request
    frames = total[1][0]
    if not survivors <= frames <= survivors * terms.largest_weight:
        return None
    counts, dense, at = {}, dict[str, Any](), 0
    for tensor in layout.masked:
        part = total[0][at : at + 8 * -(-tensor.size // 8)]
        at += len(part)
        if any(part[tensor.size :]) or max(part, default=0) > frames:
            return None
        counts[tensor.name] = np.array(part[: tensor.size], np.int64).reshape(tensor.shape)
    for group, numbers, width in ((layout.floats, total[1][1:], 32), (layout.integers, total[2], 64)):
        at = 0
        for tensor in group:
            part = [n - (n >> (width - 1) << width) for n in numbers[at : at + tensor.size]]
            at += tensor.size
            if any(abs(n) > frames * layout.largest(tensor) for n in part):
                return None
            array = np.array(part, np.int64).reshape(tensor.shape)
            dense[tensor.name] = (array, terms.steps[tensor.name]) if tensor.type.is_float else array
    about = {"round": request.round, "base_model": request.base_model}
    try:
        tally = fm.Tally.from_counts(
            request.schema, counts, frames, seed=request.seed, noise=request.noise, mask=request.mask,
            dense=dense, **about,
        )  # fmt: skip
    except fm.CodecError:  # such as a negative sum of unsigned integers
        return None
    out = request.aggregator()
    out.add_tally(tally)
    return bytes_of_mean(out)


# --- the records ------------------------------------------------------------------------------------


@cache
def records() -> tuple[Record, ...]:
    """The rounds of the vectors, the first of them once more with other secrets, and others."""
    four, *others = (_of_vectors(case) for case in ROUNDS.values())
    again = {
        i: member._replace(**_draws(random.Random(i), four.terms.threshold))
        for i, member in four.members.items()
    }
    every = [fm.Tensor(dtype, (2,), dtype=dtype) for dtype in DTYPES]
    weighted = _made(fm.Schema([fm.Tensor("w", (13,), masked=True), *every]), 5, 3, largest_weight=3)
    sparse = _made(fm.Schema([fm.Tensor("w", (9,), masked=True), fm.Tensor("b", (3,))]), 8, 3, degree=4)
    return four, *others, Record(four.request, four.options, again), weighted, sparse


DTYPES = (
    "float32", "float64", "float16", "bfloat16", "int8", "int32", "int64", "uint8", "uint64", "bool",
)  # fmt: skip


def _of_vectors(case: dict[str, Any]) -> Record:
    request, options = terms_of(case["agreed"])
    members = {}
    for person in case["clients"]:
        secrets, coefficients = randomness_of(person, options["threshold"])
        key = fm.Key.ed25519(bytes.fromhex(person["identity"])) if case["agreed"]["signed"] else None
        messages = sum(step in person for step in STEPS)
        frame = bytes.fromhex(person["frame"])
        members[person["id"]] = Member(person["weight"], frame, messages, secrets, coefficients, key)
    return Record(request, options, members, case["degree"] or None, bytes.fromhex(case["graph_seed"]))


def _draws(rng: random.Random, threshold: int) -> dict[str, list[bytes]]:
    secrets = [rng.randbytes(size) for size in (32, 16, 16)]
    return {"secrets": secrets, "coefficients": [rng.randbytes(16) for _ in range(2 * (threshold - 1))]}


def _made(
    schema: fm.Schema, clients: int, threshold: int, degree: int | None = None, largest_weight: int = 1
) -> Record:
    """A round whose last client is not there in the last step."""
    request = fm.Request(2**63 + 5, fm.Bernoulli(0.25), "signed", 4, 6, schema)
    options = {"threshold": threshold, "largest_weight": largest_weight}
    steps, members = Terms(request, **options).steps, {}
    for i in range(1, clients + 1):
        rng = np.random.default_rng(i)
        frame = request.encode(_update(schema, rng, steps), private_seed=i)
        draws = _draws(random.Random(i), threshold)
        members[i] = Member(1 + i % largest_weight, frame, 4 - (i == clients), **draws)
    return Record(request, options, members, degree, random.Random(clients).randbytes(32))


def _update(schema: fm.Schema, rng: np.random.Generator, steps: Mapping[str, float]) -> Any:
    """An update whose dense floats lie on their grid."""
    out = {}
    for tensor in schema:
        if tensor.masked:
            out[tensor.name] = rng.normal(0, 0.25, tensor.shape).astype(np.float32)
        elif tensor.dtype == "bfloat16":
            values = (rng.integers(-20, 20, tensor.shape) * steps[tensor.name]).astype(np.float32)
            out[tensor.name] = (values.view(np.uint32) >> 16).astype(np.uint16)
        elif tensor.type.is_float:
            values = rng.integers(-20, 20, tensor.shape) * steps[tensor.name]
            out[tensor.name] = values.astype(tensor.type.numpy)
        else:
            out[tensor.name] = rng.integers(0, 2, tensor.shape).astype(tensor.type.numpy)
    return out

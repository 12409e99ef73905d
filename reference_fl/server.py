"""The server of the reference training: assigns clients, collects their messages, aggregates, evaluates."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

import fedmrn_codec as fm
from fedmrn_codec import backends

from . import download, methods, models, secure
from .data import Dataset
from .engines import Assignment, Engine, Reply
from .mask_counts import MaskCounts
from .seeds import derive
from .settings import Settings
from .traffic import Traffic
from .train import evaluate

PROGRESS = Callable[[str, int, int], None]
OWN, MEMORY, DOWNLOAD = "method state/", "client memory/", "download/"
"""Prefixes of the names of the method's, the clients' and the download's states in the state file."""


@dataclass
class Uplink:
    """Bytes of the messages of one round, by kind."""

    mask: int = 0
    dense: int = 0
    header: int = 0

    def add(self, info: methods.Sizes) -> None:
        """Count one client's messages."""
        self.mask += info.mask_bytes
        self.dense += info.dense_bytes
        self.header += info.header_bytes


@dataclass
class Counts:
    """What is counted of one round: mask bits, and bytes by client and by kind."""

    masks: MaskCounts
    traffic: Traffic
    uplink: Uplink = field(default_factory=Uplink)


class Server:
    """The global model, the method with its state, the download, and what clients keep between rounds.

    Parameters
    ----------
    settings : Settings
    data : Dataset
        Its test samples are used for the evaluation.
    weights : sequence of int
        The number of each client's samples.

    Raises
    ------
    ValueError
        The settings do not fit the method, or name secure aggregation whose packages are not installed.
    """

    def __init__(self, settings: Settings, data: Dataset, weights: Sequence[int]) -> None:
        self.settings, self.data, self.weights = settings, data, weights
        self.model = models.build(settings.model, data.in_shape, data.classes, derive(settings.seed, "model"))
        self.method = methods.build(settings)
        if settings.secure:
            secure.require()
        self.method.start(self.model)
        self.schema = self.method.schema(self.model)
        self.download = download.build(settings, self.schema, self.model)
        self.memories: dict[int, dict[str, torch.Tensor]] = {}

    def round(
        self,
        number: int,
        engine: Engine,
        masks: MaskCounts,
        traffic: Traffic,
        verify: bool,
        progress: PROGRESS,
    ) -> dict[str, Any]:
        """Run one round; return its line of metrics; add its mask counts and messages to the others."""
        start = time.perf_counter()
        schema, told = self.schema, self.method.instructions()
        clients = choose(self.settings, number)
        sent = self.download.send(clients)
        if verify and sent.frames:
            for message in set(sent.messages.values()):
                compare_backends(message, schema)
        for client, message in sent.messages.items():
            traffic.down[client] = len(message) + _size(told)
        counts = Counts(masks, traffic)
        assigned = [self._assign(number, sent.base_model, told, client) for client in clients]
        collector = self.method.server(schema, number, sent.base_model, self.download.model)
        exchange = self._exchange(number, sent.base_model, clients)
        trained = engine.replies(sent.broadcast, assigned)
        if exchange is not None:
            exchange.open()
            trained = exchange.replies(trained, self._compare if verify else None)
        received = self._received(trained, assigned, progress)
        if exchange is not None:
            assert isinstance(collector, fm.Aggregator)
            self._add_sum(number, collector, exchange, received, counts)
        else:
            self._add_frames(collector, received, counts, verify)
        mean, uplink = collector.mean(), counts.uplink
        self.method.apply_(self.model, mean, number)
        self.download.advance(self.model)
        accuracy, loss = evaluate(self.evaluated(number), self.data.test_x, self.data.test_y)
        return {
            "dataset": self.settings.dataset,
            "partition": self.settings.partition,
            "method": self.settings.method,
            "mask": self.settings.mask,
            "seed": self.settings.seed,
            "round": number,
            "accuracy": accuracy,
            "loss": loss,
            "clients": len(assigned),
            "uplink_mask_bytes": uplink.mask,
            "uplink_dense_bytes": uplink.dense,
            "uplink_header_bytes": uplink.header,
            "downlink_bytes": sum(traffic.down.values()),
            "seconds": round(time.perf_counter() - start, 3),
        }

    def _received(
        self, replies: Iterator[Reply], assigned: Sequence[Assignment], progress: PROGRESS
    ) -> Iterator[tuple[Assignment, bytes]]:
        """The message of each client with its assignment, as they arrive; keeps the clients' states."""
        waiting = {each.client: each for each in assigned}
        progress("client", 0, len(assigned))
        for reply in replies:
            its = waiting.pop(reply.client)
            yield its, reply.message
            if reply.memory:
                self.memories[its.client] = reply.memory
            progress("client", len(assigned) - len(waiting), len(assigned))
        assert not waiting

    def _add_frames(
        self,
        collector: methods.Summing,
        received: Iterator[tuple[Assignment, bytes]],
        counts: Counts,
        verify: bool,
    ) -> None:
        """Add the message of each client to the collector."""
        for its, message in received:
            if verify:
                self._compare(message)
            weight = self.method.weight(self.weights[its.client])
            sizes = collector.add(message, weight=weight, seed=its.seed)
            counts.uplink.add(sizes)
            counts.traffic.up[its.client] = len(message)
            if self.method.HAS_MASKS and isinstance(sizes, fm.CheckedFrame):
                counts.masks.add(sizes)

    def _exchange(self, number: int, base_model: int, clients: Sequence[int]) -> secure.Exchange | None:
        """The round's secure aggregation; None in a run without it."""
        if (terms := self.method.terms()) is None:
            return None
        request = self.method.request(self.schema, number, base_model, self.download.model)
        weights = {client: self.method.weight(self.weights[client]) for client in clients}
        return secure.Exchange(request, weights, terms)

    def _add_sum(
        self,
        number: int,
        collector: fm.Aggregator,
        exchange: secure.Exchange,
        received: Iterator[tuple[Assignment, bytes]],
        counts: Counts,
    ) -> None:
        """Add the sum that secure aggregation reveals to the collector."""
        for its, message in received:
            exchange.add(its.client, message)
        total = exchange.close()
        collector.merge(total)
        counts.masks.add_sum(total, exchange.request)
        for client in exchange.clients:
            counts.uplink.add(exchange.sizes(client))
            counts.traffic.up[client] = exchange.sent(client)
            counts.traffic.down[client] += exchange.received(client)
        counts.traffic.secure = exchange.line(number)

    def _compare(self, message: bytes) -> None:
        compare_backends(*self.method.frame(message, self.schema))

    def evaluated(self, number: int) -> nn.Module:
        """The model to evaluate after a round: the one that the clients of the next round will hold."""
        return self.method.evaluated(self.download.model, number)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next round depends on, except the settings."""
        own = {OWN + name: tensor for name, tensor in self.method.state().items()}
        memories = {
            f"{MEMORY}{client}/{name}": tensor
            for client, memory in sorted(self.memories.items())
            for name, tensor in memory.items()
        }
        down = {DOWNLOAD + name: tensor for name, tensor in self.download.state().items()}
        return {**download.tensors(self.model), **own, **memories, **down}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from a saved state."""
        own: dict[str, torch.Tensor] = {}
        down: dict[str, torch.Tensor] = {}
        memories: dict[int, dict[str, torch.Tensor]] = {}
        model: dict[str, torch.Tensor] = {}
        for name, tensor in state.items():
            if name.startswith(OWN):
                own[name.removeprefix(OWN)] = tensor
            elif name.startswith(DOWNLOAD):
                down[name.removeprefix(DOWNLOAD)] = tensor
            elif name.startswith(MEMORY):
                client, _, its = name.removeprefix(MEMORY).partition("/")
                memories.setdefault(int(client), {})[its] = tensor
            else:
                model[name] = tensor
        self.model.load_state_dict(model)
        self.method.load_state(own)
        self.download.load_state(self.model, down)
        self.memories = memories

    def _assign(self, number: int, base_model: int, told: dict[str, str], client: int) -> Assignment:
        return Assignment(
            client=client,
            round=number,
            base_model=base_model,
            seed=self.method.noise_seed(number, client),
            private_seed=derive(self.settings.seed, "private", number, client),
            order_seed=derive(self.settings.seed, "order", number, client),
            instructions=told,
            memory=self.memories.get(client, {}),
        )


def choose(settings: Settings, number: int) -> list[int]:
    """Draw the clients of a round, without replacement."""
    rng = np.random.default_rng(derive(settings.seed, "clients", number))
    return [int(c) for c in rng.choice(settings.clients, settings.clients_per_round, replace=False)]


def _size(told: dict[str, str]) -> int:
    """The bytes of the instructions to a client, as JSON; 0 if there are none."""
    return len(json.dumps(told)) if told else 0


def compare_backends(message: bytes, schema: fm.Schema) -> None:
    """Decode a frame with every installed backend, each from the bytes, and compare the results.

    Raises
    ------
    RuntimeError
        Two backends give different bytes, which is a defect of one of them.
    """
    names = backends.installed()
    first = fm.decode(message, schema, backend=names[0])
    for other in names[1:]:
        for name, array in fm.decode(message, schema, backend=other).items():
            if array.tobytes() != first[name].tobytes():
                raise RuntimeError(
                    f"{name!r} decoded by {other}: expected the bytes of {names[0]}, got others"
                )

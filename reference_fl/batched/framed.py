"""Rounds in real frames: what each client of a task has trained is encoded, and the server sees bytes alone.

Local training is that of the simulation, all clients at once, and so are clients, samples and first weights:
a method trains on the same as in the simulation of the same task and seed. The noise of a mask is the
codec's, its bits are sampled by `fedmrn_codec.encode`, the mean is that of an aggregator, EDEN is
`methods/eden.py`, and the noise scales are set by `fedmrn_codec.AdaptiveNoise`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

import fedmrn_codec as fm
from fedmrn_codec.face.adaptive import HIGH, LOW

from .. import methods
from ..methods.eden import Eden
from ..seeds import derive
from ..settings import defaults
from .layout import Layout
from .local import Batches, Effective
from .loop import Server, Settings, records
from .masks import Masking
from .tasks import Task

Arrays = dict[str, np.ndarray]

RATES = {"fedavg": 1.0, "eden": 1.0, "rule": 2.0}
"""The methods, and the learning rate of each as a multiple of the task's: that of the protocol
(`settings.LEARNING_RATE`)."""

OPTIONS = {"rate": RATES, "off": ("rule",), "bits": ("rule",), "bad": ("rule",)}
"""The options, and the methods that have them."""


class Exchange(Protocol):
    """How an update becomes a message, and messages become a mean."""

    def effective(self, client: Sequence[methods.Task]) -> Effective | None:
        """What the clients' training adds to the weights: None for the update itself."""

    def encode(self, update: Arrays, client: methods.Task) -> bytes:
        """The message of one client."""

    def collector(self, number: int, base_model: int) -> methods.Summing:
        """A new sum for the messages of a round."""

    def observe(self, collector: Any) -> None:
        """Learn from a round whose messages have all been added."""


class Dense:
    """FedAvg: frames in which all tensors are float32."""

    def __init__(self, schema: fm.Schema) -> None:
        self.schema = fm.Schema(fm.Tensor(tensor.name, tensor.shape) for tensor in schema)

    def effective(self, client: Sequence[methods.Task]) -> Effective | None:
        """Plain training."""
        return None

    def encode(self, update: Arrays, client: methods.Task) -> bytes:
        """A frame without masks."""
        return fm.encode(update, self.schema, noise={}, mask={}, **client.header)

    def collector(self, number: int, base_model: int) -> methods.Summing:
        """The exact weighted mean of frames."""
        return fm.Aggregator(self.schema, round=number, base_model=base_model)

    def observe(self, collector: Any) -> None:
        """Nothing to learn."""


class Packed(Dense):
    """EDEN: the packed messages of the reference training; what is not masked is in a frame inside."""

    def __init__(self, schema: fm.Schema) -> None:
        self.schema, self.method = schema, Eden(defaults("digits", "eden", None))

    def encode(self, update: Arrays, client: methods.Task) -> bytes:
        """A packed message."""
        return self.method.message(update, self.schema, client)

    def collector(self, number: int, base_model: int) -> methods.Summing:
        """The exact weighted mean of unpacked messages."""
        return self.method.server(self.schema, number, base_model)


class Masked:
    """The rule: binary masks over Bernoulli noise, of scales that the server sets from round to round.

    Parameters
    ----------
    schema : Schema
    model : dict of str to numpy.ndarray
        The first weights.
    generator : torch.Generator
        Of the masks of local training.
    options : mapping of str to float
        `bits` of a masked parameter, instead of the rule's own target; `off`, a factor on the first scales,
        clipped to the rule's bounds; `bad`, a round in which all updates are noise of ten times the scale.
    """

    def __init__(
        self, schema: fm.Schema, model: Arrays, generator: torch.Generator, options: Mapping[str, float]
    ) -> None:
        self.schema, self.generator = schema, generator
        self.bad = options.get("bad")
        self.rule = moved(fm.AdaptiveNoise(schema, model, bits=options.get("bits")), options.get("off", 1.0))

    def effective(self, client: Sequence[methods.Task]) -> Effective | None:
        """Progressive stochastic masking over the noise of each client's seed."""
        noise = torch.stack([self._noise(each.seed) for each in client])
        masking = Masking(noise, "binary", self.generator)
        return masking.effective

    def _noise(self, seed: int) -> Tensor:
        """The noise of all masked tensors, as they lie in a vector: float32, shape (masked,)."""
        scales = self.rule.noise
        parts = [
            fm.noise(scales[tensor.name], seed=seed, stream=stream, count=tensor.size)
            for stream, tensor in enumerate(self.schema)
            if tensor.masked
        ]
        return torch.from_numpy(np.concatenate(parts))

    def encode(self, update: Arrays, client: methods.Task) -> bytes:
        """A frame of masks."""
        if client.round == self.bad:
            update = {**update, **self._ruined(client.private_seed)}
        return fm.encode(
            update,
            self.schema,
            noise=self.rule.noise,
            mask="binary",
            coding="rans12",
            private_seed=client.private_seed,
            **client.header,
        )

    def _ruined(self, seed: int) -> Arrays:
        """An update of every masked tensor that is noise."""
        rng, scales = np.random.default_rng(seed), self.rule.noise
        found = {}
        for tensor in self.schema:
            if tensor.masked:
                size = 10 * scales[tensor.name].scale
                found[tensor.name] = np.asarray(size * rng.standard_normal(tensor.shape), np.float32)
        return found

    def collector(self, number: int, base_model: int) -> methods.Summing:
        """The exact weighted mean of frames; those with another noise are refused."""
        return fm.Aggregator(self.schema, noise=self.rule.noise, round=number, base_model=base_model)

    def observe(self, collector: Any) -> None:
        """Set the scales of the next round."""
        self.rule.observe(collector)


def moved(rule: fm.AdaptiveNoise, factor: float) -> fm.AdaptiveNoise:
    """A rule before its first round with other scales: `factor` times its own, within its bounds."""
    state = rule.to_json()
    for entry in state["tensors"].values():
        bounds = LOW * entry["spread"], HIGH * entry["spread"]
        entry["scale"] = float(np.float32(np.clip(factor * entry["scale"], *bounds)))
    return fm.AdaptiveNoise.from_json(state)


def parse(text: str) -> Settings:
    """The settings of a method in words, such as "rule:bits=0.5,rate=1".

    Raises
    ------
    ValueError
        An unknown method, or an option that it does not have.
    """
    settings = Settings.parse(text, RATES)
    for name in settings.options:
        if settings.method not in OPTIONS.get(name, ()):
            known = [each for each, methods_ in OPTIONS.items() if settings.method in methods_]
            raise ValueError(f"option of {settings.method}: expected one of {', '.join(known)}, got {name!r}")
    return settings


class FramedServer(Server):
    """A server whose clients send messages; parameters as those of `Server`.

    Attributes
    ----------
    schema : Schema
        Weights of two or more dimensions are masked; all others and BatchNorm's statistics are dense.
    """

    def __init__(self, task: Task, settings: Settings, seed: int) -> None:
        super().__init__(task, settings, seed)
        self.seed, self.own = seed, {"rate": RATES[settings.method], **settings.own}
        self.schema = schema_of(self.layout, self.buffers)
        self.exchange = self._exchange(settings)

    def _exchange(self, settings: Settings) -> Exchange:
        if settings.method == "rule":
            return Masked(self.schema, self._arrays(), self.generator, settings.options)
        return {"fedavg": Dense, "eden": Packed}[settings.method](self.schema)

    def round(self, number: int) -> dict[str, Any]:
        """One round; its record has the bytes of a message and, of masks, what the codec counts."""
        chosen, batches, buffers = self._draw()
        model = self._arrays()
        base_model = fm.model_id(model)
        clients = [self._client(number, base_model, client) for client in chosen]
        collector = self.exchange.collector(number, base_model)
        lengths, masks = [], 0
        for client, update in zip(clients, self._updates(clients, batches, buffers, model), strict=True):
            message = self.exchange.encode(update, client)
            sizes = collector.add(message, len(self.parts[client.client]), seed=client.seed)
            lengths.append(len(message))
            masks += sizes.mask_bytes
        self._load(fm.apply(model, collector.mean()))
        record = {"bytes": round(float(np.mean(lengths)), 1), **self._scales()}
        if masks:
            record["bits"] = round(8 * masks / (len(clients) * sum(self.layout.sizes)), 4)
        self.exchange.observe(collector)
        return record

    def _client(self, number: int, base_model: int, client: int) -> methods.Task:
        """What one client is told; its samples are in the round's batches."""
        return methods.Task(
            *self.task.train,
            round=number,
            base_model=base_model,
            seed=derive(self.seed, "noise", number, client),
            private_seed=derive(self.seed, "private", number, client),
            order_seed=0,  # the batches are drawn by the server
            client=client,
        )

    def _updates(
        self,
        clients: Sequence[methods.Task],
        batches: Batches,
        buffers: dict[str, Tensor],
        model: Arrays,
    ) -> Iterator[Arrays]:
        """Train all clients; the update of each, by name, with the changes of its buffers."""
        masked, dense = self._train(buffers, batches, self.exchange.effective(clients))
        updates = self.layout.parameters(masked, dense)
        for place in range(len(clients)):
            own = {name: values[place].numpy() for name, values in updates.items()}
            changed = {name: values[place].numpy() - model[name] for name, values in buffers.items()}
            yield own | changed

    def _scales(self) -> dict[str, Any]:
        if not isinstance(self.exchange, Masked):
            return {}
        return {"scale": [float(f"{noise.scale:.4g}") for noise in self.exchange.rule.noise.values()]}

    def _arrays(self) -> Arrays:
        """The model and the buffers, by name."""
        values = self.layout.parameters(*(vector.unsqueeze(0) for vector in self.model))
        own = {name: values[name][0].numpy() for name in self.layout.shapes}
        return own | {name: buffer.numpy() for name, buffer in self.buffers.items()}

    def _load(self, arrays: Arrays) -> None:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.model = self.layout.flatten(tensors)
        self.buffers = {name: tensors[name] for name in self.buffers}


def schema_of(layout: Layout, buffers: Mapping[str, Tensor]) -> fm.Schema:
    """The schema of a network: its parameters in their order, then its buffers, which are dense."""
    own = [fm.Tensor(name, shape, masked=name in layout.masked) for name, shape in layout.shapes.items()]
    return fm.Schema([*own, *(fm.Tensor(name, tuple(buffer.shape)) for name, buffer in buffers.items())])


def run(task: Task, text: str, seed: int, rounds: int | None = None) -> Iterator[dict[str, Any]]:
    """Records of a run in real frames, one a round, as `loop.run` has them; method and options as in `parse`.

    The record of a round has `bytes`, the mean length of a message; `bits` of a masked parameter, header and
    dense tensors left out; and `scale`, of each tensor in this round.
    """
    return records(FramedServer(task, parse(text), seed), rounds)

"""The server's wrapper around a Flower strategy: frames in, and what the strategy expects out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from flwr.supercore import log

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import SeedPolicy, check_settings

from .checks import Sound
from .records import added, restored
from .rounds import Round, Settings, Sorted
from .traffic import traffic

MEANS = (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi)
"""The strategies whose `aggregate_train` sees its replies only through their weighted mean."""


class FedMRN(Strategy):
    """A Flower strategy whose clients send frames.

    Every message of `configure_train` also asks for a frame: a seed of its own, the noise, the mask, the
    round and the id of the model. `aggregate_train` checks each reply against what its node was asked for,
    and leaves the bad ones out: logged, counted in the metrics, and handed on as error replies. Evaluation is
    the wrapped strategy's alone.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        Any. Not changed, but for what its own methods do.
    noise : fedmrn_codec.Noise
        Of all masked tensors.
    mask : {"binary", "signed"}
    schema : fedmrn_codec.Schema, optional
        Which arrays travel, and which of them masked. By default all, and masked those of floats that have
        two or more dimensions. Arrays that it does not name stay as the server has them.
    tied : mapping of str to str, optional
        Arrays that the schema does not name, each with the array that it always equals.
    each : bool, optional
        False: add the replies up exactly, one at a time, and hand the strategy one reply, the model plus
        their weighted mean, with the sum of their weights. True: hand it every reply, decoded to full arrays;
        that needs the memory of so many models. By default False for strategies that use nothing but the
        weighted mean (FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi, and what inherits their
        `aggregate_train`), else True.
    seed : int or callable, optional
        By default seeds are unpredictable. An integer: they follow from it, the round and the node. A
        callable gives the seed of (round, node), another one for each.
    max_weight : int
        The largest weight that a client may claim.
    coding, dense_coding : str
        Asked of the clients, as in `fedmrn_codec.Request`: "rans" makes masks shorter, "float16" and
        "bfloat16" dense float32 tensors.

    Raises
    ------
    fedmrn_codec.ArgumentError
        The noise, the mask or a coding is none.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        noise: fm.Noise,
        mask: str = "binary",
        schema: fm.Schema | None = None,
        tied: Mapping[str, str] | None = None,
        each: bool | None = None,
        seed: SeedPolicy = None,
        max_weight: int = 2**31 - 1,
        coding: str = "raw",
        dense_coding: str = "raw",
    ) -> None:
        check_settings(noise, mask, coding, dense_coding)
        self.strategy, self.tied = strategy, dict(tied or {})
        self.each = not _is_mean(strategy) if each is None else each
        weighted_by = _setting(strategy, "weighted_by_key", "num-examples")
        self._settings = Settings(
            noise, mask, schema, self.tied, seed, weighted_by, max_weight, coding, dense_coding
        )
        self._round: Round | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The wrapped strategy's messages, each with a request for a frame.

        Raises
        ------
        fedmrn_codec.ArgumentError
            Messages that the wrapper cannot serve: those of `rounds.Round`, and, without `each`, more
            than one model.
        """
        messages = self.strategy.configure_train(server_round, arrays, config, grid)
        self._round = Round(server_round, messages, self._settings)
        models = len(self._round.base_models())
        if models > 1 and not self.each:
            raise fm.ArgumentError("messages", "1 (or FedMRN(..., each=True))", f"{models} models")
        return self._round.messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The wrapped strategy's result for the sound replies, in the dtypes of the model that was sent.

        Returns
        -------
        arrays : ArrayRecord or None
        metrics : MetricRecord
            The strategy's own, and the bytes and counts of `traffic.traffic`.

        Raises
        ------
        RuntimeError
            `configure_train` was not called for this round.
        """
        current, self._round = self._round, None
        if current is None or current.number != server_round:
            raise RuntimeError(f"FedMRN: aggregate_train of round {server_round} without its configure_train")
        sorted_replies = current.sort(replies)
        handed_on = self._every(current, sorted_replies) if self.each else self._mean(current, sorted_replies)
        arrays, metrics = self.strategy.aggregate_train(
            server_round, [*handed_on, *sorted_replies.errors, *_reported(current, sorted_replies)]
        )
        if arrays is not None and sorted_replies.sound:
            arrays = restored(arrays, current.asked[sorted_replies.sound[0].node].arrays)
        result = dict(metrics or {})
        if not self.each:
            result.update(self._metrics(sorted_replies.sound))
        return arrays, MetricRecord({**result, **traffic(sorted_replies)})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The wrapped strategy's."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The wrapped strategy's."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log the settings, and the wrapped strategy's."""
        log(INFO, "\t├──> FedMRN around %s:", type(self.strategy).__name__)
        log(INFO, "\t│\t├── noise %s, mask %s", self._settings.noise, self._settings.mask)
        log(INFO, "\t│\t└── replies handed on: %s", "each" if self.each else "their exact mean")
        self.strategy.summary()

    def _mean(self, current: Round, replies: Sorted) -> list[Message]:
        """One reply that stands for all sound ones."""
        aggregator: fm.Aggregator | None = None
        summed: list[Sound] = []
        for reply in replies.sound:
            if aggregator is None:
                aggregator = current.asked[reply.node].request.aggregator()
            try:
                aggregator.add(reply.frame, reply.weight, seed=reply.seed)
                summed.append(reply)
            except fm.CodecError as error:  # the sum of weights is full
                replies.refused.append((reply.message, error))
        replies.sound = summed
        if aggregator is None or not summed:
            return []
        asked_first = current.asked[summed[0].node]
        content = RecordDict(dict(_without_arrays(summed[0].message)))
        arrays = added(asked_first.arrays, self._with_tied(aggregator.mean()))
        content[summed[0].arrays_key] = arrays
        content[next(iter(content.metric_records))] = self._synthetic_metrics(summed)
        return [Message(content, reply_to=asked_first.message)]

    def _every(self, current: Round, replies: Sorted) -> list[Message]:
        """The sound replies with full arrays."""
        out = []
        for reply in replies.sound:
            asked = current.asked[reply.node]
            update = fm.decode(reply.frame)
            arrays = added(asked.arrays, self._with_tied(update))
            content = RecordDict({**dict(reply.message.content), reply.arrays_key: arrays})
            out.append(Message(content, reply_to=asked.message))
        return out

    def _with_tied(self, update: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return update | {name: update[other] for name, other in self.tied.items()}

    def _synthetic_metrics(self, sound: list[Sound]) -> MetricRecord:
        """Weighted means under the clients' own keys, and the sum of the weights."""
        key = self._settings.weighted_by
        means = aggregate_metricrecords([_without_arrays(reply.message) for reply in sound], key)
        return MetricRecord({**dict(means), key: sum(reply.weight for reply in sound)})

    def _metrics(self, sound: list[Sound]) -> MetricRecord:
        """The metrics of all sound replies, aggregated as the strategy does it."""
        if not sound:
            return MetricRecord()
        aggregate = _setting(self.strategy, "train_metrics_aggr_fn", aggregate_metricrecords)
        contents = [_without_arrays(reply.message) for reply in sound]
        metrics: MetricRecord = aggregate(contents, self._settings.weighted_by)
        return metrics


def _is_mean(strategy: Strategy) -> bool:
    owner = next(cls for cls in type(strategy).__mro__ if "aggregate_train" in vars(cls))
    return owner in MEANS


def _setting(strategy: Strategy | None, name: str, default: Any) -> Any:
    """An attribute of a strategy, or of the one that it wraps."""
    while strategy is not None:
        if hasattr(strategy, name):
            return getattr(strategy, name)
        strategy = getattr(strategy, "strategy", None)
    return default


def _without_arrays(reply: Message) -> RecordDict:
    arrays = set(reply.content.array_records)
    return RecordDict({key: record for key, record in reply.content.items() if key not in arrays})


def _reported(current: Round, replies: Sorted) -> list[Message]:
    """The refused replies, as the error replies of their nodes; each is logged."""
    out, sound = [], {reply.node for reply in replies.sound}
    for reply, error in replies.refused:
        node = reply.metadata.src_node_id
        log(WARNING, "fedmrn: reply of node %d left out (%s): %s", node, error.code, error)
        if node in current.asked and node not in sound:
            reason = Error(ErrorCode.UNKNOWN, f"fedmrn: {error.code}: {error}")
            out.append(Message(reason, reply_to=current.asked[node].message))
    return out

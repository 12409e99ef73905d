"""The server's wrapper around a Flower strategy: it passes the strategy full arrays in place of frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from logging import INFO, WARNING
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from flwr.supercore import log

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import (
    DEFAULT_LIMITS,
    NoiseSetting,
    SecAgg,
    SeedPolicy,
    ServerNoise,
    StatePath,
    check_settings,
    checked_limits,
    unsigned,
)

from .agreement import averaged
from .checks import CheckedReply, TrainReply
from .downlink import Sender
from .order import check_around, check_inside, clips_on_clients
from .records import added, restored
from .request import PREFIX
from .rounds import Replies, Round, Settings
from .traffic import downlink as downlink_traffic
from .traffic import secure as secure_traffic
from .traffic import traffic
from .wrapped import checked_secure, is_flowers, is_mean, setting

if TYPE_CHECKING:
    from .secure_round import SecureRound

TIMEOUT = 3600.0
"""Flower's default timeout of a round, in seconds."""


class FedMRN(Strategy):
    """A Flower strategy whose clients send frames.

    `configure_train` adds a request to every message: a seed for this node alone, the noise, the mask, the
    round and the id of the model. By default a rule sets the noise of each masked tensor from the masks of
    the rounds before (`fedmrn_codec.AdaptiveNoise`). `aggregate_train` checks each reply against the request
    to its node. Refused replies are logged, counted in the metrics, and passed to the wrapped strategy as
    error replies. The wrapped strategy does all evaluation.

    Parameters
    ----------
    strategy : flwr.serverapp.strategy.Strategy
        Any strategy; only its own methods change it.
    noise : fedmrn_codec.Noise, mapping of str to Noise, or fedmrn_codec.AdaptiveNoise, optional
        A fixed noise, of all masked tensors or of each by name; or a rule that has been made before. Default:
        a rule that starts from the weights of the first model.
    mask : {"binary", "signed"}
        The kind of all masks. If `noise` is a rule, it must have been made for this kind.
    bits : float, optional
        Bits of a masked parameter to which the rule steers binary masks, as in `AdaptiveNoise`; not with
        `secure`.
    state : path, optional
        A file that keeps the rule when the server stops: it is written after each round, and read at the
        first round if it exists.
    schema : fedmrn_codec.Schema, optional
        The arrays that clients send, and which of them are masked. By default all arrays, of which floats of
        two or more dimensions are masked. Arrays that the schema does not name keep the server's values.
    tied : mapping of str to str, optional
        Names of arrays outside the schema, each with the name of the array that it always equals.
    each : bool, optional
        False: sum the replies exactly, one at a time, and pass the strategy a single reply, which holds the
        model plus their weighted mean and the sum of their weights. True: pass it every reply, decoded to
        full arrays; this needs memory for as many models as replies. The default is False for strategies that
        use nothing but the weighted mean (FedAvg, FedProx, FedAvgM, FedAdagrad, FedAdam, FedYogi, and
        subclasses that inherit their `aggregate_train`), else True.
    seed : int or callable, optional
        As the policy of `fedmrn_codec.choose_seed`: by default seeds are unpredictable; an integer derives
        them from it, the round and the node; a callable returns the seed for (round, node).
    max_weight : int
        The largest weight that a client may report.
    coding, dense_coding : str
        Codings that clients should use, as in `fedmrn_codec.Request`: "rans" and "rans12" make masks shorter,
        "float16" and "bfloat16" dense float32 tensors. Replies in any coding are accepted. The default coding
        of masks is "rans12" if a rule sets the noise, and "raw" if it is fixed.
    downlink : {"grid", "raw"}
        "grid": clients receive the model as frames, rounded to a grid (`fedmrn_codec.Downlink`), of what has
        changed since the version that each holds; every ClientApp needs `fedmrn_flower.mod`. The wrapped
        strategy never sees the rounded model: the updates of the clients are added to its own arrays. "raw":
        messages hold the arrays themselves, float32 as a rule.
    limits : fedmrn_codec.Limits
        Of the frames that clients send (spec 9.2).
    secure : SecAgg, optional
        Secure aggregation: the server obtains the sum of the updates of a round, and no single one. All nodes
        of a round have one seed, which a callable `seed` chooses for (round, 0). The mean has equal weights
        unless `secure` says otherwise. Codings of masks have no effect. For strategies of the mean only.

    Raises
    ------
    fedmrn_codec.ArgumentError
        A setting is not a valid one, or the strategy holds another FedMRN. In
        `configure_train`: a differential-privacy wrapper of Flower that reads replies is around this one.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        noise: NoiseSetting = None,
        mask: str = "binary",
        bits: float | None = None,
        state: StatePath = None,
        schema: fm.Schema | None = None,
        tied: Mapping[str, str] | None = None,
        each: bool | None = None,
        seed: SeedPolicy = None,
        max_weight: int = 2**31 - 1,
        coding: str | None = None,
        dense_coding: str = "raw",
        downlink: str = "grid",
        limits: fm.Limits = DEFAULT_LIMITS,
        secure: SecAgg | None = None,
    ) -> None:
        check_inside(strategy, FedMRN)
        self.each = not is_mean(strategy) if each is None else each
        self._secure = checked_secure(secure, strategy, self.each)
        self._noise = ServerNoise(noise, mask, bits=bits, state=state)
        if secure is not None:
            secure.check_noise(self._noise.adaptive)
            if bits is not None:
                raise fm.ArgumentError("bits", "none with secure, where all masks take the same bytes", bits)
        unsigned(max_weight, 2**39, "max_weight"), checked_limits(limits)
        coding = self._noise.coding(coding if secure is None else coding or "raw")
        check_settings({}, mask, coding, dense_coding)
        self.strategy, self.tied = strategy, dict(tied or {})
        weighted_by = setting(strategy, "weighted_by_key", "num-examples")
        self._settings = Settings(
            self._noise,
            mask,
            schema,
            self.tied,
            seed,
            weighted_by,
            max_weight,
            coding,
            dense_coding,
            limits,
            one_seed=secure is not None,
        )
        self._sender = Sender(downlink, schema, self.tied)
        self._grid: Grid | None = None
        self._timeout = TIMEOUT
        self._round: Round | None = None
        self._secure_round: SecureRound | None = None
        self._lost_rounds = 0
        self._seen: dict[str, float] = {}
        self._privacy_told = False

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = TIMEOUT,
        *args: Any,
        **kwargs: Any,
    ) -> Result:
        """Flower's `Strategy.start`; the timeout also holds for models that are sent again."""
        self._timeout = timeout
        return super().start(grid, initial_arrays, num_rounds, timeout, *args, **kwargs)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The wrapped strategy's messages, each with a request for a frame, and with the model as a frame.

        With `secure` the nodes exchange keys and shares first; nodes that have dropped out get no message.

        Raises
        ------
        fedmrn_codec.CodecError
            Two messages are for one node, a message does not hold exactly one ArrayRecord, the schema does
            not fit its arrays, or two nodes have the same seed; or, without `each`, models differ.
        """
        check_around(self)
        if not self._privacy_told and (text := clips_on_clients(self.strategy)):
            self._privacy_told = True
            log(WARNING, "fedmrn: %s", text)
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._grid = grid
        base_model = self._sender.begin(messages)
        self._round = Round(server_round, messages, self._settings, base_model)
        models = len(self._round.base_models())
        if models > 1 and not self.each:
            raise fm.ArgumentError("number of models sent", "1 (or FedMRN(..., each=True))", models)
        return self._sender.pack(self._opened(self._round, grid) if self._secure else self._round.messages)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The wrapped strategy's result for the replies that pass all checks, in the dtypes of the model.

        Returns
        -------
        arrays : ArrayRecord or None
        metrics : MetricRecord
            The strategy's own, and under "fedmrn." the bytes and counts of `traffic.traffic`, the share of
            set bits of each array, the scales of the rule, and the mean clipped share that clients report.

        Raises
        ------
        RuntimeError
            `configure_train` was not called for this round.
        """
        current, self._round = self._round, None
        if current is None or current.number != server_round:
            got = "none" if current is None else f"round {current.number}"
            raise RuntimeError(f"round of the last configure_train: expected round {server_round}, got {got}")
        received = self._sender.receive(replies, self._grid, self._timeout)
        self._seen = {}
        if self._secure_round is not None:
            return self._sum_only(current, self._secure_round, received)
        outcome = current.check(received)
        if outcome.silent:
            log(WARNING, "fedmrn: nodes %s did not answer", outcome.silent)
        decoded = self._decoded(current, outcome) if self.each else self._mean(current, outcome)
        arrays, metrics = self.strategy.aggregate_train(
            server_round, [*decoded, *outcome.failed, *_error_replies(current, outcome)]
        )
        if arrays is not None and outcome.checked:
            arrays = restored(arrays, current.assignments[outcome.checked[0].node].arrays)
        result = dict(metrics or {})
        if not self.each:
            result.update(self._metrics(outcome.checked))
        for reply in outcome.checked:
            self._noise.see(reply.frame, reply.clipped)
        fit, warning = self._noise.end_round()
        if warning:
            log(WARNING, "fedmrn: %s", warning)
        seen = {PREFIX + name: value for name, value in (self._seen | fit).items()}
        moved = {**traffic(outcome), **downlink_traffic(self._sender)}
        return arrays, MetricRecord({**result, **moved, **seen})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The wrapped strategy's messages, with the model as a frame."""
        messages = list(self.strategy.configure_evaluate(server_round, arrays, config, grid))
        self._grid = grid
        self._sender.begin(messages)
        return self._sender.pack(messages)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The wrapped strategy's metrics, and the bytes of the messages.

        If the strategy averages metrics as Flower's do, replies that cannot be averaged are refused: those
        with no weight, a NaN, or other metrics than more than half of the replies. Flower would end the run.
        """
        replies = self._sender.receive(replies, self._grid, self._timeout)
        if is_flowers(self.strategy):
            replies = averaged(replies, self._settings.weighted_by, self._settings.max_weight)
        metrics = self.strategy.aggregate_evaluate(server_round, replies)
        moved = downlink_traffic(self._sender)
        return MetricRecord({**dict(metrics or {}), **moved}) if metrics is not None or moved else None

    def summary(self) -> None:
        """Log the settings of this wrapper and of the wrapped strategy."""
        log(INFO, "\t├──> FedMRN around %s:", type(self.strategy).__name__)
        log(INFO, "\t│\t├── noise %s, mask %s", self._noise.fixed or "adaptive", self._settings.mask)
        if self._secure is not None:
            log(INFO, "\t│\t├── secure aggregation, threshold %s", self._secure.threshold)
        log(INFO, "\t│\t└── passes on %s", "each reply" if self.each else "the exact mean of the replies")
        self.strategy.summary()

    def _opened(self, current: Round, grid: Grid) -> list[Message]:
        """The messages of a round with secure aggregation, after the exchanges before the training."""
        self._secure_round = None
        if self._secure is None or not current.assignments:
            return current.messages
        from .secure_round import SecureRound

        self._secure_round = SecureRound(current, self._secure, grid, self._timeout)
        return self._secure_round.open()

    def _sum_only(
        self, current: Round, secure: SecureRound, received: list[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord]:
        """The wrapped strategy's result for the sum of a round with secure aggregation."""
        outcome, aggregator = secure.finish(received)
        self._lost_rounds += aggregator is None
        inside = {reply.node for reply in outcome.checked}
        failed = [reply for reply in outcome.failed if reply.metadata.src_node_id not in inside]
        one = [] if aggregator is None else [self._one_reply(current, outcome.checked, aggregator)]
        arrays, metrics = self.strategy.aggregate_train(
            current.number, [*one, *failed, *_error_replies(current, outcome)]
        )
        result = dict(metrics or {}) | dict(self._metrics(outcome.checked))
        moved = dict(secure_traffic(secure, outcome, self._sender, self._lost_rounds))
        seen = {PREFIX + name: value for name, value in self._seen.items()}
        if arrays is None or not one:
            return None, MetricRecord({**result, **moved, **seen})
        first = current.assignments[outcome.checked[0].node].arrays
        return restored(arrays, first), MetricRecord({**result, **moved, **seen})

    def _mean(self, current: Round, replies: Replies[CheckedReply]) -> list[Message]:
        """One reply that stands for all checked ones."""
        aggregator: fm.Aggregator | None = None
        summed: list[CheckedReply] = []
        for reply in replies.checked:
            request = current.assignments[reply.node].request
            aggregator = request.aggregator() if aggregator is None else aggregator
            try:
                aggregator.add(reply.frame, reply.weight, seed=request.seed)
                summed.append(reply)
            except fm.CodecError as error:  # the sum of the weights would be too large
                replies.refused.append((reply.message, error))
        replies.checked = summed
        if aggregator is None or not summed:
            return []
        return [self._one_reply(current, summed, aggregator)]

    def _one_reply(self, current: Round, summed: Sequence[TrainReply], aggregator: fm.Aggregator) -> Message:
        """A reply with the model plus the mean, and the mean metrics; the rule of the noise sees the sum."""
        self._seen = self._noise.observe(aggregator)
        first = current.assignments[summed[0].node]
        content = _without_arrays(summed[0].message)
        content[summed[0].arrays_key] = added(first.arrays, self._with_tied(aggregator.mean()))
        content[next(iter(content.metric_records))] = self._mean_metrics(summed, aggregator.weight)
        return Message(content, reply_to=first.message)

    def _decoded(self, current: Round, replies: Replies[CheckedReply]) -> list[Message]:
        """The checked replies, with full arrays in place of their frames."""
        out, passed = [], []
        sums: dict[bytes, fm.Aggregator] = {}
        for reply in replies.checked:
            assignment = current.assignments[reply.node]
            if self._noise.adaptive:
                request = assignment.request
                aggregator = sums.setdefault(request.schema.digest, fm.Aggregator(request.schema))
                try:
                    aggregator.add(reply.frame, reply.weight)
                except fm.CodecError as error:  # the sum of the weights would be too large
                    replies.refused.append((reply.message, error))
                    continue
            passed.append(reply)
            arrays = added(assignment.arrays, self._with_tied(fm.decode(reply.frame)))
            content = RecordDict({**dict(reply.message.content), reply.arrays_key: arrays})
            out.append(Message(content, reply_to=assignment.message))
        replies.checked = passed
        for aggregator in sums.values():
            self._seen |= self._noise.observe(aggregator)
        return out

    def _with_tied(self, update: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return update | {name: update[other] for name, other in self.tied.items()}

    def _mean_metrics(self, replies: Sequence[TrainReply], weight: int) -> MetricRecord:
        """Weighted means under the clients' own keys, and the sum of the weights of the updates."""
        key = self._settings.weighted_by
        means = aggregate_metricrecords([_without_arrays(reply.message) for reply in replies], key)
        return MetricRecord({**dict(means), key: weight})

    def _metrics(self, replies: Sequence[TrainReply]) -> MetricRecord:
        """The metrics of all checked replies, aggregated by the strategy's own function."""
        if not replies:
            return MetricRecord()
        aggregate = setting(self.strategy, "train_metrics_aggr_fn", aggregate_metricrecords)
        contents = [_without_arrays(reply.message) for reply in replies]
        metrics: MetricRecord = aggregate(contents, self._settings.weighted_by)
        return metrics


def _without_arrays(reply: Message) -> RecordDict:
    arrays = set(reply.content.array_records)
    return RecordDict({key: record for key, record in reply.content.items() if key not in arrays})


def _error_replies(current: Round, replies: Replies[Any]) -> list[Message]:
    """Log the refused replies, and return them as error replies of their nodes."""
    out, accepted = [], {reply.node for reply in replies.checked}
    for reply, error in replies.refused:
        node = reply.metadata.src_node_id
        log(WARNING, "fedmrn: refused the reply of node %d (%s): %s", node, error.code, error)
        if node in current.assignments and node not in accepted:
            reason = Error(ErrorCode.UNKNOWN, f"fedmrn: {error.code}: {error}")
            out.append(Message(reason, reply_to=current.assignments[node].message))
    return out

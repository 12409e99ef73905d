"""The server's filter: it adds a request to each task, checks each result, and returns its arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_copy
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

import fedmrn_codec as fm
from fedmrn_codec import ReplyError
from fedmrn_codec.adapter_api import Arrays, RoundFit, ServerNoise, check_settings, noise_text, parse_noise

from .arrays import checked, from_checked, in_dtypes_of, without_bools
from .downlink import base_model_of
from .replies import check_meta, clipped_of, frame_of, later_filters, result_dxo, with_data
from .request import META, Request

OUTPUTS = (DataKind.WEIGHT_DIFF, DataKind.WEIGHTS, "FRAME")


@dataclass(frozen=True)
class Assignment:
    """What a client was sent: the task, the model and the request in it; the number of the rule's round."""

    task: str
    arrays: Arrays
    request: Request
    sum_number: int


@dataclass(frozen=True)
class Model:
    """The last model that was sent, computed once for all clients: its arrays, its id and its schema.

    `source` is the workflow's own dictionary, into which some workflows write the next model.
    """

    source: Arrays
    round: int
    arrays: Arrays
    id: int
    schema: fm.Schema
    noise: fm.Noise | Mapping[str, fm.Noise]


class FromFrame(DXOFilter):
    """Add a request to the tasks that hold weights, and decode the frames of the results.

    A server input filter: `recipe.add_server_input_filter(FromFrame(tasks=["train"]), tasks=["train"])`. By
    default a rule sets the noise of each masked tensor from the masks of the rounds before
    (`fedmrn_codec.AdaptiveNoise`); for it the filter sums the frames of a round, which takes 10 bytes per
    masked element. When the next round begins, it logs the share of set bits and, if clients report it, of
    elements beyond the scale; and, once, a warning if the noise does not fit. The filter also handles the
    event before a task is sent, and then adds the request (seed, noise, mask, round, model id, schema) to the
    meta of that client's DXO.

    A result that fails a check raises `ContentBlockedException`; NVFlare logs it, and the workflow gets
    TASK_RESULT_FILTER_ERROR instead. FedAvg then continues if its `ignore_result_error` is True, as `attach`
    sets it, and ends the job otherwise. A round without an accepted result does not change the model. The
    mean of FedAvg is converted to the dtypes of the model; counters are rounded.

    Parameters
    ----------
    noise : fedmrn_codec.Noise or str, optional
        A fixed noise of all masked tensors; as text, as in a job's configuration: "uniform:0.01". Default: a
        rule that starts from the weights of the first model.
    mask : {"binary", "signed"}
    output : {"WEIGHT_DIFF", "WEIGHTS", "FRAME"}
        What the workflow gets, whether a client sends weights or differences: the update; the model plus
        the update; or the checked frame, for `ExactMean`.
    masked : list of str, optional
        Names of the arrays to mask; by default floats of two or more dimensions.
    leave_out : list of str, optional
        Names of arrays that clients do not send; they keep the server's values.
    seed : int, optional
        By default seeds are unpredictable. An integer derives them from it, the client's name and the round,
        as in `fedmrn_codec.choose_seed`.
    max_weight : float
        The largest NUM_STEPS_CURRENT_ROUND that a client may report.
    coding, dense_coding : str
        Codings that clients should use, as in `fedmrn_codec.Request`: "rans" and "rans12" make masks shorter,
        "float16" and "bfloat16" dense float32 tensors. Results in any coding are accepted. The default coding
        of masks is "rans12" if a rule sets the noise, and "raw" if it is fixed.
    bits : float, optional
        Bits of a masked parameter to which the rule steers binary masks, as in `AdaptiveNoise`.
    state : str, optional
        A file that keeps the rule when the server stops: it is written after each round, and read at the
        first round if it exists.
    limits : fedmrn_codec.Limits or dict of str to int, optional
        Of the frames that clients send (spec 9.2). A dict has those fields that differ from the defaults.
    tasks : sequence of str, optional
        Names of the tasks that get a request: those for which the filter is added. Default: all that hold
        weights, so that a model for which no request can be made ends the job in those tasks too.

    Raises
    ------
    fedmrn_codec.ArgumentError
        A setting is not one of these values.
    """

    def __init__(
        self,
        noise: fm.Noise | str | None = None,
        mask: str = "binary",
        output: str = "WEIGHT_DIFF",
        masked: list[str] | None = None,
        leave_out: list[str] | None = None,
        seed: int | None = None,
        max_weight: float = 2**31 - 1,
        coding: str | None = None,
        dense_coding: str = "raw",
        bits: float | None = None,
        state: str | None = None,
        limits: fm.Limits | Mapping[str, int] | None = None,
        tasks: Sequence[str] | None = None,
    ) -> None:
        super().__init__([DataKind.WEIGHTS, DataKind.WEIGHT_DIFF], None)
        fixed = parse_noise(noise) if isinstance(noise, str) else noise
        self._noise = ServerNoise(fixed, mask, bits=bits, state=state)
        masks = self._noise.coding(coding)
        check_settings({}, mask, masks, dense_coding)
        if isinstance(tasks, str):
            raise fm.ArgumentError("tasks", "a sequence of names", repr(tasks))
        if output not in OUTPUTS:
            raise fm.ArgumentError("output", f"one of {', '.join(OUTPUTS)}", repr(output))
        self.noise = None if fixed is None else noise_text(fixed)
        self.mask, self.output, self.bits, self.state = mask, str(output), bits, state
        self.masked, self.leave_out = masked, leave_out
        self.seed, self.max_weight = seed, max_weight
        self.coding, self.dense_coding = coding, dense_coding
        self.tasks = None if tasks is None else list(tasks)
        self._limits = limits_of(limits)
        self.limits = None if limits is None else asdict(self._limits)
        self._codings = masks, dense_coding
        self._lock = Lock()
        self._sum: fm.Aggregator | None = None
        self._sum_number = 0  # counts the rounds of the rule, also where a workflow does not
        self._assignments: dict[str, Assignment] = {}
        self._counted: dict[str, str] = {}  # the task of the last result that the rule has seen, by client
        self._answered: dict[str, str] = {}  # of the last result, whatever it was
        self._model: Model | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Add a request before a task is sent; correct the mean before it changes the model.

        A filter of the task, such as `ToGrid`, may replace the model and its id in the request.
        """
        if event_type == EventType.BEFORE_TASK_DATA_FILTER:
            try:
                self._add_request(fl_ctx)
            except fm.CodecError as error:
                self.system_panic(f"fedmrn: cannot make a request for this model: {error}", fl_ctx)
        elif event_type == EventType.AFTER_TASK_DATA_FILTER:
            self._see_model(fl_ctx)
        elif event_type == AppEventType.AFTER_AGGREGATION:
            self._correct_mean(fl_ctx)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """A copy of the result with the output in place of the frame; failed results pass unchanged."""
        client = _client(fl_ctx)
        try:
            if result_dxo(shareable) is None:
                return shareable
            filtered: Shareable = super().process(make_copy(shareable), fl_ctx)
            return filtered
        except fm.CodecError as error:
            reason = f"fedmrn: refused the result of {client} ({error.code}): {error}"
            raise ContentBlockedException(reason) from None
        finally:
            self._answered[client] = fl_ctx.get_prop(FLContextKey.TASK_ID)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """A new DXO with the output of the client's frame, which is parsed here, once."""
        client = _client(fl_ctx)
        assignment = self._assignment_of(client, fl_ctx)
        frame = self._frame(dxo, assignment)
        check_meta(dxo, self.max_weight)
        clipped = clipped_of(dxo)
        with self._lock:
            # NVFlare drops a result that is sent again only after this filter; the rule sees it once.
            is_new = self._counted.get(client) != assignment.task
            if is_new and assignment.sum_number == self._sum_number:
                if self._sum is not None:
                    self._sum.add(frame, 1)
                self._noise.see(frame, clipped)
                self._counted[client] = assignment.task
        self.log_info(
            fl_ctx,
            f"fedmrn: frame of {client}: {frame.frame_bytes} bytes up (mask {frame.mask_bytes}, "
            f"dense {frame.dense_bytes}, header {frame.header_bytes})",
        )
        meta = {key: value for key, value in dxo.meta.items() if key != MetaKey.PROCESSED_ALGORITHM}
        kind, data = self._output(frame, assignment.arrays)
        extra = assignment.request.to_dict() if self.output == "FRAME" else {}
        extra |= {"frame-bytes": frame.frame_bytes, **RoundFit.of(frame, clipped).metrics()}
        return with_data(DXO(dxo.data_kind, dxo.data, meta), kind, data, {META: extra})

    @staticmethod
    def _frame(dxo: DXO, assignment: Assignment) -> fm.CheckedFrame:
        """The checked frame of a result; its error names the client's filters after ToFrame, if any."""
        try:
            return assignment.request.check(frame_of(dxo), assignment.arrays)
        except fm.CodecError as error:
            if later := later_filters(dxo):
                expected = "ToFrame last among those that change arrays"
                raise ReplyError(
                    "order of the client's filters", expected, f"{later} after it ({error})"
                ) from None
            raise

    def _output(self, frame: fm.CheckedFrame, base: Arrays) -> tuple[str, dict[str, np.ndarray]]:
        if self.output == "FRAME":
            return DataKind.WEIGHT_DIFF, from_checked(frame)
        update = fm.decode(frame)
        if self.output == DataKind.WEIGHT_DIFF:
            return self.output, {name: each.astype(base[name].dtype) for name, each in update.items()}
        return self.output, fm.apply(base, update)

    def _add_request(self, fl_ctx: FLContext) -> None:
        if self.tasks is not None and fl_ctx.get_prop(FLContextKey.TASK_NAME) not in self.tasks:
            return
        task = fl_ctx.get_prop(FLContextKey.TASK_DATA)
        try:
            dxo = from_shareable(task)
        except ValueError:
            return
        if dxo.data_kind != DataKind.WEIGHTS or not dxo.data:
            return
        client, task_id = _client(fl_ctx), fl_ctx.get_prop(FLContextKey.TASK_ID)
        with self._lock:
            assignment = self._assignments.get(client)
            if assignment is None or assignment.task != task_id:
                assignment = self._assign(dxo.data, task, task_id, client, fl_ctx)
                self._assignments[client] = assignment
        with_data(dxo, dxo.data_kind, dxo.data, {META: assignment.request.to_dict()}).update_shareable(task)

    def _see_model(self, fl_ctx: FLContext) -> None:
        """Take the id of the model from the task as it is sent."""
        client, task_id = _client(fl_ctx), fl_ctx.get_prop(FLContextKey.TASK_ID)
        model = base_model_of(fl_ctx.get_prop(FLContextKey.TASK_DATA))
        with self._lock:
            assignment = self._assignments.get(client)
            if model is not None and assignment is not None and assignment.task == task_id:
                request = replace(assignment.request, base_model=model)
                self._assignments[client] = replace(assignment, request=request)

    def _assign(
        self, data: dict[str, Any], task: Shareable, task_id: str, client: str, fl_ctx: FLContext
    ) -> Assignment:
        number = task.get_header(AppConstants.CURRENT_ROUND)
        number = fl_ctx.get_prop(AppConstants.CURRENT_ROUND) if number is None else number
        number = 0 if number is None else int(number) + 1
        model = self._model_of(data, number, fl_ctx)
        taken = {other.request.seed for name, other in self._assignments.items() if name != client}
        seed = fm.choose_seed(self.seed, number, client, taken)
        rest = *self._codings, self._limits
        request = Request(seed, model.noise, self.mask, number, model.id, model.schema, *rest)
        return Assignment(task_id, model.arrays, request, self._sum_number)

    def _model_of(self, data: dict[str, Any], number: int, fl_ctx: FLContext) -> Model:
        last = self._model
        if last is not None and last.source is data and last.round == number:
            return last
        arrays = dict(checked(data, "task"))
        schema = without_bools(fm.schema_of(arrays, self.masked, self.leave_out or ()))
        if last is not None and number and last.round == number and last.schema == schema:
            noise = last.noise  # a round with several models is one round of the rule
        else:
            self._end_round(number - 1, fl_ctx)
            noise = self._noise.of(schema, arrays)
            self._sum_number += 1
            if self._noise.adaptive:
                self._sum = fm.Aggregator(schema, noise=noise)
            self._forget_answered()
        self._model = Model(data, number, arrays, fm.model_id(arrays), schema, noise)
        return self._model

    def _forget_answered(self) -> None:
        """Free the models of rounds before: those of clients that have answered their last task."""
        self._assignments = {
            client: assignment
            for client, assignment in self._assignments.items()
            if self._answered.get(client) != assignment.task
        }

    def _end_round(self, number: int, fl_ctx: FLContext) -> None:
        """Let the rule see the last round, and log how its noise has fitted."""
        if self._model is None:
            return
        seen = {} if self._sum is None else self._noise.observe(self._sum)
        fit, warning = self._noise.end_round()
        if seen or fit:
            self.log_info(fl_ctx, f"fedmrn: noise, density and clipping of round {number}: {seen | fit}")
        if warning:
            self.log_warning(fl_ctx, f"fedmrn: {warning}")

    def _assignment_of(self, client: str, fl_ctx: FLContext) -> Assignment:
        assignment, task = self._assignments.get(client), fl_ctx.get_prop(FLContextKey.TASK_ID)
        if assignment is None or assignment.task != task:
            expected = f"{assignment.task!r}, the last one sent to {client}" if assignment else "an open one"
            raise ReplyError("task", expected, repr(task))
        return assignment

    def _correct_mean(self, fl_ctx: FLContext) -> None:
        """Correct FedAvg's mean: int64 arrays have become float64, and no results an empty model."""
        mean = fl_ctx.get_prop(AppConstants.AGGREGATION_RESULT)
        base = self._model.arrays if self._model else {}
        if isinstance(mean, Shareable):  # of ScatterAndGather
            dxo = from_shareable(mean)
            if dxo.data_kind in OUTPUTS:
                DXO(dxo.data_kind, in_dtypes_of(base, dxo.data), dxo.meta).update_shareable(mean)
        elif isinstance(mean, FLModel) and mean.params:
            mean.params = in_dtypes_of(base, mean.params)
        elif isinstance(mean, FLModel):
            self.log_error(fl_ctx, "fedmrn: this round has no accepted result; the model does not change")
            mean.params, mean.params_type = {}, ParamsType.DIFF


def limits_of(limits: fm.Limits | Mapping[str, int] | None) -> fm.Limits:
    """The limits of a setting, whose form may be that of a job's configuration; else ArgumentError."""
    if isinstance(limits, fm.Limits):
        return limits
    try:
        return fm.Limits(**(limits or {}))
    except TypeError:
        raise fm.ArgumentError("limits", "fields of fedmrn_codec.Limits", repr(limits)) from None


def _client(fl_ctx: FLContext) -> str:
    return str(fl_ctx.get_peer_context().get_identity_name())

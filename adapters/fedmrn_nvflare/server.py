"""The server's filter: it asks each client for a frame, checks the one that comes, and hands on arrays."""

from __future__ import annotations

from dataclasses import dataclass
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
from fedmrn_codec.adapter_api import Arrays, check_settings, noise_text, parse_noise

from .arrays import checked, from_checked, in_dtypes_of, without_bools
from .replies import check_meta, frame_of, result_dxo, with_data
from .request import META, Request

OUTPUTS = (DataKind.WEIGHT_DIFF, DataKind.WEIGHTS, "FRAME")


@dataclass(frozen=True)
class Asked:
    """What a client was sent: the task, the model, and the request for a frame."""

    task: str
    arrays: Arrays
    request: Request


@dataclass(frozen=True)
class Model:
    """The model of the last round, worked out once for all clients: its arrays, its id and its schema.

    `source` is the workflow's own dictionary, in which some put the next model's arrays.
    """

    source: Arrays
    round: int
    arrays: Arrays
    id: int
    schema: fm.Schema


class FromFrame(DXOFilter):
    """Ask for frames with every task that brings weights, and decode the results that hold one.

    For the clients' results on their way in: `recipe.add_server_input_filter(FromFrame("uniform:0.01"),
    tasks=["train"])`; it is the event before a task is sent on which it adds the request (seed, noise, mask,
    round, model id, schema) to the meta of that one client's DXO.

    A result that is not sound raises `ContentBlockedException`: NVFlare logs it and hands the workflow
    TASK_RESULT_FILTER_ERROR in its place. FedAvg goes on if its `ignore_result_error` is True (`attach` sees
    to that); it ends the job otherwise. If no result of a round is sound, the model stays as it is. FedAvg's
    mean comes out in the dtypes of the model, counters rounded.

    Parameters
    ----------
    noise : fedmrn_codec.Noise or str
        Of all masked tensors; a job's configuration has it as text, "uniform:0.01".
    mask : {"binary", "signed"}
    output : {"WEIGHT_DIFF", "WEIGHTS", "FRAME"}
        What the workflow gets, whichever of the first two the client has sent: updates; the model plus the
        update; or the checked frame itself, for `ExactMean`.
    masked : list of str, optional
        Names of the arrays to mask; by default floats of two or more dimensions.
    leave_out : list of str, optional
        Arrays that do not travel: they stay as the server has them.
    seed : int, optional
        By default seeds are unpredictable. Given, they follow from it, the client's name and the round, as
        `fedmrn_codec.choose_seed` says.
    max_weight : float
        The largest NUM_STEPS_CURRENT_ROUND that a client may claim.
    coding, dense_coding : str
        Asked of the clients, as in `fedmrn_codec.Request`: "rans" makes masks shorter, "float16" and
        "bfloat16" dense float32 tensors.

    Raises
    ------
    fedmrn_codec.ArgumentError
        A setting is none of these.
    """

    def __init__(
        self,
        noise: fm.Noise | str,
        mask: str = "binary",
        output: str = "WEIGHT_DIFF",
        masked: list[str] | None = None,
        leave_out: list[str] | None = None,
        seed: int | None = None,
        max_weight: float = 2**31 - 1,
        coding: str = "raw",
        dense_coding: str = "raw",
    ) -> None:
        super().__init__([DataKind.WEIGHTS, DataKind.WEIGHT_DIFF], None)
        noise = parse_noise(noise) if isinstance(noise, str) else noise
        check_settings(noise, mask, coding, dense_coding)
        if output not in OUTPUTS:
            raise fm.ArgumentError("output", f"one of {', '.join(OUTPUTS)}", repr(output))
        self.noise, self.mask, self.output = noise_text(noise), mask, str(output)
        self.masked, self.leave_out = masked, leave_out
        self.seed, self.max_weight = seed, max_weight
        self.coding, self.dense_coding = coding, dense_coding
        self._noise, self._lock = noise, Lock()
        self._asked: dict[str, Asked] = {}
        self._model: Model | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Ask, before a task goes out; mend the mean, before it changes the model."""
        if event_type == EventType.BEFORE_TASK_DATA_FILTER:
            try:
                self._ask(fl_ctx)
            except fm.CodecError as error:
                self.system_panic(f"fedmrn: no frame can be asked for: {error}", fl_ctx)
        elif event_type == AppEventType.AFTER_AGGREGATION:
            self._mend_mean(fl_ctx)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """A copy of the result with arrays; failed results pass as they are."""
        client = _client(fl_ctx)
        try:
            if result_dxo(shareable) is None:
                return shareable
            return super().process(make_copy(shareable), fl_ctx)
        except fm.CodecError as error:
            reason = f"fedmrn: result of {client} left out ({error.code}): {error}"
            raise ContentBlockedException(reason) from None

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """A new DXO with the arrays of the client's frame."""
        client = _client(fl_ctx)
        asked = self._asked_of(client, fl_ctx)
        frame = asked.request.check(frame_of(dxo), asked.arrays)
        check_meta(dxo, self.max_weight)
        self.log_info(
            fl_ctx,
            f"fedmrn: frame of {client}: {frame.frame_bytes} bytes up (mask {frame.mask_bytes}, "
            f"dense {frame.dense_bytes}, header {frame.header_bytes})",
        )
        meta = {key: value for key, value in dxo.meta.items() if key != MetaKey.PROCESSED_ALGORITHM}
        kind, data = self._handed_on(frame, asked)
        extra = asked.request.to_dict() if self.output == "FRAME" else {}
        extra["frame-bytes"] = frame.frame_bytes
        return with_data(DXO(dxo.data_kind, dxo.data, meta), kind, data, {META: extra})

    def _handed_on(self, frame: fm.CheckedFrame, asked: Asked) -> tuple[str, dict[str, np.ndarray]]:
        if self.output == "FRAME":
            return DataKind.WEIGHT_DIFF, from_checked(frame)
        base, update = asked.arrays, fm.decode(frame)
        if self.output == DataKind.WEIGHT_DIFF:
            return self.output, {name: each.astype(base[name].dtype) for name, each in update.items()}
        return self.output, fm.apply(base, update)

    def _ask(self, fl_ctx: FLContext) -> None:
        task = fl_ctx.get_prop(FLContextKey.TASK_DATA)
        try:
            dxo = from_shareable(task)
        except ValueError:
            return
        if dxo.data_kind != DataKind.WEIGHTS or not dxo.data:
            return
        client, task_id = _client(fl_ctx), fl_ctx.get_prop(FLContextKey.TASK_ID)
        with self._lock:
            asked = self._asked.get(client)
            if asked is None or asked.task != task_id:
                asked = self._asked[client] = self._request(dxo.data, task, task_id, client, fl_ctx)
        with_data(dxo, dxo.data_kind, dxo.data, {META: asked.request.to_dict()}).update_shareable(task)

    def _request(
        self, data: dict[str, Any], task: Shareable, task_id: str, client: str, fl_ctx: FLContext
    ) -> Asked:
        number = task.get_header(AppConstants.CURRENT_ROUND)
        number = fl_ctx.get_prop(AppConstants.CURRENT_ROUND) if number is None else number
        number = 0 if number is None else int(number) + 1
        model = self._model_of(data, number)
        taken = {asked.request.seed for name, asked in self._asked.items() if name != client}
        seed = fm.choose_seed(self.seed, number, client, taken)
        return Asked(
            task_id,
            model.arrays,
            Request(
                seed, self._noise, self.mask, number, model.id, model.schema, self.coding, self.dense_coding
            ),
        )

    def _model_of(self, data: dict[str, Any], number: int) -> Model:
        model = self._model
        if model is None or model.source is not data or model.round != number:
            arrays = dict(checked(data, "task"))
            schema = without_bools(fm.schema_of(arrays, self.masked, self.leave_out or ()))
            model = self._model = Model(data, number, arrays, fm.model_id(arrays), schema)
        return model

    def _asked_of(self, client: str, fl_ctx: FLContext) -> Asked:
        asked, task = self._asked.get(client), fl_ctx.get_prop(FLContextKey.TASK_ID)
        if asked is None or asked.task != task:
            raise ReplyError("task", "the last task sent to this client", task)
        return asked

    def _mend_mean(self, fl_ctx: FLContext) -> None:
        """Undo what FedAvg's mean does to a model: int64 becomes float64, and no results an empty model."""
        mean = fl_ctx.get_prop(AppConstants.AGGREGATION_RESULT)
        base = self._model.arrays if self._model else {}
        if isinstance(mean, Shareable):  # of ScatterAndGather
            dxo = from_shareable(mean)
            if dxo.data_kind in OUTPUTS:
                DXO(dxo.data_kind, in_dtypes_of(base, dxo.data), dxo.meta).update_shareable(mean)
        elif isinstance(mean, FLModel) and mean.params:
            mean.params = in_dtypes_of(base, mean.params)
        elif isinstance(mean, FLModel):
            self.log_error(fl_ctx, "fedmrn: no sound result in this round; the model stays as it is")
            mean.params, mean.params_type = {}, ParamsType.DIFF


def _client(fl_ctx: FLContext) -> str:
    return str(fl_ctx.get_peer_context().get_identity_name())

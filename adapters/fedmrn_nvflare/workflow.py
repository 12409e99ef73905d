"""FedAvg with secure aggregation: around each training, the exchanges of the protocol."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.dxo import from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.fedavg import FedAvg

import fedmrn_codec as fm
from fedmrn_codec import ReplyError
from fedmrn_codec.adapter_api import SecAgg, ServerNoise, check_settings, noise_text, parse_noise, unsigned
from fedmrn_codec.adapter_api.secagg import MASKED

from .arrays import checked, without_bools
from .downlink import ADVANCE, Advance
from .replies import with_data
from .request import META, Request
from .secagg import (
    MESSAGE,
    NO_SINGLE,
    PROTOCOL,
    REASON,
    STEP,
    TASKS,
    entries_of,
    settings_from_json,
    settings_to_json,
    to_task,
)
from .secure_round import Answers, SecureRound
from .secure_sum import SecureSum

TIMEOUT = 3600
"""The default of `SecureFedAvg.timeout`, in seconds."""

WEIGHTED_BY = "NUM_STEPS_CURRENT_ROUND"
"""The number of examples of a client, in the meta of its result."""

FOR_ALL = "all clients"
"""What stands for the client where the one seed of a round is chosen."""


class SecureFedAvg(FedAvg):
    """FedAvg whose server learns the sum of the updates of a round, and no single one.

    `attach(..., secure=SecAgg(...))` puts it in the place of a job's FedAvg. Before the training of a round,
    the sampled clients exchange keys and shares of secrets in two tasks; the task of the training has the
    shares for its client, its result a masked vector; and a fourth task asks those that are left for the
    shares that take the pads out of the sum. A client that does not answer a task within the timeout, fails,
    or sends a message that fails a check takes no part in the rest of the round. If fewer clients are left
    than the threshold, the round is lost: the log says why, and the model stays as it is.

    Parameters
    ----------
    *args, **kwargs
        Of `nvflare.app_common.workflows.fedavg.FedAvg`, without an aggregator.
    secure : SecAgg or dict
        A dict has its values by name, as in a job's configuration.
    noise, mask, masked, leave_out, seed, max_weight, dense_coding, state
        As in `FromFrame`. An integer seed gives each round the seed of
        `fedmrn_codec.choose_seed` for the client "all clients".
    timeout : int
        Seconds to wait for the results of each task, the training included; 0: for ever.

    Raises
    ------
    fedmrn_codec.ArgumentError
        A setting is not a valid one.
    """

    def __init__(
        self,
        *args: Any,
        secure: SecAgg | Mapping[str, Any],
        noise: fm.Noise | str | None = None,
        mask: str = "binary",
        masked: list[str] | None = None,
        leave_out: list[str] | None = None,
        seed: int | None = None,
        max_weight: float = 2**31 - 1,
        dense_coding: str = "raw",
        state: str | None = None,
        timeout: int = TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if self.aggregator is not None:
            raise fm.ArgumentError("aggregator", NO_SINGLE, type(self.aggregator).__name__)
        self._settings = settings_from_json(secure)
        if self._settings.identities is not None:
            expected = "none, since clients of this adapter have no identity keys"
            raise fm.ArgumentError("identities of secure", expected, f"{len(self._settings.identities)} keys")
        fixed = parse_noise(noise) if isinstance(noise, str) else noise
        self._noise = ServerNoise(fixed, mask, state=state)
        self._settings.check_noise(self._noise.adaptive)
        check_settings({}, mask, "raw", dense_coding)
        self.secure = settings_to_json(self._settings)
        self.noise = None if fixed is None else noise_text(fixed)
        self.mask, self.masked, self.leave_out, self.seed = mask, masked, leave_out, seed
        self.max_weight, self.dense_coding, self.state = max_weight, dense_coding, state
        self.timeout = unsigned(timeout, 2**31, "timeout")
        self._boxes: dict[str, bytes] = {}

    def run(self) -> None:
        """FedAvg's rounds, with a sum in place of its mean."""
        self.aggregator = SecureSum(self._noise, self.max_weight, self.info, self.warning)
        super().run()

    def send_model(
        self,
        task_name: str = "train",
        data: FLModel | None = None,
        targets: list[str] | None = None,
        min_responses: int | None = None,
        timeout: int = 0,
        callback: Callable[[FLModel], Any] | None = None,
    ) -> None:
        """Exchange keys and shares, and send the model to those clients that are left.

        Raises
        ------
        fedmrn_codec.CodecError
            No request can be made for the model.
        """
        assert data is not None
        clients = targets or self.sample_clients()
        request = self._request_for(data)
        self._boxes = self._opened(request, clients)
        model = copy.copy(data)
        model.meta = {**(data.meta or {}), META: request.to_dict()}
        aborted = self.abort_signal is not None and self.abort_signal.triggered
        if self._boxes or aborted:  # FedAvg sees an abort while a task is under way
            options: dict[str, Any] = {"min_responses": min_responses, "callback": callback}
            left = list(self._boxes) or clients
            super().send_model(task_name, model, left, timeout=timeout or self.timeout, **options)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Add the boxes of a client to the task of its training, before the filters."""
        super().handle_event(event_type, fl_ctx)
        training = fl_ctx.get_prop(FLContextKey.TASK_NAME) == self.task_name
        if event_type == EventType.BEFORE_TASK_DATA_FILTER and training:
            task, client = fl_ctx.get_prop(FLContextKey.TASK_DATA), fl_ctx.get_peer_context()
            if (box := self._boxes.get(str(client.get_identity_name()))) is not None:
                dxo = from_shareable(task)
                entries = {STEP: MASKED, MESSAGE: box}
                with_data(dxo, dxo.data_kind, dxo.data, {PROTOCOL: entries}).update_shareable(task)

    def _request_for(self, model: FLModel) -> Request:
        """The request of the round, the same for all clients."""
        arrays = dict(checked(model.params or {}, "model"))
        schema = without_bools(fm.schema_of(arrays, self.masked, self.leave_out or ()))
        noise = self._noise.of(schema, arrays)
        number = int(model.current_round or 0)
        about = Advance(number, arrays, [tensor.name for tensor in schema if tensor.masked])
        self.fire_event_with_data(ADVANCE, self._context, ADVANCE, about)
        base_model = about.base_model or fm.model_id(arrays)
        seed = fm.choose_seed(self.seed, number + 1, FOR_ALL)
        return Request(
            seed, noise, self.mask, number + 1, base_model, schema, "raw", dense_coding=self.dense_coding
        )

    def _opened(self, request: Request, clients: list[str]) -> dict[str, bytes]:
        """The boxes of the clients that have exchanged keys and shares."""
        session = f"fedmrn_nvflare job {self._context.get_job_id('')}".encode()
        agreed = self._settings.agreed(len(clients), session, WEIGHTED_BY)
        current = SecureRound(request, self._settings, agreed, clients, self._ask, self.warning)
        assert isinstance(self.aggregator, SecureSum)
        self.aggregator.round = current
        return current.open()

    def _ask(self, step: str, clients: list[str], entries: Mapping[str, Any]) -> Answers:
        """Send the task of a step to clients, and wait for their results, at most the timeout."""
        answers = Answers()

        def received(client_task: ClientTask, fl_ctx: FLContext) -> None:
            name, result = client_task.client.name, client_task.result
            try:
                answers.found[name] = _message_in(result)
            except fm.CodecError as error:
                answers.failed[name] = str(error)

        task = Task(TASKS[step], to_task(entries), timeout=self.timeout, result_received_cb=received)
        self.broadcast_and_wait(task, self._context, clients, 0, 0, self.abort_signal)
        return Answers(dict(answers.found), dict(answers.failed))

    @property
    def _context(self) -> FLContext:
        context = self.fl_ctx
        assert isinstance(context, FLContext)
        return context


def _message_in(result: Any) -> bytes:
    """The message of the protocol in the result of a step; ReplyError if there is none."""
    if (code := result.get_return_code()) != ReturnCode.OK:
        raise ReplyError("result", "OK", f"{code}, {result.get_header(REASON, 'see the log of the client')}")
    message = entries_of(result).get(MESSAGE)
    if not isinstance(message, bytes):
        raise ReplyError("message", "bytes", type(message).__name__)
    return message

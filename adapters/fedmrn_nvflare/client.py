"""The client's filter: it replaces the trained arrays of a result by a frame."""

from __future__ import annotations

from typing import Any

from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_copy

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import Misfit, as_update, fit_of

from .arrays import NOT_RECEIVED, checked, copied, from_frame, is_frame
from .replies import ALGORITHM, CLIPPED, result_dxo, with_data
from .request import META, Request


class ToFrame(DXOFilter):
    """Encode a client's result as a frame, as the request in the task says.

    It must be the first output filter that changes arrays:
    `recipe.add_client_output_filter(ToFrame(), tasks=["train"])`. From weights it subtracts those received
    with the task, of which it keeps a copy during training; that is not possible if an external process
    trains. Weight differences are encoded as they are, and a result that holds a frame already
    (`fedmrn_nvflare.result`) passes. The mask bits come from the operating system's random numbers (spec
    4.3), the noise from the seed that the server assigned.

    The share of masked elements beyond the scale of the noise is added to the result's meta, under "fedmrn".
    If the server has one noise for all tensors, which no rule sets, and it does not fit the update, the
    filter logs a warning, once.

    A result that cannot be encoded (a NaN, a missing array, another shape or dtype) raises
    `ContentBlockedException`; NVFlare then reports TASK_RESULT_FILTER_ERROR to the server.
    """

    def __init__(self) -> None:
        super().__init__([DataKind.WEIGHTS, DataKind.WEIGHT_DIFF], None)
        self._task: DXO | None = None
        self._warned = False

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Keep the arrays of a task, just before it is executed."""
        if event_type == EventType.BEFORE_TASK_EXECUTION:
            self._task = _kept(fl_ctx.get_prop(FLContextKey.TASK_DATA))

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """A copy of the result whose DXO holds a frame; failed results pass unchanged."""
        try:
            if result_dxo(shareable) is None:
                return shareable
            filtered: Shareable = super().process(make_copy(shareable), fl_ctx)
            return filtered
        except fm.CodecError as error:
            raise ContentBlockedException(
                f"fedmrn: refused to send the result ({error.code}): {error}"
            ) from None

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """A new DXO with the frame as one uint8 array."""
        other = dxo.get_meta_prop(MetaKey.PROCESSED_ALGORITHM)
        if other == ALGORITHM:
            raise fm.ArgumentError(
                "result", "one ToFrame among the client's filters", "the output of another"
            )
        if other:
            found = f"the output of {other!r}"
            raise fm.ArgumentError("result", "plain arrays (ToFrame must be the first filter)", found)
        request = Request.of(self._task.meta if self._task else None)
        meta: dict[str, Any] = {MetaKey.PROCESSED_ALGORITHM: ALGORITHM}
        if is_frame(dxo.data):
            return with_data(dxo, dxo.data_kind, dxo.data, meta)
        update = self._update(dxo, request)
        data = from_frame(request.encode(update))
        fit = fit_of(update, request.schema, request.noise)
        self._warn(fit.misfit(), request, fl_ctx)
        return with_data(dxo, dxo.data_kind, data, {**meta, META: {CLIPPED: fit.clipped}})

    def _warn(self, misfit: Misfit | None, request: Request, fl_ctx: FLContext) -> None:
        """Log, once, that a fixed noise does not fit; a rule corrects itself."""
        if misfit and isinstance(request.noise, fm.Noise) and not self._warned:
            self._warned = True
            remedy = f"{misfit.remedy} in the server's FromFrame, or no noise, so that a rule sets it"
            self.log_warning(fl_ctx, f"fedmrn: {misfit.found}; {remedy}")

    def _update(self, dxo: DXO, request: Request) -> dict[str, Any]:
        trained = checked(dxo.data, "result")
        if dxo.data_kind == DataKind.WEIGHT_DIFF:
            return as_update(trained, request.schema)
        assert self._task is not None
        return fm.difference(trained, checked(self._task.data, "task", NOT_RECEIVED), request.schema)


def _kept(task: Any) -> DXO | None:
    """A task's DXO with a copy of its arrays, or None if the task has no DXO."""
    try:
        dxo = from_shareable(task)
    except (ValueError, AttributeError):
        return None
    return DXO(dxo.data_kind, copied(dxo.data), dxo.meta) if isinstance(dxo.data, dict) else None

"""Training the masks of a client's PyTorch model, with the settings in the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

from .arrays import KEY
from .replies import CLIPPED
from .request import META, Request

if TYPE_CHECKING:
    import torch

    import fedmrn_torch

REMEDY = "give the server's FromFrame masked=[...], and use one order of tensors on all machines"


def psm(model: torch.nn.Module, received: FLModel, *, steps: int, **options: Any) -> fedmrn_torch.PSM:
    """A `fedmrn_torch.PSM` with the seed, noise, mask and masked tensors of the server's request.

    Parameters
    ----------
    model : torch.nn.Module
        With the received parameters loaded, on the device that it trains on.
    received : nvflare FLModel
        From `flare.receive()`.
    steps : int
        Number of local optimiser steps.
    **options
        Of `fedmrn_torch.PSM`: `stochastic`, `progressive`, `private_seed`.

    Raises
    ------
    fedmrn_codec.ArgumentError
        The task has no request; or, as SchemaError, its request is for another model.
    """
    from fedmrn_torch import PSM

    return PSM.from_request(model, Request.of(received.meta), steps=steps, remedy=REMEDY, **options)


def result(psm: fedmrn_torch.PSM, **fields: Any) -> FLModel:
    """Finish a PSM and return its frame, as the FLModel for `flare.send()`; the model is restored.

    Parameters
    ----------
    psm : fedmrn_torch.PSM
        From `fedmrn_nvflare.psm`.
    **fields
        Of the FLModel: `metrics`, `meta`. To the meta the share of masked elements beyond the scale is added.

    Raises
    ------
    fedmrn_codec.CodecError
        As in `fedmrn_torch.PSM.finish`.
    """
    import torch

    frame = bytearray(psm.finish())
    array = torch.frombuffer(frame, dtype=torch.uint8)  # NVFlare drops all but tensors here
    meta = {**(fields.pop("meta", None) or {}), META: {CLIPPED: psm.clipped}}
    return FLModel(params={KEY: array}, params_type=ParamsType.DIFF, meta=meta, **fields)

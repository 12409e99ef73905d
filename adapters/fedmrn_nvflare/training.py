"""Masked training of a client's PyTorch model with the settings that the task brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nvflare.app_common.abstract.fl_model import FLModel, ParamsType

import fedmrn_codec as fm

from .arrays import KEY
from .request import Request

if TYPE_CHECKING:
    import torch

    import fedmrn_torch

REMEDY = "give the server's FromFrame masked=[...], or the model its tensors in one order everywhere"


def psm(model: torch.nn.Module, received: FLModel, *, steps: int, **options: Any) -> fedmrn_torch.PSM:
    """A `fedmrn_torch.PSM` with the seed, noise, mask and masked tensors that the server asks for.

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
        The task asks for no frame, or for one of another model.
    """
    from fedmrn_torch import PSM

    request = Request.of(received.meta)
    try:
        return PSM.from_request(model, request, steps=steps, **options)
    except fm.SchemaError as error:
        raise fm.SchemaError(error.field, f"{error.expected} ({REMEDY})", error.got) from None


def result(psm: fedmrn_torch.PSM, **fields: Any) -> FLModel:
    """Finish what `psm` gave: the FLModel for `flare.send()`, which holds its frame.

    The model is as before training.

    Parameters
    ----------
    psm : fedmrn_torch.PSM
        From `fedmrn_nvflare.psm`.
    **fields
        Of the FLModel: `metrics`, `meta`.

    Raises
    ------
    fedmrn_codec.CodecError
        As `fedmrn_torch.PSM.finish`.
    """
    import torch

    frame = bytearray(psm.finish())
    array = torch.frombuffer(frame, dtype=torch.uint8)  # NVFlare drops what is no tensor here
    return FLModel(params={KEY: array}, params_type=ParamsType.DIFF, **fields)

"""Masked training of a client's PyTorch model with the settings that the server's message brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, Message

import fedmrn_codec as fm

from .records import from_frame
from .request import Request

if TYPE_CHECKING:
    import torch

    import fedmrn_torch

REMEDY = "give the server's FedMRN schema=fedmrn_torch.schema(model)"


def psm(model: torch.nn.Module, msg: Message, *, steps: int, **options: Any) -> fedmrn_torch.PSM:
    """A `fedmrn_torch.PSM` with the seed, noise, mask and masked tensors that the server asks for.

    Parameters
    ----------
    model : torch.nn.Module
        With the message's arrays loaded, on the device that it trains on.
    msg : flwr.app.Message
        From a server whose strategy is a `FedMRN`.
    steps : int
        Number of local optimiser steps.
    **options
        Of `fedmrn_torch.PSM`: `stochastic`, `progressive`, `private_seed`.

    Raises
    ------
    fedmrn_codec.ArgumentError
        The message asks for no frame, or for one of another model.
    """
    from fedmrn_torch import PSM

    request = Request.of(msg)
    try:
        return PSM.from_request(model, request, steps=steps, **options)
    except fm.SchemaError as error:
        raise fm.SchemaError(error.field, f"{error.expected} ({REMEDY})", error.got) from None


def arrays(psm: fedmrn_torch.PSM) -> ArrayRecord:
    """Finish what `psm` gave: the ArrayRecord for the reply, which holds its frame.

    The model is as before training.

    Raises
    ------
    fedmrn_codec.CodecError
        As `fedmrn_torch.PSM.finish`.
    """
    return from_frame(psm.finish())

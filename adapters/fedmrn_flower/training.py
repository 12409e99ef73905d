"""Training the masks of a client's PyTorch model, with the settings in the server's message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, Message

from .order import check_mods
from .records import from_frame
from .request import Request

if TYPE_CHECKING:
    import torch

    import fedmrn_torch

REMEDY = "give the server's FedMRN schema=fedmrn_torch.schema(model)"


def psm(model: torch.nn.Module, msg: Message, *, steps: int, **options: Any) -> fedmrn_torch.PSM:
    """A `fedmrn_torch.PSM` with the seed, noise, mask and masked tensors of the server's request.

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
        The message has no request; a mod of Flower that changes arrays is among the client's mods; or, as
        SchemaError, the request is for another model.
    """
    from fedmrn_torch import PSM

    check_mods("no {}, since the reply of a PSM is a frame (clip its update in the training)")
    return PSM.from_request(model, Request.of(msg), steps=steps, remedy=REMEDY, **options)


def arrays(psm: fedmrn_torch.PSM) -> ArrayRecord:
    """Finish a PSM and return its frame, as the ArrayRecord of the reply; the model is restored.

    Parameters
    ----------
    psm : fedmrn_torch.PSM
        From `fedmrn_flower.psm`.

    Raises
    ------
    fedmrn_codec.CodecError
        As in `fedmrn_torch.PSM.finish`.
    """
    return from_frame(psm.finish())

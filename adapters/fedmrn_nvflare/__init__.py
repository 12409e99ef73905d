"""FedMRN frames for NVFlare 2.9: filters for the clients and for the server, in both directions.

    fedmrn_nvflare.attach(recipe)                                 # job.py: frames in both directions

    psm = fedmrn_nvflare.psm(model, received, steps=len(loader))  # client.py: or train masks
    flare.send(fedmrn_nvflare.result(psm, meta={...}))            # and send their frame

The method is FedMRN (Li et al., ACM MM 2024); `spec/FORMAT.md` specifies the frame.
"""

from fedmrn_codec import Bernoulli, Gaussian, ReplyError, Uniform
from fedmrn_codec.adapter_api import SecAgg

from .aggregator import ExactMean
from .client import ToFrame
from .downlink import FromGrid, ToGrid
from .jobs import attach
from .request import Request
from .server import FromFrame
from .training import psm, result

__all__ = [
    "Bernoulli",
    "ExactMean",
    "FromFrame",
    "FromGrid",
    "Gaussian",
    "ReplyError",
    "Request",
    "SecAgg",
    "ToFrame",
    "ToGrid",
    "Uniform",
    "attach",
    "psm",
    "result",
]

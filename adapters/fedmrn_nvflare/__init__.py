"""FedMRN frames for NVFlare 2.9: a filter for the clients, which encodes, and one for the server.

    fedmrn_nvflare.attach(recipe)                                 # job.py: encode after training

    psm = fedmrn_nvflare.psm(model, received, steps=len(loader))  # client.py: or train masks
    flare.send(fedmrn_nvflare.result(psm, meta={...}))            # and send their frame

The method is FedMRN (Li et al., ACM MM 2024); `spec/FORMAT.md` specifies the frame.
"""

from fedmrn_codec import Bernoulli, Gaussian, ReplyError, Uniform

from .aggregator import ExactMean
from .client import ToFrame
from .jobs import attach
from .request import Request
from .server import FromFrame
from .training import psm, result

__all__ = [
    "Bernoulli",
    "ExactMean",
    "FromFrame",
    "Gaussian",
    "ReplyError",
    "Request",
    "ToFrame",
    "Uniform",
    "attach",
    "psm",
    "result",
]

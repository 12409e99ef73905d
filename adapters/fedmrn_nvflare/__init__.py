"""FedMRN frames for NVFlare (2.9): a pair of filters, one for the clients' results, one for the server's.

    fedmrn_nvflare.attach(recipe, noise=Bernoulli(0.01), mask="signed")  # job.py: clients train as ever, or

    psm = fedmrn_nvflare.psm(model, received, steps=len(loader))         # client.py: train masks, and
    flare.send(fedmrn_nvflare.result(psm, meta={...}))                   # send their frame

The method is FedMRN (Li et al., ACM MM 2024); the frame is that of `spec/FORMAT.md`.
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

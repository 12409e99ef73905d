"""FedMRN frames for Flower (1.41, 1.42; Message API): a wrapper for the strategy, a mod for the clients.

    strategy = FedMRN(FedAvg())                             # server_app.py
    app = ClientApp(mods=[mod])                             # client_app.py: encode after training

    psm = fedmrn_flower.psm(model, msg, steps=len(loader))  # or, without the mod, train masks
    arrays = fedmrn_flower.arrays(psm)                      # and reply with their frame

The method is FedMRN (Li et al., ACM MM 2024); `spec/FORMAT.md` specifies the frame.
"""

from fedmrn_codec import Bernoulli, Gaussian, ReplyError, Uniform
from fedmrn_codec.adapter_api import SecAgg

from .client import mod
from .request import Request
from .strategy import FedMRN
from .training import arrays, psm

__all__ = [
    "Bernoulli",
    "FedMRN",
    "Gaussian",
    "ReplyError",
    "Request",
    "SecAgg",
    "Uniform",
    "arrays",
    "mod",
    "psm",
]

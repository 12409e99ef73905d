"""FedMRN frames for Flower (1.41, Message API): a mod for the clients, a wrapper for the server's strategy.

    strategy = FedMRN(FedAvg(), noise=Uniform(0.01), mask="binary")  # server_app.py
    app = ClientApp(mods=[mod])                                      # client_app.py: train as ever, or

    psm = fedmrn_flower.psm(model, msg, steps=len(loader))           # train masks, and
    arrays = fedmrn_flower.arrays(psm)                               # reply with their frame

The method is FedMRN (Li et al., ACM MM 2024); the frame is that of `spec/FORMAT.md`.
"""

from fedmrn_codec import Bernoulli, Gaussian, ReplyError, Uniform

from .client import mod
from .request import Request
from .strategy import FedMRN
from .training import arrays, psm

__all__ = ["Bernoulli", "FedMRN", "Gaussian", "ReplyError", "Request", "Uniform", "arrays", "mod", "psm"]

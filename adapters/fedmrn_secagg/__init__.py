"""Secure aggregation: a server learns the sum of its clients' updates, and nothing else of them.

    server = fedmrn_secagg.Server(request, clients=[1, 2, 3], threshold=2)
    client = fedmrn_secagg.Client(1, request, threshold=2)
    roster = server.keys({1: client.keys(), ...})
    boxes = server.shares({1: client.shares(roster), ...})
    survivors = server.masked({1: client.masked(frame, boxes[1]), ...})
    aggregator = server.reveal({1: client.reveal(survivors), ...})

All messages are bytes, for any transport. The protocol is that of Bonawitz et al. (CCS 2017) and Bell et al.
(CCS 2020); `spec/SECAGG.md` specifies it.
"""

from .accountant import Accountant
from .client import Client
from .errors import SecAggError
from .server import Server
from .steps import advance

__all__ = ["Accountant", "Client", "SecAggError", "Server", "advance"]

"""A client without training that ends with SIGKILL: `fragile_client.py URL NAME FOLDER [ROUND STEP]`.

It says that it is ready, and begins when it gets a line. It is killed when it has the message of that step
ready to be sent.
"""

import os
import signal
import sys
import zlib
from pathlib import Path

import secure_client
import secure_http_cases
from agreed import Agreed
from client import Server

import fedmrn_codec as fm
import fedmrn_secagg


class FragileSteps(secure_client.Steps):
    """The messages of a round, until the one that is never sent."""

    last = None

    def send(self, step, message):
        if (str(self._number), step) == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        super().send(step, message)


def warm_up():
    """Play a round of two clients here, so that everything is imported before the first deadline."""
    request = fm.Request(1, fm.Bernoulli(0.01), "signed", 1, 1, fm.schema_of(secure_http_cases.make_model()))
    server = fedmrn_secagg.Server(request, clients=(1, 2), threshold=2)
    clients = {id: fedmrn_secagg.Client(id, request, threshold=2) for id in (1, 2)}
    roster = server.keys({id: client.keys() for id, client in clients.items()})
    boxes = server.shares({id: client.shares(roster) for id, client in clients.items()})
    frame = secure_http_cases.frame_of(request, 1)
    survivors = server.masked({id: client.masked(frame, boxes[id]) for id, client in clients.items()})
    server.reveal({id: client.reveal(survivors) for id, client in clients.items()})


def main():
    url, name, folder, *last = sys.argv[1:]
    FragileSteps.last = tuple(last)
    secure_client.Steps = FragileSteps
    folder = Path(folder)
    seed = zlib.crc32(name.encode())
    warm_up()
    print("ready", flush=True)
    sys.stdin.readline()
    secure_client.Participant(
        Server(url, name, secure_http_cases.token_of(folder, name)),
        name,
        Agreed.read(folder / "agreed.json"),
        secure_http_cases.identity_of(folder, name),
        lambda request, _: secure_http_cases.frame_of(request, seed + request.round),
    ).follow()


if __name__ == "__main__":
    main()

"""A client: `python secure_client.py URL NAME FOLDER` trains in each round, and sends a masked vector."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shared  # noqa: F401 - for the next import
from agreed import Agreed, id_of
from client import Server

import fedmrn_codec as fm
import fedmrn_secagg

Model = dict[str, Any]
Train = Callable[[fm.Request, Model], bytes]

PAUSE = 0.2
"""Seconds before the server is asked for a round again."""


class LeftOut(Exception):
    """The server has no use for this client in this round any more; its answer says why."""


class Steps:
    """The messages of one round between this client and the server.

    Parameters
    ----------
    server : Server
        It repeats what gets no answer, with the same bytes, which count once.
    number : int
        Of the round.
    """

    def __init__(self, server: Server, number: int) -> None:
        self._server, self._number = server, number

    def send(self, step: str, message: bytes) -> None:
        """Send the message of a step."""
        status, body = self._server.fetch(self._path(step), message)
        if status != 202:
            raise LeftOut(f"{step}: the server answers {status} {body.decode(errors='replace')}")

    def answer(self, step: str) -> bytes:
        """Wait until the server has ended a step; its answer."""
        while True:
            status, body = self._server.fetch(self._path(step))
            if status == 200:
                return body
            if status != 204:
                raise LeftOut(f"{step}: the server answers {status} {body.decode(errors='replace')}")

    def _path(self, step: str) -> str:
        return f"/rounds/{self._number}/{step}"


def take_part(steps: Steps, client: fedmrn_secagg.Client, train: Callable[[], bytes]) -> None:
    """One round: four messages, and between them the training."""
    steps.send("keys", client.keys())
    steps.send("shares", client.shares(steps.answer("keys")))
    boxes = steps.answer("shares")
    steps.send("masked", client.masked(train(), boxes))
    steps.send("reveal", client.reveal(steps.answer("masked")))


class Participant:
    """A client in all rounds that it can join.

    Parameters
    ----------
    server : Server
    name : str
    agreed : Agreed
        From this client's own file: threshold and identities protect it from the server.
    identity : fedmrn_codec.Key or None
        This client's own key, if there are identities.
    train : callable
        From the request of a round and its model to a frame.
    """

    def __init__(
        self, server: Server, name: str, agreed: Agreed, identity: fm.Key | None, train: Train
    ) -> None:
        self._server, self._id, self._train = server, id_of(name), train
        self._options = {"identity": identity, **agreed.options}
        self._replica: fm.Replica | None = None
        self._last = 0

    def follow(self) -> Model | None:
        """Take part until the federation has ended; its last model, or None if there was no round."""
        while (answer := self._server.fetch("/round"))[0] in (200, 204):
            if answer[0] == 200:
                self._join(fm.Request.from_dict(json.loads(answer[1])))
            else:
                time.sleep(PAUSE)
        print(f"the server answers {answer[0]} {answer[1].decode()}", flush=True)
        return self._replica and self._received(None)

    def _join(self, request: fm.Request) -> None:
        try:
            client = fedmrn_secagg.Client(self._id, request, **self._options)
            take_part(Steps(self._server, request.round), client, lambda: self._frame(request))
        except (LeftOut, fm.CodecError) as error:
            print(f"round {request.round} goes on without this client: {error}", flush=True)
            time.sleep(PAUSE)

    def _frame(self, request: fm.Request) -> bytes:
        """The frame of a round; one for each round, since two sums with the same update could reveal it."""
        if request.round <= self._last:
            raise LeftOut(f"round: expected a later one than {self._last}, got {request.round}")
        self._last = request.round
        self._replica = self._replica or fm.Replica(request.schema)
        return self._train(request, self._received(request.base_model))

    def _received(self, model_id: int | None) -> Model:
        """The server's model, which is the one of this id if it is given."""
        assert self._replica is not None
        status, body = self._server.fetch(f"/model?have={self._replica.model_id}")
        if status != 200:
            raise LeftOut(f"model: the server answers {status} {body.decode(errors='replace')}")
        return self._replica.apply(body, model_id)


def main() -> None:
    """Train on this client's part of the digits, round by round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("name")
    parser.add_argument(
        "folder", type=Path, help="with agreed.json, NAME.token, and NAME.key if there is one"
    )
    given = parser.parse_args()
    import digits  # here, since it needs PyTorch, and `follow` does not

    digits.torch.set_num_threads(1)
    agreed = Agreed.read(given.folder / "agreed.json")
    token = (given.folder / f"{given.name}.token").read_text(encoding="utf-8")
    identity = None
    if agreed.identities is not None:
        private = (given.folder / f"{given.name}.key").read_text(encoding="utf-8")
        identity = fm.Key.ed25519(bytes.fromhex(private))
    data = digits.part_of(agreed.clients.index(given.name), len(agreed.clients))

    def train(request: fm.Request, model: Model) -> bytes:
        print(f"round {request.round}: accuracy {digits.accuracy(model):.4f}", flush=True)
        return digits.frame_of(request, model, data)

    server = Server(given.url, given.name, token)
    model = Participant(server, given.name, agreed, identity, train).follow()
    if model is not None:
        print(f"the last model: accuracy {digits.accuracy(model):.4f}")


if __name__ == "__main__":
    main()

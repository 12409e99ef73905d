"""A client: `python client.py URL NAME TOKEN_FILE` trains a linear classifier, round by round."""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path

import numpy as np

import fedmrn_codec as fm

Model = dict[str, np.ndarray]

STEPS, RATE, PATIENCE = 40, 0.5, 60.0  # seconds, for a server that is started again


def samples(name: str, shape: tuple[int, ...], count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """The client's own data: random points, whose class is the largest of some linear functions."""
    functions = np.random.default_rng(0).normal(size=shape)
    x = np.random.default_rng(zlib.crc32(name.encode())).normal(size=(count, shape[0]))
    return x, (x @ functions).argmax(1)


def train(model: Model, x: np.ndarray, y: np.ndarray) -> tuple[Model, float]:
    """Some steps of gradient descent; the new model, and the accuracy of the former one."""
    w, b = (model[name].astype(np.float64) for name in ("w", "b"))
    accuracy = float(((x @ w + b).argmax(1) == y).mean())
    for _ in range(STEPS):
        logits = x @ w + b
        shares = np.exp(logits - logits.max(1, keepdims=True))
        errors = shares / shares.sum(1, keepdims=True) - np.eye(w.shape[1])[y]
        w, b = w - RATE * x.T @ errors / len(x), b - RATE * errors.mean(0)
    return {"w": w.astype(np.float32), "b": b.astype(np.float32)}, accuracy


class Server:
    """The server as a client sees it: each call is repeated while the server is busy or away."""

    def __init__(self, address: str, name: str, token: str) -> None:
        self.address, self.name, self.headers = address, name, {"Authorization": f"Bearer {token}"}

    def fetch(self, path: str, data: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of an answer. A frame is repeated with the same bytes, and counts once."""
        end = time.monotonic() + PATIENCE
        while True:
            asked = urllib.request.Request(self.address + path, data, self.headers)
            try:
                with urllib.request.urlopen(asked, timeout=PATIENCE) as reply:
                    return reply.status, reply.read()
            except urllib.error.HTTPError as error:
                if error.code == 307:  # another worker has this client's frames
                    self.address = error.headers["Location"].removesuffix(path)
                    continue
                if error.code != 503 or time.monotonic() > end:
                    return error.code, error.read()
            except OSError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.2)

    def post(self, frame: bytes) -> tuple[int, bytes]:
        """Send a frame."""
        return self.fetch(f"/frames/{urllib.parse.quote(self.name)}", frame)


def main() -> None:
    """Follow the server's model and send a frame for each round, until there is none."""
    address, name, token_file = sys.argv[1:]
    server = Server(address, name, Path(token_file).read_text(encoding="utf-8"))
    replica = data = None
    while (answer := server.fetch("/round"))[0] in (200, 204):
        status, body = answer
        if status == 204:
            time.sleep(0.2)
            continue
        request = fm.Request.from_dict(json.loads(body))
        replica = replica or fm.Replica(request.schema)
        try:
            received = replica.apply(server.fetch(f"/model?have={replica.model_id}")[1], request.base_model)
        except fm.FrameError:  # the round has ended in between
            continue
        data = data or samples(name, received["w"].shape)
        trained, accuracy = train(received, *data)
        status, body = server.post(request.encode(fm.difference(trained, received, request.schema)))
        print(
            f"round {request.round}: accuracy {accuracy:.3f}; the server answers {status} {body.decode()}",
            flush=True,
        )
    print(f"the server answers {answer[0]} {answer[1].decode()}")


if __name__ == "__main__":
    main()

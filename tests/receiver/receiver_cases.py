"""A small federation, and a receiver in this process, whose merger is the test."""

import hashlib
import json
import random
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
from clients import Clients
from rounds import Round
from routes import Limits, Place, Receiver, make_app
from shard import Shard
from soak_attacks import Attacker
from store import FrameStore

import fedmrn_codec as fm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette asks for httpx2; Flower needs httpx
    from fastapi.testclient import TestClient

MERGER = {"Authorization": "Bearer of the merger"}
NAMES = ("ann", "bob", "cy d é")
WEIGHTS = {"ann": 600, "bob": 400, "cy d é": 3}
SECRET = 2**127 + 1


def make_model():
    rng = np.random.default_rng(0)
    return {"w": rng.normal(0, 0.1, (64, 64)).astype(np.float32), "b": np.zeros(64, np.float32)}


def make_policy(model, **changes):
    settings = {"round": 0, "base_model": 0, "seeds": None, "max_weight": 1000, "max_value": 1.0}
    return fm.Policy(schema=fm.schema_of(model), noise=fm.Uniform(0.01), **settings | changes)


def write_folder(folder, model=None, policy=None, names=NAMES):
    """What serve.py reads."""
    model = make_model() if model is None else model
    np.savez(folder / "start.npz", **model)
    (folder / "policy.toml").write_text((policy or make_policy(model)).to_toml(), encoding="utf-8")
    table = {
        name: {"token": hashlib.sha256(token_of(name).encode()).hexdigest(), "weight": WEIGHTS.get(name, 1)}
        for name in names
    }
    (folder / "clients.json").write_text(json.dumps(table), encoding="utf-8")


def token_of(name):
    return name.encode().hex()


def bearer(name):
    return {"Authorization": f"Bearer {token_of(name)}"}


def encode(request, seed=0):
    """A frame with random masks and small dense values."""
    rng = np.random.default_rng(seed)
    update = {t.name: rng.normal(0, 0.003, t.shape).astype(np.float32) for t in request.schema}
    return request.encode(update)


@dataclass
class Running:
    """A receiver in this process: one shard, as HTTP clients and as its merger see it."""

    http: TestClient
    shard: Shard
    receiver: Receiver
    policy: fm.Policy
    down: fm.Downlink
    number: int = 0

    def open(self, over=False):
        """Begin the next round, with the model of the downlink."""
        self.number += 1
        return self.open_data(Round(self.number, 1e10, over, SECRET, self.down.to_bytes()).to_bytes())

    def open_data(self, data):
        return self.http.put("/shard/round", content=data, headers=MERGER)

    def seal(self, number=None):
        return self.http.post(f"/shard/seal/{number or self.number}", headers=MERGER)

    def request(self, client):
        answer = self.http.get("/round", headers=bearer(client))
        return fm.Request.from_dict(answer.json()) if answer.status_code == 200 else answer.status_code

    def post(self, client, data, **options):
        return self.http.post(f"/frames/{quote(client)}", content=data, headers=bearer(client), **options)

    def frame(self, client, seed=0):
        return encode(self.request(client), seed)

    def attacker(self, client="bob", other="ann"):
        """A client with what it needs for the attacks of the soak test."""
        most = self.policy.frame_bytes
        return Attacker(self.request(client), self.frame(other), other, most, random.Random(1))

    def frames(self):
        return self.http.get("/shard/frames", headers=MERGER).json()

    def metric(self, name, **labels):
        return self.receiver.metrics.registry.get_sample_value(f"receiver_{name}", labels or None)

    def serial(self, frames):
        """The partial sum of these frames by client, as one aggregator has it."""
        policy = replace(self.policy, round=self.number, base_model=self.down.model_id, seeds=SECRET)
        total = policy.aggregator()
        for client, frame in frames.items():
            total.add(frame, WEIGHTS[client], seed=policy.seed_of(client))
        return total.to_bytes()


def make_running(folder: Path, place=None, policy=None, **limits):
    """A receiver whose lifespan has not begun: `with made.http:` begins it."""
    model = make_model()
    policy = policy or make_policy(model)
    write_folder(folder, model, policy)
    shard = Shard(FrameStore(folder / f"shard-{place.number if place else 0}.db"), policy, checks=2)
    parts = {"limits": Limits(**limits), "place": place or Place()}
    token = MERGER["Authorization"].partition(" ")[2]
    receiver = Receiver(shard, Clients(folder / "clients.json"), token, policy.frame_bytes, **parts)
    http = TestClient(make_app(receiver), raise_server_exceptions=False, follow_redirects=False)
    return Running(http, shard, receiver, policy, fm.Downlink(policy.schema, model))

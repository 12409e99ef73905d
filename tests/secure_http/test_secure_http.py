"""The HTTP interface in this process: strangers, bodies that are too long, and whole rounds of clients."""

import threading
import warnings

import digits
import numpy as np
import pytest
import secure_client
import secure_server
import torch
from agreed import id_of
from bounds import Limits
from clients import Clients
from federation import Federation, Plan
from secure_http_cases import frame_of, identity_of, lines_of, make_model, token_of, write_folder

import fedmrn_codec as fm
import fedmrn_secagg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette asks for httpx2; Flower needs httpx
    from fastapi.testclient import TestClient

NAMES = ("ann", "bob", "cy d é")


class Running:
    """A server in this process."""

    def __init__(self, folder, rounds=2, identities=False, **limits):
        self.folder, self.agreed = folder, write_folder(folder, NAMES, 2, identities)
        self.federation = Federation(folder, self.agreed, Plan(rounds, seconds=20.0))
        app = secure_server.make_app(self.federation, Clients(folder / "clients.json"), Limits(**limits))
        self.http = TestClient(app, raise_server_exceptions=False)

    def bearer(self, name):
        return {"Authorization": f"Bearer {token_of(self.folder, name)}"}

    def get(self, path, name="ann"):
        return self.http.get(path, headers=self.bearer(name))

    def post(self, path, data, name="ann", **headers):
        return self.http.post(path, content=data, headers=self.bearer(name) | headers)

    def request(self, name="ann"):
        return fm.Request.from_dict(self.get("/round", name).json())

    def client(self, name="ann"):
        identity = identity_of(self.folder, name)
        return fedmrn_secagg.Client(id_of(name), self.request(name), identity=identity, **self.agreed.options)

    def fetch_as(self, name):
        """What `Server.fetch` is for a client over a network."""

        class Fetching:
            def fetch(_, path, data=None):
                answer = self.get(path, name) if data is None else self.post(path, data, name)
                return answer.status_code, answer.content

        return Fetching()


@pytest.fixture
def running(tmp_path):
    made = Running(tmp_path)
    with made.http:
        yield made


def code_of(answer):
    return answer.status_code, answer.json().get("code")


def test_strangers(running):
    for method, path in [
        ("GET", "/round"),
        ("GET", "/model"),
        ("POST", "/rounds/1/keys"),
        ("GET", "/rounds/1/keys"),
    ]:
        for headers in ({}, {"Authorization": "Bearer of nothing"}):
            answer = running.http.request(method, path, headers=headers)
            assert code_of(answer) == (401, "token")
    assert running.http.get("/health").json() == {"round": 1, "step": "keys", "over": False}


def test_bodies_that_are_too_long(running):
    longest = len(running.client().keys())
    path = "/rounds/1/keys"
    answer = running.post(path, b"", **{"Content-Length": str(2**40)})
    assert code_of(answer) == (413, "frame_length")
    assert answer.json()["message"] == f"body: expected at most {longest} bytes, got {2**40}"
    assert answer.headers["connection"] == "close"
    assert code_of(running.post(path, iter([b"x" * longest, b"y"]))) == (413, "frame_length")
    assert running.post(path, running.client().keys()).status_code == 202


def test_what_is_not_waited_for(running):
    message = running.client().keys()
    assert code_of(running.post("/rounds/1/masked", message)) == (409, "step")
    assert code_of(running.post("/rounds/2/keys", message)) == (409, "round")
    assert code_of(running.get("/rounds/0/keys")) == (409, "round")
    assert running.post("/rounds/1/hello", message).status_code == 422
    assert running.post("/rounds/1/keys", message).status_code == 202
    assert running.post("/rounds/1/keys", message).status_code == 202  # as if the answer had been lost
    assert code_of(running.post("/rounds/1/keys", message[:-1])) == (409, "repeated")
    assert running.get("/round").status_code == 204
    assert running.get("/round", "bob").status_code == 200


def test_too_many_uploads(tmp_path):
    made = Running(tmp_path, uploads=0)
    with made.http:
        answer = made.post("/rounds/1/keys", made.client().keys())
    assert code_of(answer) == (503, "busy")
    assert answer.headers["retry-after"] == "1"


def test_a_client_that_waits_is_told_to_ask_again(running, monkeypatch):
    monkeypatch.setattr(secure_server, "HOLD", 0.01)
    assert running.post("/rounds/1/keys", running.client().keys()).status_code == 202
    assert running.get("/rounds/1/keys").status_code == 204


@pytest.mark.parametrize("identities", [False, True])
def test_two_rounds(tmp_path, identities):
    """The model is the one that the plain aggregator gives for the frames of all clients."""
    made, frames, models = Running(tmp_path, identities=identities), {}, {}

    def play(name):
        def train(request, _):
            return frames.setdefault((request.round, name), (request, frame_of(request, id_of(name) % 99)))[1]

        follower = secure_client.Participant(
            made.fetch_as(name), name, made.agreed, identity_of(tmp_path, name), train
        )
        models[name] = follower.follow()

    with made.http:
        threads = [threading.Thread(target=play, args=(name,)) for name in NAMES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert code_of(made.get("/round")) == (410, "over")
        assert code_of(made.get("/rounds/3/keys")) == (409, "round")
    model, down = make_model(), fm.Downlink(fm.schema_of(make_model()), make_model())
    rule = fm.AdaptiveNoise(fm.schema_of(model), model)
    for number in (1, 2):
        requests = [frames[number, name][0] for name in NAMES]
        assert {request.base_model for request in requests} == {down.model_id}
        assert all(request.noise == rule.noise for request in requests)
        total = requests[0].aggregator()
        for name in NAMES:
            total.add(frames[number, name][1], 1)
        rule.observe(total)
        model = fm.apply(model, total.mean())
        down.advance(model)
    for found in models.values():
        assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in down.model.items()}
    assert [line["survivors"] for line in lines_of(tmp_path)] == [sorted(NAMES)] * 2
    assert lines_of(tmp_path)[-1]["model"] == str(down.model_id)


def test_a_client_without_its_identity_key_drops_out(tmp_path):
    made = Running(tmp_path, identities=True)
    with made.http:
        other = fm.Key.generate()
        client = fedmrn_secagg.Client(id_of("ann"), made.request(), identity=other, **made.agreed.options)
        assert made.post("/rounds/1/keys", client.keys()).status_code == 202
        for name in NAMES[1:]:
            assert made.post("/rounds/1/keys", made.client(name).keys(), name).status_code == 202
        answer = made.get("/rounds/1/keys")
    assert code_of(answer) == (409, "dropped_out")
    assert "signature" in answer.json()["message"]


def test_a_server_that_is_started_again(tmp_path):
    """The round that was under way is lost; the model and the rule are those of the last one that ended."""
    agreed, plan = write_folder(tmp_path, NAMES, 2), Plan(rounds=9)
    made = Federation(tmp_path, agreed, plan)
    exchange = made.exchange
    total = exchange.request.aggregator()
    total.add(frame_of(exchange.request, 1), 1)
    exchange.aggregator, exchange.survivors, exchange.step = total, ("ann", "bob"), "done"
    made._apply()
    made._save(2, 2)
    held, noise = made._down.model_id, made._rule.noise
    made._store.close()
    again = Federation(tmp_path, agreed, plan)
    assert (again.number, again.exchange.request.base_model) == (3, held)
    assert again.exchange.request.noise == noise
    assert again._store.closed() == [(1, 2, 2), (2, 0, 0)]
    again._store.close()
    assert Federation(tmp_path, agreed, Plan(rounds=3)).over


def test_a_model_that_has_no_place_on_a_grid_is_not_taken(tmp_path):
    made = Federation(tmp_path, write_folder(tmp_path, NAMES, 2), Plan(rounds=9))
    before = {name: array.tobytes() for name, array in made._model.items()}

    class Wild:
        def mean(self):
            return {name: np.full_like(array, np.inf) for name, array in make_model().items()}

    made.exchange.aggregator = Wild()
    made._apply()
    assert made.exchange.lost.startswith("model: ")
    assert {name: array.tobytes() for name, array in made._model.items()} == before


def test_the_training_of_the_digits():
    """Two rounds of three clients, as the example trains them."""
    torch.manual_seed(0)
    arrays = digits.arrays_of(digits.build())
    schema, before = fm.schema_of(arrays), digits.accuracy(arrays)
    rule = fm.AdaptiveNoise(schema, arrays)
    for number in (1, 2):
        request = fm.Request(number, rule.noise, "binary", number, fm.model_id(arrays), schema)
        total = request.aggregator()
        for part in range(3):
            total.add(digits.frame_of(request, arrays, digits.part_of(part, 3)), 1)
        rule.observe(total)
        arrays = fm.apply(arrays, total.mean())
    assert digits.accuracy(arrays) > before + 0.2


def test_the_parts_of_the_data_are_disjoint():
    images, _ = digits.load()
    parts = [digits.held_out(), *(digits.part_of(number, 3) for number in range(3))]
    rows = [image.numpy().tobytes() for part, _ in parts for image in part]
    assert sorted(rows) == sorted(image.numpy().tobytes() for image in images)
    assert all(len(part) == len(labels) for part, labels in parts)

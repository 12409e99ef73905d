"""The merger: rounds are closed once, whatever stops it; partial sums merge anywhere, also on Ray."""

import io
import threading
import time

import merger
import numpy as np
import pytest
from merger import Merger, Plan, RemoteShard, Stopped
from receiver_cases import NAMES, WEIGHTS, encode, make_model, make_policy, make_running
from routes import Place
from store import ModelStore

import fedmrn_codec as fm


class Crash(Exception):
    """The process is killed here."""


class Here:
    """A shard in this process, as the merger sees one elsewhere."""

    address = "here"

    def __init__(self, running):
        self.running, self.calls = running, []

    def frames(self):
        about = self.running.frames()
        return about["frames"], about["sealed"]

    def seal(self, number):
        self.calls.append("seal")
        return self.running.seal(number).content

    def open(self, data):
        assert self.running.open_data(data).status_code == 204


@pytest.fixture
def shards(tmp_path):
    """Two shards, without a round."""
    first, second = (
        make_running(tmp_path, place=Place(number, ("http://a", "http://b"))) for number in (0, 1)
    )
    with first.http, second.http:
        yield [Here(first), Here(second)]


def make_merger(folder, shards, plan=None, policy=None, start=None):
    model = make_model() if start is None else start
    store = ModelStore(folder / "merger.db")
    made = Merger(store, policy or make_policy(model), shards, plan or Plan(3), model, threading.Event())
    return made, store


def open_round(made, shards):
    for shard in shards:
        shard.open(made._published)


def post_all(shards, seed=0):
    """A frame of every client, to the shard that it belongs to; the frames by client."""
    frames = {}
    for name in NAMES:
        for shard in shards:
            if isinstance(request := shard.running.request(name), fm.Request):
                frames[name] = encode(request, seed)
                assert shard.running.post(name, frames[name]).status_code == 202
    assert len(frames) == len(NAMES)
    return frames


def expected_model(made, frames):
    down = fm.Downlink.from_bytes(made.round.downlink, make_policy(make_model()).schema)
    total = made.round.policy(make_policy(make_model()), down.model_id).aggregator()
    for name, frame in frames.items():
        total.add(frame, {"ann": 600, "bob": 400}.get(name, 3))
    return fm.apply(made.model, total.mean())


@pytest.mark.parametrize("step", ["seal", "mean", "store", "open"])
def test_a_merger_that_is_killed_while_it_closes_a_round(step, shards, tmp_path, monkeypatch):
    made, store = make_merger(tmp_path, shards)
    open_round(made, shards)
    frames = post_all(shards)
    want = expected_model(made, frames)

    def crash(*_, **__):
        raise Crash

    with monkeypatch.context() as patched:
        if step == "seal":
            patched.setattr(shards[1], "seal", crash)
        elif step == "mean":
            patched.setattr(fm.Aggregator, "mean", crash)
        elif step == "store":
            patched.setattr(ModelStore, "advance", crash)
        else:
            patched.setattr(shards[0], "open", crash)
        with pytest.raises(Crash):
            made.close_round()
    store.close()

    again, store = make_merger(tmp_path, shards, Plan(99, least=99))
    open_round(again, shards)
    if step == "open":
        assert not again._is_due()
    else:
        assert again._is_due()  # a shard has sealed the round: it cannot go on
        again.close_round()
    assert again.round.number == 2
    assert all(again.model[name].tobytes() == want[name].tobytes() for name in want)
    assert store.closed() == [(1, 3, 1003)]
    assert all(shard.running.frames() == {"frames": 0, "sealed": False} for shard in shards)
    store.close()


def test_the_end_of_a_round(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 100.0)
    plan = Plan(wanted=5, least=2)
    due = {(n, at): plan.is_due(n, at) for n in (0, 1, 2, 5) for at in (99.0, 101.0)}
    assert {key for key, value in due.items() if value} == {(2, 99.0), (5, 99.0), (5, 101.0)}
    assert not Plan(wanted=5, least=0).is_due(0, 99.0)


def test_a_federation_that_ends(shards, tmp_path):
    made, store = make_merger(tmp_path, shards, Plan(3, rounds=1))
    open_round(made, shards)
    post_all(shards)
    made.run()
    assert made.round.over
    assert [shard.running.request("ann") for shard in shards].count(410) == 1
    made.run()  # nothing is left to do
    assert len(store.closed()) == 1
    store.close()


def test_a_shard_that_is_away_is_asked_again_and_told_the_round(shards, tmp_path, monkeypatch):
    made, store = make_merger(tmp_path, shards)
    monkeypatch.setattr(merger, "PAUSE", 0.0)
    real, failures = shards[0].frames, iter(range(2))

    def away():
        if next(failures, None) is not None:
            raise ConnectionError
        return real()

    monkeypatch.setattr(shards[0], "frames", away)
    shards[1].open(made._published)
    assert not made._is_due()  # the first one had no round before
    made._stopped.set()
    monkeypatch.setattr(shards[1], "frames", lambda: (_ for _ in ()).throw(TimeoutError))
    with pytest.raises(Stopped):
        made._is_due()
    made.run()
    store.close()


def test_a_mean_that_no_grid_can_hold_leaves_the_model_as_it_is(tmp_path, caplog, monkeypatch):
    def refuse(down, model):
        raise fm.UpdateError("element 0 of 'w'", "at most 2^24 - 1 steps", "more")

    running = make_running(tmp_path)
    made, store = make_merger(tmp_path, [Here(running)])
    with running.http:
        running.open_data(made._published)
        assert running.post("ann", running.frame("ann")).status_code == 202
        monkeypatch.setattr(fm.Downlink, "advance", refuse)
        made.close_round()
    assert store.closed() == [(1, 1, WEIGHTS["ann"])]
    assert "round 1 leaves the model as it is: element 0 of 'w': expected at most 2^24" in caplog.text
    assert made.round.number == 2
    assert made.model["w"].tobytes() == make_model()["w"].tobytes()
    store.close()


def test_a_round_without_frames_leaves_the_model_as_it_is(tmp_path, caplog):
    running = make_running(tmp_path)
    made, store = make_merger(tmp_path, [Here(running)])
    with running.http:
        running.open_data(made._published)
        before = running.shard.present.down.model_id
        made.close_round()
        assert running.shard.present.down.model_id == before
    assert store.closed() == [(1, 0, 0)]
    assert "leaves the model" not in caplog.text
    assert made.model["w"].tobytes() == make_model()["w"].tobytes()
    store.close()


def test_the_secret_and_the_model_survive(tmp_path):
    made, store = make_merger(tmp_path, [])
    secret, (number, _, model, _) = store.secret, store.last()
    store.close()
    other = {name: array + 1 for name, array in make_model().items()}
    again, store = make_merger(tmp_path, [], start=other)
    assert (store.secret, store.last()[0], store.last()[2]) == (secret, number, model)
    assert again.model["w"].tobytes() == made.model["w"].tobytes() == make_model()["w"].tobytes()
    with np.load(io.BytesIO(model)) as file:
        assert sorted(file.files) == ["b", "w"]
    store.close()


def test_an_answer_that_breaks_off_is_an_error_of_the_connection(monkeypatch):
    import http.client

    shard = RemoteShard("http://127.0.0.1:9", "token")

    def broken(*_, **__):
        raise http.client.IncompleteRead(b"")

    monkeypatch.setattr(shard._opener, "open", broken)
    with pytest.raises(ConnectionError, match="IncompleteRead"):
        shard.frames()


@pytest.mark.slow
@pytest.mark.integration
def test_partial_sums_merge_on_ray(shards, tmp_path):
    """Those of the shards, and more of them, in pairs on the machines of a cluster."""
    pytest.importorskip("ray", reason="needs the extra `ray`")
    from fedmrn_codec.cluster.ray import connected

    made, store = make_merger(tmp_path, shards)
    open_round(made, shards)
    frames = post_all(shards)
    want = shards[0].running.policy
    parts = [shard.running.seal().content for shard in shards]
    store.close()

    def merged(schema, first, second):
        import fedmrn_codec as fm

        total = fm.Aggregator.from_bytes(first, fm.Schema.from_bytes(schema))
        total.merge(fm.Aggregator.from_bytes(second, total.schema))
        return total.to_bytes()

    with connected(None, "this test") as cluster:
        (data,) = cluster.map(merged, [(want.schema.data, *parts)])
    total = fm.Aggregator.from_bytes(data, want.schema)
    model = fm.apply(made.model, total.mean())
    expected = expected_model(made, frames)
    assert all(model[name].tobytes() == expected[name].tobytes() for name in model)

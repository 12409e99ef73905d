"""The receiver's routes: who may send what, and what is counted."""

import asyncio
import json
import logging
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import hosting
import pytest
import serve
import shard
import soak_attacks
from clients import Clients, shard_of, write_clients
from receiver_cases import NAMES, SECRET, bearer, encode, make_model, make_policy, make_running
from rounds import Round
from routes import Place, make_app
from store import FrameStore, ModelStore

import fedmrn_codec as fm


@pytest.fixture
def running(tmp_path):
    """A receiver with an open round 1."""
    made = make_running(tmp_path)
    with made.http:
        assert made.open().status_code == 204
        yield made


def code(answer):
    return answer.status_code, answer.json()["code"]


def test_a_round(running):
    frames = {}
    for name in NAMES:
        request = running.request(name)
        model = running.http.get("/model", headers=bearer(name)).content
        assert fm.Replica(request.schema).apply(model, request.base_model).keys() == make_model().keys()
        frames[name] = encode(request, seed=len(frames))
        assert running.post(name, frames[name]).status_code == 202
    assert len({fm.inspect(frame).seed for frame in frames.values()}) == len(frames)
    assert running.frames() == {"frames": 3, "sealed": False}
    assert running.seal().content == running.serial(frames)
    assert running.seal().content == running.serial(frames)
    assert running.frames() == {"frames": 3, "sealed": True}


def test_a_client_has_nothing_to_do_between_its_frame_and_the_next_round(running):
    assert running.post("ann", running.frame("ann")).status_code == 202
    assert running.request("ann") == 204
    assert isinstance(running.request("bob"), fm.Request)
    running.seal()
    assert running.request("bob") == 204
    running.open()
    assert running.request("ann").round == 2
    running.seal()
    running.open(over=True)
    assert running.request("ann") == 410
    assert running.http.get("/model", headers=bearer("ann")).status_code == 200
    assert code(running.post("ann", b"")) == (410, "over")


def test_a_client_follows_the_model(running):
    replica = fm.Replica(running.policy.schema)
    replica.apply(running.http.get("/model", headers=bearer("ann")).content)
    model = make_model()
    model["b"] += 0.01
    running.seal()
    running.down.advance(model)
    running.open()
    short = running.http.get(f"/model?have={replica.model_id}", headers=bearer("ann")).content
    assert fm.inspect(short).base_model == replica.model_id
    replica.apply(short, running.request("ann").base_model)
    for have in ("1", "x", "-1", "9" * 5000, "٣"):
        whole = running.http.get("/model", params={"have": have}, headers=bearer("ann")).content
        assert fm.inspect(whole).base_model == 0


@pytest.mark.parametrize("kind", soak_attacks.KINDS, ids=lambda kind: kind.__name__)
def test_each_attack_is_refused_and_changes_nothing(kind, running):
    frames = {"ann": running.frame("ann"), "bob": running.frame("bob")}
    running.post("ann", frames["ann"])
    attacker = running.attacker(other="cy d é")
    hostile = kind(attacker)
    answer = running.http.post(
        hostile.path or "/frames/bob",
        content=iter([hostile.body]) if "Transfer-Encoding" in hostile.headers else hostile.body,
        headers=bearer("bob") | ({"Authorization": "Bearer 0"} if hostile.token else {}) | hostile.headers,
    )
    assert answer.status_code == hostile.status
    assert hostile.code in (None, answer.json()["code"])
    assert running.metric("requests_refused_total", reason=answer.json()["code"]) == 1
    assert running.frames() == {"frames": 1, "sealed": False}
    assert running.post("bob", frames["bob"]).status_code == 202  # who was refused may send another one
    assert running.seal().content == running.serial(frames)


def test_the_same_bytes_again_are_acknowledged_and_count_once(running):
    frame = running.frame("ann")
    assert [running.post("ann", frame).status_code for _ in range(3)] == [202, 202, 202]
    other = encode(fm.Request.from_dict(running.receiver.shard.present.policy.request("ann").to_json()), 5)
    assert code(running.post("ann", other)) == (409, "repeated")
    assert running.metric("frames_accepted_total") == 1
    assert running.metric("frames_repeated_total") == 2
    assert running.seal().content == running.serial({"ann": frame})
    assert running.post("ann", frame).status_code == 202  # the round is sealed
    running.open()
    assert running.post("ann", frame).status_code == 202  # and over
    assert running.frames()["frames"] == 0
    running.seal()
    running.open()
    assert code(running.post("ann", frame)) == (409, "round")  # and long ago


def test_a_frame_that_comes_after_the_seal_is_for_the_next_round(running):
    frame = running.frame("ann")
    running.seal()
    assert code(running.post("ann", frame)) == (409, "round")
    assert running.seal().content == b""


def test_a_round_that_ends_while_a_frame_is_checked(running, monkeypatch):
    """The check of a long frame runs in a thread; the frame is refused if its round is sealed meanwhile."""
    monkeypatch.setattr(shard, "SHORT", 0)
    frame, begun, go = running.frame("ann"), threading.Event(), threading.Event()
    real = fm.Policy.check

    def slow(*arguments, **named):
        begun.set()
        assert go.wait(60)
        return real(*arguments, **named)

    monkeypatch.setattr(fm.Policy, "check", slow)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(running.post, "ann", frame)
        assert begun.wait(60)
        assert code(running.post("ann", frame)) == (503, "under_way")
        assert running.seal().content == b""
        go.set()
        assert code(answer.result()) == (409, "round")
    assert running.frames() == {"frames": 0, "sealed": True}


def test_too_many_frames_at_once(tmp_path):
    made = make_running(tmp_path, uploads=0)
    with made.http:
        made.open()
        answer = made.post("ann", b"")
        assert code(answer) == (503, "busy")
        assert answer.headers["retry-after"] == "1"


def test_nothing_is_acknowledged_that_could_not_be_stored(running, monkeypatch):
    frame, real = running.frame("ann"), FrameStore.add

    def full(self, rows):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(FrameStore, "add", full)
    assert code(running.post("ann", frame)) == (503, "storage")
    assert running.frames()["frames"] == 0
    monkeypatch.setattr(FrameStore, "add", real)
    assert running.post("ann", frame).status_code == 202
    assert running.seal().content == running.serial({"ann": frame})


def test_a_sum_that_differs_from_the_disk_ends_the_process(running, monkeypatch):
    def failing(*_):
        raise MemoryError

    frame, ended = running.frame("ann"), []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(fm.Aggregator, "add", failing)
    assert running.post("ann", frame).status_code == 503
    assert ended == [1]


def test_many_frames_share_a_transaction(tmp_path, monkeypatch):
    names = [f"client {number}" for number in range(50)]
    batches, real = [], FrameStore.add

    def counted(self, rows):
        batches.append(len(rows))
        real(self, rows)

    monkeypatch.setattr(FrameStore, "add", counted)

    async def run():
        policy = make_policy(make_model())
        down = fm.Downlink(policy.schema, make_model())
        made = shard.Shard(FrameStore(tmp_path / "shard.db"), policy, checks=1)
        await made.open(Round(1, 0.0, False, SECRET, down.to_bytes()).to_bytes())
        frames = {name: encode(fm.Request.from_dict(json.loads(made.request(name)))) for name in names}
        await asyncio.gather(*(made.accept(name, 1, frame) for name, frame in frames.items()))
        part = await made.seal(1)
        await made.close()
        return fm.Aggregator.from_bytes(part, policy.schema).frames

    assert asyncio.run(run()) == sum(batches) == 50
    assert len(batches) < 5


def test_a_new_process_goes_on(tmp_path):
    made = make_running(tmp_path)
    with made.http:
        made.open()
        frames = {name: made.frame(name) for name in NAMES}
        made.post("ann", frames["ann"])
    for sealed in (False, True):  # the second time with a sealed round
        again = make_running(tmp_path)
        again.number, again.down = made.number, made.down
        with again.http:
            assert again.frames() == {"frames": 1, "sealed": sealed}
            assert again.post("ann", frames["ann"]).status_code == 202
            assert again.seal().content == again.serial({"ann": frames["ann"]})
            assert again.request("bob") == 204


def test_the_frames_of_old_rounds_are_forgotten(running, tmp_path):
    for _ in range(4):
        running.post("ann", running.frame("ann"))
        running.seal()
        running.open()
    stored = running.shard._store
    assert [len(stored.digests(number)) for number in range(1, 6)] == [0, 0, 0, 1, 0]


def test_health(tmp_path):
    made = make_running(tmp_path)
    with made.http:
        assert code(made.http.get("/health")) == (503, "no_round")
        assert made.request("ann") == 503
        made.open()
        assert made.http.get("/health").json() == {"round": 1, "frames": 0, "over": False}


def test_metrics(running):
    frame = running.frame("ann")
    running.post("ann", frame)
    for path in ("/nothing", "/nothing/else"):
        assert running.http.get(path).status_code == 404
    text = running.http.get("/metrics").text
    assert "receiver_round 1.0" in text
    assert "receiver_round_frames 1.0" in text
    assert running.metric("bytes_in_total") >= len(frame)
    assert running.metric("bytes_out_total") > 0
    assert running.metric("seconds_count", method="POST", path="/frames/{client}") == 1
    assert running.metric("seconds_count", method="any", path="other") == 2
    assert "nothing" not in text  # labels do not depend on what strangers send


@pytest.mark.parametrize(("method", "path"), [("GET", "frames"), ("POST", "seal/1"), ("PUT", "round")])
@pytest.mark.parametrize("headers", [{}, bearer("ann"), {"Authorization": b"Bearer \xff"}], ids=str)
def test_only_the_merger_closes_rounds(method, path, headers, running):
    assert code(running.http.request(method, f"/shard/{path}", headers=headers)) == (401, "token")


def test_rounds_come_in_their_order(running):
    first = Round(1, 1e10, False, SECRET, running.down.to_bytes()).to_bytes()
    assert running.open_data(first).status_code == 204  # again: nothing happens
    third = Round(3, 1e10, False, SECRET, running.down.to_bytes()).to_bytes()
    assert code(running.open_data(third)) == (409, "round")  # the first is not sealed
    assert code(running.seal(2)) == (409, "round")
    running.seal()
    assert running.open_data(third).status_code == 204
    assert code(running.open_data(first)) == (409, "round")


def test_a_client_of_another_shard_is_sent_there(tmp_path):
    addresses = ("http://a", "http://b")
    made = make_running(tmp_path, place=Place(0, addresses))
    with made.http:
        made.open()
        homes = {shard_of(name, 2) for name in NAMES}
        assert homes == {0, 1}
        for name in NAMES:
            answer = made.http.get("/model?have=3", headers=bearer(name))
            if shard_of(name, 2):
                assert (answer.status_code, answer.headers["location"]) == (307, "http://b/model?have=3")
                answer = made.post(name, b"")
                assert answer.status_code == 307
                assert answer.headers["location"].startswith("http://b/frames/")
            else:
                assert answer.status_code == 200


def test_partial_sums_of_shards_are_the_sum_of_all(tmp_path):
    frames, parts = {}, []
    for number in (0, 1):
        made = make_running(tmp_path, place=Place(number, ("http://a", "http://b")))
        with made.http:
            made.open()
            for name in NAMES:
                if shard_of(name, 2) == number:
                    frames[name] = made.frame(name)
                    assert made.post(name, frames[name]).status_code == 202
            parts.append(made.seal().content)
    total = fm.Aggregator.from_bytes(parts[0], made.policy.schema)
    total.merge(fm.Aggregator.from_bytes(parts[1], made.policy.schema))
    assert total.to_bytes() == made.serial(frames)


def test_one_process_holds_a_database(tmp_path, monkeypatch):
    monkeypatch.setattr("store.PATIENCE", 0.1)
    first = FrameStore(tmp_path / "shard.db")
    with closing(first), pytest.raises(SystemExit, match="expected a database that no other process uses"):
        FrameStore(tmp_path / "shard.db")
    FrameStore(tmp_path / "shard.db").close()
    (tmp_path / "other.db").write_bytes(b"x" * 5000)
    with pytest.raises(SystemExit, match="not a database"):
        FrameStore(tmp_path / "other.db")


def test_a_policy_that_asks_for_other_frames_than_masks(tmp_path):
    model = make_model()
    for changes, right in [
        ({}, True),
        ({"kinds": ["grid"], "step": 2.0**-9}, False),
        ({"kinds": ["mask", "grid"]}, True),
    ]:
        (tmp_path / "policy.toml").write_text(make_policy(model, **changes).to_toml(), encoding="utf-8")
        if right:
            serve.read_policy(tmp_path / "policy.toml")
        else:
            with pytest.raises(SystemExit, match="expected masks of a stated noise"):
                serve.read_policy(tmp_path / "policy.toml")


def test_weights_that_no_sum_can_hold(tmp_path):
    table = {name: {"token": f"{number:064x}", "weight": 2**38} for number, name in enumerate(("a", "b"))}
    (tmp_path / "clients.json").write_text(json.dumps(table))
    with pytest.raises(SystemExit, match="expected weights with a sum of at most"):
        Clients(tmp_path / "clients.json")


def test_the_log_is_bounded():
    kept, bounded = [], hosting.Bounded()
    for name in ("uvicorn.error", "receiver"):
        for number in range(1000):
            record = logging.LogRecord(name, logging.WARNING, "", 0, "line %d", (number,), None)
            record.created = 1e9
            if bounded.filter(record):
                kept.append(record.getMessage())
    assert len(kept) == 2 * hosting.LINES
    assert kept[hosting.LINES - 1] == "further lines of this minute are left out"
    assert kept[hosting.LINES] == "line 0"


def test_the_round_survives_its_bytes():
    made = Round(7, 12.5, True, SECRET, b"\n\0downlink\n")
    assert Round.from_bytes(made.to_bytes()) == made
    model = make_model()
    policy = made.policy(make_policy(model), 9)
    assert (policy.round, policy.base_model, policy.seeds) == (7, 9, SECRET)


def test_the_labels_of_metrics_are_no_words_of_strangers(running):
    for number in range(5):
        assert running.http.request(f"WORD{number}", "/round").status_code == 405
        assert running.http.request(f"WORD{number}", f"/elsewhere{number}").status_code == 404
    text = running.http.get("/metrics").text
    assert "WORD" not in text
    assert running.metric("seconds_count", method="any", path="/round") == 5
    assert running.metric("seconds_count", method="any", path="other") == 5


@pytest.mark.parametrize("path", ["/frames/ann", "/nothing", "/health"])
def test_what_is_left_of_a_body_after_an_answer_is_little(running, path):
    app, sent, read = make_app(running.receiver), [], []

    async def receive():
        read.append(2**16)
        return {"type": "http.request", "body": bytes(2**16), "more_body": True}

    async def send(message):
        sent.append(message)

    def ask(headers=(), receive=receive):
        scope = {"type": "http", "method": "GET" if path == "/health" else "POST", "path": path}
        scope |= {"query_string": b"", "headers": list(headers), "http_version": "1.1"}
        read.clear(), sent.clear()
        asyncio.run(app(scope, receive, send))
        return (b"connection", b"close") in sent[0]["headers"]

    assert ask([(b"transfer-encoding", b"chunked")])
    assert 2**20 <= sum(read) <= 2**20 + 2**16  # without a word of how much comes, it is read, and no more
    assert ask([(b"content-length", b"99999999")])
    assert read == []
    assert not ask()
    assert read == []
    assert ask([(b"content-length", b"3"), (b"expect", b"100-continue")])
    assert read == []

    async def short():
        return {"type": "http.request", "body": b"abc", "more_body": False}

    assert not ask([(b"content-length", b"3")], short)

    async def silent():
        await asyncio.sleep(60)

    assert ask([(b"content-length", b"3")], silent)

    async def gone():
        return {"type": "http.disconnect"}

    assert ask([(b"content-length", b"3")], gone)


def test_a_round_whose_opening_stopped_can_be_opened_again(running, monkeypatch):
    running.seal()

    def fails(*_):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(running.shard, "_begun", fails)
        assert running.open().status_code == 500
    running.number -= 1
    assert running.open().status_code == 204
    assert running.post("ann", running.frame("ann")).status_code == 202
    assert running.frames() == {"frames": 1, "sealed": False}


def test_tokens_are_private_and_not_replaced(tmp_path):
    write_clients(tmp_path, {"ann": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["ann.token", "clients.json"]
    if os.name == "posix":
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    with pytest.raises(SystemExit, match=r"clients.json: expected none yet"):
        write_clients(tmp_path, {"ann": 1, "bob": 1})
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_the_number_of_workers_stays(tmp_path):
    """A client belongs to one shard; with another number its frame would count twice, or be lost."""
    for shards in (2, 2):
        ModelStore(tmp_path / "merger.db", shards).close()
    for shards in (1, 3):
        with pytest.raises(SystemExit, match=f"merger.db: expected 2 workers, .*, got {shards}"):
            ModelStore(tmp_path / "merger.db", shards)

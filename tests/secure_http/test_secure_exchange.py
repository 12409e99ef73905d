"""One round in this process: its sum, its dropouts in every step, and what is refused."""

import asyncio
from collections import Counter
from itertools import product

import numpy as np
import pytest
from agreed import Agreed, id_of
from bounds import Limits, Refused, Uploads
from exchange import STEPS, Exchange
from secure_http_cases import frame_of, make_model, write_folder

import fedmrn_codec as fm
import fedmrn_secagg

NAMES = ("ann", "bob", "cyd", "dan", "eve")
NEVER, LATEST = len(STEPS), 30
SCHEMA = fm.schema_of(make_model())
REQUEST = fm.Request(7, fm.Bernoulli(0.01), "signed", 3, 9, SCHEMA)


class Played:
    """A round in which client NAME of `last` is silent from the step of that number on."""

    def __init__(
        self, last=(), threshold=3, change=lambda name, step, message: message, seconds=0.2, **options
    ):
        self.agreed, self.last, self.change = Agreed(NAMES, threshold, b"test"), dict(last), change
        self.exchange = Exchange(REQUEST, self.agreed, **options)
        self.frames = {name: frame_of(REQUEST, seed) for seed, name in enumerate(NAMES)}
        self.lengths = Counter()
        asyncio.run(self.play(seconds))

    async def play(self, seconds):
        parts = [asyncio.create_task(self.part(name)) for name in NAMES]
        await asyncio.wait_for(self.exchange.play(seconds, seconds), LATEST)
        await asyncio.gather(*parts)

    async def part(self, name):
        client, given = fedmrn_secagg.Client(id_of(name), REQUEST, **self.agreed.options), None
        for number, step in enumerate(STEPS[: self.last.get(name, NEVER)]):
            frame = [self.frames[name]] if step == "masked" else []
            message = getattr(client, step)(*frame, *([] if step == "keys" else [given]))
            try:
                assert self.exchange.longest(name, step) >= len(message)
                self.lengths[step] = self.exchange.longest(name, step) - len(message)
                assert self.exchange.give(name, step, self.change(name, step, message))
                given = await self.exchange.answer(name, step, LATEST) if number < NEVER - 1 else None
            except Refused as error:
                self.lengths[name] = error.code
                return

    def expected(self, names):
        """The mean that the plain aggregator gives for the frames of these clients."""
        total = REQUEST.aggregator()
        for name in names:
            total.add(self.frames[name], 1)
        return {name: array.tobytes() for name, array in total.mean().items()}

    @property
    def mean(self):
        return {name: array.tobytes() for name, array in self.exchange.aggregator.mean().items()}


def test_all_stay():
    played = Played()
    assert played.exchange.survivors == tuple(sorted(NAMES, key=id_of))
    assert played.mean == played.expected(NAMES)
    assert (played.exchange.lost, played.exchange.left, played.exchange.step) == (None, {}, "done")
    assert [played.lengths[step] for step in STEPS] == [0] * NEVER
    assert all(played.exchange.up[step] for step in STEPS)


@pytest.mark.parametrize("steps", list(product(range(NEVER), repeat=2)))
def test_two_drop_out(steps):
    last = dict(zip(("bob", "dan"), steps, strict=True))
    played = Played(last)
    inside = [name for name in NAMES if last.get(name, NEVER) > STEPS.index("masked")]
    assert sorted(played.exchange.survivors) == inside
    assert played.mean == played.expected(inside)
    assert played.exchange.left == {name: STEPS[number] for name, number in last.items()}


@pytest.mark.parametrize("number", range(1, NEVER))
def test_too_few_are_left(number):
    played = Played({"bob": number, "dan": number, "eve": number})
    assert played.exchange.aggregator is None
    assert played.exchange.lost.startswith(f"{STEPS[number]}: ")
    assert ": expected at least 3, got 2" in played.exchange.lost
    if number < NEVER - 1:
        assert played.lengths["ann"] == "lost"


def test_too_few_keys_are_waited_for():
    async def play():
        exchange = Exchange(REQUEST, Agreed(NAMES, 3, b"test"))
        playing = asyncio.create_task(exchange.play(0.01, 0.01))
        for name in NAMES[:2]:
            exchange.give(
                name, "keys", fedmrn_secagg.Client(id_of(name), REQUEST, threshold=3, session=b"test").keys()
            )
        await asyncio.sleep(0.1)
        assert exchange.step == "keys"
        assert exchange.lost is None
        assert not exchange.is_open_to("ann")
        assert exchange.is_open_to("eve")
        playing.cancel()

    asyncio.run(play())


def test_enough_keys_end_the_first_step_before_its_deadline():
    played = Played({"eve": 0}, wanted=4, seconds=2 * LATEST)
    assert played.exchange.left == {"eve": "keys"}
    assert played.mean == played.expected(NAMES[:4])


@pytest.mark.parametrize("step", STEPS)
def test_a_bad_message_drops_its_client_out(step):
    def change(name, now, message):
        return message[:-1] + bytes([message[-1] ^ 1]) if (name, now) == ("bob", step) else message

    played = Played(change=change)
    assert played.exchange.left == {"bob": step}
    assert played.exchange.refused["bob"].startswith("checksum: client ")
    inside = [name for name in NAMES if name != "bob" or step == "reveal"]
    assert played.mean == played.expected(inside)
    if step != "reveal":
        assert played.lengths["bob"] == "dropped_out"


def test_a_client_whose_keys_were_refused_may_send_others():
    """Otherwise a threshold of all clients could not be reached any more, and the step would never end."""

    async def play():
        agreed = Agreed(NAMES, len(NAMES), b"test")
        exchange = Exchange(REQUEST, agreed)
        playing = asyncio.create_task(exchange.play(0.2, 0.2))
        sent = {name: fedmrn_secagg.Client(id_of(name), REQUEST, **agreed.options).keys() for name in NAMES}
        for name, message in sent.items():
            exchange.give(name, "keys", message[:-1] + b"!" if name == "bob" else message)
        while "bob" not in exchange.refused:
            await asyncio.sleep(0.01)
        with pytest.raises(Refused, match=r"checksum: client .*; another one may be sent") as caught:
            await exchange.answer("bob", "keys", 0)
        assert caught.value.code == "refused"
        assert (exchange.step, exchange.left, exchange.is_open_to("bob")) == ("keys", {}, True)
        exchange.give("bob", "keys", sent["bob"])
        assert await exchange.answer("ann", "keys", LATEST)
        assert (exchange.step, exchange.refused) == ("shares", {})
        playing.cancel()

    asyncio.run(play())


def test_one_client_cannot_take_the_room_of_all():
    uploads = Uploads(Limits(uploads=4))
    with uploads.one("ann"), uploads.one("ann"):
        with pytest.raises(Refused, match="at most 2 of one client at the same time"), uploads.one("ann"):
            pass
        with uploads.one("bob"), uploads.one("eve"):
            assert uploads.number == 4
            with pytest.raises(Refused, match="at most 4 at the same time"), uploads.one("dan"):
                pass
    assert uploads.number == 0
    with uploads.one("ann"):
        assert uploads.number == 1


def test_each_message_counts_once():
    async def play():
        agreed = Agreed(NAMES, 3, b"test")
        exchange, client = (
            Exchange(REQUEST, agreed),
            fedmrn_secagg.Client(id_of("ann"), REQUEST, **agreed.options),
        )
        message = client.keys()
        for step in STEPS[1:]:
            with pytest.raises(Refused, match="step: expected `keys`") as caught:
                exchange.longest("ann", step)
            assert caught.value.code == "step"
        assert exchange.give("ann", "keys", message)
        assert not exchange.give("ann", "keys", message)
        with pytest.raises(Refused, match="expected the first one") as caught:
            exchange.give("ann", "keys", message[:-1] + b"x")
        assert (caught.value.status, caught.value.code) == (409, "repeated")
        with pytest.raises(Refused, match="expected one of the federation") as caught:
            exchange.longest("mallory", "keys")
        assert caught.value.status == 403
        assert await exchange.answer("ann", "keys", 0.01) is None
        assert exchange.up["keys"] == len(message)

    asyncio.run(play())


@pytest.mark.parametrize("identities", [False, True])
def test_the_agreed_values_survive_their_file(tmp_path, identities):
    agreed = write_folder(tmp_path, NAMES, 3, identities)
    found = Agreed.read(tmp_path / "agreed.json")
    assert (found.clients, found.threshold, found.session) == (NAMES, 3, b"test")
    assert (found.identities is not None) == identities
    for id, key in (found.identities or {}).items():
        assert key.data == agreed.identities[id].data


def test_two_clients_with_one_id():
    with pytest.raises(SystemExit, match="clients: expected 2 different ids of names, got 1"):
        Agreed(("ann", "ann"), 2, b"")


def test_ids_are_those_of_the_names():
    assert id_of("ann") == int(np.frombuffer(bytes.fromhex("49915e0d7d4b402e"), "<u8")[0])

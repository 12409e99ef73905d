"""Whole rounds: the mean is that of the survivors' frames, whatever drops out, for weights and dtypes."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from secagg_cases import NEVER, REQUEST, SCHEMA, STEP, STEPS, Cohort, frames_of, same_means, update_of

import fedmrn_codec as fm
import fedmrn_secagg
from fedmrn_secagg import errors

FOUR, SIX = [9, 2, 7, 2**63], [11, 5, 2**64 - 1, 1, 8, 300]


def left(last, number):
    """The clients that have sent the message of a step."""
    return [i for i, step in last.items() if step > number]


def check_pattern(frames, steps, threshold):
    """A round in which client i of the frames is silent from its step on."""
    last = dict(zip(frames, steps, strict=True))
    cohort = Cohort(REQUEST, frames, threshold=threshold)
    failing = [number for number in range(NEVER) if len(left(last, number)) < threshold]
    if failing:
        with pytest.raises(errors.TooFewError):
            cohort.play(last)
        assert cohort.server.state == STEPS[failing[0]]
        return False
    got = cohort.play(last)
    assert same_means(got, cohort.expected(left(last, 2)))
    assert cohort.server.survivors == tuple(sorted(left(last, 2)))
    assert got.frames == got.weight == len(left(last, 2))
    return True


def test_every_pattern_of_dropouts_of_four_clients():
    frames = frames_of(REQUEST, FOUR)
    done = [check_pattern(frames, steps, 3) for steps in itertools.product(range(NEVER + 1), repeat=4)]
    assert sum(done) == 1 + 4 * NEVER


@pytest.mark.slow
def test_every_pattern_of_dropouts_of_six_clients():
    """All 4^6 patterns of clients that go after their keys, shares or vector, or stay."""
    frames = frames_of(REQUEST, SIX)
    done = [check_pattern(frames, steps, 4) for steps in itertools.product(range(1, NEVER + 1), repeat=6)]
    assert sum(done) == 1 + 6 * 3 + 15 * 9


@pytest.mark.parametrize("seed", range(2))
def test_dropouts_of_a_hundred_clients_in_a_sparse_graph(seed):
    rng = np.random.default_rng(seed)
    ids = [int(i) for i in rng.choice(10**6, 100, replace=False) + 1]
    cohort = Cohort(REQUEST, frames_of(REQUEST, ids), threshold=5, degree=14)
    last = {i: int(rng.integers(NEVER)) for i in rng.choice(ids, 10, replace=False)}
    got = cohort.play(last)
    alive = [i for i in ids if last.get(i, NEVER) > 2]
    assert len(alive) < 100
    assert same_means(got, cohort.expected(alive))


def test_weights_count_as_so_many_frames():
    ids = FOUR
    weights = dict(zip(ids, (1, 7, 30, 12), strict=True))
    cohort = Cohort(REQUEST, frames_of(REQUEST, ids), threshold=2, weights=weights, largest_weight=30)
    got = cohort.play({ids[3]: 2})
    assert got.frames == got.weight == 1 + 7 + 30
    assert same_means(got, cohort.expected(ids[:3]))
    with pytest.raises(fm.AggregateError):  # they would take the squares of the weights from their sum
        got.statistics()
    cohort = Cohort(
        REQUEST, frames_of(REQUEST, ids), threshold=2, weights=dict.fromkeys(ids, 1), largest_weight=30
    )
    assert all(seen.square_weights == 1 / 4 for seen in cohort.play({}).statistics().values())


@pytest.mark.parametrize("mask", ["binary", "signed"])
@pytest.mark.parametrize("noise", [fm.Uniform(0.01), fm.Gaussian(0.5), fm.Bernoulli(2.0)])
def test_every_noise_and_mask_kind(noise, mask):
    request = fm.Request(2**64 - 1, noise, mask, 0, 0, SCHEMA, coding="rans12")
    cohort = Cohort(request, frames_of(request, [1, 2, 3]), threshold=2)
    assert same_means(cohort.play({2: 3}), cohort.expected([1, 2, 3]))


def test_a_noise_for_each_tensor():
    noise = {"conv.weight": fm.Uniform(0.01), "head": fm.Gaussian(0.5)}
    request = fm.Request(5, noise, "signed", 0, 0, SCHEMA)
    cohort = Cohort(request, frames_of(request, [1, 2, 3]), threshold=2)
    assert same_means(cohort.play(), cohort.expected([1, 2, 3]))


INTEGERS = [f"{sign}int{8 << k}" for sign in ("", "u") for k in range(4)]


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_integers_of_every_dtype(dtype):
    schema = fm.Schema([fm.Tensor("x", (4,), dtype=dtype), fm.Tensor("empty", (0, 3), dtype=dtype)])
    request = fm.Request(1, fm.Bernoulli(1.0), "signed", 0, 0, schema)
    info = None if dtype == "bool" else np.iinfo(dtype)
    low, high = (0, 1) if info is None else (max(info.min, -(2**60)), min(info.max, 2**60))
    arrays = [[low, high, high, low], [low, high, low, high], [low, high, 0, 1]]
    numpy = fm.Tensor("x", (4,), dtype=dtype).type.numpy
    frames = {
        i: request.encode({"x": np.array(values).astype(numpy), "empty": np.zeros((0, 3), numpy)})
        for i, values in enumerate(arrays, 1)
    }
    cohort = Cohort(request, frames, threshold=2)
    assert same_means(cohort.play(), cohort.expected([1, 2, 3]))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_an_integer_whose_sum_could_wrap_around_is_refused(dtype):
    schema = fm.Schema([fm.Tensor("x", (2,), dtype=dtype)])
    request = fm.Request(1, fm.Bernoulli(1.0), "signed", 0, 0, schema)
    most = (2**63 - 1) // (3 * 5)
    for value in [most, most + 1] if dtype == "uint64" else [most, most + 1, -most, -most - 1]:
        frame = request.encode({"x": np.array([0, value], dtype)})
        weights, options = {1: 5, 2: 5, 3: 1}, {"largest_weight": 5}
        cohort = Cohort(request, dict.fromkeys((1, 2, 3), frame), threshold=2, weights=weights, **options)
        boxes = cohort.play(until=2)
        if abs(value) <= most:
            vectors = cohort.answers("masked", (1, 2, 3), boxes)
            survivors = cohort.server.masked(vectors)
            got = cohort.server.reveal(cohort.answers("reveal", (1, 2, 3), survivors))
            assert got.mean()["x"].tolist() == [0, value]
            continue
        with pytest.raises(errors.ValueRangeError, match=f"'x': expected magnitudes up to {most}, got"):
            cohort.clients[1].masked(frame, boxes[1])
        assert cohort.clients[1].state == "shared"


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_dense_floats_are_rounded_to_the_grid_ties_to_even(dtype):
    schema = fm.Schema([fm.Tensor("x", (6,), dtype=dtype)])
    request = fm.Request(1, fm.Bernoulli(1.0), "signed", 0, 0, schema)
    step = 2.0**-3
    z = np.array([0.5, 1.5, -2.5, 3.25, -3.75, 0])
    raw = (z * step).astype(np.float32)
    held = (raw.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else raw.astype(dtype)
    frames = dict.fromkeys((1, 2, 3), request.encode({"x": held}))
    cohort = Cohort(request, frames, threshold=2, step=step)
    got = cohort.play()
    grid = fm.encode_grid({"x": held}, schema, step=step, seed=1)
    expected = request.aggregator()
    for _ in frames:
        expected.add(grid, 1)
    assert same_means(got, expected)
    assert [client.clipped for client in cohort.clients.values()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("dtype", "largest"), [("float32", 2**24 - 1), ("float16", 2**11 - 1), ("bfloat16", 255)]
)
def test_dense_floats_beyond_the_range_are_clipped_and_counted(dtype, largest):
    schema = fm.Schema([fm.Tensor("x", (5,), dtype=dtype), fm.Tensor("y", (1,))])
    request = fm.Request(1, fm.Bernoulli(1.0), "signed", 0, 0, schema)
    raw = np.array([60000, -60000, 1, 0, -1], np.float32)
    held = (raw.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else raw.astype(dtype)
    step = 2.0**-24 if dtype == "float16" else 2.0**-20
    frames = dict.fromkeys((1, 2), request.encode({"x": held, "y": np.array([-1e38], np.float32)}))
    cohort = Cohort(request, frames, threshold=2, step={"x": step, "y": 2.0**-18})
    mean = cohort.play().mean()["x"]
    wide = (mean.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else mean.astype(np.float64)
    one = min(1, largest * step)
    assert wide.tolist() == [largest * step, -largest * step, one, 0, -one]
    beyond = 5 if one < 1 else 3
    assert [client.clipped for client in cohort.clients.values()] == [beyond, beyond]


def test_many_weights_make_the_range_of_a_grid_smaller():
    schema = fm.Schema([fm.Tensor("x", (2,))])
    request = fm.Request(1, fm.Bernoulli(1.0), "signed", 0, 0, schema)
    most = (2**31 - 1) // (2 * 1000)
    frame = request.encode({"x": np.array([most + 1, -most], np.float32)})
    frames, weights = dict.fromkeys((1, 2), frame), {1: 1000, 2: 1000}
    cohort = Cohort(request, frames, threshold=2, weights=weights, largest_weight=1000, step=1.0)
    assert cohort.play().mean()["x"].tolist() == [most, -most]
    assert cohort.clients[1].clipped == 1


def test_a_frame_on_the_grid_is_taken_as_it_is_and_another_grid_is_rounded():
    schema = fm.Schema([fm.Tensor("x", (3,))])
    request = fm.Request(1, fm.Bernoulli(1.0), "signed", 3, 9, schema)
    values = np.array([1, -2, 3], np.float32) * np.float32(STEP)
    for step in (STEP, STEP / 4):
        frame = fm.encode_grid({"x": values}, schema, step=step, seed=1, round=3, base_model=9)
        cohort = Cohort(request, dict.fromkeys((1, 2), frame), threshold=2)
        assert cohort.play().mean()["x"].tobytes() == values.tobytes()


@pytest.mark.parametrize("tensors", [[], [fm.Tensor("m", (0,), masked=True)], [fm.Tensor("d", (2, 0))]])
def test_models_without_elements(tensors):
    request = fm.Request(1, fm.Bernoulli(1.0), "signed", 0, 0, fm.Schema(tensors))
    cohort = Cohort(request, frames_of(request, [1, 2]), threshold=2)
    got = cohort.play()
    assert got.frames == 2
    assert same_means(got, cohort.expected([1, 2]))


def test_a_sparse_graph_that_is_too_large_becomes_the_complete_one():
    cohort = Cohort(REQUEST, frames_of(REQUEST, [1, 2, 3, 4, 5]), threshold=3, degree=4)
    roster = cohort.play(until=1)
    assert roster[52:88] == bytes(36)
    cohort = Cohort(REQUEST, frames_of(REQUEST, [1, 2, 3, 4, 5, 6]), threshold=3, degree=4)
    roster = cohort.play(until=1)
    assert roster[52:56] == b"\4\0\0\0"
    assert roster[56:88] != bytes(32)


def test_survivors_that_the_graph_does_not_connect_lose_the_round():
    """Two pairs of neighbours on the circle have dropped out; each side would show a sum of its own."""
    ids = list(range(1, 11))
    cohort = Cohort(REQUEST, frames_of(REQUEST, ids), threshold=3, degree=4)
    boxes = cohort.play(until=2)
    circle, _ = cohort.server._roster._circle
    masked = cohort.answers("masked", ids, boxes)
    place = {cohort.server._roster.ids[position]: at for at, position in enumerate(circle)}
    split = {i: message for i, message in masked.items() if place[i] not in (0, 1, 5, 6)}
    with pytest.raises(errors.TooFewError, match="that the graph connects: expected all 6, got 3"):
        cohort.server.masked(split)
    one_more = {i: message for i, message in masked.items() if place[i] not in (0, 1, 5)}
    survivors = cohort.server.masked(one_more)  # a refused call has changed nothing
    got = cohort.server.reveal(cohort.answers("reveal", one_more, survivors))
    assert same_means(got, cohort.expected(one_more))


def test_rounds_with_identity_keys():
    ids = [1, 2, 3]
    private = {i: fm.Key.generate() for i in ids}
    public = {i: key.public for i, key in private.items()}
    frames = frames_of(REQUEST, ids)
    server = fedmrn_secagg.Server(REQUEST, clients=ids, threshold=2, identities=public)
    clients = {
        i: fedmrn_secagg.Client(i, REQUEST, threshold=2, identity=private[i], identities=public) for i in ids
    }
    roster = server.keys({i: client.keys() for i, client in clients.items()})
    assert len(roster) == 92 + 3 * (72 + 64)
    boxes = server.shares({i: client.shares(roster) for i, client in clients.items()})
    survivors = server.masked({i: client.masked(frames[i], boxes[i]) for i, client in clients.items()})
    got = server.reveal({i: client.reveal(survivors) for i, client in clients.items()})
    assert same_means(got, Cohort(REQUEST, frames, threshold=2).expected(ids))


@pytest.mark.parametrize("signed", [False, True])
def test_lengths_of_messages_are_those_of_the_table_of_costs(signed):
    n, threshold = 9, 3
    private = {i: fm.Key.generate() for i in range(1, n + 1)}
    public = {i: key.public for i, key in private.items()} if signed else None
    for degree in (None, 4):
        frames = frames_of(REQUEST, range(1, n + 1))
        server = fedmrn_secagg.Server(
            REQUEST, clients=frames, threshold=threshold, degree=degree, identities=public
        )
        clients = {
            i: fedmrn_secagg.Client(
                i, REQUEST, threshold=threshold, identity=private[i] if signed else None, identities=public
            )
            for i in frames
        }
        g, d = 64 * signed, degree or n - 1
        keys = {i: client.keys() for i, client in clients.items()}
        roster = server.keys(keys)
        shares = {i: client.shares(roster) for i, client in clients.items()}
        boxes = server.shares(shares)
        vectors = {i: client.masked(frames[i], boxes[i]) for i, client in clients.items()}
        survivors = server.masked(vectors)
        reveals = {i: client.reveal(survivors) for i, client in clients.items()}
        fields, dense, integers = 16 + 8, 3, 1
        lengths = {
            116 + g: keys.values(),
            92 + n * (72 + g): [roster],
            84 + 48 * d: shares.values(),
            52 + -(-d // 8) + 48 * d: boxes.values(),
            52 + fields * 4 // 8 + 4 * (1 + dense) + 8 * integers: vectors.values(),
            52 + 2: [survivors],
            52 + 16 * (1 + d): reveals.values(),
        }
        for length, messages in lengths.items():
            assert {len(message) for message in messages} == {length}


def test_bits_an_element_of_cnn4_with_ten_clients():
    """At most 4.3 bits a masked parameter, with the protocol and the dense tensors."""
    fedmrn_torch = pytest.importorskip("fedmrn_torch")
    from reference_fl import models

    schema = fedmrn_torch.schema(models.build("cnn4", (1, 28, 28), 10, 0))
    request = fm.Request(1, fm.Bernoulli(0.01), "signed", 1, 1, schema)
    rng = np.random.default_rng(0)
    frames = dict.fromkeys(range(1, 11), request.encode(update_of(schema, rng)))
    cohort = Cohort(request, frames, threshold=7)
    sent, received, answer = 0, 0, None
    for step in STEPS[:3]:
        messages = cohort.answers(step, cohort.clients, answer)
        sent += len(messages[1])
        answer = getattr(cohort.server, step)(messages)
        received += len(answer[1] if isinstance(answer, dict) else answer)
    sent += len(cohort.clients[1].reveal(answer))
    elements = sum(tensor.size for tensor in schema if tensor.masked)
    assert 4 < 8 * (sent + received) / elements < 4.3
    text = (Path(fedmrn_secagg.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert f"sends {8 * sent / elements:.3f} bits a masked element" in text
    assert f"and receives {received:,} bytes" in text


def test_a_step_goes_on_without_the_messages_that_are_refused():
    cohort = Cohort(REQUEST, frames_of(REQUEST, FOUR), threshold=3)
    messages, refused = cohort.answers("keys", FOUR), []
    messages[2] = messages[2][:-1]
    roster = fedmrn_secagg.advance(cohort.server, "keys", messages, lambda *told: refused.append(told))
    assert sorted(messages) == sorted(set(FOUR) - {2})
    ((client, error),) = refused
    assert (client, error.client, type(error)) == (2, 2, errors.TruncatedError)
    assert isinstance(roster, bytes)
    assert cohort.server.state == "shares"
    messages = cohort.answers("shares", messages, roster)
    messages[9] = b""
    with pytest.raises(errors.TooFewError):  # and the server is as before
        fedmrn_secagg.advance(cohort.server, "shares", messages, lambda *told: refused.append(told))
    assert [client for client, _ in refused] == [2, 9]
    assert cohort.server.state == "shares"


@pytest.mark.parametrize("degree", [None, 2])
def test_the_longest_message_of_each_step_is_known(degree):
    """The messages of clients that have all their neighbours have just this length."""
    cohort, answer, found = Cohort(REQUEST, frames_of(REQUEST, SIX), threshold=3, degree=degree), None, []
    for step in STEPS:
        longest = cohort.server.longest
        messages = cohort.answers(step, SIX, answer)
        found.append({longest} == set(map(len, messages.values())))
        answer = getattr(cohort.server, step)(messages)
    assert found == [True] * len(STEPS)
    assert cohort.server.longest == 0
    identities = {i: fm.Key.generate() for i in SIX}
    server = fedmrn_secagg.Server(REQUEST, clients=SIX, threshold=3, identities=identities)
    client = fedmrn_secagg.Client(
        SIX[0], REQUEST, threshold=3, identity=identities[SIX[0]], identities=identities
    )
    assert server.longest == len(client.keys())

"""An add that something stops, or that several threads do at once, never gives a wrong mean."""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.backends import numpy as backend

SCHEMA = fm.Schema(
    [fm.Tensor("w", (5, 7), masked=True), fm.Tensor("v", (3,), masked=True), fm.Tensor("b", (4,))]
)
NOISE = fm.Uniform(0.01)


def frame(seed):
    rng = np.random.default_rng(seed)
    update = {t.name: (0.01 * rng.standard_normal(t.shape)).astype(np.float32) for t in SCHEMA}
    return fm.encode(update, SCHEMA, seed=seed, noise=NOISE, private_seed=seed + 2**32, backend="numpy")


FRAMES = [frame(seed) for seed in range(20)]


def summed(count):
    """An aggregator of the first frames, with weights 1, 2, ..."""
    out = fm.Aggregator(SCHEMA, noise=NOISE, backend="numpy")
    for number in range(count):
        out.add(FRAMES[number], number + 1)
    return out


def state(aggregator):
    return aggregator.weight, aggregator.frames, {n: a.tobytes() for n, a in aggregator.mean().items()}


class Stop(KeyboardInterrupt):
    """An interrupt that only these tests raise."""


def interrupted(call, line):
    """Raise Stop when `call` is about to run line number `line` inside the codec; whether it was raised."""
    left = line

    def trace(code_frame, event, argument):
        nonlocal left
        if "fedmrn_codec" not in code_frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise Stop
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Stop:
        return True
    finally:
        sys.settrace(before)
    return False


def add_one(aggregator):
    aggregator.add(FRAMES[15], 16)


def add_three(aggregator):
    aggregator.add_many(FRAMES[15:18], [16, 17, 18])


def merge(aggregator):
    other = fm.Aggregator(SCHEMA, noise=NOISE, backend="numpy")
    other.add(FRAMES[15], 16)
    aggregator.merge(other)


def mean(aggregator):
    aggregator.mean()


def to_bytes(aggregator):
    aggregator.to_bytes()


@pytest.mark.parametrize(
    ("call", "count", "step"),
    [
        (add_one, 3, 3),
        (add_one, 15, 17),
        (add_three, 3, 11),
        (merge, 3, 7),
        (mean, 3, 5),
        (to_bytes, 3, 5),
    ],  # 15 frames and one fill the batch; a mean and a partial sum need what waits in it
)
def test_an_interrupt_at_any_line(call, count, step):
    before, after = state(summed(count)), summed(count)
    call(after)
    after = state(after)
    outcomes, line = set(), 0
    while True:
        aggregator = summed(count)
        if not interrupted(partial(call, aggregator), line):
            break
        try:
            got = state(aggregator)
        except fm.AggregateError:
            add, into = partial(aggregator.add, FRAMES[0], 1), partial(summed(2).merge, aggregator)
            for other in (aggregator.to_bytes, aggregator.statistics, add, into):
                with pytest.raises(fm.AggregateError, match="aggregator: expected whole sums"):
                    other()
            outcomes.add("refused")
        else:
            assert got in (before, after)
            outcomes.add("before" if got == before else "after")
        line += step
    assert line > 20 * step
    assert {"before", "refused"} <= outcomes


def test_a_lack_of_memory_for_the_masks_changes_nothing(monkeypatch):
    aggregator = fm.Aggregator(SCHEMA, noise=NOISE, backend="numpy")
    aggregator.add(FRAMES[0], 1)
    before = state(aggregator)
    real = np.empty

    def scarce(shape, *arguments, **options):
        if isinstance(shape, tuple) and shape[0] == 16:
            raise MemoryError
        return real(shape, *arguments, **options)

    monkeypatch.setattr(np, "empty", scarce)
    with pytest.raises(MemoryError):
        aggregator.add(FRAMES[1], 2)
    monkeypatch.undo()
    assert state(aggregator) == before
    aggregator.add(FRAMES[1], 2)
    assert state(aggregator) == state(summed(2))


def test_a_lack_of_memory_while_sums_change_gives_no_mean(monkeypatch):
    aggregator = summed(15)

    def fails(*arguments):
        raise MemoryError

    monkeypatch.setattr(backend, "accumulate", fails)
    with pytest.raises(MemoryError):
        aggregator.add(FRAMES[15], 16)
    monkeypatch.undo()
    with pytest.raises(fm.AggregateError, match="aggregator: expected whole sums"):
        aggregator.mean()


def test_threads_take_turns():
    expected = state(summed(20))
    for _ in range(5):
        aggregator = fm.Aggregator(SCHEMA, noise=NOISE)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(aggregator.add, FRAMES, range(1, 21)))
        assert state(aggregator) == expected


def test_two_threads_merge_two_aggregators_into_each_other():
    for _ in range(50):
        left, right = summed(2), summed(3)
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(left.merge, right), pool.submit(right.merge, left)]:
                done.result(timeout=60)
        assert {left.weight, right.weight} in ({9, 15}, {9, 12})


def test_an_aggregator_may_be_merged_into_itself():
    aggregator = summed(2)
    mean = state(aggregator)[2]
    aggregator.merge(aggregator)
    assert state(aggregator) == (6, 4, mean)

"""A tally, or an aggregator that adds one, is never half-changed, whatever stops it, from any threads."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from test_aggregator_stopped import interrupted

import fedmrn_codec as fm
from fedmrn_codec.backends import numpy as backend

SCHEMA = fm.Schema(
    [fm.Tensor("w", (5, 7), masked=True), fm.Tensor("v", (3,), masked=True), fm.Tensor("b", (4,))]
)
NOISE = fm.Bernoulli(0.5)


def frame(i):
    rng = np.random.default_rng(i)
    bits = {t.name: rng.random(t.shape) < 0.5 for t in SCHEMA if t.masked}
    dense = {"b": rng.normal(size=4).astype("f4")}
    return fm.encode_bits(bits, SCHEMA, seed=7, noise=NOISE, mask="signed", dense=dense)


FRAMES = [frame(i) for i in range(20)]


def tally(count):
    out = fm.Tally(SCHEMA, weight=3, backend="numpy")
    for i in range(count):
        out.add(FRAMES[i % 20])
    return out


def server(count):
    out = fm.Aggregator(SCHEMA, noise=NOISE, backend="numpy")
    for i in range(count):
        out.add(FRAMES[i], 3)
    return out


BYTES = tally(5).to_bytes()


def five():
    """A new tally of five frames: one that an interrupt stops while its batch is flushed is of no use."""
    return fm.Tally.from_bytes(BYTES, SCHEMA, backend="numpy")


def add(into):
    into.add(FRAMES[19])


def merge(into):
    into.merge(five())


def add_tally(into):
    into.add_tally(five())


def add_bytes(into):
    into.add_tally(BYTES)


@pytest.mark.parametrize(
    ("make", "call", "count", "step"),
    [
        (tally, add, 3, 3),
        (tally, add, 255, 3),  # wider counts
        (tally, merge, 3, 2),
        (server, add_tally, 3, 2),
        (server, add_bytes, 3, 7),
    ],
)
def test_an_interrupt_at_any_line(make, call, count, step):
    before, after = make(count).to_bytes(), make(count)
    call(after)
    after = after.to_bytes()
    outcomes, line, limit = set(), 0, step * (30 if count > 100 else 400)
    while line < limit:
        into = fm.Tally.from_bytes(before, SCHEMA, backend="numpy") if make is tally else make(count)
        if not interrupted(partial(call, into), line):
            break
        try:
            got = into.to_bytes()
        except fm.AggregateError:
            other = fm.Tally(SCHEMA, weight=3) if make is tally else fm.Aggregator(SCHEMA)
            for use in (partial(other.merge, into), partial(call, into)):
                with pytest.raises(fm.AggregateError, match="expected whole sums"):
                    use()
            outcomes.add("refused")
        else:
            assert got in (before, after)
            outcomes.add("before" if got == before else "after")
        line += step
    assert "before" in outcomes
    assert line > 15 * step
    if count < 100:
        assert "refused" in outcomes


def test_a_lack_of_memory_for_wider_counts_changes_nothing():
    full = tally(255)
    before = full.to_bytes()

    class Scarce(np.ndarray):
        def astype(self, *arguments, **options):
            raise MemoryError

    state = full._sums.masked[1]
    state.counts = state.counts.view(Scarce)
    with pytest.raises(MemoryError):
        full.add(FRAMES[0])
    state.counts = state.counts.view(np.ndarray)
    assert full.to_bytes() == before
    full.add(FRAMES[0])
    assert full.frames == 256


def test_a_lack_of_memory_while_sums_change_gives_no_mean(monkeypatch):
    def fails(*arguments):
        raise MemoryError

    into = server(3)
    monkeypatch.setattr(backend, "accumulate_counts", fails)
    with pytest.raises(MemoryError):
        into.add_tally(five())
    monkeypatch.undo()
    with pytest.raises(fm.AggregateError, match="aggregator: expected whole sums"):
        into.mean()


def test_threads_take_turns():
    expected = tally(20).to_bytes()
    for _ in range(5):
        shared = fm.Tally(SCHEMA, weight=3)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(shared.add, FRAMES))
        assert shared.to_bytes() == expected
    once = fm.Aggregator(SCHEMA, noise=NOISE)
    for _ in range(8):
        once.add_tally(BYTES)
    for _ in range(5):
        into, shared = fm.Aggregator(SCHEMA, noise=NOISE), five()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(into.add_tally, [shared] * 8))
        assert into.to_bytes() == once.to_bytes()


def test_two_threads_merge_two_tallies_into_each_other():
    for _ in range(50):
        left, right = tally(2), tally(3)
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(left.merge, right), pool.submit(right.merge, left)]:
                done.result(timeout=60)
        assert {left.frames, right.frames} in ({5, 8}, {5, 7})

"""`spread`: every range once, in several threads, and no work after the call or an error."""

import os
import sys
import threading
import time

import pytest

from fedmrn_codec.backends.threads import spread


@pytest.fixture(autouse=True)
def four(monkeypatch):
    monkeypatch.setenv("FEDMRN_THREADS", "4")


@pytest.mark.parametrize(("count", "size"), [(0, 5), (1, 5), (5, 5), (6, 5), (1000, 7)])
def test_each_range_once(count, size):
    seen = []
    spread(lambda a, b: seen.append((a, b)), count, size)
    assert sorted(seen) == [(a, min(a + size, count)) for a in range(0, count, size)]


def test_threads_share_the_work():
    names = set()

    def work(begin, end):
        names.add(threading.current_thread().name)
        time.sleep(0.05)

    spread(work, 12, 1)
    assert 1 < len(names) <= 4
    assert threading.current_thread().name in names


@pytest.mark.parametrize("error", [ValueError, IndexError])
def test_no_range_is_begun_after_an_error(error):
    begun = []

    def work(begin, end):
        begun.append(begin)
        time.sleep(0.02)
        if begin == 3:
            raise error("three")

    with pytest.raises(error, match="three"):
        spread(work, 1000, 1)
    count = len(begun)
    time.sleep(0.1)
    assert len(begun) == count < 1000


def test_calls_within_many_threads():
    totals = []

    def call():
        seen = []
        spread(lambda a, b: seen.append(b - a), 100, 3)
        totals.append(sum(seen))

    callers = [threading.Thread(target=call) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert totals == [100] * 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python warns of any fork with threads")
def test_a_forked_process_has_threads_of_its_own():
    spread(lambda a, b: time.sleep(0.01), 8, 1)
    child = os.fork()
    if child == 0:
        seen = []
        spread(lambda a, b: seen.append(a), 8, 1)
        os._exit(0 if sorted(seen) == list(range(8)) else 1)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ended[1] == 0

"""The tables and claims of spec/SECAGG.md: probabilities, the graph, and what a lying server can reach."""

import importlib.util
import itertools
import math
import sys
from pathlib import Path

import pytest

from fedmrn_secagg.roster import Roster

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("make_secagg", ROOT / "spec" / "make_secagg.py")
    module = importlib.util.module_from_spec(spec)
    before = sys.path.copy()
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_the_document_has_the_computed_parts(make):
    assert make.FILE.read_text(encoding="utf-8") == make.text()


def test_probabilities_are_those_of_the_hypergeometric_distribution(make):
    for population, marked, draws in ((9, 4, 5), (30, 7, 12), (50, 45, 20)):
        ways = math.comb(population, draws)
        for low, high in ((0, draws), (2, 4), (draws, draws), (3, 2), (-5, 1)):
            inside = range(max(low, 0), high + 1)
            exact = (
                sum(math.comb(marked, x) * math.comb(population - marked, draws - x) for x in inside) / ways
            )
            assert 2 ** make.log2_between(population, marked, draws, low, high) == pytest.approx(
                exact, rel=1e-9
            )


def connected(left, edges):
    """Whether the graph of the clients that are left is connected."""
    found, new = set(), {next(iter(left))}
    while new:
        found |= new
        new = {b for a in new for b in edges[a] if b in left} - found
    return found == left


@pytest.mark.parametrize(("n", "degree"), [(7, 2), (8, 4), (9, 4), (9, 6)])
def test_the_bound_of_a_graph_that_is_not_connected_holds(make, n, degree):
    roster = Roster(tuple(range(1, n + 1)), (b"",) * n, degree, bytes(32), b"")
    edges = {p: roster.neighbours(p) for p in range(n)}
    assert all(len(others) == degree for others in edges.values())
    assert all(a in edges[b] for a, others in edges.items() for b in others)
    for missing in range(n - 1):
        cases = [set(range(n)) - set(gone) for gone in itertools.combinations(range(n), missing)]
        apart = sum(not connected(left, edges) for left in cases) / len(cases)
        assert apart <= 2 ** make.bounds(n, degree, 2, 0, n - missing).apart + 1e-12
        assert apart == 0 or missing >= degree


@pytest.mark.parametrize(("n", "t", "x"), [(3, 2, 0), (4, 3, 0), (4, 3, 1), (5, 4, 1), (5, 4, 2)])
def test_a_server_that_shows_different_survivors_obtains_no_update_alone(n, t, x):
    """spec 11.3: at least two honest clients stay in the sum, and none loses both secrets."""
    assert 2 * t > n + x
    honest = range(n - x)
    lists = [
        [
            frozenset(gone)
            for size in range(n - t + 1)
            for gone in itertools.combinations(set(range(n)) - {i}, size)
        ]
        for i in honest
    ]
    for told in itertools.product(*lists):
        dropped = {u for u in honest if sum(u in gone for gone in told) + x >= t}
        alive = {u for u in honest if sum(u not in gone for gone in told) + x >= t}
        assert not dropped & alive
        assert len(honest) - len(dropped) >= 2
        assert len(dropped) <= (n - x) * (n - t) / (t - x)


def test_without_the_bound_both_secrets_can_be_had():
    """The test above would find it: two of four clients say one thing, two the other."""
    n, t = 4, 2
    told = [frozenset({3}), frozenset({3}), frozenset(), frozenset()]
    assert sum(3 in gone for gone in told) >= t
    assert sum(3 not in gone for gone in told) >= t
    assert 2 * t <= n

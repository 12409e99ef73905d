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


def subsets(things, least, most):
    things = sorted(things)
    sizes = range(max(least, 0), most + 1)
    return [frozenset(some) for size in sizes for some in itertools.combinations(things, size)]


def answers(n, t, i):
    """What a malicious server can make client i believe: whose boxes it has, and who of these dropped."""
    out = []
    for seen in subsets(set(range(n)) - {i}, t - 1, n - 1):
        out += [(seen, gone) for gone in subsets(seen, 0, len(seen) + 1 - t)]
    return out


def obtained(n, t, x, told):
    """The honest clients of which the server obtains b, and those of which it obtains s; x others collude."""
    honest = range(n - x)

    def votes(u, dropped):
        mine = 0 if dropped else 1  # a client takes itself for a survivor
        others = (told[j] for j in honest if j != u)
        return x + mine + sum(u in seen and (u in gone) == dropped for seen, gone in others)

    alive, gone = ({u for u in honest if votes(u, dropped) >= t} for dropped in (False, True))
    return alive, gone


def alone(n, x, told, alive, gone):
    """The clients whose update the server obtains alone: it has b, and s of all honest ones of the pads."""
    return {i for i in alive if all(j in gone for j in told[i][0] if j < n - x)}


@pytest.mark.parametrize(("n", "t", "x"), [(4, 3, 0), (4, 4, 1), (5, 4, 1)])
def test_a_malicious_server_obtains_no_update_alone(n, t, x):
    """spec 11.3: nobody loses both secrets, and sums have two honest clients or more, for all lies."""
    assert 2 * t > n + x
    assert (t - x) * (t - x - 1) > (n - x) * (n - t)
    for told in itertools.product(*(answers(n, t, i) for i in range(n - x))):
        alive, gone = obtained(n, t, x, told)
        assert not alive & gone
        assert not alone(n, x, told, alive, gone)
        assert len(gone) <= (n - x) * (n - t) / (t - x)


def test_the_attack_of_which_the_bound_protects():
    """Five clients, a threshold of 3: client 0 has boxes of 1 and 2 only, of which the server obtains s."""
    n, t = 5, 3
    everyone = [frozenset(range(n)) - {i} for i in range(n)]
    told = [
        (frozenset({1, 2}), frozenset()),
        (everyone[1], frozenset({2})),
        (everyone[2], frozenset({1})),
        (everyone[3], frozenset({1, 2})),
        (everyone[4], frozenset({1, 2})),
    ]
    assert all(each in answers(n, t, i) for i, each in enumerate(told))
    alive, gone = obtained(n, t, 0, told)
    assert 0 in alive
    assert gone == {1, 2}
    assert not alive & gone
    assert alone(n, 0, told, alive, gone) == {0}
    assert 2 * t > n
    assert t * (t - 1) <= n * (n - t)


def test_without_a_majority_both_secrets_can_be_had():
    n, t = 4, 2
    everyone = [frozenset(range(n)) - {i} for i in range(n)]
    told = [(everyone[i], frozenset({3} if i < 2 else ())) for i in range(n)]
    alive, gone = obtained(n, t, 0, told)
    assert 3 in alive & gone

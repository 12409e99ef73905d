"""The accountant, compared with enumerations of what a server sees of a few clients, and with real frames."""

import itertools
import json
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from secagg_cases import Cohort, frames_of

import fedmrn_codec as fm
from fedmrn_secagg import Accountant
from fedmrn_secagg.divergence import BLOCKS, ORDERS, binomial, excess

pytest.importorskip("dp_accounting", reason="the extra `privacy` is not installed")

DAMPINGS = [0.9, 0.5, 0.1, 0.01]
NOISE = fm.Bernoulli(0.01)


def schema_of(*sizes):
    return fm.Schema([fm.Tensor(f"w{i}", (size,), masked=True) for i, size in enumerate(sizes)])


def spent(clients, elements=1, rounds=1, **options):
    out = Accountant(schema_of(elements), **{"damping": 0.5, **options})
    out.spend(clients, rounds=rounds)
    return out


def law(probabilities):
    """The probabilities of the counts of set bits, by multiplication of polynomials."""
    out = np.ones(1)
    for p in probabilities:
        out = np.convolve(out, [1 - p, p])
    return out


def divergence(p, q, order):
    """The Renyi divergence of two distributions, given as arrays without zeros; also of many orders."""
    order = np.asarray(order)[..., None]
    logs = order * np.log(p) + (1 - order) * np.log(q)
    top = logs.max(-1, keepdims=True)
    return (np.log(np.exp(logs - top).sum(-1)) + top[..., 0]) / (order[..., 0] - 1)


def hockey_stick(p, q, epsilon):
    """The smallest delta for an epsilon."""
    return float(np.maximum(p - math.exp(epsilon) * q, 0).sum())


def ends(damping):
    return (1 - damping) / 2, (1 + damping) / 2


# --- one element, by enumeration -----------------------------------------------------------------------


@pytest.mark.parametrize("damping", DAMPINGS)
def test_no_probabilities_of_three_clients_exceed_the_bound(damping):
    low, high = ends(damping)
    grid = np.linspace(low, high, 7)
    bound = spent(3, damping=damping).divergences()
    worst = np.zeros(len(ORDERS))
    for p, q in itertools.product(grid, grid):
        for others in itertools.combinations_with_replacement(grid, 2):
            one, other = law([p, *others]), law([q, *others])
            worst = np.maximum(worst, divergence(one, other, ORDERS))
    assert (worst <= bound * (1 + 1e-9)).all()
    usual = np.isfinite(bound)
    assert usual.sum() > 30
    assert worst[usual] == pytest.approx(bound[usual], rel=1e-4 / damping)  # reached, but for `ROUNDING`


@pytest.mark.parametrize("clients", [1, 2, 5, 40, BLOCKS])
def test_a_few_clients_are_exact(clients):
    low, high = ends(0.5)
    laws = [law([high] * k + [low] * (clients - k)) for k in range(clients + 1)]
    want = np.max([divergence(p, q, ORDERS) for q, p in itertools.pairwise(laws)], axis=0)
    got = np.log1p(excess(clients, high).most) / (ORDERS - 1)
    usual = ORDERS <= 256
    assert got[usual] == pytest.approx(want[usual], rel=1e-7)
    assert (got >= want * (1 - 1e-9)).all()


def test_moments_are_those_of_rational_arithmetic():
    high, clients, orders = Fraction(5, 8), 12, (2, 5, 16, 64)
    laws = [rational_law([high] * k + [1 - high] * (clients - k)) for k in range(clients + 1)]
    got = excess(clients, float(high)).most
    for order in orders:
        moments = [
            sum(a**order / b ** (order - 1) for a, b in zip(p, q, strict=True)) - 1
            for q, p in itertools.pairwise(laws)
        ]
        assert got[list(ORDERS).index(order)] == pytest.approx(float(max(moments)), rel=1e-9)


def rational_law(probabilities):
    """As `law`, without rounding."""
    out = [Fraction(1)]
    for p in probabilities:
        out = [(1 - p) * a + p * b for a, b in zip([*out, 0], [0, *out], strict=True)]
    return out


@pytest.mark.parametrize("damping", DAMPINGS)
@pytest.mark.parametrize("clients", [3, 30])
def test_the_worst_others_are_not_those_with_fair_bits(clients, damping):
    """The largest divergence that is found is that of others who all send what p makes likely."""
    low, high = ends(damping)
    laws = [law([high] * k + [low] * (clients - k)) for k in range(clients + 1)]
    found = np.array([divergence(p, q, ORDERS) for q, p in itertools.pairwise(laws)])
    assert set(found.argmax(0)) == {clients - 1}
    fair = [0.5] * (clients - 1)
    assert (divergence(law([high, *fair]), law([low, *fair]), ORDERS) < found[-1]).all()


@pytest.mark.parametrize("clients", [BLOCKS + 1, 300, 301, 1000])
def test_many_clients_are_bounded_from_above_and_closely(clients):
    low, high = ends(0.5)
    got = excess(clients, high).most
    worst = np.zeros(len(ORDERS))
    for k in {0, 1, clients // 3, clients // 2, clients - 2, clients - 1}:
        others = np.convolve(binomial(k, high), binomial(clients - 1 - k, low))
        one, other = np.convolve(others, [low, high]), np.convolve(others, [high, low])
        with np.errstate(over="ignore"):
            worst = np.maximum(worst, [((one / other) ** order * other).sum() - 1 for order in ORDERS])
    usual = ORDERS <= 16
    assert (got >= worst * (1 - 1e-6)).all()
    assert (got[usual] <= worst[usual] * (1 + 20 / BLOCKS)).all()


def test_binomials_are_right_far_into_their_tails():
    got = binomial(400, 0.3)
    exact = rational_law([Fraction(3, 10)] * 400)
    want = np.array([float(p) for p in exact if p > 1e-200])
    assert got == pytest.approx(want, rel=1e-10)
    assert binomial(0, 0.3).tolist() == [1.0]


# --- more elements, and a norm -------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [0.9, 0.5])
def test_the_privacy_loss_of_two_elements_is_within_epsilon_and_delta(damping):
    """Three clients: exact deltas of all outcomes, for the worst probabilities and others."""
    low, high = ends(damping)
    accountant = spent(3, 2, damping=damping)
    pairs = [
        (law([p, *others]), law([q, *others]))
        for p, q in ((high, low), (low, high))
        for others in itertools.combinations_with_replacement([low, 0.5, high], 2)
    ]
    losses = {}
    for delta in (0.3, 0.1, 0.01, 1e-5):
        epsilon = accountant.epsilon(delta)
        losses[delta] = max(
            hockey_stick(np.outer(a, c).ravel(), np.outer(b, d).ravel(), epsilon)
            for (a, b), (c, d) in itertools.product(pairs, pairs)
        )
        assert losses[delta] <= delta
    assert losses[0.01] > 0  # outcomes beyond epsilon exist, so this can fail


def test_the_bound_is_not_much_larger_than_the_loss():
    """One element, 30 clients, 50 rounds: the exact epsilon of the worst case, by convolution of losses."""
    low, high = ends(0.5)
    p, q = law([high] * 30), law([high] * 29 + [low])
    rounds, delta, step = 50, 1e-3, 1e-3
    losses = np.rint(np.log(p / q) / step).astype(int)
    weights = np.bincount(losses - losses.min(), p)
    total = np.ones(1)
    for _ in range(rounds):
        total = np.convolve(total, weights)
    at = (np.arange(len(total)) + rounds * losses.min()) * step
    deltas = ((e, (total * np.maximum(1 - np.exp(e - at), 0)).sum()) for e in np.arange(0, 20, 0.01))
    exact = next(e for e, got in deltas if got <= delta)
    bound = spent(30, rounds=rounds).epsilon(delta)
    assert exact <= bound <= 1.35 * exact


@pytest.mark.parametrize(("damping", "reached"), [(0.9, 0.4), (0.25, 0.7)])
def test_no_change_within_the_norm_exceeds_the_bound(damping, reached):
    """Three elements, four clients: probabilities of the client at a distance of the norm."""
    rng = np.random.default_rng(3)
    low, high = ends(damping)
    found = np.zeros(len(ORDERS))
    norm = damping
    bound = spent(4, 3, damping=damping, norm=norm).divergences()
    without = spent(4, 3, damping=damping).divergences()
    for trial in range(400):
        direction = rng.normal(size=3) if trial % 2 else np.eye(3)[trial % 3] * rng.choice([-1.0, 1.0])
        length = norm * rng.choice([1.0, 0.1])  # of u / a; the probabilities change by half of it
        u = length * direction / np.linalg.norm(direction)
        mine, changed = (1 + np.clip(u, -damping, damping)) / 2, (1 - np.clip(u, -damping, damping)) / 2
        total = np.zeros(len(ORDERS))
        for p, q in zip(mine, changed, strict=True):
            others = rng.choice([low, high, rng.uniform(low, high)], 3)
            one, other = law([p, *others]), law([q, *others])
            total += divergence(one, other, ORDERS)
        found = np.maximum(found, total)
    assert (found <= bound * (1 + 1e-9)).all()
    assert found[7] > reached * bound[7]
    assert (bound <= without).all()
    assert bound[7] < 0.7 * without[7]


@pytest.mark.parametrize("damping", [0.9, 0.5, 0.1])
def test_the_excess_is_at_most_the_square_of_the_change(damping):
    """The lemma of docs/guides/differential_privacy.md, section 3, over probabilities inside the interval."""
    low, high = ends(damping)
    square = excess(5, high).square
    rng = np.random.default_rng(8)
    reached = np.zeros(len(ORDERS))
    for _ in range(2000):
        p, q = rng.uniform(low, high, 2) if rng.random() < 0.8 else rng.permutation([low, high])
        if abs(p - q) < 1e-3:
            continue
        others = rng.choice([low, high], 4)
        one, other = law([p, *others]), law([q, *others])
        with np.errstate(over="ignore"):
            moments = np.array([((one / other) ** order * other).sum() - 1 for order in ORDERS])
        reached = np.maximum(reached, moments / (p - q) ** 2)
    small = ORDERS <= 64
    assert (reached[small] <= square[small] * (1 + 1e-6)).all()
    assert reached[7] == pytest.approx(square[7], rel=0.01)


# --- frames --------------------------------------------------------------------------------------------


def counts_of(values, size, private_seed):
    """The counts of three clients' set bits, each with one value in all elements."""
    request = fm.Request(7, NOISE, "signed", 1, 0, schema_of(size))
    tally = fm.Tally(request.schema, seed=7, round=1)
    for i, value in enumerate(values):
        update = {"w0": np.full(size, value, np.float32)}
        tally.add(request.encode(update, private_seed=private_seed + i, damping=0.5))
    noise = fm.noise(NOISE, seed=7, stream=0, count=size)
    aggregator = request.aggregator()
    aggregator.add_tally(tally)
    mean = aggregator.mean()["w0"].astype(np.float64) / NOISE.scale
    assert set(np.sign(noise)) == {-1, 1}
    return np.rint(3 * (mean + 1) / 2).astype(int)


def test_counts_of_frames_have_the_privacy_loss_that_is_bounded():
    size = 2**18
    low, high = ends(0.5)
    laws = []
    for own, private in ((0.02, 2**40), (-0.02, 2**41)):
        counts = counts_of([own, -0.02, -0.02], size, private)
        laws.append(np.bincount(counts, minlength=4) / size)
    for got, own in zip(laws, (high, low), strict=True):
        assert got == pytest.approx(law([own, low, low]), abs=5 * 0.5 / math.sqrt(size))
    for delta in (0.3, 0.1):
        epsilon = spent(3).epsilon(delta)
        assert hockey_stick(*laws, epsilon) <= delta + 10 / math.sqrt(size)
    assert hockey_stick(*laws, 0.0) > 0.2


def request_of(schema=None, noise=NOISE, mask="signed"):
    return fm.Request(7, noise, mask, 1, 0, schema or schema_of(12))


def test_the_server_of_a_round_is_counted_with_its_survivors():
    request = request_of()
    cohort = Cohort(request, frames_of(request, range(1, 6)), threshold=3)
    accountant, wanted = (Accountant(request.schema, damping=0.5, colluding=1) for _ in range(2))
    with pytest.raises(fm.ArgumentError, match=r"^survivors: expected a server after masked"):
        accountant.spend(cohort.server)
    cohort.play(last={2: 2}, until=3)
    accountant.spend(cohort.server)
    wanted.spend(4)
    assert accountant.to_json() == wanted.to_json()
    assert accountant.epsilon(1e-5) == wanted.epsilon(1e-5) > 0
    assert accountant.epsilon(1e-5) == spent(3, 12).epsilon(1e-5)  # one of the four colludes


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"schema": schema_of(13)}, "of the accountant's schema, got another schema"),
        ({"mask": "binary"}, "of signed masks, got binary ones"),
        ({"noise": fm.Uniform(0.01)}, "of Bernoulli noise, got Uniform"),
        ({"noise": {"w0": fm.Gaussian(0.01)}}, "of Bernoulli noise, got Gaussian"),
        ({"weight": 2}, "whose largest weight is 1, got 2"),
    ],
)
def test_a_round_that_the_bound_does_not_hold_for_is_refused(options, got):
    weight = options.pop("weight", 1)
    request = request_of(**options)
    cohort = Cohort(request, frames_of(request, range(1, 4)), threshold=2, largest_weight=weight)
    cohort.play(until=3)
    accountant = Accountant(schema_of(12), damping=0.5)
    with pytest.raises(fm.ArgumentError, match=f"^survivors: expected a server {got}"):
        accountant.spend(cohort.server)
    assert accountant.rounds == 0


# --- the object ----------------------------------------------------------------------------------------


def test_epsilon_grows_and_shrinks_as_it_must():
    base = spent(100, 50).epsilon(1e-5)
    assert spent(200, 50).epsilon(1e-5) < base < spent(50, 50).epsilon(1e-5)
    assert spent(100, 60).epsilon(1e-5) > base
    assert spent(100, 50, damping=0.6).epsilon(1e-5) > base > spent(100, 50, damping=0.4).epsilon(1e-5)
    assert spent(100, 50, rounds=2).epsilon(1e-5) > base > spent(100, 50).epsilon(1e-3)
    assert spent(100, 50, norm=0.2).epsilon(1e-5) < base == spent(100, 50, norm=1e6).epsilon(1e-5)
    assert spent(100, 50, colluding=50).epsilon(1e-5) == spent(50, 50).epsilon(1e-5)
    assert spent(100, 10**12, damping=0.99).epsilon(1e-5) > 1e6


def test_rounds_add_up_in_any_order():
    one, other = (Accountant(schema_of(5), damping=0.5) for _ in range(2))
    assert one.epsilon(0.1) == 0
    for survivors in (10, 20, 10):
        one.spend(survivors)
    other.spend(20)
    other.spend(10, rounds=2)
    other.spend(10, rounds=0)
    assert one.rounds == other.rounds == 3
    assert one.epsilon(1e-5) == other.epsilon(1e-5)
    assert one.divergences() == pytest.approx(2 * spent(10, 5).divergences() + spent(20, 5).divergences())
    assert repr(one) == "Accountant(damping=0.5, 3 rounds)"


def test_the_state_survives():
    accountant = Accountant(schema_of(5, 6), damping=0.3, norm=0.5, colluding=2)
    accountant.spend(10)
    accountant.spend(12, rounds=30)
    state = json.loads(json.dumps(accountant.to_json()))
    again = Accountant.from_json(state)
    assert again.epsilon(1e-5) == accountant.epsilon(1e-5)
    assert again.to_json() == accountant.to_json()
    assert repr(again) == "Accountant(damping=0.3, norm=0.5, 31 rounds)"
    again.spend(10)
    assert again.rounds == accountant.rounds + 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"version": 2}, "state of Accountant: expected one of version 1, got 2"),
        ({"damping": None}, "damping: expected a finite number above 0"),
        ({"schema": "x"}, ""),
        ({"rounds": [[2, 1]]}, "survivors: expected more than 2, who collude, got 2"),
        ({"rounds": [[10]]}, "state of Accountant: expected what to_json gave"),
        ({"rounds": 5}, "state of Accountant: expected what to_json gave"),
        ({"rounds": [["10", 1]]}, "survivors: expected an integer"),
        ({"rounds": [[10, -1]]}, "rounds: expected 0 to"),
    ],
)
def test_a_state_that_is_none_is_refused(change, match):
    state = Accountant(schema_of(5), damping=0.3, colluding=2).to_json()
    with pytest.raises(fm.CodecError, match=f"^{match}"):
        Accountant.from_json(state | change)
    with pytest.raises(fm.CodecError, match=r"^state of Accountant: expected "):
        Accountant.from_json({name: value for name, value in state.items() if name != next(iter(change))})


@pytest.mark.parametrize("state", [None, [], "x"])
def test_a_state_of_another_type_is_refused(state):
    with pytest.raises(fm.ArgumentError, match=r"^state of Accountant: expected one of version 1, got "):
        Accountant.from_json(state)


@pytest.mark.parametrize("damping", [0, 1, 0.9995, -0.5, float("nan"), True, None, "0.5"])
def test_a_damping_that_protects_nobody_is_refused(damping):
    with pytest.raises(fm.ArgumentError, match=r"^damping: expected a finite number .* at most 0\.999, got "):
        Accountant(schema_of(5), damping=damping)


@pytest.mark.parametrize(
    "norm",
    [
        0,
        -1,
        float("inf"),
        float("nan"),
        True,
        "1",
        pytest.param(10**400, id="10^400"),
        pytest.param(10**5000, id="10^5000"),
    ],
)
def test_a_norm_that_is_none_is_refused(norm):
    with pytest.raises(fm.ArgumentError, match=r"^norm: expected a finite number above 0, got "):
        Accountant(schema_of(5), damping=0.5, norm=norm)


@pytest.mark.parametrize("delta", [0, 0.51, 1, -1e-5, float("nan"), None])
def test_a_delta_that_is_none_is_refused(delta):
    with pytest.raises(
        fm.ArgumentError, match=r"^delta: expected a finite number above 0 and at most 0\.5, got "
    ):
        spent(10).epsilon(delta)


@pytest.mark.parametrize("survivors", [0, 3, -1, 4.5, None, "7"])
def test_survivors_that_are_too_few_are_refused(survivors):
    accountant = Accountant(schema_of(5), damping=0.5, colluding=3)
    with pytest.raises(fm.ArgumentError, match=r"^survivors: expected "):
        accountant.spend(survivors)
    assert accountant.rounds == 0


def test_dense_tensors_are_refused():
    schema = fm.Schema([fm.Tensor("w", (5,), masked=True), fm.Tensor("norm.mean", (3,))])
    match = r"^schema: expected no dense tensors, whose sums have no noise, got \['norm\.mean'\]$"
    with pytest.raises(fm.ArgumentError, match=match):
        Accountant(schema, damping=0.5)
    with pytest.raises(fm.ArgumentError, match=r"^schema: expected masked elements, got none"):
        Accountant(fm.Schema([fm.Tensor("empty", (0,))]), damping=0.5)
    with pytest.raises(fm.ArgumentError, match=r"^schema: expected a Schema, got list"):
        Accountant([], damping=0.5)


def test_the_package_for_epsilons_is_imported_when_it_is_needed(monkeypatch):
    code = "import sys, fedmrn_secagg; print([n for n in sys.modules if n.startswith(('dp_acc', 'scipy'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    monkeypatch.setitem(sys.modules, "dp_accounting.rdp", None)
    with pytest.raises(ImportError, match="extra `privacy`"):
        spent(10).epsilon(1e-5)

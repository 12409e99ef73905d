from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_fl import partition

SEEDS = st.integers(0, 2**64 - 1)
ALPHAS = st.floats(-6, 3).map(lambda exponent: 10**exponent)
LABELS = st.lists(st.integers(-1, 6), min_size=1, max_size=200).map(np.array)
FASHION = np.repeat(np.arange(10), 6000)  # the label counts of Fashion-MNIST


def check_cover(parts, samples, clients):
    """Every sample in exactly one part, every part int64 and ascending."""
    assert len(parts) == clients
    for part in parts:
        assert part.dtype == np.int64
        assert all(a < b for a, b in pairwise(part.tolist()))
    assert sorted(np.concatenate(parts).tolist()) == list(range(samples))


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@given(labels=LABELS, seed=SEEDS, picked=st.data())
def test_iid(labels, seed, picked):
    clients = picked.draw(st.integers(1, len(labels)))
    before = labels.copy()
    parts = partition.iid(labels, clients, seed)
    check_cover(parts, len(labels), clients)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert same(parts, partition.iid(labels, clients, seed))
    assert np.array_equal(labels, before)


@given(labels=LABELS, seed=SEEDS, alpha=ALPHAS, min_size=st.integers(1, 4), picked=st.data())
def test_dirichlet(labels, seed, alpha, min_size, picked):
    clients = picked.draw(st.integers(1, max(1, len(labels) // 8)))
    if len(labels) < clients * min_size:
        return
    try:
        parts = partition.dirichlet(labels, clients, seed, alpha=alpha, min_size=min_size)
    except ValueError as error:
        if "draws" not in str(error):  # a very small alpha can put min_size out of reach
            raise
        return
    check_cover(parts, len(labels), clients)
    assert min(map(len, parts)) >= min_size
    assert same(parts, partition.dirichlet(labels, clients, seed, alpha=alpha, min_size=min_size))


@given(seed=SEEDS, alpha=ALPHAS, clients=st.integers(1, 20), labels=LABELS)
def test_dirichlet_gives_a_full_client_no_more_samples(seed, alpha, clients, labels):
    parts = partition._dirichlet_draw(labels, clients, alpha, np.random.default_rng(seed))
    check_cover(parts, len(labels), clients)
    for part in parts:
        counts = [np.count_nonzero(labels[part] == label) for label in np.unique(labels)]
        before_last = sum(counts) - next((count for count in reversed(counts) if count), 0)
        assert before_last * clients < len(labels)  # it was below the mean when it got its last share


@given(repeats=st.lists(st.integers(4, 40), min_size=1, max_size=7), seed=SEEDS, picked=st.data())
def test_labels_per_client(repeats, seed, picked):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(repeats)), repeats))
    distinct, counts = np.unique(labels, return_counts=True)
    k = picked.draw(st.integers(1, len(distinct)))
    least = -(-len(distinct) // k)
    most = int(counts.min()) * len(distinct) // k  # then no label is held by more clients than it has samples
    clients = picked.draw(st.integers(least, most))
    parts = partition.labels_per_client(labels, clients, seed, k=k)
    check_cover(parts, len(labels), clients)
    shares = {label: [] for label in distinct.tolist()}
    for part in parts:
        held, sizes = np.unique(labels[part], return_counts=True)
        assert len(held) == k
        for label, size in zip(held.tolist(), sizes.tolist(), strict=True):
            shares[label].append(size)
    holders = [len(sizes) for sizes in shares.values()]
    assert max(holders) - min(holders) <= 1
    assert all(max(sizes) - min(sizes) <= 1 for sizes in shares.values())
    assert same(parts, partition.labels_per_client(labels, clients, seed, k=k))


@settings(max_examples=10)
@given(seed=SEEDS)
def test_the_protocol_of_the_paper(seed):
    parts = partition.iid(FASHION, 100, seed)
    assert {len(part) for part in parts} == {600}
    parts = partition.dirichlet(FASHION, 100, seed, alpha=0.3)
    check_cover(parts, 60000, 100)
    assert min(map(len, parts)) >= 10
    parts = partition.labels_per_client(FASHION, 100, seed, k=3)
    assert {len(part) for part in parts} == {600}


def test_dirichlet_draws_again_until_every_client_has_enough():
    one_draw = [
        min(map(len, partition._dirichlet_draw(FASHION, 100, 0.1, np.random.default_rng(seed))))
        for seed in range(5)
    ]
    assert min(one_draw) < 10
    for seed in range(5):
        assert min(map(len, partition.dirichlet(FASHION, 100, seed, alpha=0.1))) >= 10


def test_dirichlet_with_all_mass_on_full_clients():
    labels = np.repeat([0, 1, 2], 50)
    for seed in range(20):  # a warning would be an error: 0 / 0
        parts = partition._dirichlet_draw(labels, 3, 1e-6, np.random.default_rng(seed))
        check_cover(parts, 150, 3)


def test_remainders_go_to_random_clients():
    labels = np.repeat([0, 1], 5)  # 5 of each label for 2 clients: 3 + 2
    sizes = {tuple(map(len, partition.labels_per_client(labels, 2, seed, k=2))) for seed in range(20)}
    assert sizes == {(6, 4), (5, 5), (4, 6)}


def test_alpha_sets_the_skew():
    def mean_of_largest_share(alpha):
        parts = partition.dirichlet(FASHION, 100, 5, alpha=alpha)
        return np.mean([np.bincount(FASHION[part]).max() / len(part) for part in parts])

    assert mean_of_largest_share(0.1) > mean_of_largest_share(0.3) > mean_of_largest_share(100) + 0.2


def test_seeds_differ_and_a_generator_moves_on():
    for split in (
        partition.iid,
        lambda *args: partition.dirichlet(*args, alpha=0.3),
        lambda *args: partition.labels_per_client(*args, k=3),
    ):
        assert not same(split(FASHION, 10, 1), split(FASHION, 10, 2))
        rng = np.random.default_rng(1)
        first, second = split(FASHION, 10, rng), split(FASHION, 10, rng)
        assert same(first, split(FASHION, 10, 1))
        assert not same(first, second)


def test_global_random_state_is_left_alone():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    partition.dirichlet(FASHION, 10, 1, alpha=0.3)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_takes_tensors_and_lists():
    labels = [0, 1, 1, 0, 2, 2]
    want = partition.labels_per_client(np.array(labels), 3, 4, k=1)
    assert same(want, partition.labels_per_client(labels, 3, 4, k=1))
    assert same(want, partition.labels_per_client(torch.tensor(labels), 3, 4, k=1))


TEN = np.arange(10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: partition.iid(TEN, 0, 1), r"clients: expected 1\.\.10 .*, got 0"),
        (lambda: partition.iid(TEN, 11, 1), r"clients: expected 1\.\.10 .*, got 11"),
        (
            lambda: partition.iid(TEN.reshape(2, 5), 2, 1),
            r"labels: expected a vector of integers, got int64 of shape \(2, 5\)",
        ),
        (
            lambda: partition.iid(TEN / 2, 2, 1),
            r"labels: expected a vector of integers, got float64 of shape \(10,\)",
        ),
        (
            lambda: partition.iid([], 1, 1),
            r"labels: expected a vector of integers, got float64 of shape \(0,\)",
        ),
        (
            lambda: partition.dirichlet(FASHION, 100, 1, alpha=0),
            "alpha: expected a finite number above 0, got 0",
        ),
        (
            lambda: partition.dirichlet(FASHION, 100, 1, alpha=float("nan")),
            "alpha: expected a finite number above 0, got nan",
        ),
        (
            lambda: partition.dirichlet(FASHION, 100, 1, alpha=1, min_size=0),
            "min_size: expected at least 1, got 0",
        ),
        (
            lambda: partition.dirichlet(TEN, 2, 1, alpha=1),
            "samples: expected at least 20 for 2 clients of at least 10, got 10",
        ),
        (
            lambda: partition.dirichlet(np.zeros(99, int), 5, 1, alpha=1e-3),
            "samples of the smallest client, .*: expected 10, got at most 0 .*; use a larger alpha",
        ),
        (
            lambda: partition.labels_per_client(TEN, 3, 1, k=0),
            r"labels per client: expected 1\.\.10 .*, got 0",
        ),
        (
            lambda: partition.labels_per_client(TEN, 3, 1, k=11),
            r"labels per client: expected 1\.\.10 .*, got 11",
        ),
        (
            lambda: partition.labels_per_client(TEN, 3, 1, k=3),
            "distinct labels: expected at most 9 for 3 clients of 3 labels, got 10",
        ),
        (
            lambda: partition.labels_per_client(TEN, 10, 1, k=2),
            "samples of label [0-9]: expected at least 2, .*, got 1",
        ),
    ],
)
def test_impossible_splits_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_by_group():
    groups = [0, 0, 2, 3, 3, 3, 7]
    assert [part.tolist() for part in partition.by_group(groups, 4)] == [[0, 1], [2], [3, 4, 5], [6]]
    assert [part.tolist() for part in partition.by_group(groups, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert partition.by_group(groups, 1)[0].dtype == np.int64


@pytest.mark.parametrize("clients", [0, 5])
def test_by_group_refuses(clients):
    with pytest.raises(ValueError, match=rf"clients: expected 1\.\.4 \(groups of the data\), got {clients}"):
        partition.by_group([0, 0, 2, 3, 7], clients)

"""Splits of a training set among clients: IID, Dirichlet label skew, labels per client, natural groups.

All are pure functions from labels to index arrays. Every sample goes to exactly one client, every client gets
at least one sample, and the same arguments give the same split. The protocol is that of the main experiments
of Li et al., ACM MM 2024.
"""

from __future__ import annotations

import math
import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]
Seed = int | np.random.Generator

MAX_DRAWS = 1000  # Dirichlet: draws before the minimum size is considered out of reach


def iid(labels: ArrayLike, clients: int, seed: Seed) -> list[Indices]:
    """Deal the samples to the clients at random; sizes differ by one at most.

    Parameters
    ----------
    labels : array_like
        Integers, shape (samples,). Only their number is used.
    clients : int
        Number of clients, 1..samples.
    seed : int or numpy.random.Generator
        Seed or source of the random numbers.

    Returns
    -------
    list of numpy.ndarray
        int64 sample indices, ascending, one array for each client.

    Raises
    ------
    ValueError
        The labels are not a vector of integers, or `clients` is not in 1..samples.
    """
    values = _checked_labels(labels, clients)
    order = np.random.default_rng(seed).permutation(len(values))
    return [np.sort(part).astype(np.int64) for part in np.array_split(order, clients)]


def dirichlet(
    labels: ArrayLike, clients: int, seed: Seed, *, alpha: float, min_size: int = 10
) -> list[Indices]:
    """Label skew: each class is divided by proportions drawn from a symmetric Dirichlet distribution.

    The classes are divided one after the other. Clients that have reached the mean size get no more samples:
    their proportions are set to zero, and the others are scaled to a sum of one. The whole draw is repeated
    until every client has `min_size` samples.

    Parameters
    ----------
    labels, clients, seed
        As in `iid`.
    alpha : float
        Concentration, finite, > 0. Small values give skewed splits, large values approach IID.
    min_size : int
        The minimum number of samples of a client, at least 1.

    Raises
    ------
    ValueError
        As in `iid`; alpha or min_size is out of range; fewer than clients * min_size samples; or none of
        `MAX_DRAWS` draws gave every client `min_size` samples.
    """
    values = _checked_labels(labels, clients)
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha: expected a finite number above 0, got {alpha}")
    if operator.index(min_size) < 1:
        raise ValueError(f"min_size: expected at least 1, got {min_size}")
    if len(values) < clients * min_size:
        raise ValueError(
            f"samples: expected at least {clients * min_size} for {clients} clients of at least {min_size}, "
            f"got {len(values)}; use fewer clients or a smaller min_size"
        )
    rng = np.random.default_rng(seed)
    smallest = 0
    for _ in range(MAX_DRAWS):
        parts = _dirichlet_draw(values, clients, alpha, rng)
        smallest = max(smallest, min(map(len, parts)))
        if smallest >= min_size:
            return parts
    raise ValueError(
        f"samples of the smallest client, for Dirichlet({alpha}), {len(values)} samples, {clients} clients: "
        f"expected {min_size}, got at most {smallest} in {MAX_DRAWS} draws; "
        "use a larger alpha, fewer clients or a smaller min_size"
    )


def _dirichlet_draw(
    values: NDArray[np.integer], clients: int, alpha: float, rng: np.random.Generator
) -> list[Indices]:
    held: list[list[Indices]] = [[] for _ in range(clients)]
    sizes = np.zeros(clients, np.int64)
    for label in np.unique(values):
        members = rng.permutation(np.flatnonzero(values == label))
        proportions = rng.dirichlet(np.full(clients, alpha))
        # "Below the mean", in integers. Some samples are not dealt yet, so at least one client is below it.
        takers = np.flatnonzero(sizes * clients < len(values))
        shares = proportions[takers]
        # With a tiny alpha, full clients can have all the proportions: the others then share equally.
        shares = shares / shares.sum() if shares.sum() > 0 else np.full(len(takers), 1 / len(takers))
        cuts = (np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for client, part in zip(takers, np.split(members, cuts), strict=True):
            held[client].append(part)
            sizes[client] += len(part)
    return [np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64) for parts in held]


def labels_per_client(labels: ArrayLike, clients: int, seed: Seed, *, k: int) -> list[Indices]:
    """Label count: every client holds samples of exactly `k` labels.

    The labels are dealt so that the numbers of clients that hold each label differ by one at most. The
    samples of a label are divided evenly among these clients; the remainder goes, one sample each, to clients
    drawn at random. Every sample is dealt, and the shares of a label differ by one sample at most.

    Parameters
    ----------
    labels, clients, seed
        As in `iid`.
    k : int
        Labels per client, 1..number of distinct labels.

    Raises
    ------
    ValueError
        As in `iid`; k is out of range; clients * k is less than the number of labels; or a label has fewer
        samples than clients that hold it.
    """
    values = _checked_labels(labels, clients)
    distinct = np.unique(values)
    if not 1 <= operator.index(k) <= len(distinct):
        raise ValueError(f"labels per client: expected 1..{len(distinct)} (distinct labels), got {k}")
    if clients * k < len(distinct):
        raise ValueError(
            f"distinct labels: expected at most {clients * k} for {clients} clients of {k} labels, "
            f"got {len(distinct)}; use more clients or more labels per client"
        )
    rng = np.random.default_rng(seed)
    holders = _deal_labels(len(distinct), clients, k, rng)
    held: list[list[Indices]] = [[] for _ in range(clients)]
    for label, who in zip(distinct, holders, strict=True):
        members = rng.permutation(np.flatnonzero(values == label))
        if len(members) < len(who):
            raise ValueError(
                f"samples of label {label}: expected at least {len(who)}, one for each of its clients, "
                f"got {len(members)}; use fewer clients or fewer labels per client"
            )
        # array_split gives the remainder to the first parts; the order of the clients is random.
        for client, part in zip(rng.permutation(who), np.array_split(members, len(who)), strict=True):
            held[client].append(part)
    return [np.sort(np.concatenate(parts)) for parts in held]


def _deal_labels(distinct: int, clients: int, k: int, rng: np.random.Generator) -> list[list[int]]:
    """Clients by label: each client gets the k labels that the fewest clients hold so far, ties at random."""
    holders: list[list[int]] = [[] for _ in range(distinct)]
    for client in range(clients):
        counts = [len(who) for who in holders]
        for label in np.lexsort((rng.random(distinct), np.array(counts)))[:k]:
            holders[label].append(client)
    return holders


def by_group(groups: ArrayLike, clients: int) -> list[Indices]:
    """Natural clients: each group of samples goes to one client as a whole.

    Each client gets consecutive groups; their numbers differ by one at most. No random numbers are used.

    Parameters
    ----------
    groups : array_like
        Integers, shape (samples,): the group of each sample, ascending.
    clients : int
        Number of clients, 1..distinct groups.

    Raises
    ------
    ValueError
        The groups are not a vector of integers, or `clients` is not in 1..distinct groups.
    """
    values = _checked_labels(groups, 1)
    distinct = np.unique(values)
    if not 1 <= operator.index(clients) <= len(distinct):
        raise ValueError(f"clients: expected 1..{len(distinct)} (groups of the data), got {clients}")
    return [
        np.flatnonzero(np.isin(values, part)).astype(np.int64) for part in np.array_split(distinct, clients)
    ]


def _checked_labels(labels: ArrayLike, clients: int) -> NDArray[np.integer]:
    values = np.asarray(labels)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"labels: expected a vector of integers, got {values.dtype} of shape {values.shape}")
    if not 1 <= operator.index(clients) <= len(values):
        raise ValueError(f"clients: expected 1..{len(values)} (at least one sample each), got {clients}")
    return values

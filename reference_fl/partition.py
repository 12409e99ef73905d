"""Splits of a training set among clients: IID, Dirichlet label skew, labels a client, the data's own groups.

Pure functions from labels to index arrays. Every sample goes to exactly one client and every client gets at
least one; the same arguments give the same split. Protocol: Li et al., ACM MM 2024, main experiments.
"""

from __future__ import annotations

import math
import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]
Seed = int | np.random.Generator

MAX_DRAWS = 1000  # Dirichlet: draws before the smallest size is held to be out of reach


def iid(labels: ArrayLike, clients: int, seed: Seed) -> list[Indices]:
    """Deal the samples at random; sizes differ by one at most.

    Parameters
    ----------
    labels : array_like
        Integers, shape (samples,). Only their number matters here.
    clients : int
        How many parts, 1..samples.
    seed : int or numpy.random.Generator
        Where the randomness comes from.

    Returns
    -------
    list of numpy.ndarray
        int64 sample indices, ascending, one array a client.

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
    """Label skew: each class is shared out by proportions drawn from a symmetric Dirichlet distribution.

    Class after class, the proportions of the clients that have reached the mean size are set to zero and the
    rest scaled to one, so that such a client takes no more. The whole draw is repeated until every client has
    `min_size` samples.

    Parameters
    ----------
    labels : array_like
        Integers, shape (samples,).
    clients : int
        How many parts, 1..samples.
    seed : int or numpy.random.Generator
        Where the randomness comes from.
    alpha : float
        Concentration, finite, > 0; small is skewed, large approaches IID.
    min_size : int
        The fewest samples a client may have, at least 1.

    Returns
    -------
    list of numpy.ndarray
        int64 sample indices, ascending, one array a client.

    Raises
    ------
    ValueError
        As `iid`; alpha or min_size out of range; fewer than clients * min_size samples; or no draw out of
        `MAX_DRAWS` gave every client its `min_size`.
    """
    values = _checked_labels(labels, clients)
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha: found {alpha}, required finite and > 0")
    if operator.index(min_size) < 1:
        raise ValueError(f"min_size: found {min_size}, required at least 1")
    if len(values) < clients * min_size:
        raise ValueError(
            f"{clients} clients of at least {min_size} samples need {clients * min_size}: "
            f"found {len(values)}; take fewer clients or a smaller min_size"
        )
    rng = np.random.default_rng(seed)
    smallest = 0
    for _ in range(MAX_DRAWS):
        parts = _dirichlet_draw(values, clients, alpha, rng)
        smallest = max(smallest, min(map(len, parts)))
        if smallest >= min_size:
            return parts
    raise ValueError(
        f"Dirichlet({alpha}) of {len(values)} samples over {clients} clients: in {MAX_DRAWS} draws "
        f"the smallest client had {smallest} at best, required {min_size}; "
        "take a larger alpha, fewer clients or a smaller min_size"
    )


def _dirichlet_draw(
    values: NDArray[np.integer], clients: int, alpha: float, rng: np.random.Generator
) -> list[Indices]:
    held: list[list[Indices]] = [[] for _ in range(clients)]
    sizes = np.zeros(clients, np.int64)
    for label in np.unique(values):
        members = rng.permutation(np.flatnonzero(values == label))
        proportions = rng.dirichlet(np.full(clients, alpha))
        # "Below the mean" in integers. Samples are left over, so at least one client is below it.
        takers = np.flatnonzero(sizes * clients < len(values))
        shares = proportions[takers]
        # With a tiny alpha all the mass can sit on clients that are full: then share evenly.
        shares = shares / shares.sum() if shares.sum() > 0 else np.full(len(takers), 1 / len(takers))
        cuts = (np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for client, part in zip(takers, np.split(members, cuts), strict=True):
            held[client].append(part)
            sizes[client] += len(part)
    return [np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64) for parts in held]


def labels_per_client(labels: ArrayLike, clients: int, seed: Seed, *, k: int) -> list[Indices]:
    """Label count: every client holds samples of exactly `k` labels.

    Labels are dealt so that the numbers of clients that hold each differ by one at most. The samples of a
    label are shared evenly among its holders; what does not divide goes one each to holders drawn at random,
    so no sample is left over and the sizes of two shares of a label differ by one at most.

    Parameters
    ----------
    labels : array_like
        Integers, shape (samples,).
    clients : int
        How many parts, 1..samples.
    seed : int or numpy.random.Generator
        Where the randomness comes from.
    k : int
        Labels a client, 1..number of distinct labels.

    Returns
    -------
    list of numpy.ndarray
        int64 sample indices, ascending, one array a client.

    Raises
    ------
    ValueError
        As `iid`; k out of range; clients * k labels do not cover every label; or a label has fewer samples
        than holders.
    """
    values = _checked_labels(labels, clients)
    distinct = np.unique(values)
    if not 1 <= operator.index(k) <= len(distinct):
        raise ValueError(f"labels per client: found {k}, required 1..{len(distinct)} (distinct labels)")
    if clients * k < len(distinct):
        raise ValueError(
            f"{clients} clients of {k} labels hold {clients * k} at most: found {len(distinct)} labels, "
            "and every sample needs a client; take more clients or labels per client"
        )
    rng = np.random.default_rng(seed)
    holders = _deal_labels(len(distinct), clients, k, rng)
    held: list[list[Indices]] = [[] for _ in range(clients)]
    for label, who in zip(distinct, holders, strict=True):
        members = rng.permutation(np.flatnonzero(values == label))
        if len(members) < len(who):
            raise ValueError(
                f"label {label} is held by {len(who)} clients but has {len(members)} samples; "
                "take fewer clients or labels per client"
            )
        # array_split gives the remainder to the first parts; the order of the holders is random.
        for client, part in zip(rng.permutation(who), np.array_split(members, len(who)), strict=True):
            held[client].append(part)
    return [np.sort(np.concatenate(parts)) for parts in held]


def _deal_labels(distinct: int, clients: int, k: int, rng: np.random.Generator) -> list[list[int]]:
    """The clients that hold each label: each client takes the k labels held least so far, ties at random."""
    holders: list[list[int]] = [[] for _ in range(distinct)]
    for client in range(clients):
        counts = [len(who) for who in holders]
        for label in np.lexsort((rng.random(distinct), np.array(counts)))[:k]:
            holders[label].append(client)
    return holders


def by_group(groups: ArrayLike, clients: int) -> list[Indices]:
    """Natural clients: each group of samples goes to one client as a whole.

    With as many clients as groups each has one; with fewer, each has a run of consecutive groups, and the
    numbers of groups differ by one at most. No randomness.

    Parameters
    ----------
    groups : array_like
        Integers, shape (samples,): the group of each sample, ascending.
    clients : int
        How many parts, 1..distinct groups.

    Returns
    -------
    list of numpy.ndarray
        int64 sample indices, ascending, one array a client.

    Raises
    ------
    ValueError
        The groups are not a vector of integers, or `clients` is not in 1..distinct groups.
    """
    values = _checked_labels(groups, 1)
    distinct = np.unique(values)
    if not 1 <= operator.index(clients) <= len(distinct):
        raise ValueError(f"clients: found {clients}, required 1..{len(distinct)} (groups of the data)")
    return [
        np.flatnonzero(np.isin(values, part)).astype(np.int64) for part in np.array_split(distinct, clients)
    ]


def _checked_labels(labels: ArrayLike, clients: int) -> NDArray[np.integer]:
    values = np.asarray(labels)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        found = f"{values.dtype} of shape {values.shape}"
        raise ValueError(f"labels: found {found}, required a vector of integers")
    if not 1 <= operator.index(clients) <= len(values):
        raise ValueError(f"clients: found {clients}, required 1..{len(values)} (one sample each at least)")
    return values

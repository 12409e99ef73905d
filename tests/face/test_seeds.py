"""choose_seed: random, derived and chosen seeds (spec 11.5)."""

import hashlib

import pytest

import fedmrn_codec as fm


def test_seeds_are_unpredictable_and_differ():
    seeds = {fm.choose_seed(None, 1, "a") for _ in range(100)}
    assert len(seeds) == 100
    assert max(seeds) > 2**60


def test_a_random_seed_that_is_taken_is_drawn_again(monkeypatch):
    numbers = iter([5, 6, 7])
    monkeypatch.setattr("fedmrn_codec.face.seeds.secrets.randbelow", lambda _: next(numbers))
    assert fm.choose_seed(None, 1, "a", {5, 6}) == 7


def test_derived_seeds():
    """The rule of the docstring, computed here."""
    digest = hashlib.sha256(b"fedmrn 5 3 site-1").digest()
    assert fm.choose_seed(5, 3, "site-1") == int.from_bytes(digest[:8], "little")
    with pytest.raises(
        fm.ArgumentError, match=r"^round: expected at least 1, since the seeds are derived from it, got 0$"
    ):
        fm.choose_seed(5, 0, "site-1")


def test_seeds_of_the_callers_choice():
    assert fm.choose_seed(lambda round, client: 100 * round + client, 2, 3) == 203
    with pytest.raises(
        fm.ArgumentError, match=r"^seed: expected a seed that no other client of this round has, got 203$"
    ):
        fm.choose_seed(lambda round, client: 100 * round + client, 2, 3, {203})
    for bad, expected in (
        (-1, r"0 to 2\^64 - 1"),
        (2**64, r"0 to 2\^64 - 1"),
        (1.0, "an integer"),
        (None, "an integer"),
    ):
        with pytest.raises(fm.ArgumentError, match=rf"^seed: expected {expected}, got {bad}$"):
            fm.choose_seed(lambda *_, bad=bad: bad, 1, "a")

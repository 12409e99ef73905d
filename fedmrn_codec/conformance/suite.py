"""All checks, in the order of building an implementation: the first failure is to be fixed first."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from . import extras, large, many, protocol, replay, state, tally_vectors
from .check import Check
from .program import CommandTarget
from .request import PROFILES
from .target import Target


def checks(
    profiles: Collection[str] = tuple(PROFILES),
    *,
    examples: int = 0,
    seed: int = 0,
    only: Collection[str] = (),
) -> list[Check]:
    """The checks of some profiles.

    Parameters
    ----------
    profiles : collection of str
    examples : int
        The number of generated cases for each property; with 0 Hypothesis is not imported.
    seed : int
        The seed of the generated cases.
    only : collection of str
        Patterns of ids, as in a shell; without any, all checks are taken.
    """
    steps: list[tuple[Iterable[Check], tuple[str, ...]]] = [
        (replay.words(), ()),
        (many.words(), ("generated/words",)),
        (replay.noise(), ()),
        (many.noise(), ()),
        (extras.noises(), ("generated/noise",)),
        (replay.digests(), ("generated/schemas",)),  # before masks, which are tested in frames
        (replay.masks(), ()),
        (large.checks(), ()),
        (replay.frames(), ("generated/frames", "generated/coded-frames", "generated/grid-frames")),
        (replay.refusals(), ()),
        (many.frames(), ()),
        (
            extras.frames(),
            ("generated/hostile-frames", "generated/hostile-codings", "generated/hostile-grids"),
        ),
        (replay.samples(), ()),
        (many.samples(), ()),
        (extras.samples(), ("generated/samples",)),
        (replay.encodings(), ()),
        (large.encodings(), ()),
        (extras.grids(), ()),
        (extras.updates(), ("generated/encodings", "generated/codings", "generated/grid-encodings")),
        (replay.means(), ("generated/aggregates",)),
        (large.sums(), ()),
        (replay.bad_partials(), ()),
        (extras.sums(), ("generated/merges",)),
        (state.checks(), ()),
        (tally_vectors.tallies(), ("generated/tallies",)),
        (tally_vectors.bad_tallies(), ("generated/tally-merges", "generated/tally-sums")),
    ]
    generated = _generated(examples, seed)
    found: list[Check] = []
    for known, names in steps:
        found += [*known, *(generated[name] for name in names if name in generated)]
    return [check for check in _matching(found, only) if check.profile in profiles]


def checks_for(
    target: Target,
    profiles: Collection[str],
    *,
    examples: int = 0,
    seed: int = 0,
    only: Collection[str] = (),
) -> list[Check]:
    """The checks of some profiles; for a program also those of the line protocol."""
    found = checks(profiles, examples=examples, seed=seed, only=only)
    if isinstance(target, CommandTarget):
        before, after = (_matching(some, only) for some in (protocol.first(), protocol.last()))
        return [*before, *found, *after]
    return found


def _matching(found: Iterable[Check], only: Collection[str]) -> list[Check]:
    return [check for check in found if not only or any(fnmatchcase(check.id, p) for p in only)]


def _generated(examples: int, seed: int) -> dict[str, Check]:
    if not examples:
        return {}
    from .properties import properties

    return dict(properties(examples, seed))

"""The runs of a sweep: presets by methods by seeds, each with a name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import methods, presets
from .settings import Settings

NAMED = ("learning_rate", "noise", "rounds", "epochs", "batch_size", "clients", "clients_per_round")
"""Settings that a method of a sweep may be given by name, besides its options."""


@dataclass(frozen=True)
class Planned:
    """One run: its settings, and its name, which is that of its folder."""

    name: str
    settings: Settings


def value(text: str) -> bool | int | float | str:
    """A value as it is written on the command line: true, false, an integer, a float, or else text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE, each with its typed value.

    Raises
    ------
    ValueError
        Something else, or a name twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, written = text.partition("=")
        if not (name.strip() and equals):
            raise ValueError(f"option: found {text!r}, required NAME=VALUE")
        if name.strip() in found:
            raise ValueError(f"option: found {name.strip()} twice")
        found[name.strip()] = value(written.strip())
    return found


def runs(
    preset_names: Sequence[str], entries: Sequence[str], seeds: Iterable[int], given: dict[str, Any]
) -> list[Planned]:
    """All runs, seed after seed, so that an unfinished sweep compares as many methods as it can.

    Parameters
    ----------
    preset_names : sequence of str
        As `presets.load`.
    entries : sequence of str
        Labels of methods, as "fedmrn-binary". "+NAME=VALUE" after one, once or more, gives that method a
        setting (one of `NAMED`) or an option of its own.
    seeds : iterable of int
    given : dict
        Settings of all runs that win over the presets; those after a "+" win over these.

    Raises
    ------
    ValueError
        Anything that is unknown or out of range, or two runs of one name.
    """
    loaded = [presets.load(name) for name in preset_names]
    planned = [
        _planned(preset, entry, seed, given) for seed in seeds for preset in loaded for entry in entries
    ]
    names = [run.name for run in planned]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"runs: found {', '.join(twice)} more than once")
    return planned


def _planned(preset: presets.Preset, entry: str, seed: int, given: dict[str, Any]) -> Planned:
    label, *extras = entry.split("+")
    own = pairs(extras)
    changed = {key: of for key, of in own.items() if key in NAMED}
    options = {**(given.get("options") or {}), **{key: of for key, of in own.items() if key not in NAMED}}
    method, mask = presets.parse_label(label)
    settings = presets.settings(
        preset, method, mask, **{**given, **changed, "seed": seed, "options": options}
    )
    methods.build(settings)  # refuses options that the method does not have
    digest = _digest({**changed, **options})
    return Planned("-".join([preset.name, settings.label, *digest, f"seed{seed}"]), settings)


def _digest(extras: dict[str, Any]) -> list[str]:
    """Eight hexadecimal digits that stand for a method's own settings and options; none for none."""
    if not extras:
        return []
    return [hashlib.sha256(json.dumps(extras, sort_keys=True).encode()).hexdigest()[:8]]

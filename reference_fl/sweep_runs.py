"""The runs of a sweep: every combination of preset, method and seed, each with a name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import methods, presets
from .settings import Settings

NAMED = (
    *("learning_rate", "learning_rate_schedule", "noise", "rounds"),
    *("epochs", "batch_size", "clients", "clients_per_round", "downlink", "secure"),
)
"""The settings that "+NAME=VALUE" can set for one method of a sweep, beside its options."""


@dataclass(frozen=True)
class Planned:
    """One run: its name, which is also the name of its folder, and its settings."""

    name: str
    settings: Settings


def value(text: str) -> bool | int | float | str:
    """Parse a value from the command line: true, false, an integer, a float, or else text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """Parse texts of the form NAME=VALUE.

    Raises
    ------
    ValueError
        A text of another form, or a name that occurs twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, written = text.partition("=")
        if not (name.strip() and equals):
            raise ValueError(f"option: expected NAME=VALUE, got {text!r}")
        if name.strip() in found:
            raise ValueError(f"option {name.strip()}: expected one value, got two")
        found[name.strip()] = value(written.strip())
    return found


def runs(
    preset_names: Sequence[str], entries: Sequence[str], seeds: Iterable[int], given: dict[str, Any]
) -> list[Planned]:
    """All runs, in the order of the seeds, so that an unfinished sweep compares as many methods as possible.

    Parameters
    ----------
    preset_names : sequence of str
        Names or files, as `presets.load` takes them.
    entries : sequence of str
        Labels of methods, such as "fedmrn-binary". Each "+NAME=VALUE" after a label sets a setting (one of
        `NAMED`) or an option for that method alone.
    seeds : iterable of int
    given : dict
        Settings of all runs. They override the presets; those after a "+" override these.

    Raises
    ------
    ValueError
        A name or value that is unknown or out of range, or two runs with the same name.
    """
    loaded = [presets.load(name) for name in preset_names]
    planned = [
        _planned(preset, entry, seed, given) for seed in seeds for preset in loaded for entry in entries
    ]
    names = [run.name for run in planned]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"names of runs: expected different ones, got {', '.join(twice)} more than once")
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
    methods.build(settings)  # refuses unknown options
    digest = _digest({**changed, **options})
    return Planned("-".join([preset.name, settings.label, *digest, f"seed{seed}"]), settings)


def _digest(extras: dict[str, Any]) -> list[str]:
    """Eight hexadecimal digits that identify a method's own settings and options; an empty list for none."""
    if not extras:
        return []
    return [hashlib.sha256(json.dumps(extras, sort_keys=True).encode()).hexdigest()[:8]]

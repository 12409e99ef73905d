"""Presets: the protocol's experiments, one TOML file each, by the file's name.

A file holds settings, a line `about` for the list, and for some methods a table of settings of their own,
`[methods.fedmrn-binary]`, which win over the file's others. The rest is left to `settings`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from ..settings import NOISE, Settings, defaults

FOLDER = Path(__file__).parent
NOT_HERE = {"method", "mask", "seed", "threads", "options"}  # of a run, not of an experiment
KEYS = [f.name for f in fields(Settings) if f.name not in NOT_HERE]
METHOD_KEYS = [*(key for key in KEYS if key not in ("dataset", "model", "partition")), "options"]
TYPES = {**get_type_hints(Settings), "noise": str, "options": dict, "about": str, "methods": dict}


@dataclass(frozen=True)
class Preset:
    """An experiment without its method.

    Attributes
    ----------
    name, about : str
        The file's name, and a line about it.
    common : dict
        Settings of every method.
    methods : dict of dict
        Settings of one method, by its label.
    """

    name: str
    about: str
    common: dict[str, Any]
    methods: dict[str, dict[str, Any]]


def names() -> list[str]:
    """The presets that come with the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Preset:
    """A preset by its name, or from a file of one's own whose name ends in ``.toml``.

    Raises
    ------
    ValueError
        An unknown name; or the file is no TOML, has an unknown key or a value of another type.
    OSError
        The file cannot be read.
    """
    if not name.endswith(".toml") and name not in names():
        raise ValueError(f"preset: found {name!r}, known are {', '.join(names())}, and files *.toml")
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no TOML: {error}") from None
    _check(path, "key", found, ["about", *KEYS, "methods"])
    if "dataset" not in found:
        raise ValueError(f"{path}: key dataset: found none, required")
    methods, about = found.pop("methods", {}), found.pop("about", "")
    for label, table in methods.items():
        if not isinstance(table, dict):
            raise ValueError(f"{path}: methods.{label}: found {table!r}, required a table")
        _check(path, f"methods.{label}: key", table, METHOD_KEYS)
        _settings(f"{path}: methods.{label}", found["dataset"], label)
    return Preset(path.stem, about, found, methods)


def _check(path: Path, what: str, table: Mapping[str, Any], known: list[str]) -> None:
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{path}: {what}: found {key}, known are {', '.join(known)}")
        kind = TYPES[key]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{path}: {what} {key}: found {value!r}, required: of type {kind.__name__}")


def _settings(where: str, dataset: str, label: str) -> Settings:
    try:
        return defaults(dataset, *parse_label(label))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def parse_label(label: str) -> tuple[str, str | None]:
    """Method and mask kind of a label as in tables: "fedmrn-binary" is ("fedmrn", "binary")."""
    method, _, mask = label.rpartition("-")
    return (method, mask) if method and mask in NOISE else (label, None)


def settings(preset: Preset, method: str, mask: str | None, **given: Any) -> Settings:
    """The preset's settings for a method; what is `given` and not None wins, options one by one.

    Raises
    ------
    ValueError
        As `settings.defaults`.
    """
    wanted = {key: value for key, value in given.items() if value is not None}
    dataset = wanted.pop("dataset", preset.common["dataset"])
    label = defaults(dataset, method, mask).label
    own = {**preset.common, **preset.methods.get(label, {})}
    options = {**own.get("options", {}), **wanted.get("options", {})}
    merged = {**own, **wanted, "options": options}
    del merged["dataset"]
    return defaults(dataset, method, mask, **merged)

"""Presets: the experiments of the protocol, one TOML file each; the file's name is the preset's name.

A file holds settings, a line `about` for the list of presets, and for some methods a table such as
`[methods.fedmrn-binary]`, whose settings override those of the file. All others have the defaults of
`settings`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from ..settings import NOISE, ORDINARY, Settings, defaults

FOLDER = Path(__file__).parent
NOT_HERE = {"method", "mask", "seed", "threads", "options"}  # settings of a run, not of an experiment
KEYS = [f.name for f in fields(Settings) if f.name not in NOT_HERE]
METHOD_KEYS = [*(key for key in KEYS if key not in ("dataset", "model", "partition")), "options"]
TYPES = {**get_type_hints(Settings), "noise": str, "options": dict, "about": str, "methods": dict}


@dataclass(frozen=True)
class Preset:
    """An experiment without its method.

    Attributes
    ----------
    name, about : str
        The file's name, and a line that describes it.
    common : dict
        Settings of all methods.
    methods : dict of dict
        Settings of single methods, by their label.
    """

    name: str
    about: str
    common: dict[str, Any]
    methods: dict[str, dict[str, Any]]


def names() -> list[str]:
    """The names of the presets in the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Preset:
    """Load a preset by its name, or from another file whose name ends in ``.toml``.

    Raises
    ------
    ValueError
        An unknown name; or the file is not TOML, has an unknown key or a value of another type.
    OSError
        The file cannot be read.
    """
    if not name.endswith(".toml") and name not in names():
        raise ValueError(f"preset: expected one of {', '.join(names())} or a file *.toml, got {name!r}")
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected TOML, got {error}") from None
    _check(path, "key", content, ["about", *KEYS, "methods"])
    if "dataset" not in content:
        raise ValueError(f"{path}: key dataset: expected a name, got none")
    methods, about = content.pop("methods", {}), content.pop("about", "")
    for label, table in methods.items():
        if not isinstance(table, dict):
            raise ValueError(f"{path}: methods.{label}: expected a table, got {table!r}")
        _check(path, f"methods.{label}: key", table, METHOD_KEYS)
        _settings(f"{path}: methods.{label}", content["dataset"], label)
    return Preset(path.stem, about, content, methods)


def _check(path: Path, what: str, table: Mapping[str, Any], known: list[str]) -> None:
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{path}: {what}: expected one of {', '.join(known)}, got {key}")
        kind = TYPES[key]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{path}: {what} {key}: expected {kind.__name__}, got {value!r}")


def _settings(where: str, dataset: str, label: str) -> Settings:
    try:
        return defaults(dataset, *parse_label(label))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def parse_label(label: str) -> tuple[str, str | None]:
    """Split a label into method and mask kind: "fedmrn-binary" gives ("fedmrn", "binary")."""
    method, _, mask = label.rpartition("-")
    return (method, mask) if method and mask in NOISE else (label, None)


def settings(preset: Preset, method: str, mask: str | None, **given: Any) -> Settings:
    """The settings of a preset for a method; values in `given` that are not None override them.

    Raises
    ------
    ValueError
        As in `settings.defaults`.
    """
    stated = {key: value for key, value in given.items() if value is not None}
    dataset = stated.pop("dataset", preset.common["dataset"])
    label = defaults(dataset, method, mask).label
    fedavg = preset.methods.get("fedavg", {}) if method in ORDINARY else {}
    shared = {key: value for key, value in fedavg.items() if key == "learning_rate"}
    own = {**preset.common, **shared, **preset.methods.get(label, {})}
    options = {**own.get("options", {}), **stated.get("options", {})}
    merged = {**own, **stated, "options": options}
    del merged["dataset"]
    return defaults(dataset, method, mask, **merged)

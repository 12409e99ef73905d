"""Policies as TOML: the standard library reads it; what a policy has of its values is written here."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from .. import errors

T = TypeVar("T")


def loads(source: str | os.PathLike[str], field: str) -> dict[str, Any]:
    """The entries of TOML text of more than one line, or of the file at a path.

    Raises
    ------
    ArgumentError
        It is no TOML; `field` names it in the message.
    OSError
        The file cannot be read.
    """
    import tomllib  # here: it takes time, and few programs read policies

    try:
        if not isinstance(source, str) or "\n" not in source:
            source = Path(source).read_bytes().decode()
        return tomllib.loads(source)
    except (ValueError, RecursionError) as error:
        raise errors.ArgumentError(field, "TOML", f"{type(error).__name__}: {error}") from error


def dumps(entries: Mapping[str, Any]) -> str:
    """TOML text of numbers, text, bools, lists of them, mappings of them, and lists of mappings of them."""
    lines, tables = [], []
    for key, value in entries.items():
        if isinstance(value, Mapping):
            tables += ["", f"[{_text(key)}]", *_lines(value)]
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            for item in value:
                tables += ["", f"[[{_text(key)}]]", *_lines(item)]
        else:
            lines += _lines({key: value})
    return "\n".join([*lines, *tables, ""])


def check_keys(entries: Mapping[str, Any], known: Collection[str], field: str) -> None:
    """Check that all keys are known; else ArgumentError."""
    if unknown := [key for key in entries if key not in known]:
        raise errors.ArgumentError(f"keys of the {field}", f"some of {', '.join(known)}", repr(unknown[0]))


def of_type(value: Any, kind: type[T], field: str) -> T:
    """A value that must be of a type; else ArgumentError."""
    if not isinstance(value, kind):
        raise errors.ArgumentError(field, kind.__name__, type(value).__name__)
    return value


def integer(value: Any, field: str) -> int:
    """An integer, also one that is text because it needs 64 bits without a sign; else ArgumentError."""
    try:
        if isinstance(value, bool | float):
            raise TypeError
        return int(value, 0) if isinstance(value, str) else int(value)
    except (ValueError, TypeError):
        raise errors.ArgumentError(field, "an integer, or one as text", value) from None


def _lines(entries: Mapping[str, Any]) -> list[str]:
    return [f"{_text(key)} = {_value(value)}" for key, value in entries.items()]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _quoted(value)
    return f"[{', '.join(map(_value, value))}]"


def _text(key: str) -> str:
    """A key, in quotes unless it is a plain word."""
    return key if key.isascii() and key.replace("_", "").isalnum() else _quoted(key)


def _quoted(text: str) -> str:
    """A basic string: the escapes of JSON are those of TOML, which also wants one for U+007F."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

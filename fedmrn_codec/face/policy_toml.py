"""Noise and seeds of a `Policy` as values of TOML, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import errors
from ..primitives.noise import Noise, noise_text, parse_noise
from . import toml
from .policy_arguments import Seeds

ANY = "any"
"""What stands for no expected seeds."""


def text_of_noise(noise: Noise | Mapping[str, Noise]) -> str | dict[str, str]:
    """Noise as text, or the text of each tensor."""
    if isinstance(noise, Noise):
        return noise_text(noise)
    return {name: noise_text(each) for name, each in noise.items()}


def noise_of(entry: Any) -> Noise | dict[str, Noise] | None:
    """The noise that an entry of TOML states; None without an entry."""
    if isinstance(entry, dict):
        return {name: parse_noise(toml.of_type(text, str, "noise")) for name, text in entry.items()}
    return None if entry is None else parse_noise(toml.of_type(entry, str, "noise"))


def text_of_seeds(seeds: Seeds) -> str | dict[str, str]:
    """Seeds as text, or the text of each client; ArgumentError for those that TOML cannot hold."""
    if seeds is None:
        return ANY
    if isinstance(seeds, int):
        return str(seeds)
    if isinstance(seeds, Mapping) and all(isinstance(client, str) for client in seeds):
        return {client: str(seed) for client, seed in seeds.items()}
    raise errors.ArgumentError("seeds", "an integer, or a mapping of text to integers", type(seeds).__name__)


def seeds_of(entry: Any) -> int | dict[str, int] | None:
    """The seeds that an entry of TOML states, the inverse of `text_of_seeds`."""
    if isinstance(entry, dict):
        return {client: toml.integer(seed, f"seed of {client!r}") for client, seed in entry.items()}
    return None if entry == ANY else toml.integer(entry, "seeds")

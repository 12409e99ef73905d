"""Warnings that point at the user's own line."""

from __future__ import annotations

import sys
import warnings

OURS = ("torch", __package__)


def warn(text: str) -> None:
    """Give a RuntimeWarning at the first caller outside of torch and this package.

    Python shows the same text only once for each place, so texts should not have numbers that always differ.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, RuntimeWarning, stacklevel=level)

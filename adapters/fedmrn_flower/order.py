"""The order of wrappers and mods: what is around a strategy or a mod, which Flower tells neither of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    Strategy,
)

import fedmrn_codec as fm

READS_REPLIES = (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
)
"""Flower's wrappers that change the arrays of each reply, so the replies must be decoded before."""

CLIPS_ON_CLIENTS = (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
)
"""Flower's wrappers whose noise relies on a bound that the clients keep."""

CLIPPED_BEFORE = (
    "%s takes the clipping norm for a bound of each update, but clients clip before they encode, and a "
    "decoded frame may be longer: its privacy is less than it says. FedMRN(%s(...)) clips what it adds."
)

CHANGES_ARRAYS = {
    fixedclipping_mod.__code__: "fixedclipping_mod",
    adaptiveclipping_mod.__code__: "adaptiveclipping_mod",
    LocalDpMod.__call__.__code__: "LocalDpMod",
}
"""Flower's mods that change the arrays of a reply."""


def check_inside(strategy: Strategy, own: type[Strategy]) -> None:
    """Raise ArgumentError if a strategy is, or wraps, one of the class `own`."""
    for each in _chain(strategy):
        if isinstance(each, own):
            expected = f"one {own.__name__}, around the other strategies"
            raise fm.ArgumentError("strategy", expected, f"a second {own.__name__} inside")


def check_around(strategy: Strategy) -> None:
    """Raise ArgumentError if the caller is a wrapper of Flower that cannot read frames."""
    for outer in _owners(sys._getframe(2)):
        if isinstance(outer, READS_REPLIES) and outer.strategy is strategy:
            name = type(outer).__name__
            raise fm.ArgumentError("order of the strategies", f"FedMRN({name}(...))", f"{name}(FedMRN(...))")


def clips_on_clients(strategy: Strategy) -> str | None:
    """A warning if a wrapper inside a strategy, or around it in the calls, relies on what clients clip."""
    for each in (*_chain(strategy), *_owners(sys._getframe(2))):
        if isinstance(each, CLIPS_ON_CLIENTS):
            name = type(each).__name__
            return CLIPPED_BEFORE % (name, name.replace("ClientSide", "ServerSide"))
    return None


def check_mods(expected: str) -> None:
    """Raise ArgumentError if a mod of Flower that changes arrays is around the caller."""
    for frame in _frames(sys._getframe(2)):
        if name := CHANGES_ARRAYS.get(frame.f_code):
            raise fm.ArgumentError("order of the mods", expected.format(name), f"{name} around a frame")


def _chain(strategy: Strategy | None) -> Iterator[Strategy]:
    while strategy is not None:
        yield strategy
        strategy = getattr(strategy, "strategy", None)


def _owners(frame: FrameType | None) -> Iterator[Any]:
    """The objects whose methods are being called."""
    return (each.f_locals.get("self") for each in _frames(frame))


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back

"""What is read of the strategy that `FedMRN` wraps."""

from __future__ import annotations

from typing import Any

from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi, Strategy

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import SecAgg

MEANS = (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi)
"""The strategies whose `aggregate_train` uses nothing but the weighted mean of the replies."""


def is_flowers(strategy: Strategy) -> bool:
    """Whether a strategy takes the mean of an evaluation as Flower's own strategies do."""
    owner = next(cls for cls in type(strategy).__mro__ if "aggregate_evaluate" in vars(cls))
    return owner.__module__.startswith("flwr.")


def is_mean(strategy: Strategy) -> bool:
    """Whether a strategy uses nothing but the weighted mean of the replies."""
    owner = next(cls for cls in type(strategy).__mro__ if "aggregate_train" in vars(cls))
    return owner in MEANS


def checked_secure(secure: SecAgg | None, strategy: Strategy, each: bool) -> SecAgg | None:
    """The setting `secure` of `FedMRN`; ArgumentError if the strategy, or `each`, needs single replies."""
    if secure is None:
        return None
    if not isinstance(secure, SecAgg):
        raise fm.ArgumentError("secure", "a SecAgg", type(secure).__name__)
    if each:
        names = ", ".join(each.__name__ for each in MEANS)
        expected = f"one that uses nothing but the mean ({names}; or each=False), as the server has no more"
        raise fm.ArgumentError("strategy with secure", expected, f"{type(strategy).__name__}, each=True")
    return secure


def setting(strategy: Strategy | None, name: str, default: Any) -> Any:
    """An attribute of a strategy, or of the strategy that it wraps."""
    while strategy is not None:
        if hasattr(strategy, name):
            return getattr(strategy, name)
        strategy = getattr(strategy, "strategy", None)
    return default

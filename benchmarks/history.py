"""The history of the codec's own times, by pytest-benchmark: `make bench-history`.

Times are saved in `.benchmarks/`, and each run is compared with the one before. This detects a change that
makes a kernel slower, on one machine. Ratios to other software are measured by `python -m benchmarks`,
because pytest-benchmark times one contender after the other: a temporary load then affects only some of them.
"""

from __future__ import annotations

import pytest

from .contenders import kinds
from .kernels import VERBS
from .timing import on_threads

SIZE = 2**22
CONTENDERS = kinds(SIZE)


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("verb", VERBS)
def test_speed(benchmark, verb, name):
    benchmark.group = verb
    benchmark.extra_info["elements"] = SIZE
    with on_threads(1):
        benchmark(getattr(CONTENDERS[name], verb))

"""The codec's own verbs over time, by pytest-benchmark: `make bench-history`.

Times are kept in `.benchmarks/`, and each call is compared with the one before. This finds a change that made
a kernel slower, on one machine. For ratios against others see `python -m benchmarks`: pytest-benchmark times
one contender after the other, so that a load that comes and goes falls on some of them only.
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

"""Put a mutant into the functions of this process."""

from __future__ import annotations

import functools
import gc
import os
import resource
import signal
import time
from collections.abc import Callable
from types import CodeType, FunctionType

from mutations import Mutant


def limit(cpu_seconds: int, memory: int) -> None:
    """Bound what this process may use from now on, in seconds and bytes; it reads and prints nothing."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_seconds, used + cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)


def install(path: str, mutant: Mutant) -> None:
    """Replace the code of every function object that was made from the mutated function."""
    (code,) = (c for c in codes(compile(mutant.tree, path, "exec")) if c.co_qualname == mutant.where)
    found = 0
    for thing in gc.get_objects():
        if isinstance(thing, functools._lru_cache_wrapper) and is_ours(thing):
            thing.cache_clear()
        elif isinstance(thing, FunctionType) and names(thing) == (path, mutant.where):
            thing.__code__ = code
            found += 1
    assert found, mutant.key


def names(function: FunctionType) -> tuple[str, str]:
    return function.__code__.co_filename, function.__code__.co_qualname


def codes(code: CodeType) -> list[CodeType]:
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return [*inner, *(deeper for c in inner for deeper in codes(c))]


def is_ours(function: Callable[..., object]) -> bool:
    return function.__module__.startswith("fedmrn_codec.")

"""A mutation test: puts one fault at a time into the codec and reports the faults that no test notices.

    python -m pytest -p mutation --mutants format/rans.py --mutation-results FILE TESTS...

It is a pytest plugin. pytest collects the tests once and runs them once, which shows the functions that each
test calls. Then each mutant gets a forked process, in which the mutated function's code replaces the original
and the tests that call it run until one fails, those first that are quick and have killed many mutants. Only
the NumPy backend is used.

Results go to a file, a line for each mutant. A mutant is run again only if its module has changed or, where
no test has noticed it, the tests.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
from mutated_functions import install, is_ours, limit
from mutations import Mutant, mutants

PACKAGE = Path(__file__).resolve().parents[2] / "fedmrn_codec"
JOBS = os.cpu_count() or 1
CPU_SECONDS, MEMORY = 120, 8 * 2**30
"""What the tests of one mutant may use; a mutant that needs more counts as killed."""

for name in ("numba", "torch", "onnx", "onnxruntime"):
    sys.modules[name] = None  # type: ignore[assignment]  # as if it were not installed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutants", help="modules of fedmrn_codec, separated by spaces")
    parser.addoption("--mutation-results", type=Path, help="a file of JSON lines")


def pytest_collection() -> None:
    """Hypothesis without randomness and without shrinking, before the tests' modules are imported."""
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutation", derandomize=True, database=None, deadline=None, phases=phases
    )
    hypothesis.settings.load_profile("mutation")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run the tests once as they are, then for each mutant."""
    if session.testsfailed:
        return True
    files = {str(PACKAGE / name): name for name in session.config.getoption("--mutants").split()}
    called, duration = run_unchanged(session, set(files))
    results = session.config.getoption("--mutation-results")
    tests = digest(*sorted({item.path for item in session.items}))
    done = {
        (r["module"], r["mutant"], r["digest"]) for r in read(results) if "killed" in r or r["tests"] == tests
    }
    for path, name in files.items():
        module = digest(Path(path))
        todo = [m for m in mutants(Path(path)) if (name, m.key, module) not in done]
        with results.open("a") as out:
            for mutant, outcome in run_all(session, path, todo, called, duration):
                line = {"module": name, "mutant": mutant.key, "digest": module, "tests": tests, **outcome}
                out.write(json.dumps(line) + "\n")
                out.flush()
    return True


def digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def read(results: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def run_unchanged(session: pytest.Session, files: set[str]) -> tuple[dict[str, set[str]], dict[str, float]]:
    """Run all tests; give the functions of the files that each test calls, and its CPU time."""
    called, duration = {}, {}
    caches = [c for c in gc.get_objects() if isinstance(c, functools._lru_cache_wrapper) and is_ours(c)]
    for i, item in enumerate(session.items):
        names: set[str] = set()

        def note(frame: object, event: str, _: object, names: set[str] = names) -> None:
            code = frame.f_code  # type: ignore[attr-defined]
            if event == "call" and code.co_filename in files:
                names.add(code.co_filename + ":" + code.co_qualname)

        for cache in caches:
            cache.cache_clear()
        begin, failed = time.process_time(), session.testsfailed
        sys.setprofile(note)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following(session, i))
        sys.setprofile(None)
        if session.testsfailed == failed:  # a test that fails without a fault shows nothing
            called[item.nodeid], duration[item.nodeid] = names, time.process_time() - begin
    return called, duration


def following(session: pytest.Session, i: int) -> pytest.Item | None:
    return session.items[i + 1] if i + 1 < len(session.items) else None


def run_all(session, path, todo, called, duration):
    """Yield each mutant with what killed it, or why it is alive."""
    kills: Counter[str] = Counter()
    running: dict[int, tuple[Mutant, int]] = {}
    items = {item.nodeid: item for item in session.items}
    waiting = list(reversed(todo))
    while waiting or running:
        if waiting and len(running) < JOBS:
            mutant = waiting.pop()
            ids = [i for i, names in called.items() if f"{path}:{mutant.where}" in names]
            if not ids:
                yield mutant, {"alive": "no test calls it"}
                continue
            ids.sort(key=lambda i: duration[i] / (1 + kills[i]))
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                run_mutant(session, path, mutant, [items[i] for i in ids], writer)
            os.close(writer)
            running[child] = mutant, reader
            continue
        child, status = os.wait()
        mutant, reader = running.pop(child)
        with os.fdopen(reader) as pipe:
            killer = pipe.read()
        kills[killer] += bool(killer)
        if status:
            killer = killer or "more than the time or memory that tests may use"
        yield mutant, {"killed": killer} if killer else {"alive": "no test fails"}


def run_mutant(session, path, mutant, items, writer):
    """In a process of its own: put the fault in, run the tests, write the name of the first that fails."""
    status = 1
    try:
        session.config.pluginmanager.unregister(name="terminalreporter")
        limit(CPU_SECONDS, MEMORY)
        install(path, mutant)
        failed = session.testsfailed
        for item in items:
            with contextlib.suppress(SystemExit):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            if session.testsfailed > failed:
                os.write(writer, item.nodeid.encode())
                break
        status = 0
    finally:
        os._exit(status)

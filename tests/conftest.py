"""Hypothesis without deadlines, since the first call of a kernel compiles it; and a runner of the shell."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings
from typer.testing import CliRunner

settings.register_profile("project", deadline=None)
settings.load_profile("project")


class UnbufferedRunner(CliRunner):
    """A runner for stdout and stderr apart, as all are from Click 8.2 on; older ones lose unflushed text."""

    @contextmanager
    def isolation(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with super().isolation(*args, **kwargs) as streams:
            sys.stderr.reconfigure(write_through=True)  # type: ignore[union-attr]
            yield streams


@pytest.fixture(scope="session")
def runner() -> CliRunner:
    """The runner of `invoke`."""
    try:
        return UnbufferedRunner(mix_stderr=False)
    except TypeError:
        return UnbufferedRunner()

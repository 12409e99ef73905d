"""Hypothesis without deadlines, since the first call of a kernel compiles it; and a runner of the shell."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def runner() -> Any:
    """A runner for stdout and stderr apart, as all are from Click 8.2 on; older ones lose unflushed text."""
    from typer.testing import CliRunner  # here, since tests of the codec run without it

    class Unbuffered(CliRunner):
        @contextmanager
        def isolation(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
            with super().isolation(*args, **kwargs) as streams:
                sys.stderr.reconfigure(write_through=True)  # type: ignore[union-attr]
                yield streams

    try:
        return Unbuffered(mix_stderr=False)
    except TypeError:
        return Unbuffered()

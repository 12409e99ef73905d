"""Runs whose lines can be compared, in one piece or after a kill."""

import pytest

from reference_fl import loop
from reference_fl.record import METRICS, read


def run(settings, data, folder, **kwargs):
    """The lines of a run, without the time that it took."""
    lines = loop.run(settings, data, folder, **kwargs)
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


class Killed(Exception):
    """In place of a kill."""


def run_killed_within_a_round(settings, data, folder):
    """All lines of a run that is killed after the first client of its second round, and continued."""
    trained = []

    def kill(what, done, of):
        trained.append(what == "client" and done == 1)
        if sum(trained) == 2:  # the first client of the second round
            raise Killed

    with pytest.raises(Killed):
        run(settings, data, folder, progress=kill)
    ((_, kept),) = read(folder / METRICS)
    assert len(kept) == 1
    return run(settings, data, folder)

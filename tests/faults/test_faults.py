"""The faults of `make faults` at a few points each; and all lines of calls that hold a state."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("safetensors")
if os.name != "posix":
    pytest.skip("forks, signals and limits of POSIX systems", allow_module_level=True)

import fault_calls
import fault_rows
from fault_points import CODE, spaced

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("name", fault_rows.FAULTS)
def test_each_point_ends_with_the_old_state_or_the_new_one(name):
    """In a process of its own, since it forks and changes limits and clocks."""
    if name == "cache":
        pytest.importorskip("numba")
    command = [sys.executable, str(HERE), "--quick", "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") >= 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize(
    ("call", "files"),
    [
        ("Aggregator.mean", ["face/aggregation.py", "sums/exact.py"]),
        ("Aggregator.to_bytes", ["face/aggregation.py", "sums/exact.py"]),
        ("Aggregator.add_tally", ["face/aggregation.py", "sums/state.py", "sums/limb.py"]),
        ("Tally.add", ["face/tally.py", "sums/tally_state.py", "sums/counts.py"]),
        ("Tally.merge", ["face/tally.py", "sums/tally_state.py", "sums/counts.py"]),
        ("AdaptiveNoise.observe", ["face/adaptive.py"]),
        ("Downlink.advance", ["face/downlink.py"]),
        ("Downlink.frame", ["face/downlink.py"]),
        ("Intake.accept", ["face/intake.py"]),
        ("Replica.apply", ["face/downlink.py"]),
    ],
)
def test_a_call_that_is_stopped_leaves_no_mix(call, files, error):
    where = tuple(os.path.join(CODE[0], *file.split("/")) for file in files)
    outcomes = list(fault_rows.stopped_by(error, where)(call, 30))
    assert len(outcomes) > 5
    assert "before" in outcomes


def test_a_mix_is_found():
    """An object whose two numbers change one after the other."""
    known = fault_calls.Call(lambda: [1, 1], lambda pair: pair.__setitem__(0, 2), list), [1, 1], [2, 2], None
    for given, expected in (([1, 2], "neither before nor after"), ([1, 1], "not as after, the second time")):
        with pytest.raises(AssertionError, match=expected):
            fault_calls.outcome("pair", known, given)


def test_points_are_spaced_evenly():
    assert spaced(3, 5) == [0, 1, 2]
    assert spaced(100, 4) == [0, 33, 66, 99]
    assert spaced(0, 4) == []

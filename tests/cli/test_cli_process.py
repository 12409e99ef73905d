"""The command as a process: pipes, signals, terminals, what it imports, and what it is without its extra."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fedmrn_codec as fm

pytestmark = pytest.mark.integration

ENCODE = "fedmrn encode - --seed 7 --noise uniform:0.01 --private-seed 1007"


def test_pipes(folder, invoke, shell):
    update = Path("update.safetensors").read_bytes()
    done = shell(
        f"{ENCODE} | tee x.fmrn | fedmrn decode - --format npz | tee x.npz | fedmrn schema -", update
    )
    assert done.returncode == 0, done.stderr
    assert Path("x.fmrn").read_bytes() == Path("a.fmrn").read_bytes()
    shell("fedmrn decode - < a.fmrn > x.safetensors")
    for suffix in ("npz", "safetensors"):
        invoke(0, "decode", "a.fmrn", "-o", f"y.{suffix}")
        assert Path(f"x.{suffix}").read_bytes() == Path(f"y.{suffix}").read_bytes()


def test_named_pipes_and_partial_sums_through_pipes(folder, shell):
    done = shell(
        "fedmrn aggregate <(cat a.fmrn) b.fmrn --weights 600,500 --partial - "
        "| fedmrn aggregate - c.fmrn --weights 1 -o x.npz"
        " && fedmrn aggregate c.fmrn b.fmrn a.fmrn --weights 1,500,600 -o y.npz && cmp x.npz y.npz"
    )
    assert done.returncode == 0, done.stderr


def test_a_failure_passes_through_a_pipe(folder, shell):
    done = shell("head -c 100 a.fmrn | fedmrn decode - | cat")
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"[truncated]" in done.stderr


def test_a_reader_that_leaves_is_no_error(folder, shell):
    done = shell("fedmrn noise --noise uniform:1 --seed 1 --count 1000000 | head -1")
    assert done.stdout.startswith(b"0\t")
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("line", ["fedmrn decode a.fmrn", "fedmrn noise --noise uniform:1 --seed 1"])
def test_a_full_disk(folder, shell, line):
    done = shell(f"{line} > /dev/full")
    assert done.returncode == 3
    assert done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


def test_closed_streams(folder, shell):
    assert shell("fedmrn decode - <&-").returncode == 3
    assert shell("fedmrn decode a.fmrn >&-").returncode == 3
    assert shell("fedmrn noise --noise uniform:1 --seed 1 >&-").returncode == 0


@pytest.fixture
def terminal():
    """A terminal: the descriptor of the program that owns it, and that for the command."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("line", "stream"),
    [
        ("decode a.fmrn", "stdout"),
        ("encode update.safetensors --seed 7 --noise uniform:0.01", "stdout"),
        ("aggregate a.fmrn", "stdout"),
        ("decode -", "stdin"),
    ],
)
def test_no_binary_on_a_terminal(folder, terminal, line, stream):
    streams = {"stdout": subprocess.DEVNULL} | {stream: terminal[1]}
    command = [sys.executable, "-m", "fedmrn_codec.cli", *line.split()]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=120, **streams)
    assert done.returncode == 2
    assert b"Usage: fedmrn " + line.split()[0].encode() in done.stderr
    assert b"got a terminal" in done.stderr


def test_progress_is_shown_on_a_terminal_and_nowhere_else(folder, terminal):
    ours, theirs = terminal
    command = [
        sys.executable,
        "-m",
        "fedmrn_codec.cli",
        "aggregate",
        "a.fmrn",
        "b.fmrn",
        "-o",
        "x.npz",
        "--json",
    ]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, timeout=120)
    shown = os.read(ours, 100_000).decode()
    assert done.returncode == 0
    assert json.loads(done.stdout)["frames"] == 2  # stdout stays the report alone
    assert "adding frames" in shown
    assert "2/2" in shown
    assert "left" in shown
    piped = subprocess.run(command, capture_output=True, timeout=120)
    assert (piped.stdout, piped.stderr) == (done.stdout, b"")


def test_results_between_steps_stay_on_stdout(terminal):
    code = "from fedmrn_codec.cli.output import tracked\nfor i in tracked(range(3), 'counting'): print(i)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal[1], timeout=120)
    assert done.stdout == b"0\n1\n2\n"
    assert b"counting" in os.read(terminal[0], 100_000)


CLOSED = {
    "inspect a.fmrn": 0,
    "inspect a.fmrn b.fmrn --json": 0,
    "verify a.fmrn": 0,
    "verify nope": 3,
    "schema a.fmrn": 3,
    "encode update.safetensors --seed 7 --noise uniform:0.01": 3,
    "aggregate a.fmrn -o x.npz": 0,
    "--help": 0,
    "frobnicate": 2,
}


@pytest.mark.parametrize("line", CLOSED)
def test_closed_stdout_is_no_bug(folder, shell, line):
    assert shell(f"fedmrn {line} >&-").returncode == CLOSED[line]
    assert shell(f"fedmrn {line} <&- >&- 2>&-").returncode == CLOSED[line]


def test_a_file_that_is_truncated_after_it_was_read(tmp_path, monkeypatch):
    """A mapped file would end the process with SIGBUS."""
    code = """
import os
from fedmrn_codec.cli import files
open("big", "wb").write(bytes(10**6))
data = files.read("big")
os.truncate("big", 0)
assert bytes(data) == bytes(10**6)
"""
    monkeypatch.chdir(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_leave_nothing_behind(folder, number, code):
    command = ["noise", "--noise", "gaussian:1", "--seed", "1", "--count", str(2**40), "-o", "x.bin"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fedmrn_codec.cli", *command, "--backend", "numpy"],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells ignore it in the background
    )
    try:
        for _ in range(600):
            if list(folder.glob(".fedmrn-*.tmp")):
                break
            time.sleep(0.05)
        process.send_signal(number)
        _, text = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert b"Traceback" not in text
    assert not [path for path in folder.iterdir() if path.name.startswith((".fedmrn", "x.bin"))]


def test_nohup_is_respected(shell):
    code = "import signal as s, fedmrn_codec.cli.app as a; a._handle_signals(); print(s.getsignal(s.SIGHUP))"
    assert shell(f'nohup "$PYTHON" -c "{code}"').stdout == b"1\n"  # SIG_IGN
    assert b"_terminate" in shell(f'"$PYTHON" -c "{code}"').stdout


def test_a_terminal_that_lacks_the_letters(folder, shell):
    done = shell("fedmrn inspect a.fmrn", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert b"gr\\xf6\\xdfe/0" in done.stdout


@pytest.mark.parametrize("line", ["inspect --help", "verify a.fmrn", "decode a.fmrn -o x.npz"])
def test_no_framework_is_imported(folder, shell, line):
    done = shell(f'"$PYTHON" -X importtime -m fedmrn_codec.cli {line}')
    assert done.returncode == 0, done.stderr
    modules = {
        part.rpartition(b"|")[2].strip().partition(b".")[0].decode()
        for part in done.stderr.splitlines()
        if part.startswith(b"import time:")
    }
    assert {"typer", "fedmrn_codec"} <= modules
    assert not {"torch", "numba", "onnx", "onnxruntime", "flwr", "reference_fl"} & modules


def test_without_the_extra(shell):
    code = "import sys; sys.modules['typer'] = None; import fedmrn_codec.cli as c; c.main()"
    done = shell(f'"$PYTHON" -c "{code}"')
    assert done.returncode == 2
    assert done.stderr.decode() == ("fedmrn: the command line needs typer: pip install 'fedmrn-codec[cli]'\n")


def test_without_safetensors_the_rest_works(folder, shell):
    code = "import sys; sys.modules['safetensors'] = None; import fedmrn_codec.cli as c; c.main()"
    assert shell(f'"$PYTHON" -c "{code}" decode a.fmrn -o x.npz').returncode == 0
    done = shell(f'"$PYTHON" -c "{code}" encode update.safetensors --seed 1 --noise uniform:1')
    assert done.returncode == 2
    assert b"the package safetensors is not installed" in done.stderr


def test_the_script_is_installed(shell):
    assert shell("fedmrn --version").stdout.decode() == f"fedmrn {fm.__version__} (format 1.3)\n"

"""A Ray cluster of this machine, for tests of what joins one by its address."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def all_gone(processes, seconds=30):
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


def below(process, text=""):
    """The processes below this one, with a text in the name or the command."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for each in process.children(recursive=True):
            with suppress(psutil.Error):  # it may be gone by now
                if text in " ".join([each.name(), *each.cmdline()]):
                    found.append(each)
    return found


def end(process):
    """Kill a process and all below it."""
    family = [process, *below(process)]
    for each in family:
        with suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(family, timeout=30)


@contextmanager
def cluster():
    """Two processors on 127.0.0.1; gives the address, and must still be there at the end."""
    port, home = free_port(), tempfile.mkdtemp(prefix="ray")  # a short path, for the sockets in it
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2"]
    options = ["--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={home}"]
    head = psutil.Popen(
        [*command, *options, "--include-dashboard=false", "--disable-usage-stats"],
        env=os.environ | LOOPBACK,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not below(head, "raylet"):
            assert head.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
        assert head.poll() is None
    finally:
        end(head)
        shutil.rmtree(home)

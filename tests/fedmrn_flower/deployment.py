"""A local Flower deployment: a superlink with supernodes or the simulation engine; all stopped at the end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
NOWHERE = "http://127.0.0.1:9"  # discard: nothing listens there


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Deployment:
    """A superlink, some supernodes, and runs of an app; use it in a `with` block.

    `options` are the superlink's. Every process that it starts, and every process that one of these starts
    (flwr puts them into sessions of their own), is killed by its id at the end. Nothing here may reach beyond
    127.0.0.1: telemetry, the check for updates and the installation of apps' dependencies are off, and the
    proxies lead nowhere.
    """

    def __init__(self, home: Path, *options: str, **environment: str) -> None:
        self.home, self.port, self.options, self.joined = home, free_port(), options, 0
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",  # flwr starts its own programs by name
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "HTTP_PROXY": NOWHERE,
            "HTTPS_PROXY": NOWHERE,
            "http_proxy": NOWHERE,
            "https_proxy": NOWHERE,
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray, too, stays on this machine
            **environment,
        }
        self.started: list[psutil.Process] = []
        self.family: dict[int, psutil.Process] = {}
        here = f'address = "127.0.0.1:{self.port}"\ninsecure = true\n'
        (home / "config.toml").write_text(f'[superlink]\ndefault = "here"\n\n[superlink.here]\n{here}')

    def __enter__(self):
        self.start(
            "superlink",
            "flower-superlink",
            "--insecure",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--disable-runtime-dependency-installation",
            *self.options,
        )
        try:
            self.wait(self.answers, 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.look()
        for process in self.family.values():
            kill(process)
        psutil.wait_procs(list(self.family.values()), timeout=10)
        for process in self.started:
            process.wait(10)

    def start(self, name: str, command: str, *arguments: str, cwd: Path | None = None) -> psutil.Process:
        """Start a program of the running interpreter's environment; its output goes to a file."""
        with open(self.home / f"{name}.log", "wb") as log:
            process = psutil.Popen(
                [BIN / command, *arguments],
                env=self.environment,
                cwd=cwd or self.home,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.started.append(process)
        self.family[process.pid] = process
        return process

    def supernode(self, name: str, config: str) -> psutil.Process:
        """Start a supernode."""
        return self.start(
            name,
            "flower-supernode",
            "--insecure",
            "--superlink",
            f"127.0.0.1:{self.port}",
            "--host",
            "127.0.0.1",
            "--port",
            str(free_port()),
            "--node-config",
            config,
        )

    def join(self, **roles: str) -> dict[str, psutil.Process]:
        """Start a supernode with each role, by name, and wait until the superlink knows all of them."""
        nodes = {name: self.supernode(name, f"role='{role}'") for name, role in roles.items()}
        self.joined += len(nodes)
        log = self.home / "superlink.log"
        self.wait(lambda: log.read_text().count("Activated node_id") == self.joined, 300)
        return nodes

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def wait(self, condition, seconds: float) -> None:
        """Wait until a condition holds; meanwhile, record the child processes."""
        end = time.monotonic() + seconds
        while not condition():
            self.look()
            assert time.monotonic() < end, f"timed out after {seconds} s\n{self.logs()}"
            time.sleep(0.2)

    def look(self) -> None:
        for process in list(self.family.values()):
            try:
                self.family |= {child.pid: child for child in process.children(recursive=True)}
            except psutil.NoSuchProcess:
                continue

    def kill_tree(self, process: psutil.Process) -> None:
        """Kill a process and all its descendants with SIGKILL."""
        for one in [*process.children(recursive=True), process]:
            kill(one)

    def addresses(self) -> set[str]:
        """The IP addresses at either end of every socket of our processes."""
        self.look()
        found = set()
        for process in self.family.values():
            try:
                sockets = process.net_connections("inet")
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            found |= {end.ip for s in sockets for end in (s.laddr, s.raddr) if end}
        return found

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()[-4000:]}" for p in sorted(self.home.glob("*.log")))


def kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)  # psutil first checks that the id is still this process's


class Run:
    """An app that runs on a deployment with a node for each of some roles; see `running`.

    Attributes
    ----------
    flower : Deployment
    out : pathlib.Path
        Where the server and the clients write what they see.
    nodes : dict of str to psutil.Process
        By role.
    """

    def __init__(self, flower: Deployment, app: Path, out: Path, roles: tuple[str, ...]) -> None:
        self.flower, self.out = flower, out
        self.nodes = flower.join(**dict(zip(roles, roles, strict=True)))
        self._process = flower.start("run", "flwr", "run", str(app), "here", "--stream")

    def wait_for(self, name: str) -> None:
        """Wait until the app has written a file, or has ended."""
        self.flower.wait(lambda: (self.out / name).exists() or self._process.poll() is not None, 600)

    def kill(self, role: str) -> None:
        """Kill the node of a role, with all its processes."""
        self.flower.kill_tree(self.nodes[role])

    def finish(self) -> None:
        """Wait until the app has ended, and keep its log."""
        self.flower.wait(lambda: self._process.poll() is not None, 600)
        shutil.copyfile(self.flower.home / "run.log", self.out / "log")


@contextmanager
def running(folders, app: Path, *roles: str):
    """Run an app with a node for each role to its end; yields the `Run`.

    `folders` is pytest's `tmp_path_factory`.
    """
    home, out = folders.mktemp("home"), folders.mktemp("out")
    with Deployment(home, FEDMRN_TEST_OUT=str(out)) as flower:
        run = Run(flower, shutil.copytree(app, home / "app"), out, roles)
        yield run
        run.finish()

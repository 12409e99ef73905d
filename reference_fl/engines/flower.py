"""Flower's simulation engine: each client is a message to a Flower app, in worker processes that Ray starts.

The workers run on this machine or on those of a Ray cluster, where this project and the files of the data set
must be installed as here. Each worker loads the data set once. As many clients run at the same time as the
processors allow, each with the number of threads of the settings. If a worker process dies, its client and
the round fail: Flower does not restart it. The next start of the run continues after the last finished round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedmrn_codec.cluster import ray as cluster

from ..data import Dataset
from ..settings import Settings
from . import Assignment, ClientError, Reply, WorkerError, flower_app

RUN, SERVER = 1, 1  # ids in Flower's messages; nothing else runs in this engine


class Flower:
    """An engine on Ray, as described in the module.

    Parameters
    ----------
    settings : Settings
    data : Dataset
        The workers must load the same data.
    root : pathlib.Path or None
        The folder from which the workers load it, as in `data.load`.
    address : str or None
        The address of a Ray cluster; None starts Ray on this machine.
    """

    def __init__(self, settings: Settings, data: Dataset, root: Path | None, address: str | None) -> None:
        self._settings, self._address = settings, address
        self._config = flower_app.run_config(settings, data, root)
        self._stack = ExitStack()
        self.name = f"flower {version('flwr')} on ray {version('ray')}"

    def __enter__(self) -> Self:
        """Start the worker processes."""
        with ExitStack() as stack:
            ray = stack.enter_context(cluster.connected(self._address, "--engine flower")).ray
            from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend  # imports ray

            TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, SERVER, 1
            cpus = _cpus(ray, self._settings.threads)
            self._backend = RayBackend({"client_resources": {"num_cpus": cpus, "num_gpus": 0.0}})
            self._backend.build(_app)
            self._threads = ThreadPoolExecutor(self._backend.num_workers)
            pool = self._backend.pool
            assert pool is not None  # `build` makes it
            stack.callback(self._stop, ray, list(pool.pool))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def replies(self, broadcast: bytes, assignments: Sequence[Assignment]) -> Iterator[Reply]:
        """Yield the replies in the order in which they are ready."""
        for done in as_completed([self._threads.submit(self._ask, broadcast, each) for each in assignments]):
            yield done.result()

    def _ask(self, broadcast: bytes, assignment: Assignment) -> Reply:
        """Train one client in an idle worker; the node id of a client is its number plus 2."""
        client = assignment.client
        node = SERVER + 1 + client
        context = Context(
            run_id=RUN,
            node_id=node,
            node_config={"partition-id": client, "num-partitions": self._settings.clients},
            state=RecordDict(),
            run_config=self._config,
        )
        flower_app.save_memory(context, assignment.memory)
        message = flower_app.question(broadcast, assignment, node)
        try:
            message, context = self._backend.process_message(message, context)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            raise WorkerError(_failed(assignment, reason)) from error
        if message.has_error():
            raise ClientError(_failed(assignment, message.error.reason or "no reason given"))
        return flower_app.answer(client, message, context)

    def _stop(self, ray: Any, actors: list[Any]) -> None:
        """End the workers at once; replies that are not ready are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for actor in actors:
            ray.kill(actor)
        self._threads.shutdown(wait=True)


def _app() -> Any:
    return flower_app.app


def _cpus(ray: Any, threads: int) -> int:
    """The processors that a client takes: one for each thread, or all of a machine that has fewer."""
    most = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes())
    return max(1, min(threads, most))


def _failed(assignment: Assignment, reason: str) -> str:
    return f"round {assignment.round}: client {assignment.client} failed: {reason}"

"""Fixtures: the identity of a Flower process, and one thread for torch."""

import pytest
import torch
from flower_cases import STATES
from flwr.supercore.task_identity import TaskIdentity


@pytest.fixture(autouse=True, scope="session")
def identity():
    """The ids that flwr sets in each of its processes and needs to create a message."""
    old = TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    yield
    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = old


@pytest.fixture(autouse=True)
def states():
    """Nodes that have received nothing yet."""
    STATES.clear()
    yield
    STATES.clear()


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

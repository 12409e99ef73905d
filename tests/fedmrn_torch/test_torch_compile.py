"""`torch.compile` and a PSM: masks are drawn outside of the compiled graphs, so the bits stay the same."""

import subprocess
import sys

import pytest
import torch

import fedmrn_codec as fm
from fedmrn_torch import PSM

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's compiler


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8)
        self.tied = torch.nn.Linear(8, 8, bias=False)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x) * 2))
        return self.tied(torch.relu(self.tied(x) + 1))


@pytest.fixture(autouse=True)
def forget():
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def run(how):
    """The frames of two rounds, the outputs in eval mode under a PSM, and the compiled graphs."""
    graphs = []

    def backend(graph, inputs):  # eager, but seen
        graphs.append(graph)
        return graph.forward

    torch.manual_seed(0)
    model = called = Net()
    if how == "wrapped":
        called = torch.compile(model, backend=backend)
    elif how == "in place":
        model.compile(backend=backend)
    x, y = torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1])
    frames, outputs = [], []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number in (1, 2):
        model.train()
        psm = PSM(model, seed=number, noise=fm.Uniform(0.5), steps=4, private_seed=9)
        if how == "later":
            called = torch.compile(model, backend=backend)
        for _ in range(4):
            torch.nn.functional.cross_entropy(called(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            psm.step()
        model.eval()
        with torch.no_grad():
            outputs.append(called(x))
        frames.append(psm.finish(round=number))
        with torch.no_grad():
            outputs.append(called(x))  # of the restored model
    return frames, outputs, graphs


@pytest.mark.parametrize("how", ["wrapped", "in place", "later"])
def test_a_compiled_model_gives_the_same_frames(how):
    (frames, outputs, _), (plain, expected, _) = run(how), run(None)
    assert frames == plain
    assert [each.numpy().tobytes() for each in outputs] == [each.numpy().tobytes() for each in expected]


def test_the_restored_model_is_compiled():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return lambda *inputs: (calls.append(graph), graph.forward(*inputs))[1]

    model, calls = torch.nn.Linear(6, 3), []
    called, x = torch.compile(model, backend=backend), torch.ones(2, 6)
    called(x)
    assert (len(graphs), len(calls)) == (1, 1)
    with PSM(model, seed=1, noise=fm.Uniform(0.5), steps=1, private_seed=9):
        called(x).sum().backward()
        assert len(calls) == 1
    called(x)
    assert len(calls) == 2


def test_the_compiler_is_not_imported_for_others():
    script = (
        "import sys, torch, fedmrn_torch, fedmrn_codec as fm\n"
        "model = torch.nn.Linear(3, 3)\n"
        "psm = fedmrn_torch.PSM(model, seed=1, noise=fm.Uniform(0.1), steps=1)\n"
        "model(torch.ones(1, 3)).sum().backward()\n"
        "psm.restore()\n"
        "assert 'fedmrn_torch.untraced' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

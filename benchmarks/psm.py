"""The cost of PSM in a training step, compared with plain SGD in the same process: `make bench-psm`.

CNN4 and CNN8 are the paper's networks; the MLP of two layers is the worst case, with few operations for each
parameter. Each round times one block of steps of each contender, in rotating order, so that other load on the
machine affects all contenders equally. A ratio compares two blocks of one round; the table shows the median
and the quartiles over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

import fedmrn_codec as fm
import fedmrn_torch
from reference_fl.models import build

from .tables import Table
from .timing import in_turns

CLASSES, BATCH, HIDDEN = 10, 64, 512
SHAPES = {"cnn4": (1, 28, 28), "cnn8": (3, 32, 32), "mlp": (1, 28, 28)}
NOISE = {"binary": fm.Uniform(0.01), "signed": fm.Uniform(0.005)}
PLAIN = "plain SGD"


def network(name: str) -> nn.Module:
    """A network of `SHAPES`, with its initial weights."""
    shape = SHAPES[name]
    if name != "mlp":
        return build(name, shape, CLASSES, 1)
    size = shape[0] * shape[1] * shape[2]
    layers = nn.Linear(size, HIDDEN, bias=False), nn.ReLU(), nn.Linear(HIDDEN, CLASSES, bias=False)
    return nn.Sequential(nn.Flatten(), *layers)


def contender(name: str, mask: str | None, steps: int) -> tuple[Callable[[], None], int]:
    """A function that does one training step, plain or with PSM, and the number of masked parameters."""
    model = network(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03 if mask is None else 0.1)
    generator = torch.Generator().manual_seed(2)
    x = torch.rand((BATCH, *SHAPES[name]), generator=generator)
    y = torch.randint(CLASSES, (BATCH,), generator=generator)
    psm = None
    if mask is not None:
        psm = fedmrn_torch.PSM(model, seed=7, noise=NOISE[mask], mask=mask, steps=steps)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if psm is not None:
            psm.step()

    return step, 0 if psm is None else sum(t.size for t in psm.schema if t.masked)


def measure(name: str, rounds: int, block: int, warm_up: int) -> None:
    """Time the contenders of one network and print their table."""
    steps = warm_up + rounds * block
    kinds = {PLAIN: None, "PSM, binary": "binary", "PSM, signed": "signed"}
    contenders = {label: contender(name, mask, steps) for label, mask in kinds.items()}
    for step, _ in contenders.values():
        for _ in range(warm_up):
            step()
    seconds = in_turns(
        {label: partial(_timed, step, block) for label, (step, _) in contenders.items()}, rounds
    )
    rows = [_row(label, seconds[label], seconds[PLAIN]) for label in contenders]
    title = f"{name}: {max(count for _, count in contenders.values()):,} masked parameters"
    Table(title, ("contender", "ms a step", "ratio to plain", "quartiles"), rows).print()


def _timed(step: Callable[[], None], count: int) -> float:
    """Seconds of one of `count` steps."""
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def _row(label: str, mine: list[float], plain: list[float]) -> list[str]:
    row = [label, f"{1e3 * statistics.median(mine):.2f}"]
    if label == PLAIN:
        return [*row, "", ""]
    low, middle, high = statistics.quantiles((a / b for a, b in zip(mine, plain, strict=True)), n=4)
    return [*row, f"{middle:.3f}", f"{low:.3f} .. {high:.3f}"]


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.psm", description="PSM against plain SGD")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{', '.join(SHAPES)}; default: all")
    parser.add_argument("--rounds", type=int, default=40, help="default %(default)s")
    parser.add_argument("--block", type=int, default=5, help="steps timed together; default %(default)s")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before; default %(default)s")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(SHAPES):
        parser.error(f"MODEL: expected {', '.join(SHAPES)}, got {', '.join(sorted(unknown))}")
    load = os.getloadavg()[0]
    print(f"Batch {BATCH}; {arguments.rounds} rounds of {arguments.block} steps each")
    print(f"torch {torch.__version__} on {torch.get_num_threads()} threads\n")
    for name in arguments.models or SHAPES:
        measure(name, arguments.rounds, arguments.block, arguments.warm_up)
    print(f"load average {load:.2f} before, {os.getloadavg()[0]:.2f} after, on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

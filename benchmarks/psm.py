"""What PSM adds to a training step of CNN4, against plain SGD in the same process: `make bench-psm`.

Each round times one block of steps of each contender, in an order that rotates, so that whatever else the
machine does hits all alike. A ratio is that of a round's two blocks; the table has median and quartiles.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

import fedmrn_codec as fm
import fedmrn_torch
from reference_fl.models import build

SHAPE, CLASSES, BATCH = (1, 28, 28), 10, 64
NOISE = {"binary": fm.Uniform(0.01), "signed": fm.Uniform(0.005)}


def contender(mask: str | None, steps: int) -> tuple[Callable[[], None], int]:
    """A function that makes one training step, plain or with PSM, and the number of masked parameters."""
    model = build("cnn4", SHAPE, CLASSES, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03 if mask is None else 0.1)
    generator = torch.Generator().manual_seed(2)
    x = torch.rand((BATCH, *SHAPE), generator=generator)
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


def measure(rounds: int, block: int, warm_up: int) -> None:
    """Run and print the comparison."""
    steps = warm_up + rounds * block
    contenders = {
        name: contender(mask, steps)
        for name, mask in (("plain SGD", None), ("PSM, binary", "binary"), ("PSM, signed", "signed"))
    }
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    load = os.getloadavg()[0]
    for name in names:
        for _ in range(warm_up):
            contenders[name][0]()
    for number in range(rounds):
        for name in names[number % 3 :] + names[: number % 3]:
            step, start = contenders[name][0], time.perf_counter()
            for _ in range(block):
                step()
            seconds[name].append((time.perf_counter() - start) / block)

    masked = contenders[names[1]][1]
    print(
        f"CNN4, batch {BATCH}, {masked:,} masked parameters; {rounds} rounds of {block} steps each; "
        f"torch {torch.__version__} on {torch.get_num_threads()} threads"
    )
    print(f"load average {load:.2f} before, {os.getloadavg()[0]:.2f} after, on {os.cpu_count()} cores\n")
    print(f"{'':12}{'ms a step':>11}{'ratio to plain':>16}{'quartiles':>18}")
    for name in names:
        ratios = [mine / plain for mine, plain in zip(seconds[name], seconds[names[0]], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        ms = 1e3 * statistics.median(seconds[name])
        print(
            f"{name:12}{ms:11.2f}"
            + (f"{middle:16.3f}{f'{low:.3f} .. {high:.3f}':>18}" if name != names[0] else "")
        )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.psm", description="PSM against plain SGD")
    parser.add_argument("--rounds", type=int, default=60, help="default %(default)s")
    parser.add_argument("--block", type=int, default=5, help="steps timed together; default %(default)s")
    parser.add_argument("--warm-up", type=int, default=20, help="steps before; default %(default)s")
    arguments = parser.parse_args()
    measure(arguments.rounds, arguments.block, arguments.warm_up)


if __name__ == "__main__":
    main()

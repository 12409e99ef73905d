"""`fedmrn train`: the reference experiment from the shell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

DEMO = (("fedavg", None), ("fedmrn", "binary"), ("fedmrn", "signed"))
EXIT_USAGE, EXIT_FILES = 2, 3


def train(
    dataset: Annotated[str, typer.Option(help="digits needs no download; fashion-mnist")] = "digits",
    method: Annotated[str, typer.Option(help="fedavg or fedmrn")] = "fedmrn",
    mask: Annotated[str | None, typer.Option(help="binary or signed; of fedmrn")] = None,
    noise: Annotated[str | None, typer.Option(help="NAME:SCALE, like uniform:0.01")] = None,
    partition: Annotated[str, typer.Option(help="iid, dirichlet:ALPHA or labels:K")] = "iid",
    model: Annotated[str | None, typer.Option(help="cnn2, cnn4 or cnn8")] = None,
    rounds: Annotated[int | None, typer.Option(min=1)] = None,
    clients: Annotated[int | None, typer.Option(min=1)] = None,
    clients_per_round: Annotated[int | None, typer.Option(min=1)] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="local epochs")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="of torch")] = None,
    data_root: Annotated[Path | None, typer.Option(help="folder of the data set's files")] = None,
    out: Annotated[Path, typer.Option(help="folder of the run; an unfinished run there goes on")] = Path(
        "runs/train"
    ),
    verify: Annotated[bool, typer.Option(help="decode every frame with every backend and compare")] = False,
    demo: Annotated[bool, typer.Option(help="FedAvg and FedMRN, binary and signed, on the digits")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON line a round")] = False,
) -> None:
    """Train a federation; every update travels as a frame. Settings left out are the protocol's."""
    given: dict[str, Any] = {
        "noise": noise,
        "partition": partition,
        "model": model,
        "rounds": rounds,
        "clients": clients,
        "clients_per_round": clients_per_round,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "threads": threads,
    }
    # Imported here: torch takes seconds, and `fedmrn --help` reads this module.
    from . import console
    from .data import DataMissingError
    from .settings import defaults

    wanted = DEMO if demo else ((method, mask),)
    try:
        runs = [defaults("digits" if demo else dataset, which, kind, **given) for which, kind in wanted]
        console.run(runs, out, data_root, several=demo, verify=verify, as_json=as_json)
    except (DataMissingError, OSError) as error:
        _fail(error, EXIT_FILES)
    except (ValueError, KeyError) as error:
        _fail(error, EXIT_USAGE)


def _fail(error: Exception, code: int) -> None:
    print(f"fedmrn train: {error}", file=sys.stderr)
    raise typer.Exit(code)

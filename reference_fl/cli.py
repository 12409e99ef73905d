"""`fedmrn train` and `fedmrn sweep`: the reference experiment from the shell."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedmrn_codec.cli.problems import UsageError


class Engine(StrEnum):
    """Where clients run."""

    LOCAL = "local"
    FLOWER = "flower"


METHODS = "fedavg,fedmrn-binary,fedmrn-signed"
DEMO = (("fedavg", None), ("fedmrn", "binary"), ("fedmrn", "signed"))
SHARED = {
    *("noise", "partition", "model", "rounds", "clients", "clients_per_round"),
    *("epochs", "batch_size", "learning_rate", "learning_rate_schedule", "downlink", "secure"),
}
"""The parameters of both verbs that are settings."""
EXIT_FILES, EXIT_FAILED = 3, 4

Noise = Annotated[str | None, typer.Option(help="NAME:SCALE, such as uniform:0.01")]
Partition = Annotated[str | None, typer.Option(help="iid, dirichlet:ALPHA, labels:K or natural")]
Model = Annotated[
    str | None, typer.Option(help="cnn2, cnn4, cnn8, logistic or mlp-tanh; lstm or lstm-small for text")
]
Count = Annotated[int | None, typer.Option(min=1)]
Epochs = Annotated[int | None, typer.Option(min=1, help="local epochs")]
BatchSize = Annotated[int | None, typer.Option(min=2)]
LearningRate = Annotated[float | None, typer.Option(min=0.0)]
Schedule = Annotated[
    str | None,
    typer.Option(help="of the learning rate over the rounds: constant, inverse:GAMMA or inverse-sqrt:GAMMA"),
]
Downlink = Annotated[
    str | None,
    typer.Option(
        metavar="raw|grid",
        help="the model on its way to the clients: all tensors as they are, or entropy-coded differences of "
        "rounded models",
    ),
]
Secure = Annotated[
    bool | None,
    typer.Option(
        "--secure/--no-secure",
        help="for fedmrn: the server learns the sum of the updates of a round alone, by secure aggregation; "
        "noise is Bernoulli, and all clients of a round share a seed",
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="threads of torch")]
DataRoot = Annotated[Path | None, typer.Option(help="folder with the files of the data set")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="set an option of the method; may be repeated"),
]

TensorBoard = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="also write accuracy, loss, bytes, densities and noise scales of each round there, for "
        "TensorBoard; needs the package tensorboard",
    ),
]


def _list_presets(given: bool) -> None:
    if given:
        from . import presets

        for name in presets.names():
            print(f"{name:20} {presets.load(name).about}")
        raise typer.Exit


ListPresets = Annotated[
    bool,
    typer.Option("--list-presets", callback=_list_presets, is_eager=True, help="print the presets and exit"),
]


def train(
    preset: Annotated[
        str | None,
        typer.Option(
            help="an experiment of the protocol, or a TOML file; other options override its settings"
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="digits or digits-equal (no download), fashion-mnist, svhn, cifar10, cifar100, shakespeare"
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="fedavg, fedmrn, eden, ... or fedmrn-signed")] = "fedmrn",
    mask: Annotated[
        str | None, typer.Option(help="kind of the masks, for fedmrn and postmask: binary or signed")
    ] = None,
    noise: Noise = None,
    partition: Partition = None,
    model: Model = None,
    rounds: Count = None,
    clients: Count = None,
    clients_per_round: Count = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    learning_rate_schedule: Schedule = None,
    downlink: Downlink = None,
    secure: Secure = None,
    option: Options = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Threads = None,
    data_root: DataRoot = None,
    out: Annotated[Path, typer.Option(help="folder of the run; an unfinished run in it is continued")] = Path(
        "runs/train"
    ),
    engine: Annotated[
        Engine,
        typer.Option(help="where the clients train: in this process or in Flower's simulation; same results"),
    ] = Engine.LOCAL,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="with --engine flower: run on this Ray cluster, started from one of its machines; each "
            "machine needs this package, and the data set at the same path",
        ),
    ] = None,
    verify: Annotated[bool, typer.Option(help="decode every frame with every backend and compare")] = False,
    demo: Annotated[
        bool, typer.Option(help="train FedAvg and FedMRN, binary and signed, on the digits")
    ] = False,
    tensorboard: TensorBoard = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line for each round")] = False,
    list_presets: ListPresets = False,
) -> None:
    """Train a federation in which every update is sent as a frame.

    Settings that are not given have the values of the protocol.
    """
    given = {name: value for name, value in locals().items() if name in (*SHARED, "seed", "threads")}
    with _errors("train"):
        # Imported here: torch takes seconds, and `fedmrn --help` reads this module.
        from . import console, engines, presets, sweep_runs
        from .engines.local import Local
        from .settings import defaults

        if ray_address is not None and engine is not Engine.FLOWER:
            raise ValueError(f"--engine: expected flower with --ray-address, got {engine.value}")
        given["options"] = sweep_runs.pairs(option or ())
        if demo:
            runs = [defaults("digits", which, kind, **given) for which, kind in DEMO]
        else:
            which, kind = presets.parse_label(method)
            if preset is None:
                runs = [defaults(dataset or "digits", which, mask or kind, **given)]
            else:
                runs = [presets.settings(presets.load(preset), which, mask or kind, dataset=dataset, **given)]
        make = partial(engines.on_flower, root=data_root, address=ray_address)
        console.run(
            runs,
            out,
            data_root,
            several=demo,
            engine=make if engine is Engine.FLOWER else Local,
            verify=verify,
            as_json=as_json,
            tensorboard=tensorboard,
        )


def sweep(
    preset: Annotated[
        str | None,
        typer.Option(help="as in train; several are separated by commas; default, with --methods: digits"),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS",
            help="separated by commas; +NAME=VALUE after a label sets a setting or an option of that method "
            f"alone, as in fedmrn-signed+learning_rate=0.3; default, with --preset: {METHODS}",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="use the seeds 0 to N-1")] = 1,
    jobs: Annotated[
        int,
        typer.Option(
            min=1, help="most runs at the same time; fewer, if their threads would be more than the cores"
        ),
    ] = 1,
    noise: Noise = None,
    partition: Partition = None,
    model: Model = None,
    rounds: Count = None,
    clients: Count = None,
    clients_per_round: Count = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    learning_rate_schedule: Schedule = None,
    downlink: Downlink = None,
    secure: Secure = None,
    option: Options = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="threads of each run; default: an even share of the cores")
    ] = None,
    data_root: DataRoot = None,
    out: Annotated[
        Path, typer.Option(help="holds one folder for each run; finished rounds in it are skipped")
    ] = Path("runs/sweep"),
    tensorboard: TensorBoard = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the rows of the table as JSON lines")
    ] = False,
    list_presets: ListPresets = False,
) -> None:
    """Train with several methods and seeds, each run in a process of its own.

    At least one of --preset and --methods is required, because a sweep may take hours.

    The command can be interrupted at any time: no finished round is lost, and the same command continues. If
    a run fails, the others continue; the exit code is then 4. At the end all lines are in metrics.jsonl.
    """
    given = {name: value for name, value in locals().items() if name in SHARED}
    with _errors("sweep"):
        if preset is None and methods is None:
            raise ValueError("sweep: expected --preset or --methods, got neither")
        from . import console, sweep_runs
        from .sweep import Sweep

        given["options"] = sweep_runs.pairs(option or ())
        runs = sweep_runs.runs(_parts(preset or "digits"), _parts(methods or METHODS), range(seeds), given)
        failed = console.sweep(Sweep(runs, out, data_root, threads, jobs, tensorboard), as_json=as_json)
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@contextmanager
def _errors(verb: str) -> Iterator[None]:
    """Turn errors of settings, files and clients into a message and an exit code."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        from .data import DataFileError

        if not isinstance(error, OSError | DataFileError):
            raise UsageError(str(error)) from None
        print(f"fedmrn {verb}: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_FILES) from None
    except RuntimeError as error:
        from .engines import ClientError, WorkerError

        if not isinstance(error, ClientError):
            raise
        advice = "; run the same command to continue" if isinstance(error, WorkerError) else ""
        print(f"fedmrn {verb}: {error}; the finished rounds are kept{advice}", file=sys.stderr)
        raise typer.Exit(EXIT_FAILED) from None

"""`fedmrn aggregate`: the weighted mean of frames, or their partial sum."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ...face.aggregation import Aggregator
from ...format.parsing import Expected
from .. import files, options, policies, schemas, tensors
from .. import weights as weighing
from ..averaging import Average, Source
from ..dense import Dense
from ..distributed import Distributed
from ..output import printable, report, say
from ..problems import UsageError, human
from ..tensors import Format, TensorFile
from .decode import plus_base

Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="N,N,...",
        help="The weights of the frames, in their order. Partial sums and tallies carry their own weights.",
    ),
]
WeightsFile = Annotated[
    str | None,
    typer.Option(
        "--weights-file",
        metavar="FILE",
        help='A file of weights: JSON {"a.fmrn": 600}, or CSV lines "frame,weight". '
        "A frame is found by its path or its file name.",
    ),
]


class Engine(StrEnum):
    """Where frames are summed."""

    LOCAL = "local"
    RAY = "ray"


def aggregate(
    frames: Annotated[
        list[str],
        typer.Argument(metavar="FRAME...", help="Files of frames, partial sums and tallies, or - for stdin."),
    ],
    weights: Weights = None,
    weights_file: WeightsFile = None,
    output: Annotated[str | None, options.output("The mean. Default: stdout, as safetensors.")] = None,
    partial: Annotated[
        str | None,
        typer.Option(
            "--partial",
            metavar="SUM",
            help="Write the partial sum (.fmrs) instead of the mean; it can be merged later.",
        ),
    ] = None,
    base: options.BaseFile = None,
    schema: options.SchemaFile = None,
    noise: options.ExpectedNoise = None,
    round: options.ExpectedRound = None,
    base_model: options.ExpectedBaseModel = None,
    policy: options.PolicyFile = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="Report refused files and continue without them. The exit code stays 0. Files that differ "
            "in noise, schema, round or base model are left out only if that is stated, else an error.",
        ),
    ] = False,
    engine: Annotated[
        Engine,
        typer.Option(
            "--engine",
            help="Where the frames are summed. local: in this process. ray: in processes of a Ray cluster, "
            "which read the files themselves, from this machine or from a file system that all machines "
            "share. The resulting bytes are the same.",
        ),
    ] = Engine.LOCAL,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="HOST:PORT",
            help="The head node of the cluster, for --engine ray. The command must run on a machine of the "
            "cluster. Default: a cluster of this machine alone, stopped at the end.",
        ),
    ] = None,
    format: options.FileFormat = None,
    backend: options.Backend = None,
    as_json: options.Json = False,
) -> None:
    """Compute the exact weighted mean of frames.

    The order and the grouping of the frames do not change any bit of the mean.

    A weight is a positive integer, usually the client's number of samples. Without weights, every frame has
    the weight 1. With --base, the mean is added to the base model, and the new model is written. Partial
    sums, as --partial writes them, and tallies may be among the frames. If a file is refused, the command
    stops and writes nothing, unless --skip-bad is given. It always stops if files differ in noise or schema
    and no --noise or --schema says which of them are right: state both for files that strangers have made, or
    give a --policy, which states more. It takes frames only, since a partial sum or a tally shows nothing of
    its frames.
    """
    if ray_address is not None and engine is not Engine.RAY:
        raise typer.BadParameter("--engine: expected ray, since --ray-address is given, got local")
    place = _place(output, partial, base, weights, weights_file)
    files.check_inputs(*frames, base, schema, weights_file, policy)
    files.check_output(place, *frames, schema, weights_file, policy)
    chosen = format or (Format.SAFETENSORS if partial is not None else tensors.output_format(place))
    stated = {"--schema": schema, "--noise": noise, "--round": round, "--base-model": base_model}
    intake = policies.load(policy, stated)
    if intake is not None and engine is Engine.RAY:
        raise UsageError("--policy: expected --engine local, which sees each client once, got ray")
    own = schemas.load(schema) if intake is None else intake.policy.schema
    expected = Expected(own, round, base_model)
    longest = policies.read_size(intake)
    sources = [Source(path, frame=intake is not None, longest=longest) for path in frames]
    weighted = [source.path for source in sources if not source.is_sum]
    counts = weighing.given(weighted, weights, weights_file, partials=len(weighted) < len(sources))
    average = (
        Distributed(expected, noise, skip_bad, backend, address=ray_address)
        if engine is Engine.RAY
        else Average(expected, noise, skip_bad, backend, intake=intake)
    )
    total = average.run(sources, counts)
    if partial is not None:
        files.write(partial, [total.to_bytes()])
    else:
        tensors.save(place, _mean(total, base), chosen)
    notes = average.notes()
    if weights is None and weights_file is None and len(weighted) > 1:
        notes.append("no weights are given: every frame has the weight 1")
    _report(average, total, place, notes, as_json)


def _place(
    output: str | None, partial: str | None, base: str | None, weights: str | None, weights_file: str | None
) -> str:
    """Where the result goes."""
    for first, second, names in (
        (output, partial, "-o and --partial"),
        (base, partial, "--base and --partial"),
        (weights, weights_file, "--weights and --weights-file"),
    ):
        if first is not None and second is not None:
            raise typer.BadParameter(f"{names}: expected at most one of them, got both")
    return partial or output or files.PIPE


def _mean(total: Aggregator, base: str | None) -> TensorFile:
    mean = total.mean()
    if base is not None:
        return plus_base(base, mean, total.schema)
    return TensorFile({t.name: Dense(t.dtype, mean[t.name]) for t in total.schema}, Format.SAFETENSORS)


def _report(average: Average, total: Aggregator, place: str, notes: list[str], as_json: bool) -> None:
    if not as_json:
        for problem in average.skipped:
            say(f"left out: {human(problem)}")
        for note in notes:
            say(printable(f"note: {note}"))
    summary = {
        "file": place,
        "frames": total.frames,
        "weight": total.weight,
        "round": total.expected.round or 0,
        "base_model": total.expected.base_model or 0,
        "skipped": average.skipped,
        "notes": notes,
    }
    count = "1 frame" if total.frames == 1 else f"{total.frames:,} frames"
    text = f"wrote {files.shown(place)}: {count}, weight {total.weight:,}, {len(average.skipped)} left out"
    report(summary, text, as_json=as_json, beside_data=place == files.PIPE)

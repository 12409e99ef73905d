"""`fedmrn bench`: the speed of the installed backends on this machine."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from ... import backends, errors
from ...backends.threads import threads
from ...primitives.codes import MaskKind
from ...primitives.noise import Noise, Uniform, noise_text
from .. import options, throughput
from ..output import document, print_table

LARGEST = 2**28


def bench(
    size: Annotated[int, options.integer("--size", 64, "The number of elements of the tensor.")] = 2**22,
    noise: Annotated[
        Noise | None,
        typer.Option(
            "--noise",
            parser=options.noise,
            metavar="DIST:SCALE",
            help="The noise of the tensor. Default: uniform:0.01.",
        ),
    ] = None,
    mask: options.Mask = MaskKind.BINARY,
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds",
            min=1,
            metavar="N",
            help="The number of interleaved timings, of which the medians are printed.",
        ),
    ] = 7,
    as_json: options.Json = False,
) -> None:
    """Time encode, decode and add with each installed backend, side by side.

    Rates are in millions of elements per second; ratios compare with the NumPy backend. The environment
    variable FEDMRN_THREADS sets the number of threads.
    """
    if not 1 <= size <= LARGEST:
        raise errors.ArgumentError("--size", f"1 to {LARGEST}", size)
    noise = noise or Uniform(0.01)
    names = sorted(backends.installed(), key=lambda name: name != throughput.BASE)
    speeds = throughput.measure(noise, mask, size, rounds, names)
    summary = {
        "size": size,
        "noise": noise_text(noise),
        "mask": mask.label,
        "threads": threads(),
        "cores": os.cpu_count(),
        "rounds": rounds,
        "compiled_code": _compiled_code(names),
        "speeds": [asdict(speed) for speed in speeds],
    }
    if as_json:
        document(summary)
        return
    by_name = {(speed.backend, speed.verb): speed for speed in speeds}
    rows = [[name, *(_cell(by_name[name, verb]) for verb in throughput.VERBS)] for name in names]
    title = f"{size:,} elements, {noise_text(noise)}, {mask.label} mask, {threads()} threads, {rounds} rounds"
    print_table(title, ["million elements/s", *throughput.VERBS], rows)
    if "numba" in names:
        print(
            f"Numba's compiled code is cached in {summary['compiled_code'] or 'no folder: none is writable'}"
        )


def _cell(speed: throughput.Speed) -> str:
    return f"{speed.rate / 1e6:,.1f} ({speed.ratio:.2f} x)"


def _compiled_code(names: list[str]) -> str | None:
    if "numba" not in names:
        return None
    from ...backends import numba

    return numba.kept_in()

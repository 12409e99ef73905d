"""`fedmrn conformance`: test this or another implementation of the format."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ...conformance import protocol, report
from ...conformance.module import ModuleTarget
from ...conformance.program import CommandTarget
from ...conformance.request import PROFILES, Words
from ...conformance.run import FAILED, Record, Report, expected_failures, run
from ...conformance.suite import checks, checks_for
from ...conformance.target import Broken, Refused, Target
from .. import files, options
from ..output import document as print_json
from ..output import printable, tracked
from ..problems import FileProblem, UsageError

OK, FAILURES = 0, 1


def conformance(
    module: Annotated[
        str | None,
        typer.Option(metavar="PKG", help="A Python module with the public functions of fedmrn_codec."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="The module's backend: numpy, numba, onnx or torch.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="A program with the line protocol, such as './decoder'."),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES", help="Of decode,encode,aggregate,tally. Default: those that are offered."
        ),
    ] = None,
    examples: Annotated[
        int, typer.Option(min=0, metavar="N", help="Generated cases for each property. 0: vectors only.")
    ] = 100,
    seed: Annotated[int, typer.Option(metavar="N", help="The seed of the generated cases.")] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Run only the checks whose ids match. May be repeated."),
    ] = None,
    expected: Annotated[
        Path | None,
        typer.Option(
            "--expected-failures",
            metavar="FILE",
            help="Ids of checks that must fail, one on each line.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results to a file, as JUnit XML.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.01, metavar="SECONDS", help="The longest time for an answer.")
    ] = 30.0,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", "-x", help="Stop at the first failure.")] = False,
    as_json: options.Json = False,
) -> None:
    """Test an implementation of the format.

    The checks are the vectors of the specification and generated cases, whose answers are computed by an
    oracle in plain integers. A failure names the requirement of spec/FORMAT.md that is violated, and shows
    the smallest case that was found. Give either --module, with or without --backend, or --command; the line
    protocol is described in spec/CONFORMANCE.md. The exit code is 1 if a check fails.
    """
    if (module is None) == (command is None):
        got = "none" if module is None else "both"
        raise UsageError(f"target: expected either --module or --command, got {got}")
    if backend is not None and module is None:
        raise UsageError("--backend: expected together with --module, got --command")
    if examples and find_spec("hypothesis") is None:
        raise UsageError(
            "generated cases need hypothesis: pip install 'fedmrn-codec[conformance]', or give --examples 0"
        )
    selected = _profiles(options.split(profile))
    known = _known_failures(expected)
    try:
        target = _module(module, backend) if module is not None else _program(command or "", timeout)
    except Broken as broken:
        result = Report(command or "", "", ())
        _add(result, protocol.no_hello(broken), as_json)
        _conclude(result, examples, junit, as_json)
    try:
        result = Report(target.name, target.version, selected or target.profiles)
        suite = checks_for(target, result.profiles, examples=examples, seed=seed, only=only or [])
        records = run(target, suite, expected=known, fail_fast=fail_fast)
        for record in tracked(records, "running checks", len(suite)):
            _add(result, record, as_json)
    finally:
        target.close()
    _conclude(result, examples, junit, as_json)


def _profiles(names: list[str]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in PROFILES]:
        raise typer.BadParameter(
            f"expected some of {', '.join(PROFILES)}, got {', '.join(unknown)}", param_hint="--profile"
        )
    return tuple(name for name in PROFILES if name in names)


def _known_failures(path: Path | None) -> frozenset[str]:
    """The ids in the file; an id that no check has is refused."""
    if path is None:
        return frozenset()
    try:
        ids = expected_failures(path)
    except UnicodeDecodeError as error:
        raise FileProblem(str(path), f"not valid UTF-8: {error}") from error
    known = {check.id for check in checks(examples=1)} if find_spec("hypothesis") else ids
    if unknown := sorted(ids - known - set(protocol.IDS)):
        raise typer.BadParameter(
            f"expected ids of checks, got {', '.join(unknown)}", param_hint="--expected-failures"
        )
    return ids


def _module(name: str, backend: str | None) -> Target:
    try:
        target = ModuleTarget(name, backend)
    except ImportError as error:
        raise typer.BadParameter(f"{name!r} cannot be imported: {error}", param_hint="--module") from None
    try:
        if "decode" in target.profiles:
            target.ask(Words(seed=0, stream=0, start=0, count=1))
    except Refused as refusal:
        raise typer.BadParameter(str(refusal.__cause__), param_hint="--backend") from None
    return target


def _program(command: str, timeout: float) -> Target:
    try:
        return CommandTarget(shlex.split(command), timeout)
    except (OSError, ValueError, IndexError) as error:
        raise typer.BadParameter(f"{command!r} cannot be started: {error}", param_hint="--command") from None


def _add(result: Report, record: Record, as_json: bool) -> None:
    """Keep a record; print it at once if it is a failure."""
    result.records.append(record)
    if not as_json and record.status == FAILED and result.count(FAILED) <= report.SHOWN:
        print(_printable(report.lines_of(record)), flush=True)


def _conclude(result: Report, examples: int, junit: Path | None, as_json: bool) -> NoReturn:
    """Write the XML, print the summary, and exit with the exit code."""
    if junit is not None:
        files.write(str(junit), [report.junit(result)])
    if as_json:
        print_json(report.document(result))
    else:
        if result.count(FAILED) > report.SHOWN:
            print(f"... and {result.count(FAILED) - report.SHOWN} more: --json and --junit list them all")
        print(_printable(report.summary(result, examples)))
    raise typer.Exit(OK if result.ok else FAILURES)


def _printable(lines: list[str]) -> str:
    """The lines, with characters that could control a terminal replaced by escapes."""
    return "\n".join(printable(part) for line in lines for part in line.splitlines())

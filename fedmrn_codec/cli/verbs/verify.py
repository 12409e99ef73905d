"""`fedmrn verify`: every check of the format, on one or more files."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ... import backends, errors
from ...face import decoding
from ...face.aggregation import Aggregator
from ...face.intake import Intake
from ...face.tally import Tally
from ...format.checked import CheckedFrame
from ...format.parsing import Expected, check_values
from .. import files, options, policies, schemas, summaries
from ..output import document, printable
from ..problems import OK, REFUSED, FileProblem, InFile, about, describe, human, plain


def verify(
    frames: Annotated[
        list[str], typer.Argument(metavar="FRAME...", help="Frames, partial sums or tallies; - for stdin.")
    ],
    schema: options.SchemaFile = None,
    round: options.ExpectedRound = None,
    base_model: options.ExpectedBaseModel = None,
    seed: options.ExpectedSeed = None,
    policy: options.PolicyFile = None,
    all_backends: Annotated[
        bool,
        typer.Option("--all-backends", help="Also decode with each installed backend, and compare."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check files against the format, and print ok or refused for each.

    All checks of the specification are made, including those of the payloads and the checksum.
    With --policy, those of the policy are made too, and partial sums and tallies, which show nothing of their
    frames, are refused.
    The exit code is 1 if a file is refused, or else 3 if a file cannot be read.
    """
    files.check_inputs(*frames, schema, policy)
    stated = {"--schema": schema, "--round": round, "--base-model": base_model, "--seed": seed}
    intake = policies.load(policy, stated)
    expected = Expected(schemas.load(schema), round, base_model, seed)
    names = backends.installed() if all_backends else []
    results, codes = [], []
    for file in frames:
        code, result = _verify(file, expected, intake, names)
        codes.append(code)
        results.append(result)
        if not as_json:
            _show(result)
    if as_json:
        document({"ok": not any(codes), "files": results})
    raise typer.Exit(min((code for code in codes if code), default=OK))


def _verify(
    file: str, expected: Expected, intake: Intake | None, names: list[str]
) -> tuple[int, dict[str, Any]]:
    """Check one file; return its exit code, and its result as JSON."""
    try:
        data = files.read(file, policies.read_size(intake))
        with about(file):
            frame = _check(data, expected) if intake is None else policies.accept(intake, file, data)
            differ = _differing(frame, names) if frame is not None else []
    except (InFile, FileProblem) as error:
        code, problem = describe(error)
        return code, {"file": file, "ok": False, "error": problem}
    compared = {"backends": names} if names and frame is not None else {}
    if differ:
        message = f"{names[0]} and {', '.join(differ)} decode it to different bytes"
        problem = plain("backends_differ", "internal", message, file)
        return REFUSED, {"file": file, "ok": False, "error": problem} | compared
    kind = "frame" if frame is not None else "tally" if summaries.is_tally(data) else "partial_sum"
    return OK, {"file": file, "ok": True, "kind": kind} | compared


def _check(data: bytes, expected: Expected) -> CheckedFrame | None:
    """Make every check; return the checked frame, or None for a partial sum or a tally."""
    if not summaries.is_sum(data):
        return decoding.verify(
            data,
            expected.schema,
            round=expected.round,
            base_model=expected.base_model,
            seed=expected.seed,
            limits=schemas.limits(data, expected.schema),
        )
    if expected.schema is None:
        raise errors.NoSchemaError(
            "schema", "one from --schema", "none; partial sums and tallies do not embed one"
        )
    if summaries.is_tally(data):
        got = Tally.from_bytes(data, expected.schema, seed=expected.seed, backend="numpy").expected
    else:
        got = Aggregator.from_bytes(data, expected.schema, backend="numpy").expected
    stated = Expected(None, got.round or 0, got.base_model or 0)  # a partial sum has no seed to compare
    check_values(stated, Expected(None, expected.round, expected.base_model))
    return None


def _differing(frame: CheckedFrame, names: list[str]) -> list[str]:
    """The backends that decode a frame's bytes to other values than the first backend."""
    if not names:
        return []
    first = decoding.decode(frame.view, frame.schema, backend=names[0])
    return [
        name
        for name in names[1:]
        if any(
            array.tobytes() != first[key].tobytes()
            for key, array in decoding.decode(frame.view, frame.schema, backend=name).items()
        )
    ]


def _show(result: dict[str, Any]) -> None:
    if result["ok"]:
        compared = f" ({', '.join(result['backends'])} agree)" if result.get("backends", [])[1:] else ""
        print(printable(f"ok       {result['file']}{compared}"))
    else:
        word = "error" if result["error"]["class"] == "file" else "refused"
        print(f"{word:8} {human(result['error'])}")

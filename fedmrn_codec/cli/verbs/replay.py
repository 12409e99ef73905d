"""`fedmrn replay`: check a server's journal, and compute all its rounds anew."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from ... import errors
from ...face import replay as replaying
from .. import options
from ..output import document, printable
from ..problems import FileProblem, InFile


def replay(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder of a fedmrn_codec.Journal.")],
    digest: Annotated[
        str | None,
        typer.Option(
            "--digest",
            metavar="HEX",
            help="Refuse a journal in which no round has this digest, noted when the round was written. "
            "Then nothing up to this round has been changed, not even with all digests computed anew.",
        ),
    ] = None,
    backend: options.Backend = None,
    as_json: options.Json = False,
) -> None:
    """Check a journal, and compute all its rounds anew, to the bit.

    A server writes its journal with fedmrn_codec.Journal. Every file is checked, and every round follows from
    the one before: the accepted frames fit their requests, and their exact mean gives the server's model, its
    rounding, and the frame for the clients. Where the server's step was another than to add the mean, the
    journal has the arrays, and the output names them. The first mismatch is reported with its round and file,
    and the exit code is 1.
    """
    rounds = []
    try:
        for state in replaying.replay(folder, backend=backend):
            rounds.append(_summary(state))
            if not as_json and state.round:
                print(printable(_line(rounds[-1])))
    except errors.JournalError as error:
        bare = errors.JournalError(error.field, error.expected, error.got, error.offset)
        raise InFile(os.path.join(folder, error.file), bare) from error
    except OSError as error:
        raise FileProblem(error.filename or folder, error.strerror or str(error)) from error
    if digest is not None and digest.lower() not in [each["digest"] for each in rounds]:
        expected = f"{digest} in one of the {len(rounds) - 1} rounds"
        raise InFile(folder, errors.JournalError("digest", expected, "others"))
    start, *later = rounds
    last = rounds[-1]
    frames = sum(len(each["clients"]) for each in later)
    if as_json:
        ends = {name: last[name] for name in ("model_id", "digest")}
        document({"folder": folder, "frames": frames} | ends | {"start": start, "rounds": later})
    else:
        text = f"{folder}: {_count(len(later), 'round')}, {_count(frames, 'frame')}, replayed to the bit; "
        print(printable(text + f"model {last['model_id']}, digest {last['digest']}"))


def _summary(state: replaying.Replayed) -> dict[str, Any]:
    """What is printed of a round, as JSON."""
    clients = [
        {
            "client": each.client,
            "weight": each.weight,
            "seed": each.request.seed,
            "bytes": each.frame.frame_bytes,
        }
        for each in state.frames
    ]
    return {
        "round": state.round,
        "clients": clients,
        "weight": 0 if state.total is None else state.total.weight,
        "model_id": state.model_id,
        "not_computed": list(state.given),
        "bytes": state.bytes,
        "digest": state.digest,
    }


def _line(summary: dict[str, Any]) -> str:
    given = summary["not_computed"]
    step = f", the server's own step for {', '.join(given)}" if given else ""
    frames = _count(len(summary["clients"]), "frame")
    return (
        f"round {summary['round']}: {frames}, weight {summary['weight']:,}, model {summary['model_id']}{step}"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

"""The options that verbs share, and how their text becomes a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from .. import backends, errors
from ..format import codings
from ..primitives.codes import Code, Coding, MaskKind
from ..primitives.noise import BY_NAME, Noise
from .tensors import Format

SMALL = 2**23
"""Elements up to which NumPy is the faster backend, since Numba takes a quarter of a second to import."""


def choice(codes: Sequence[Code]) -> tuple[Callable[[object], Code], str]:
    """A parser of the labels of these codes, and the text that stands for them in the help."""
    by_label = {code.label: code for code in codes}

    def parse(text: object) -> Code:
        if isinstance(text, Code):  # a default
            return text
        if str(text) not in by_label:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(by_label)}")
        return by_label[str(text)]

    return parse, f"[{'|'.join(by_label)}]"


def unsigned(bits: int) -> Callable[[str], int]:
    """A parser of integers below 2^bits, decimal or with 0x, 0o or 0b in front."""

    def parse(text: str) -> int:
        try:
            number = int(str(text), 0)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not an integer") from None
        if not 0 <= number < 2**bits:
            raise typer.BadParameter(f"{text} is not in the range 0 to 2^{bits} - 1")
        return number

    return parse


def noise(text: str) -> Noise:
    """A parser of distribution:scale."""
    name, colon, scale = str(text).partition(":")
    try:
        if name not in BY_NAME or not colon:
            raise ValueError
        return BY_NAME[name](float(scale))
    except errors.ScaleError as error:
        raise typer.BadParameter(str(error)) from None
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not DISTRIBUTION:SCALE, such as uniform:0.01; known: {', '.join(BY_NAME)}"
        ) from None


def split(values: list[str] | None) -> list[str]:
    """The items of an option that takes commas and may be given several times."""
    return [item.strip() for value in values or [] for item in value.split(",") if item.strip()]


def fastest(name: str | None, elements: int) -> str | None:
    """The backend to use: the one asked for, or NumPy while it is done before Numba has been imported."""
    if name is not None or elements > SMALL:
        return name
    return "numpy"


Json = Annotated[
    bool, typer.Option("--json", help="One JSON document for machines; errors too, those on stderr.")
]
parse_mask, MASKS = choice(list(MaskKind))
_parse_coding, CODINGS = choice(codings.MASKED)
_parse_dense_coding, DENSE_CODINGS = choice(codings.DENSE)

Mask = Annotated[
    MaskKind,
    typer.Option("--mask", parser=parse_mask, metavar=MASKS, show_default="binary", help="The kind of mask."),
]
MaskCoding = Annotated[
    Coding,
    typer.Option(
        "--coding",
        parser=_parse_coding,
        metavar=CODINGS,
        show_default="raw",
        help="rans: fewer than one bit an element, where that is shorter.",
    ),
]
DenseCoding = Annotated[
    Coding,
    typer.Option(
        "--dense-coding",
        parser=_parse_dense_coding,
        metavar=DENSE_CODINGS,
        show_default="raw",
        help="Round dense float32 tensors to 16 bits. raw: exact.",
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"{', '.join(backends.MODULES)}: the bits are the same. Default: the fastest for the size.",
    ),
]
SchemaFile = Annotated[
    str | None,
    typer.Option(
        "--schema",
        metavar="FILE",
        help="The schema: JSON as 'fedmrn schema' prints it, a frame that embeds it, or a file of tensors.",
    ),
]
BaseFile = Annotated[
    str | None, typer.Option("--base", metavar="FILE", help="The base model: a file of tensors.")
]
FileFormat = Annotated[
    Format | None, typer.Option("--format", help="Of the tensors; needed where the suffix does not tell.")
]
Noisy = Annotated[
    Noise,
    typer.Option(
        "--noise", parser=noise, metavar="DIST:SCALE", help="uniform:0.01, gaussian:0.005 or bernoulli:0.01"
    ),
]
ExpectedNoise = Annotated[
    Noise | None,
    typer.Option("--noise", parser=noise, metavar="DIST:SCALE", help="Refuse frames with other noise."),
]
ExpectedRound = Annotated[
    int | None,
    typer.Option("--round", parser=unsigned(32), metavar="N", help="Refuse frames of another round."),
]
ExpectedBaseModel = Annotated[
    int | None,
    typer.Option(
        "--base-model", parser=unsigned(64), metavar="ID", help="Refuse frames for another base model."
    ),
]
ExpectedSeed = Annotated[
    int | None,
    typer.Option("--seed", parser=unsigned(64), metavar="N", help="Refuse frames with another seed."),
]
MaskedGlobs = Annotated[
    list[str] | None,
    typer.Option(
        "--masked",
        metavar="GLOB",
        help="Mask the tensors whose names match, and no others; may be repeated. "
        "Default: float32 tensors of two or more dimensions.",
    ),
]

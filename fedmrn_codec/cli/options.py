"""The options that several verbs share, and the parsers of their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from .. import backends, errors
from ..format import codings
from ..primitives.codes import Code, Coding, MaskKind
from ..primitives.noise import BY_NAME, Noise
from .tensors import Format


def choice(codes: Sequence[Code]) -> tuple[Callable[[object], Code], str]:
    """A parser of the labels of these codes, and the text that lists them in the help."""
    by_label = {code.label: code for code in codes}

    def parse(text: object) -> Code:
        if isinstance(text, Code):  # the default
            return text
        if str(text) not in by_label:
            raise typer.BadParameter(f"expected one of {', '.join(by_label)}, got {text!r}")
        return by_label[str(text)]

    return parse, f"[{'|'.join(by_label)}]"


def unsigned(bits: int) -> Callable[[str], int]:
    """A parser of integers below 2^bits, decimal or with the prefix 0x, 0o or 0b."""

    def parse(text: str) -> int:
        try:
            number = int(str(text), 0)
        except ValueError:
            raise typer.BadParameter(f"expected an integer, got {text!r}") from None
        if not 0 <= number < 2**bits:
            raise typer.BadParameter(f"expected 0 to 2^{bits} - 1, got {text}")
        return number

    return parse


def integer(flag: str, bits: int, help: str, *, metavar: str = "N", **more: Any) -> Any:
    """An option whose value is an integer below 2^bits."""
    return typer.Option(flag, parser=unsigned(bits), metavar=metavar, help=help, **more)


def output(help: str, metavar: str = "OUT", *, show_default: bool = False) -> Any:
    """The option -o."""
    return typer.Option("--output", "-o", metavar=metavar, show_default=show_default, help=help)


def noise(text: str) -> Noise:
    """The noise of a text DISTRIBUTION:SCALE."""
    name, colon, scale = str(text).partition(":")
    try:
        if name not in BY_NAME or not colon:
            raise ValueError
        return BY_NAME[name](float(scale))
    except errors.ScaleError as error:
        raise typer.BadParameter(str(error)) from None
    except ValueError:
        raise typer.BadParameter(
            f"expected DISTRIBUTION:SCALE of {', '.join(BY_NAME)}, such as uniform:0.01, got {text!r}"
        ) from None


def split(values: list[str] | None) -> list[str]:
    """The items of an option that takes a list with commas and may be repeated."""
    return [item.strip() for value in values or [] for item in value.split(",") if item.strip()]


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, not text. Errors are JSON on stderr.")
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
        help="The coding of masks. rans and rans12 entropy-code a mask if that is shorter than raw; rans12 "
        "is the shorter one where few bits are set, and needs readers of format 1.2.",
    ),
]
DenseCoding = Annotated[
    Coding,
    typer.Option(
        "--dense-coding",
        parser=_parse_dense_coding,
        metavar=DENSE_CODINGS,
        show_default="raw",
        help="The coding of dense float32 tensors. float16 and bfloat16 round them to 16 bits; raw is exact.",
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"One of {', '.join(backends.MODULES)}. The result does not depend on it. "
        "Default: numba if it is installed and worth its start, or else numpy.",
    ),
]
SchemaFile = Annotated[
    str | None,
    typer.Option(
        "--schema",
        metavar="FILE",
        help="The schema: JSON as printed by 'fedmrn schema', a frame that embeds it, or a file of tensors.",
    ),
]
BaseFile = Annotated[
    str | None, typer.Option("--base", metavar="FILE", help="The base model, a file of tensors.")
]
PolicyFile = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="Refuse frames that this policy does not allow: TOML as Policy.to_toml writes it. The client of "
        "a frame is its file name without the suffix; each client and each seed is accepted once.",
    ),
]
FileFormat = Annotated[
    Format | None,
    typer.Option("--format", help="The format of the tensor file, if its suffix does not tell."),
]
Noisy = Annotated[
    Noise,
    typer.Option(
        "--noise",
        parser=noise,
        metavar="DIST:SCALE",
        help="The noise, such as uniform:0.01, gaussian:0.005 or bernoulli:0.01.",
    ),
]
ExpectedNoise = Annotated[
    Noise | None,
    typer.Option("--noise", parser=noise, metavar="DIST:SCALE", help="Refuse frames with other noise."),
]
ExpectedRound = Annotated[int | None, integer("--round", 32, "Refuse frames of another round.")]
ExpectedBaseModel = Annotated[
    int | None, integer("--base-model", 64, "Refuse frames for another base model.", metavar="ID")
]
ExpectedSeed = Annotated[int | None, integer("--seed", 64, "Refuse frames with another seed.")]
MaskedGlobs = Annotated[
    list[str] | None,
    typer.Option(
        "--masked",
        metavar="GLOB",
        help="Mask only the tensors whose names match. May be repeated. "
        "Default: float32 tensors of two or more dimensions.",
    ),
]

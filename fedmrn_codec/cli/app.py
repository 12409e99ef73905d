"""The command line: its verbs, and how their errors become messages and exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from .. import __version__
from ..format.frame import MAJOR, MINOR
from . import plugins, problems
from .examples import FIRST
from .help import Verb, write_examples
from .output import say
from .verbs.aggregate import aggregate
from .verbs.bench import bench
from .verbs.decode import decode
from .verbs.encode import encode
from .verbs.inspect import inspect
from .verbs.noise import noise
from .verbs.schema import schema
from .verbs.verify import verify

EPILOG = """\b
Extras, each installed by pip install 'fedmrn-codec[NAME]':
  numba        the backend numba: compiled, the fastest
  torch        the backend torch
  onnx         the backend onnx, and the verb export-onnx
  reference    the verbs train, sweep and report
  conformance  the generated cases of the verb conformance
  ray          aggregate --engine ray
  simulation   train --engine flower

\b
Exit codes:
  0    success
  1    a frame or partial sum is refused: it is damaged, of an unknown
       version, or not the expected one
  2    wrong usage: options, arguments, tensors that do not fit the schema
  3    a file is missing, damaged, of an unknown format or not writable, or
       the disk is full; or a cluster does not answer
  4    some of several runs failed (sweep), or a client failed (train)
  70   a bug in this program
  129  the terminal was closed
  130  interrupted
  141  the reader of the output closed the pipe
  143  ended by SIGTERM

With --json, an error is printed as one document {"error": {...}} on stderr, with the keys code, class, file,
field, offset, expected, got and message, and stdout stays empty. Integers in JSON may need 64 bits.
"""


SECTIONS = {
    "Frames": ("encode", "decode", "inspect", "verify", "aggregate", "schema"),
    "Training": ("train", "sweep", "report"),
    "Backends and other implementations": ("noise", "bench", "conformance", "export-onnx"),
}
"""The verbs of this distribution in the order of the help; those of others are in a section of their own."""


class Group(TyperGroup):
    """The verbs of this package, and those of other packages, which are imported when they are used."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.suggest_commands = False  # Click itself suggests verbs

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the verbs."""
        own = super().list_commands(ctx)
        return own + [name for name in plugins.names() if name not in own]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help as Click does; older Typer's own always uses Rich."""
        super(TyperGroup, self).format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs by section, then examples."""
        names = self.list_commands(ctx)
        listed = {name for section in SECTIONS.values() for name in section}
        others = {"Verbs of other packages": tuple(name for name in names if name not in listed)}
        limit = formatter.width - 6 - max(map(len, names))
        for title, section in (SECTIONS | others).items():
            found = {name: self.get_command(ctx, name) for name in section if name in names}
            if found:
                with formatter.section(title):
                    formatter.write_dl([(n, verb.get_short_help_str(limit)) for n, verb in found.items()])
        write_examples(formatter, FIRST)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the verb; without a verb, show the help, as a usage error."""
        if not args:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(problems.USAGE)
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb of this name; another package cannot replace a verb of this one."""
        return super().get_command(ctx, cmd_name) or plugins.command(cmd_name)

    def invoke(self, ctx: Any) -> int:
        """Run the verb; its return value is not used as the exit code."""
        try:
            super().invoke(ctx)
        except BrokenPipeError:
            raise problems.ClosedPipe from None
        except (KeyboardInterrupt, typer.Abort):
            raise problems.Interrupted from None
        return problems.OK

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run as Click does, but turn every error into one message and an exit code."""

        def call() -> Any:
            return super(Group, self).main(args, prog_name, complete_var, False, windows_expand_args, **extra)

        if not standalone_mode:
            return call()
        arguments = sys.argv[1:] if args is None else args
        tracebacks = "--traceback" in arguments or os.environ.get("FEDMRN_TRACEBACK") == "1"
        sys.exit(problems.guard(call, json="--json" in arguments, tracebacks=tracebacks))


app = typer.Typer(
    cls=Group,
    add_completion=False,  # completion would import all plugins at every key press
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"fedmrn {__version__} (format {MAJOR}.{MINOR})")
        raise typer.Exit


@app.callback(epilog=EPILOG)
def fedmrn(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    tracebacks: Annotated[bool, typer.Option("--traceback", hidden=True)] = False,
) -> None:
    """Federated updates as one seed and one bit a parameter.

    Tensors are read from and written to .safetensors and .npz files. Frames and partial sums may have any
    name; .fmrn and .fmrs are usual. '-' stands for stdin or stdout. No file is left half-written.
    """


for _verb in (encode, decode, inspect, verify, aggregate, noise, schema, bench):
    app.command(_verb.__name__, cls=Verb)(_verb)


def run() -> NoReturn:
    """Run the command line of this process, and exit."""
    _open_standard_streams()
    logging.getLogger("fedmrn_codec").addHandler(_Remarks())
    for file in (sys.stdout, sys.stderr):
        if hasattr(file, "reconfigure"):
            file.reconfigure(errors="backslashreplace")  # for names that the terminal cannot encode
    _handle_signals()
    typer.main.get_command(app).main(prog_name="fedmrn")
    raise AssertionError("unreachable: main exits")


class _Remarks(logging.Handler):
    """Prints what the library logs, as the remarks of verbs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message on stderr."""
        say(record.getMessage())


def _open_standard_streams() -> None:
    """Open /dev/null in place of closed standard streams, so that no other file gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number


def _handle_signals() -> None:
    """Make signals that end the process clean up first; one that is ignored stays so, as nohup expects."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _terminate)


def _terminate(number: int, _: object) -> NoReturn:
    """Exit by an exception, as Ctrl-C does, so that no half-written file remains."""
    sys.exit(128 + number)

"""The command line: one module per verb, exit codes in one place."""

from __future__ import annotations

import gc
import io
import logging
import sys
import traceback as python_traceback
from typing import Any

import typer

from qonnx_hub.cli import (
    bench,
    build,
    certify,
    check,
    compat,
    convert,
    cost,
    diff,
    extract,
    formats,
    inspect,
    lint,
    merge,
    reduce,
    report,
    routes,
    run,
    split,
    transform,
    verify,
    view,
    zoo,
)
from qonnx_hub.cli.anywhere import reading_as_told, taken_out
from qonnx_hub.cli.errors import exit_code, message_of
from qonnx_hub.cli.every_verb import HubCommand, verb
from qonnx_hub.cli.examples import epilog
from qonnx_hub.cli.loudness import Quiet, Verbose, start
from qonnx_hub.cli.options import AllowExternal, MaxMemory, MaxNodes, Operators

EXIT_CODES = (
    "Exit codes: 0 done or equal; 1 equality was not shown, or lint or diff found something; "
    "2 wrong usage, or a path that cannot be read or written; 3 input unreadable or "
    "unsupported; 4 not exact and not allowed; 5 a framework is not installed; 70 a defect of "
    "this program; 130 interrupted; 141 the reader of the output went away."
)

HELP = {"help_option_names": ["-h", "--help"]}
"""How help is asked for, of every verb."""

app = typer.Typer(
    name="qonnx-hub",
    help="Convert quantized neural networks between forms, run them, check that they agree.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    context_settings=HELP,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for module in (
    convert,
    build,
    transform,
    check,
    reduce,
    certify,
    verify,
    run,
    inspect,
    lint,
    cost,
    diff,
    routes,
    bench,
    merge,
    extract,
    split,
    view,
    formats,
):
    name = module.__name__.rpartition(".")[2]
    offer = app.command(name, cls=HubCommand, epilog=epilog(name), context_settings=HELP)
    offer(verb(module.command))
app.command(
    "report",
    cls=HubCommand,
    epilog=epilog("report"),
    context_settings={**HELP, **report.SETTINGS},
)(verb(report.command))
app.add_typer(zoo.app, name="zoo")
app.add_typer(compat.app, name="compat")


def _version(value: bool) -> None:
    if value:
        from qonnx_hub._version import __version__

        typer.echo(f"qonnx-hub {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False,
        "--version",
        callback=_version,
        is_eager=True,
        help="Print the version and stop.",
    ),
    traceback: bool = typer.Option(
        False, "--traceback", help="Of an error, show where in the program it came up."
    ),
    allow_external: AllowExternal = None,
    max_memory: MaxMemory = None,
    max_nodes: MaxNodes = None,
    operators: Operators = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Take the options that stand before a verb."""
    start(verbose=verbose, quiet=quiet)
    for package in operators or ():
        # Imported here: it loads ONNX, and what the user names.
        from qonnx_hub.executor.foreign import import_operators

        import_operators(package)


_CALL_ERROR: Any = typer.BadParameter.__mro__[2]
"""What the library of the command line raises where a call is wrong; it has several homes."""


def main() -> None:
    """Run the command line; a user's mistake ends in one message and an exit code."""
    # Graphs are many small objects that stay: looking for garbage as often as by default takes
    # half of the time on thousands of nodes.
    gc.set_threshold(100_000, 50, 100)
    for stream in (sys.stdout, sys.stderr):
        # Names need not fit the terminal's encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # What a library logs is told by the errors that follow, in our words.
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)
    given = [text for text in sys.argv[1:] if text != "--traceback"]
    arguments, told = taken_out(given)
    try:
        try:
            with reading_as_told(told):
                code = app(arguments, standalone_mode=False)
        finally:
            # Not when Python ends: what goes wrong there has no message and a code of its own.
            if sys.stdout is not None:
                sys.stdout.flush()
        sys.exit(code or 0)
    except _CALL_ERROR as error:
        # Imported here because reports load it, and --help needs none.
        from qonnx_hub.io.terminal import visible

        text = " ".join(error.format_message().replace("Value error, ", "").split())
        if text:  # without, it was help
            end = "" if text.endswith("?") else ";"
            hint = f"{end} -h behind a verb shows its options"
            typer.echo(visible(f"qonnx-hub: {text.rstrip('.')}{hint}"), err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except (BrokenPipeError, SystemExit) as error:
        # The library of the command line leaves a closed pipe with a code of its own.
        if BrokenPipeError not in (type(error), type(error.__context__)):
            raise
        from qonnx_hub.io.terminal import leave_closed_pipe

        leave_closed_pipe()
    except Exception as error:  # the border: what is not ours is a defect and shows as such
        if len(given) < len(sys.argv) - 1:
            python_traceback.print_exception(error)
        # Imported here because reports load it, and --help needs none.
        from qonnx_hub.io.terminal import drop_output, visible

        if isinstance(error, OSError):
            drop_output()
        typer.echo(visible(message_of(error)), err=True)
        sys.exit(exit_code(error))

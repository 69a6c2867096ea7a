"""What every verb has: options of its own, errors in its JSON, and how much it says."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from qonnx_hub.cli.errors import recorded
from qonnx_hub.cli.loudness import Quiet, Verbose, choose, speaking

GenScript = Annotated[
    str | None,
    typer.Option(
        "--gen-script",
        metavar="PATH",
        help="Write the Python that does this, and stop; - is standard output.",
    ),
]


def verb(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as the command line offers it, with the options that all have."""
    inner = recorded(command)
    # Read once, here and by the library of the command line.
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(*, verbose: bool, quiet: bool, gen_script: str | None, **options: Any) -> None:
        if gen_script is not None:
            _write_script(gen_script, command, own, options)
            return
        with speaking(choose(verbose=verbose, quiet=quiet)):
            inner(**options)

    kind = inspect.Parameter.KEYWORD_ONLY
    more = [
        inspect.Parameter("verbose", kind, default=False, annotation=Verbose),
        inspect.Parameter("quiet", kind, default=False, annotation=Quiet),
        inspect.Parameter("gen_script", kind, default=None, annotation=GenScript),
    ]
    signature = own.replace(parameters=[*own.parameters.values(), *more])
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    vars(run)["__signature__"] = signature
    del vars(run)["__wrapped__"]
    return run


def _write_script(
    path: str, command: Callable[..., None], own: inspect.Signature, options: dict[str, Any]
) -> None:
    """Write what a command does as a script; the command itself is not run."""
    from qonnx_hub.cli.script import script_of

    given = {
        name: value
        for name, value in options.items()
        if value != own.parameters[name].default and value not in (None, [], ())
    }
    words: list[str] = []
    left = iter(sys.argv[1:])
    for word in left:
        if word == "--gen-script":
            next(left, None)
        elif not word.startswith("--gen-script="):
            words.append(word)
    text = script_of(command.__module__.rpartition(".")[2], given, words)
    if path == "-":
        typer.echo(text, nl=False)
        return
    from qonnx_hub.io.atomic import write_text

    write_text(path, text)

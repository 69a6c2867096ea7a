"""What every verb has: options of its own, errors in its JSON, and how much it says."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperArgument, TyperCommand

from qonnx_hub.cli.anywhere import taken_out
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


PANELS: Mapping[str, tuple[str, ...]] = {
    "Data": (
        *("inputs", "data", "labels", "preprocess", "samples", "seed", "range_"),
        *("input_shape", "input_dtype", "boundary", "effort"),
    ),
    "What is allowed": (
        *("lsb", "atol", "rtol", "strict", "ignore_output", "allow_lossy", "allow_code"),
        *("max_accuracy_drop", "min_agreement", "metric", "top_k", "threshold", "force"),
    ),
    "What is written": (
        *("output", "out", "json", "report", "junit", "sarif", "save_golden", "save_failing"),
        *("save_inputs", "export_ints", "plot", "write_baseline"),
    ),
    "Of every verb": ("verbose", "quiet", "gen_script"),
}
"""Panel of the help -> parameters that stand in it; all others are plain options."""


class HubCommand(TyperCommand):
    """A verb whose arguments are shown by their names alone, without a type of Python's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what any command takes."""
        super().__init__(*args, **options)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                vars(parameter)["display_type_rich"] = lambda ctx: None

    def get_help_option(self, ctx: Any) -> Any:
        """Return ``--help``, likewise."""
        found = super().get_help_option(ctx)
        if found is not None:
            vars(found)["display_type_rich"] = lambda ctx: None
        return found


VALUES: Mapping[Any, str] = {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}
"""Type of an option -> how help calls its value, where the option does not say."""


def _in_panel(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return an option of a verb in the panel that it belongs to, its value in plain words."""
    panel = next((title for title, names in PANELS.items() if parameter.name in names), None)
    found = getattr(parameter.annotation, "__metadata__", ())
    if not found or type(found[0]).__name__ != "OptionInfo":
        return parameter
    # One annotation serves several verbs.
    option = copy.copy(found[0])
    option.rich_help_panel = panel
    kind = parameter.annotation.__origin__
    inner = [kind, *get_args(kind), *(x for k in get_args(kind) for x in get_args(k))]
    one = next((x for x in inner if isinstance(x, type) and x in VALUES), None)
    if option.metavar is None:
        # What is one of several words is shown as these words.
        option.metavar = VALUES.get(one)
    annotation: Any = Annotated
    return parameter.replace(annotation=annotation[kind, option])


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
    parameters = [_in_panel(one) for one in (*own.parameters.values(), *more)]
    signature = own.replace(parameters=parameters)
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    vars(run)["__signature__"] = signature
    # A line of a terminal is longer or shorter than one of the source.
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    run.__doc__ = "\n\n".join(" ".join(text.split()) for text in paragraphs)
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
    name = command.__module__.rpartition(".")[2]
    # No call of the API takes what stands anywhere on a command line, or before its verb.
    is_own = not any(taken_out(words)[1].values()) and words[:1] == [name]
    text = script_of(name if is_own else "", given, words)
    if path == "-":
        typer.echo(text, nl=False)
        return
    from qonnx_hub.io.atomic import write_text

    write_text(path, text)

"""The command line of the qonnx package's tools: a function's parameters are its arguments.

Positional parameters are positional arguments, keyword-only ones are flags: ``out_file`` is
``--out-file=PATH`` or ``--out-file PATH``. A switch that is off by default may stand alone;
every switch takes true or false.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

from qonnx_hub.cli.errors import exit_code, message_of
from qonnx_hub_ir.errors import HubError, UsageError

_TRUE, _FALSE = ("true", "yes", "y", "t", "1", "on"), ("false", "no", "n", "f", "0", "off", "")


def run_tool(tool: Callable[..., Any], argv: Sequence[str] | None = None) -> int:
    """Call a tool with arguments of the command line, print what it returns.

    Args:
        tool: The function; its module's name is the tool's.
        argv: The arguments; those of the process by default.

    Returns:
        The exit code: 0 done, 2 wrong usage, and what else the command line documents.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if any(text in ("-h", "--help") for text in given):
        print(help_of(tool))
        return 0
    try:
        positional, flags = read_arguments(tool, given)
        found = tool(*positional, **flags)
    except BrokenPipeError:
        raise
    except Listing as listing:
        print(listing)
        return 0
    except (HubError, OSError) as error:
        print(message_of(error), file=sys.stderr)
        return exit_code(error)
    except Exception as error:  # the border: what is not ours is a defect and shows as such
        print(message_of(error), file=sys.stderr)
        return exit_code(error)
    if found is not None:
        print(found)
    return 0


class Listing(Exception):  # noqa: N818 - an answer, not an error
    """The choices of an argument were asked for; they are the message."""


def help_of(tool: Callable[..., Any]) -> str:
    """Return how a tool is called, and its documentation."""
    parts = [f"usage: qonnx-hub compat {name_of(tool)}"]
    for parameter in inspect.signature(tool).parameters.values():
        name = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            parts.append(f"[{name.upper()}...]")
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            parts.append(name.upper())
        elif parameter.default is parameter.empty:
            parts.append(f"--{name.replace('_', '-')}=VALUE")
        else:
            default = "" if parameter.default in (None, "") else f" ({parameter.default})"
            parts.append(f"[--{name.replace('_', '-')}=VALUE{default}]")
    return f"{' '.join(parts)}\n\n{inspect.getdoc(tool) or ''}"


def name_of(tool: Callable[..., Any]) -> str:
    """Return the name of a tool: that of its module, with hyphens."""
    return tool.__module__.rpartition(".")[2].replace("_", "-")


def read_arguments(
    tool: Callable[..., Any], given: Sequence[str]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional arguments and the flags that a command line gives a tool.

    Raises:
        UsageError: An unknown flag, a missing argument, a value of another type.
    """
    parameters = inspect.signature(tool).parameters.values()
    hints = typing.get_type_hints(tool)
    flags = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    places = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    texts, named = _split(given, flags)
    rest = any(p.kind is p.VAR_POSITIONAL for p in places)
    needed = [p for p in places if p.kind is not p.VAR_POSITIONAL]
    if len(texts) < len(needed):
        raise UsageError(f"{name_of(tool)}: {needed[len(texts)].name.upper()} is missing")
    if len(texts) > len(needed) and not rest:
        raise UsageError(f"{name_of(tool)}: '{texts[len(needed)]}' is one argument too many")
    missing = [n for n, p in flags.items() if p.default is p.empty and n not in named]
    if missing:
        raise UsageError(f"{name_of(tool)}: --{missing[0].replace('_', '-')} is missing")
    kinds = [hints.get(p.name, str) for p in needed]
    kinds += [str] * (len(texts) - len(needed))
    names = [p.name.upper() for p in needed] + ["input"] * (len(texts) - len(needed))
    values = [_value(*one) for one in zip(texts, kinds, names, strict=True)]
    options = {
        name: _value(text, hints.get(name, str), f"--{name.replace('_', '-')}")
        for name, text in named.items()
    }
    return values, options


def _split(
    given: Sequence[str], flags: dict[str, inspect.Parameter]
) -> tuple[list[str], dict[str, str]]:
    texts: list[str] = []
    named: dict[str, str] = {}
    waiting = list(given)
    while waiting:
        text = waiting.pop(0)
        if text == "--":
            return texts + waiting, named
        if not text.startswith("--"):
            texts.append(text)
            continue
        name, equals, value = text[2:].partition("=")
        key = name.replace("-", "_")
        if key not in flags:
            known = ", ".join(f"--{flag.replace('_', '-')}" for flag in flags)
            raise UsageError(f"there is no flag --{name}; there are: {known}")
        if not equals:
            if flags[key].default is False:
                value = "true"
            elif waiting:
                value = waiting.pop(0)
            else:
                raise UsageError(f"--{name} needs a value")
        named[key] = value
    return texts, named


def _value(text: str, hint: Any, where: str) -> Any:
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        hint = next(one for one in choices if one is not type(None))
        return _value(text, hint, where)
    if origin is Literal:
        if text == "list":
            raise Listing("\n".join(choices))
        if text not in choices:
            raise UsageError(f"{where}: '{text}' is none of: {', '.join(choices)}")
        return text
    if hint is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise UsageError(f"{where}: '{text}' is neither true nor false")
        return text.lower() in _TRUE
    if hint is int:
        try:
            return int(text)
        except ValueError:
            raise UsageError(f"{where}: '{text}' is no whole number") from None
    return text

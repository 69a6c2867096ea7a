"""The Python that does what a command does, for ``--gen-script``."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from qonnx_hub.cli.options import name_and_rest, named_ranges, named_types, named_values
from qonnx_hub_ir.choices import StoredWeights


class _Code(str):
    """Text that stands in a script as it is."""

    __slots__ = ()


class _NoCallError(Exception):
    """Something of a command that no call of the API takes."""


Converter = Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a verb is called in Python.

    Attributes:
        call: Name of the call.
        positions: Parameters of the command that come first, in order.
        others: Parameter -> what it becomes; every other one keeps its name.
        ends: What the script ends with, about its report; empty for nothing.
    """

    call: str
    positions: tuple[str, ...]
    others: Mapping[str, Converter] = field(default_factory=dict)
    ends: str = ""


def _as(name: str, read: Callable[[Any], Any] = lambda value: value) -> Converter:
    return lambda value: {name: read(value)}


def _one(values: Sequence[str]) -> str:
    if len(values) != 1:
        raise _NoCallError
    return values[0]


def _bound(name: str) -> Converter:
    def read(texts: Sequence[str]) -> Mapping[str, Any]:
        found = {tensor: float(number) for tensor, number in map(name_and_rest, texts)}
        return {name: found[""] if list(found) == [""] else found}

    return read


def _weights(value: str) -> Mapping[str, Any]:
    is_kind = value in get_args(StoredWeights) and not Path(value).exists()
    return {"stored_weights" if is_kind else "weights": value}


def _array(name: str) -> Converter:
    # One file of one array, whatever it is called.
    return lambda path: (
        {name: _Code(f"np.load({str(path)!r})")} if _is_npy(path) else _refuse()
    )


def _is_npy(path: Any) -> bool:
    return Path(path).suffix == ".npy"


def _refuse() -> Mapping[str, Any]:
    raise _NoCallError


_INPUTS: Mapping[str, Converter] = {
    "inputs": _as("inputs", str),
    "data": _as("inputs", str),
    "labels": _array("labels"),
}
_EXIT = "sys.exit(0 if report else 1)"

RECIPES: Mapping[str, Recipe] = {
    "convert": Recipe(
        "convert",
        ("sources", "output"),
        {
            "sources": _as("source", _one),
            "output": _as("path"),
            "option": _as("options", named_values),
            "target_option": _as("target_options", named_values),
            "weights": _weights,
            **_INPUTS,
            "force": lambda _: {},
        },
        "sys.exit(0 if report.verdict is None or report else 1)",
    ),
    "transform": Recipe(
        "transform",
        ("source", "passes", "output"),
        {**_INPUTS, "output": _as("path"), "force": lambda _: {}},
        "sys.exit(1 if report.check is not None and not report.check and not report.intended "
        "else 0)",
    ),
    "check": Recipe(
        "check",
        ("a", "b"),
        {
            **_INPUTS,
            "range_": _as("ranges", named_ranges),
            "atol": _bound("atol"),
            "rtol": _bound("rtol"),
            "lsb": _bound("lsb"),
            "ignore_output": _as("ignore_outputs"),
        },
        _EXIT,
    ),
    "reduce": Recipe(
        "reduce",
        ("a", "b"),
        {"output": _as("folder", str), "inputs": _as("inputs", str)},
    ),
    "inspect": Recipe(
        "inspect",
        ("source",),
        {
            "range_": _as("inputs", named_ranges),
            "input_dtype": _as("inputs", named_types),
            # The file holds all of it, whatever is shown.
            "json": lambda _: {"ranges": True, "weights": True},
        },
    ),
    "lint": Recipe("lint", ("source", "target"), {"config": _as("config", str)}, _EXIT),
    "cost": Recipe("cost", ("sources",), {"sources": _as("model", _one)}),
    "diff": Recipe("diff", ("a", "b"), ends="sys.exit(1 if report else 0)"),
    "routes": Recipe("routes", ("source",)),
    "bench": Recipe(
        "bench", ("source",), {"batch": _as("batches"), "backend": _as("backends")}
    ),
}
"""Verb -> its call; other verbs, and options that no call takes, run as the command does."""

_HEAD = '''"""{command}"""

import sys
{imports}
import qonnx_hub as qh

'''


def script_of(name: str, given: Mapping[str, Any], arguments: Sequence[str]) -> str:
    """Return a script that does what a command does: the same files, the same exit code.

    Args:
        name: The verb; empty where more is asked for than calls of the API take.
        given: Its parameters that are not left at their defaults, by name.
        arguments: The command's own words, behind the program's name.
    """
    command = shlex.join(("qonnx-hub", *arguments)).replace("\\", "\\\\").replace('"', '\\"')
    try:
        return _call_of(RECIPES[name], given, command)
    except (KeyError, _NoCallError):
        # What has no call of its own runs as it does on the command line.
        return (
            f'"""{command}"""\n\nimport sys\n\nfrom qonnx_hub.cli import main\n\n'
            'if __name__ == "__main__":\n'
            f'    sys.argv = ["qonnx-hub", *{list(arguments)!r}]\n    main()\n'
        )


def _call_of(recipe: Recipe, given: Mapping[str, Any], command: str) -> str:
    from qonnx_hub import api

    known = inspect.signature(getattr(api, recipe.call)).parameters
    takes_more = any(p.kind is p.VAR_KEYWORD for p in known.values())
    loading = inspect.signature(api.load).parameters if takes_more else {}
    rest, json = dict(given), given.get("json")
    rest.pop("json", None)
    pages = {name: rest.pop(name) for name in ("report", "save_failing") if name in rest}
    first: list[Any] = []
    keywords: dict[str, Any] = {}
    for parameter in (*recipe.positions, *(n for n in rest if n not in recipe.positions)):
        if parameter not in rest:
            continue
        turn = recipe.others.get(parameter, _as(parameter))
        found = turn(rest[parameter])
        if parameter in recipe.positions and parameter != "output":
            first += found.values()
            continue
        for name, value in found.items():
            if name in keywords or (name not in known and name not in loading):
                raise _NoCallError
            keywords[name] = value
    if json is not None and "json" in recipe.others:
        keywords = {**recipe.others["json"](json), **keywords}
    words = [_text(v) for v in first] + [f"{k}={_text(v)}" for k, v in keywords.items()]
    body = ["".join(f"\n        {word}," for word in words)]
    lines = [f"    report = qh.{recipe.call}({body[0]}\n    )", "    report.show()"]
    if "report" in pages:
        lines.append(f"    report.to_html({str(pages['report'])!r})")
    if "save_failing" in pages:
        lines.append("    if report.failing is not None:")
        lines.append(f"        report.failing.save({str(pages['save_failing'])!r})")
    if json == "-":
        lines[1] = "    print(report.to_json())"
    elif json is not None:
        lines.append(f"    with open({json!r}, 'w', encoding='utf-8') as stream:")
        lines.append("        stream.write(report.to_json() + '\\n')")
    if recipe.ends:
        lines.append(f"    {recipe.ends}")
    needs_numpy = any("np." in word for word in words)
    imports = "\nimport numpy as np\n" if needs_numpy else ""
    head = _HEAD.format(command=command, imports=imports)
    if not recipe.ends:
        head = head.replace("import sys\n", "", 1)
    return head + 'if __name__ == "__main__":\n' + "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, _Code):
        return str(value)
    return repr(str(value) if isinstance(value, Path) else value)

"""Writes the reference pages of the site from the program itself: nothing is told twice."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mkdocs_gen_files
import typer.main

import qonnx_hub as qh
import qonnx_hub_ir.errors as errors
from qonnx_hub.analysis.lint import lint_rules
from qonnx_hub.cli import EXIT_CODES, app
from qonnx_hub.cli.examples import EXAMPLES
from qonnx_hub.io import registry
from qonnx_hub.reporting.report import Report

CODE = "```"


def _write(name: str, lines: Iterator[str]) -> None:
    with mkdocs_gen_files.open(f"reference/{name}.md", "w") as page:
        page.write("\n".join(lines) + "\n")


def _cell(text: object) -> str:
    """Return text as a cell of a table; a bar would end it, an angle would be a tag."""
    flat = " ".join(str(text).split())
    return flat.replace("|", "\\|").replace("<", "&lt;").replace("{", "&#123;")


def _table(titles: tuple[str, ...], rows: list[tuple[object, ...]]) -> Iterator[str]:
    yield ""
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)
    yield ""


def _python() -> Iterator[str]:
    yield "# Python"
    yield "\n`import qonnx_hub as qh` offers the verbs, what they return, and every error"
    yield "([errors](errors.md)).\n"
    for name in qh.__all__:
        value = getattr(qh, name)
        if inspect.isfunction(value) or (
            inspect.isclass(value) and not issubclass(value, errors.HubError)
        ):
            yield f"\n::: {value.__module__}.{value.__qualname__}\n"
    for module in ("qonnx_hub.testing", "qonnx_hub.passes", "qonnx_hub.zoo"):
        yield f"\n## {module}\n\n::: {module}\n    options:\n      show_root_heading: false\n"
    yield "\n## Reports\n"
    yield "\nWhat verbs return; all of them show themselves in the same ways.\n"
    for module in pkgutil.walk_packages(qh.__path__, "qonnx_hub."):
        if not module.name.endswith(("__main__", "testing")):
            importlib.import_module(module.name)  # a class is known once its module is
    # By name: a class with slots stands among the subclasses twice.
    below = {one.__qualname__: one for one in _below(Report)}
    for kind in (Report, *(below[name] for name in sorted(below))):
        if not kind.__name__.startswith("_") and kind.__name__ not in qh.__all__:
            yield f"\n::: {kind.__module__}.{kind.__qualname__}\n"


def _below(kind: type) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


def _commands() -> Iterator[str]:
    yield "# Commands"
    yield f"\n{EXIT_CODES}\n"
    group = typer.main.get_command(app)
    for verb in group.list_commands(None):  # type: ignore[attr-defined,arg-type]
        command = group.get_command(None, verb)  # type: ignore[attr-defined]
        yield f"\n## {verb}\n"
        yield f"{inspect.cleandoc(command.help or '')}\n"
        if verb in EXAMPLES:
            yield f"{CODE}console"
            yield from (f"$ {line}" for line in EXAMPLES[verb])
            yield CODE
        if hasattr(command, "list_commands"):
            names = command.list_commands(None)
            rows = [(n, command.get_command(None, n).help or "") for n in names]
            yield from _table(("command", "what"), rows)
            continue
        rows = [
            (
                ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts)),
                getattr(option, "help", "") or "",
                f"`{_as_in(option)}`",
            )
            for option in command.params
        ]
        yield from _table(("option", "what", "as in"), rows)


def _as_in(option: Any) -> str:
    """Return how an option is written, with its default or a value of its kind."""
    name = max(option.opts, key=len)
    if option.param_type_name == "argument":
        return str(option.metavar or (option.name or "").upper())
    if option.is_flag:
        return name
    default = option.default
    if isinstance(default, (int, float, str)) and str(default):
        return f"{name} {default}"
    kinds = {"int": "16", "float": "0.01"}
    kind = getattr(option.type_descriptor.annotation, "__name__", "")
    value = str(option.metavar or kinds.get(kind, "NAME"))
    return f"{name} {value.partition('|')[0]}"


def _formats() -> Iterator[str]:
    yield "# Formats"
    yield "\nWhat is read and written, and how exactly a form says what a model may hold.\n"
    readers, writers = registry.importers(), registry.exporters()
    rows: list[tuple[object, ...]] = []
    for name in dict.fromkeys((*readers.names(), *writers.names())):
        own = writers if name in writers.locations else readers
        info = own.get(name).info
        known = [
            text
            for text, kind in (("read", readers), ("written", writers))
            if name in kind.locations
        ]
        rows.append((f"`{name}`", " and ".join(known), info.extra or "-", info.summary))
    yield from _table(("format", "", "extra", "what"), rows)
    exporters = {name: writers.get(name).info for name in writers.names()}
    features = dict.fromkeys(f for info in exporters.values() for f in info.support)
    matrix: list[tuple[object, ...]] = [
        (
            feature.value,
            *(
                info.support[feature].value if feature in info.support else "refused"
                for info in exporters.values()
            ),
        )
        for feature in features
    ]
    yield from _table(("feature", *exporters), matrix)
    for name, info in exporters.items():
        if info.option_names:
            yield f"\nOptions of `{name}`: {', '.join(f'`{n}`' for n in info.option_names)}.\n"


def _passes() -> Iterator[str]:
    yield "# Passes"
    yield "\n`qonnx-hub transform MODEL -o OUT -p NAME`. Effects: EXACT keeps every value, "
    yield "ROUNDING may add sums in another order, VALUES changes values by intention, "
    yield "SIGNATURE changes inputs or outputs.\n"
    for name in qh.passes.names():
        info = qh.passes.describe(name)
        yield f"\n## {name}\n\n{info.summary} Effect: {info.effect.name}.\n"
        if info.change:
            yield CODE
            yield from info.change
            yield CODE
        if info.options:
            yield ""
            yield from (f"- option {_cell(option)}" for option in info.options)
    yield "\n## Pipelines\n"
    for name, pipeline in qh.passes.PIPELINES.items():
        yield f"\n### {name}\n\n{pipeline.summary}\n"
        rows: list[tuple[object, ...]] = [(s.step, s.reason) for s in pipeline.stages]
        yield from _table(("pass", "why there"), rows)


def _lint() -> Iterator[str]:
    yield "# Lint rules"
    yield "\n`qonnx-hub lint MODEL --target TOOL`: what a tool refuses or computes wrongly. "
    yield "`{}` stands for what is found at the place.\n"
    by_target: dict[str, list[tuple[object, ...]]] = {}
    for target, rule in lint_rules():
        row = (rule.severity.value, rule.scope.name, rule.reason, rule.effect, rule.remedy)
        by_target.setdefault(target, []).append(row)
    for target, rows in by_target.items():
        yield f"\n## {target}\n"
        yield from _table(("", "where", "what", "effect", "remedy"), rows)


def _errors() -> Iterator[str]:
    from qonnx_hub.cli.errors import exit_code

    yield "# Errors and exit codes"
    yield f"\n{EXIT_CODES}\n"
    yield "\nEvery error raised on purpose is a `qonnx_hub.HubError`; the message says what "
    yield "happened, where, why, and what to do about it.\n"
    rows: list[tuple[object, ...]] = []
    for name in qh.__all__:
        kind = getattr(qh, name)
        if inspect.isclass(kind) and issubclass(kind, errors.HubError):
            bases = ", ".join(base.__name__ for base in kind.__bases__)
            code = exit_code(kind.__new__(kind))
            rows.append((f"`{name}`", bases, code, inspect.getdoc(kind) or ""))
    yield from _table(("error", "is a", "exit code", "meaning"), rows)


def _schemas() -> Iterator[str]:
    yield "# JSON of reports"
    yield "\n`--json PATH` and `.to_json()` write what stands here, by the name in `schema`."
    yield "A key that goes, or changes its type, makes a new version; new keys do not. The"
    yield "schemas are in `qonnx_hub/schemas`; [certificates](../certificates.md).\n"
    for path in sorted(Path(qh.__file__).with_name("schemas").glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        yield f"\n## {path.stem.replace('-', '/')}\n"
        yield from _table(("key", "type", "always there"), list(_keys(schema, "")))


def _keys(schema: dict[str, Any], place: str) -> Iterator[tuple[object, ...]]:
    """Give the keys of an object, and below each those of what it holds."""
    for key, held in schema.get("properties", {}).items():
        always = "yes" if key in schema.get("required", ()) else ""
        closed = ", ".join(map(str, held.get("enum", ())))
        kinds = [one["type"] for one in held.get("anyOf", ()) if "type" in one]
        kinds = kinds or held.get("type", closed or ("string" if "const" in held else "any"))
        shown = " or ".join(kinds) if isinstance(kinds, list) else kinds
        inner = held.get("items", held)
        yield f"`{place}{key}`", shown, always
        yield from _keys(inner, f"{place}{key}{'[]' if 'items' in held else ''}.")


_write("python", _python())
_write("commands", _commands())
_write("formats", _formats())
_write("passes", _passes())
_write("lint", _lint())
_write("errors", _errors())
_write("schemas", _schemas())

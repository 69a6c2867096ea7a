"""``qonnx-hub compat``: the qonnx package's tools, with its flags."""

from __future__ import annotations

import importlib

import typer

TOOLS = (
    "cleanup",
    "convert",
    "download-model",
    "exec",
    "inference-cost",
    "prune-channels",
    "range-analysis",
    "tensor-stats",
    "to-channels-last",
)
"""Their names; each is a module of :mod:`qonnx_hub.compat`, with underscores."""

app = typer.Typer(
    help="The qonnx package's tools, with its flags: 'compat cleanup --help' shows one's.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _add(name: str) -> None:
    taken = {"allow_extra_args": True, "ignore_unknown_options": True}

    def command(context: typer.Context) -> None:
        tool = importlib.import_module(f"qonnx_hub.compat.{name.replace('-', '_')}")
        raise typer.Exit(tool.main(context.args))

    words = f"As qonnx-{name}."
    app.command(name=name, help=words, context_settings=taken, add_help_option=False)(command)


for tool_name in TOOLS:
    _add(tool_name)

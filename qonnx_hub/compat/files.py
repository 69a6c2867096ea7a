"""Files of the tools: read as they are written, never overwritten by what is made of them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from onnx_ir import Model

from qonnx_hub.io.model_files import has_external_data, write_model
from qonnx_hub.io.python_sources import resolve
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.onnx_writer import finish
from qonnx_hub_ir.errors import UsageError


def open_model(source: Any) -> Model:
    """Return a file, message or wrapper as a model, with its operators as they are written.

    Raises:
        HubError: It cannot be read.
    """
    return read_model(resolve(source), keep_versions=True)


def output_path(source: Any, given: str | None, suffix: str) -> Path:
    """Return where to write: the path given, or the source's with a suffix to its name.

    Raises:
        UsageError: It is the source itself.
    """
    path = Path(source)
    target = path.with_name(f"{path.stem}{suffix}.onnx") if not given else Path(given)
    if target.exists() and path.exists() and target.samefile(path):
        raise UsageError(f"'{target}' is the input: it is not overwritten")
    return target


def write(model: Model, path: str | Path) -> None:
    """Write a model, in the opset of the file that it was read from where that can say it."""
    beside = has_external_data(model)
    write_model(finish(model), path, external=beside)


def literal(text: str, where: str) -> Any:
    """Return the Python numbers, tuples, lists and dicts that a text holds; nothing is run.

    Raises:
        UsageError: It holds anything else.
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise UsageError(f"{where}: '{text}' is no Python number, tuple or list") from None

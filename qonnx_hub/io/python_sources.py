"""Sources that are Python objects around a model, or named by code: ``module:callable``."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from qonnx_hub_ir.errors import SourceError

_REFERENCE = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_][\w.]*)")


def resolve(source: Any) -> Any:
    """Return the object that a ``package.module:callable`` makes, or the model in a wrapper.

    A wrapper is an object of any class with ``model``, a ModelProto, and ``graph``, such as
    the qonnx package's ModelWrapper: a copy of its model is returned. Bytes are a serialized
    model. Anything else is returned as it is.

    The module is found as by ``python -m``: beside the installed packages, in the current
    folder. What the name stands for is called without arguments if it is a function or class,
    and taken as it is otherwise (a model that the module has built).

    Args:
        source: A source in any form. Only text of that form that names no file is resolved.

    Raises:
        SourceError: The module or the name does not exist, or the call fails; bytes that are
            no model.
    """
    if not isinstance(source, str):
        return _unwrapped(source)
    match = _REFERENCE.fullmatch(source)
    if match is None or Path(source).exists():
        return source
    found = _find(match["module"], match["name"], source)
    # A model is callable as well, but has weights or a graph instead of a name.
    if not isinstance(found, type) and not (callable(found) and hasattr(found, "__name__")):
        return _unwrapped(found)
    try:
        made = found()
    except Exception as error:  # somebody else's code raises whatever it raises
        raise SourceError(f"'{source}' fails: {type(error).__name__}: {error}") from error
    if made is None:
        raise SourceError(f"'{source}' returns nothing; it must return the model")
    return _unwrapped(made)


def _unwrapped(source: Any) -> Any:
    if isinstance(source, (bytes, bytearray)):
        try:
            return onnx.load_from_string(bytes(source))
        except DecodeError as error:
            raise SourceError(f"the given bytes are no ONNX model: {error}") from error
    held = getattr(source, "model", None)
    if not isinstance(held, onnx.ModelProto):
        return source
    if not isinstance(getattr(source, "graph", None), onnx.GraphProto):
        return source
    copy = onnx.ModelProto()
    copy.CopyFrom(held)
    return copy


def _find(module: str, name: str, source: str) -> Any:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise SourceError(f"'{source}': module '{module}' needs {error}") from error
        meant = f"; write {module[:-3]}:{name}" if module.endswith(".py") else ""
        raise SourceError(
            f"'{source}': there is no module '{module}' beside the installed packages "
            f"or in {folder}{meant}"
        ) from error
    except Exception as error:  # somebody else's module raises whatever it raises
        raise SourceError(
            f"'{source}': importing '{module}' fails: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(folder)
    for part in name.split("."):
        if not hasattr(found, part):
            raise SourceError(f"'{source}': module '{module}' has no '{name}'")
        found = getattr(found, part)
    return found

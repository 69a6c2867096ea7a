"""Sources that are named by Python code: ``package.module:callable``."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from qonnx_hub_ir.errors import SourceError

_REFERENCE = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_][\w.]*)")


def resolve(source: Any) -> Any:
    """Return the object that a ``package.module:callable`` makes; anything else as it is.

    The module is found as by ``python -m``: beside the installed packages, in the current
    folder. What the name stands for is called without arguments if it is a function or class,
    and taken as it is otherwise (a model that the module has built).

    Args:
        source: A source in any form. Only text of that form that names no file is resolved.

    Raises:
        SourceError: The module or the name does not exist, or the call fails.
    """
    if not isinstance(source, str):
        return source
    match = _REFERENCE.fullmatch(source)
    if match is None or Path(source).exists():
        return source
    found = _find(match["module"], match["name"], source)
    # A model is callable as well, but has weights or a graph instead of a name.
    if not isinstance(found, type) and not (callable(found) and hasattr(found, "__name__")):
        return found
    try:
        made = found()
    except Exception as error:  # somebody else's code raises whatever it raises
        raise SourceError(f"'{source}' fails: {type(error).__name__}: {error}") from error
    if made is None:
        raise SourceError(f"'{source}' returns nothing; it must return the model")
    return made


def _find(module: str, name: str, source: str) -> Any:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise SourceError(f"'{source}': module '{module}' needs {error}") from error
        raise SourceError(
            f"'{source}': there is no module '{module}' beside the installed packages "
            f"or in {folder}"
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

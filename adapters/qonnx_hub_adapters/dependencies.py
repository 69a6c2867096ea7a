"""Optional frameworks: imported when needed, or an error that says what to install."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from qonnx_hub_ir.errors import MissingDependencyError


def is_installed(module: str) -> bool:
    """Return whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def require(module: str, *, needed_by: str, extra: str) -> ModuleType:
    """Return the imported module.

    Args:
        module: Its import name.
        needed_by: Who needs it, for the message ("adapter 'qkeras'").
        extra: The extra of qonnx-hub that installs it.

    Raises:
        MissingDependencyError: It is not installed; the message holds the command.
    """
    if not is_installed(module.partition(".")[0]):
        raise MissingDependencyError(
            f"{needed_by} needs {module}, which is not installed. "
            f"Install it with: pip install 'qonnx-hub[{extra}]'"
        )
    return importlib.import_module(module)

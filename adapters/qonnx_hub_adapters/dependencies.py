"""Optional frameworks: imported when needed, quiet while they work, or an error that helps."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType

from qonnx_hub_ir.errors import MissingDependencyError

_LOCK = threading.RLock()
"""Warning filters, the console and the state of torch's exporters are global variables."""


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
    package = module.partition(".")[0]
    if not is_installed(package):
        raise MissingDependencyError(
            f"{needed_by} needs {package}, which is not installed. "
            f"Install it with: pip install 'qonnx-hub[{extra}]'"
        )
    return importlib.import_module(module)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, logs and prints of the frameworks to themselves; one thread at a time.

    Errors are raised as ever.
    """
    nowhere = io.StringIO()
    disabled = logging.root.manager.disable
    with (
        _LOCK,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


def one_line(error: BaseException) -> str:
    """Return the whole text of an error without line breaks."""
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

"""torch, quiet: what it needs beside it, and what it prints while it exports."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from qonnx_hub_adapters.dependencies import require

NEEDED = ("torch", "onnxscript")

_CHATTY = ("torch.onnx", "torch.export", "torch._export", "torch.fx", "onnxscript", "onnx_ir")


def torch_module() -> Any:
    """Return torch, with what its exporter imports.

    Raises:
        MissingDependencyError: torch or onnxscript is not installed.
    """
    found = [require(name, needed_by="adapter 'pytorch'", extra="pytorch") for name in NEEDED]
    return found[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's exporters from writing to the console; errors are raised as ever."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

"""How much a verb says: nothing, its report, or every step; and what foreign libraries say."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from enum import Enum
from typing import Annotated, Any

import typer

Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Say each step on standard error, and let libraries talk."
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print errors only; the exit code answers.")
]


class Loudness(Enum):
    """How much is said."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


_CHOSEN = ContextVar("loudness", default=Loudness.NORMAL)


def is_quiet() -> bool:
    """Return whether nothing but errors is printed."""
    return _CHOSEN.get() is Loudness.QUIET


def choose(*, verbose: bool, quiet: bool) -> Loudness:
    """Return what two options say; without either, what was said before.

    Raises:
        BadParameter: Both are given.
    """
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet exclude each other")
    if verbose or quiet:
        return Loudness.VERBOSE if verbose else Loudness.QUIET
    return _CHOSEN.get()


def start(*, verbose: bool, quiet: bool) -> None:
    """Let a whole command line say as much as the options in front of its verb ask for."""
    _CHOSEN.set(Loudness.NORMAL)
    _CHOSEN.set(choose(verbose=verbose, quiet=quiet))


@contextlib.contextmanager
def speaking(loudness: Loudness) -> Iterator[None]:
    """Run a verb that says that much; only one that says the usual shows a bar."""
    from qonnx_hub.reporting.progress import watched

    token = _CHOSEN.set(loudness)
    try:
        with contextlib.ExitStack() as stack:
            is_normal = loudness is Loudness.NORMAL
            stack.enter_context(watched(None if is_normal else False))
            if loudness is Loudness.VERBOSE:
                stack.enter_context(_steps_on_standard_error())
            else:
                stack.enter_context(_libraries_silent())
            yield
    finally:
        _CHOSEN.reset(token)


def say(text: str) -> None:
    """Print one line of a report that has no tables; names steer no terminal."""
    from qonnx_hub.io.terminal import visible
    from qonnx_hub.reporting import progress

    if not is_quiet():
        progress.clear()
        typer.echo(visible(text))


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line: whoever calls a command did not write the code it names."""
    from qonnx_hub.io.terminal import visible

    typer.echo(visible(f"qonnx-hub: warning: {message}"), err=True)


@contextlib.contextmanager
def _steps_on_standard_error() -> Iterator[None]:
    start = time.monotonic()
    logger, handler = logging.getLogger("qonnx_hub"), logging.StreamHandler(sys.stderr)
    level = logger.level

    def stamp(record: logging.LogRecord) -> bool:
        record.since = time.monotonic() - start
        return True

    handler.addFilter(stamp)
    handler.setFormatter(logging.Formatter("qonnx-hub: %(since).1f s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


NOISE = (
    r"WARNING: All log messages before absl::InitializeLog\(\)|[IWE]\d{4} \d\d:\d\d:\d|"
    r"To enable the following instructions:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
)
"""How lines begin that TensorFlow and its parts write past Python; fatal ones are kept."""

_FILTER = f"""
import re, sys
noise = re.compile({NOISE.encode()!r})
for line in sys.stdin.buffer:
    if not noise.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


class _BeforeTensorflow:
    """Stands among the finders of modules, and sees TensorFlow come."""

    def __init__(self) -> None:
        self.filter: subprocess.Popen[bytes] | None = None
        self.stderr: Any = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        """Find nothing; what is written past Python goes through a filter from now on."""
        if name != "tensorflow" or self.filter is not None:
            return
        # A process of its own: it lives on where TensorFlow ends this one.
        command = [sys.executable, "-c", _FILTER]
        self.filter = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self.filter.stdin is not None
        if sys.stderr is sys.__stderr__ and sys.stderr is not None:
            self.stderr = sys.stderr
            real = io.FileIO(os.dup(2), "w")
            sys.stderr = io.TextIOWrapper(real, errors="backslashreplace", write_through=True)
        os.dup2(self.filter.stdin.fileno(), 2)
        self.filter.stdin.close()

    def close(self, real: int) -> None:
        """Give standard error back, once the filter has passed on all that it holds."""
        if self.filter is None:
            return
        if self.stderr is not None:
            sys.stderr.close()
            sys.stderr = self.stderr
        os.dup2(real, 2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.filter.wait(timeout=2)


_NOISY = r"(tensorflow|keras|tf_keras|qkeras|tf2onnx|torch|brevitas|onnxscript|google)(\.|$)"
"""Modules whose warnings are about themselves."""


@contextlib.contextmanager
def _libraries_silent() -> Iterator[None]:
    """Keep what libraries say of themselves from standard error; errors are raised as ever."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        if not sys.warnoptions:
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=_NOISY)
            warnings.showwarning = show_warning
        try:
            real = os.dup(2)
        except OSError:  # standard error is closed
            yield
            return
        finder: Any = _BeforeTensorflow()
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)
            finder.close(real)
            os.close(real)
